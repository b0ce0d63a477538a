"""MindEye2 as a decoding method: ridge layers, backbone, projector, diffusion prior.

Sources: Scotti et al. 2024 (arXiv 2403.11207). Sizes are values; the published ones come from the tensors of
a checkpoint (:mod:`synbrain.decoding.published`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from synbrain.arrays import Float32
from synbrain.decoding.mindeye2.aligner import Transfer
from synbrain.decoding.mindeye2.backbone import Backbone, BackboneConfig, RidgeLayers
from synbrain.decoding.mindeye2.low_level import LowLevelHead
from synbrain.decoding.mindeye2.prior import DiffusionPrior, seeded_draws
from synbrain.decoding.mindeye2.prior_network import PriorConfig
from synbrain.decoding.protocol import State
from synbrain.decoding.streamed import stream_half
from synbrain.errors import SynBrainError

AT_ONCE = 32  # responses of a subject, or rows of a prior's batch


class MindEye2Network(nn.Module):
    """All parameters: ``ridge`` and ``transfers`` belong to subjects, the rest is shared.

    Args:
        n_voxels: of each subject with a ridge layer.
        backbone: sizes of backbone and projector.
        prior: sizes of the diffusion prior; None: the backbone is the prediction.
        low_level: whether there is a head for blurry pictures.
        transfers: (new voxels, latent, known voxels) of each subject that MindAligner added.
    """

    def __init__(
        self,
        n_voxels: list[int],
        backbone: BackboneConfig,
        prior: PriorConfig | None,
        *,
        low_level: bool = False,
        transfers: list[tuple[int, int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.ridge = RidgeLayers(n_voxels, backbone.hidden)
        self.backbone = Backbone(backbone)
        self.prior = None if prior is None else DiffusionPrior(prior)
        self.head = LowLevelHead(backbone.hidden) if low_level else None
        self.transfers = nn.ModuleList(Transfer(*sizes) for sizes in transfers or [])


@dataclass
class MindEye2:
    """A fitted or imported MindEye2.

    Attributes:
        network: in eval mode.
        subjects: whose ridge layers there are, in order.
        aligned: new subject -> known subject whose decoder it goes through, in the order of ``transfers``.
        sample_steps, guidance: of the prior's sampler.
        validation: figures on validation images, for the card.
        validation_each: the score of each of these images; empty where it was not trained now.
        kept_step: step of the training whose weights these are; 0 where it was not trained now.
    """

    network: MindEye2Network
    subjects: tuple[str, ...]
    aligned: dict[str, str] = field(default_factory=dict)
    sample_steps: int = 20
    guidance: float = 1.0
    validation: dict[str, float] = field(default_factory=dict)
    validation_each: list[float] = field(default_factory=list)
    kept_step: int = 0

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.network.parameters()).device

    def config(self) -> dict[str, Any]:
        """Sizes, subjects and sampler."""
        prior = self.network.prior
        return {
            "n_voxels": [layer.in_features for layer in self.network.ridge.linears],
            "subjects": list(self.subjects),
            "aligned": self.aligned,
            "transfers": [list(cast(Transfer, transfer).sizes) for transfer in self.network.transfers],
            "backbone": self.network.backbone.config.model_dump(),
            "prior": None if prior is None else prior.config.model_dump(),
            "low_level": self.network.head is not None,
            "sample_steps": self.sample_steps,
            "guidance": self.guidance,
            "validation": self.validation,
        }

    def state(self) -> State:
        """Every parameter, names of the modules."""
        return dict(self.network.state_dict())

    @classmethod
    def restore(cls, config: dict[str, Any], state: State, device: str = "cpu") -> Self:
        """From a folder; half-precision tensors stay mapped and are read a block of rows at a time."""
        prior = config["prior"]
        with torch.device("meta"):
            network = MindEye2Network(
                config["n_voxels"],
                BackboneConfig.model_validate(config["backbone"]),
                None if prior is None else PriorConfig.model_validate(prior),
                low_level=config["low_level"],
                transfers=[tuple(sizes) for sizes in config["transfers"]],
            )
        network.load_state_dict(state, assign=True)
        if network.prior is not None:  # buffers of the schedule are not stored
            network.prior.schedule = type(network.prior.schedule)(network.prior.config.steps)
        return cls(
            stream_half(network).to(device).eval(),
            tuple(config["subjects"]),
            dict(config["aligned"]),
            config["sample_steps"],
            config["guidance"],
            dict(config["validation"]),
        )

    def ridge(self, voxels: Tensor, subject: str) -> Tensor:
        """(n, n_voxels) z-scores of ``subject`` to (n, hidden).

        Raises:
            SynBrainError: where the method has no such subject.
        """
        if subject in self.aligned:
            voxels = self.network.transfers[list(self.aligned).index(subject)](voxels)
            subject = self.aligned[subject]
        if subject not in self.subjects:
            raise SynBrainError(f"no subject {subject!r}", f"choose among {', '.join(self.subjects)}")
        hidden: Tensor = self.network.ridge(voxels, self.subjects.index(subject))
        return hidden

    def backbone(self, responses: Float32, subject: str) -> Float32:
        """(n, n_tokens, dim) float32, the prior's condition."""
        return self._outputs(responses, subject)[0]

    def embed(self, responses: Float32, subject: str) -> Float32:
        """(n, n_tokens, dim) float32, projected for retrieval (published: clip_voxels)."""
        return self._outputs(responses, subject)[1]

    @torch.inference_mode()
    def blurry_latents(self, responses: Float32, subject: str) -> Float32:
        """(n, 4, 28, 28) float32, latents of Stable Diffusion's VAE, where there is a low-level head.

        Raises:
            SynBrainError: where there is none.
        """
        if self.network.head is None:
            raise SynBrainError("the decoder has no low-level head", "import a checkpoint that has one")
        voxels = torch.from_numpy(responses).to(self.device)
        hidden = self.network.backbone.hidden(self.ridge(voxels, subject)[:, None])
        return np.asarray(self.network.head(hidden)[0].float().cpu().numpy())

    @torch.inference_mode()
    def _outputs(self, responses: Float32, subject: str) -> tuple[Float32, Float32]:
        config = self.network.backbone.config
        shape = (len(responses), config.tokens, config.dim)
        out = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        for start in range(0, len(responses), AT_ONCE):
            voxels = torch.from_numpy(responses[start : start + AT_ONCE]).to(self.device)
            both = self.network.backbone(self.ridge(voxels, subject))
            for array, part in zip(out, both, strict=True):
                array[start : start + AT_ONCE] = part.float().cpu().numpy()
        return out

    def predict_tokens(self, backbone: Float32, n_samples: int, seed: int) -> Float32:
        """(n_samples, n, n_tokens, dim) float32 by the diffusion prior; the backbone where there is none."""
        prior = self.network.prior
        if prior is None:
            return np.repeat(backbone[None], n_samples, axis=0)
        n, tokens, dim = backbone.shape
        out = np.empty((n_samples, n, tokens, dim), dtype=np.float32)
        for sample in range(n_samples):
            for start in range(0, n, AT_ONCE):
                rows = range(start, min(start + AT_ONCE, n))
                brain = torch.from_numpy(backbone[rows.start : rows.stop]).to(self.device)
                draws = seeded_draws(rows, tokens, dim, seed, sample)
                drawn = prior.sample(brain, draws, steps=self.sample_steps, guidance=self.guidance)
                out[sample, rows.start : rows.stop] = drawn.float().cpu().numpy()
        return out
