"""Published MindEye2 checkpoints to decoder folders, without executing what is pickled in them.

The loader's entry points take tensors by their published names and read every size from them:
:func:`published_sizes`, :func:`published_decoder` (folded, what predicts and no more) and
:func:`published_network` (with the blocks that do nothing, for comparison with the original).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synbrain.decoding.decoder import Decoder, DecoderConfig, DecoderSubject
from synbrain.decoding.folder import load_decoder, save_decoder
from synbrain.decoding.mindeye2.backbone import BackboneConfig, folded_state, mixer_constant
from synbrain.decoding.mindeye2.low_level import PREFIXES, low_level_weights
from synbrain.decoding.mindeye2.model import MindEye2, MindEye2Network
from synbrain.decoding.mindeye2.prior import prior_weights
from synbrain.decoding.mindeye2.prior_network import PriorConfig
from synbrain.decoding.protocol import TokenSpace
from synbrain.decoding.targets import TokenTargets
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import require_replaceable
from synbrain.reference.checkpoints import Sizes, State, listed, load_checkpoint, tensors_of

ENCODER, LAYER = "open-clip-vit-bigg-14", "final"
PRIOR = "diffusion_prior."
# constants that older versions store, computed again here
RECOMPUTED = (f"{PRIOR}noise_scheduler.", "rotary_emb.freqs")


@dataclass(frozen=True)
class PublishedSizes:
    """Sizes of a checkpoint.

    Attributes:
        n_voxels: of each ridge layer, in order.
        backbone: with ``blocks="published"``.
        prior: None where the checkpoint has none.
        low_level: whether there is a low-level head.
    """

    n_voxels: list[int]
    backbone: BackboneConfig
    prior: PriorConfig | None
    low_level: bool


def published_sizes(state: State, path: Path = Path("the checkpoint")) -> PublishedSizes:
    """Read every size from tensors by their published names; several vote, so the misshapen one is named.

    Args:
        state: names ``ridge.*``, ``backbone.*`` and ``diffusion_prior.*``.
        path: named in errors.

    Raises:
        SynBrainError: where a tensor that tells a size is missing, or the sequence is longer than one.
    """
    sizes = Sizes(state, path)
    n_voxels = [
        sizes.vote((f"ridge.linears.{i}.weight", 1))
        for i in range(max(1, sizes.count(r"ridge\.linears\.(\d+)\.")))
    ]
    dim = sizes.vote(
        ("backbone.clip_proj.0.weight", 0), ("backbone.clip_proj.2.bias", 0), ("backbone.clip_proj.8.bias", 0)
    )
    length = sizes.vote(("backbone.mixer_blocks2.0.0.weight", 0), ("backbone.mixer_blocks2.0.1.0.weight", 0))
    hidden = sizes.vote(
        ("backbone.mixer_blocks1.0.0.weight", 0), ("ridge.linears.0.weight", 0), ("ridge.linears.0.bias", 0)
    )
    values = sizes.vote(("backbone.backbone_linear.bias", 0), ("backbone.backbone_linear.weight", 0))
    if length != 1 or values % dim:
        raise SynBrainError(
            f"{path} has a sequence of {length} and {counted(values, 'token value')} of dimension {dim}",
            "pass a checkpoint of MindEye2: its sequence length is 1",
        )
    backbone = BackboneConfig(
        hidden=hidden, n_blocks=sizes.count(r"backbone\.mixer_blocks1\.(\d+)\."), tokens=values // dim,
        dim=dim, blocks="published",
    )  # fmt: skip
    has_prior = any(name.startswith(f"{PRIOR}net.") for name in state)
    low_level = any(name.startswith(tuple(f"backbone.{p}" for p in PREFIXES)) for name in state)
    return PublishedSizes(n_voxels, backbone, prior_sizes(state, sizes) if has_prior else None, low_level)


def prior_sizes(state: State, sizes: Sizes) -> PriorConfig:
    """Those of the prior in a published checkpoint, read from its tensors."""
    net, first = f"{PRIOR}net.", f"{PRIOR}net.causal_transformer.layers.0.0"
    dim_head = sizes.vote((f"{first}.null_kv", 1))
    betas = state.get(f"{PRIOR}noise_scheduler.betas")
    inner = sizes.vote((f"{first}.to_q.weight", 0), (f"{first}.to_out.0.weight", 1))
    return PriorConfig(
        tokens=sizes.vote((f"{net}null_brain_embeds", 0), (f"{net}learned_query", 0)),
        dim=sizes.vote((f"{net}learned_query", 1), (f"{first}.norm.g", 0)),
        depth=sizes.count(r"diffusion_prior\.net\.causal_transformer\.layers\.(\d+)\."),
        heads=max(1, inner // dim_head),
        dim_head=dim_head,
        steps=100 if betas is None else len(betas),
    )


def _network(sizes: PublishedSizes, blocks: str) -> MindEye2Network:
    with torch.device("meta"):
        backbone = sizes.backbone.model_copy(update={"blocks": blocks})
        return MindEye2Network(sizes.n_voxels, backbone, sizes.prior, low_level=sizes.low_level)


def check_published(state: State, sizes: PublishedSizes, path: Path = Path("the checkpoint")) -> None:
    """Compare names and shapes with the architecture at these sizes.

    Raises:
        SynBrainError: naming tensors that are missing, extra or misshapen.
    """
    expected = {_published_name(n): t.shape for n, t in _network(sizes, "published").state_dict().items()}
    given = {name: t for name, t in _modern(state).items() if not _is_recomputed(name)}
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in given and given[name].shape != shape
    ]
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "extra": sorted(given.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    listed_problems = [f"{kind}: {listed(names)}" for kind, names in problems.items() if names]
    if listed_problems:
        raise SynBrainError(
            f"{path} does not fit MindEye2's architecture; {'; '.join(listed_problems)}",
            "pass a checkpoint written by MindEye2's trainer",
        )


def published_network(state: State) -> MindEye2Network:
    """The network as published, dead blocks included; tensors are used as they are, not copied.

    Raises:
        SynBrainError: where tensors are missing, extra or misshapen.
    """
    sizes = published_sizes(state)
    check_published(state, sizes)
    network = _network(sizes, "published")
    modern = _modern(state)
    ours = {name: modern[_published_name(name)] for name in network.state_dict()}
    return _assigned(network, ours)


def published_decoder(
    state: State, subjects: list[str] | None = None, path: Path = Path("the checkpoint")
) -> MindEye2:
    """The same function as the published network with what predicts and no more.

    The blocks come to one scalar, which moves into the biases behind them; see
    :func:`synbrain.decoding.mindeye2.backbone.folded_state`.

    Args:
        state: tensors by published names.
        subjects: name of each ridge layer, in order; subject1, subject2, ... where left out.
        path: named in errors.

    Raises:
        SynBrainError: where tensors are missing, extra or misshapen, or names do not fit.
    """
    sizes = published_sizes(state, path)
    check_published(state, sizes, path)
    names = subjects or [f"subject{i + 1}" for i in range(len(sizes.n_voxels))]
    if len(names) != len(sizes.n_voxels) or len(set(names)) < len(names):
        raise SynBrainError(
            f"{path} has {len(sizes.n_voxels)} ridge layers, but the names are {names}",
            "give --subjects one name a layer: ascending, without the subject that was left out",
        )
    ours = {name: value for name, value in state.items() if name.startswith("ridge.")}
    ours |= {f"backbone.{name}": value for name, value in folded_state(state).items()}
    if sizes.prior is not None:
        prior = {n.removeprefix(PRIOR): value for n, value in state.items() if n.startswith(PRIOR)}
        ours |= {f"prior.{name}": value for name, value in prior_weights(prior).items()}
    if sizes.low_level:
        head = low_level_weights({n.removeprefix("backbone."): value for n, value in state.items()})
        # the head reads the hidden vector that the constant is part of: W (x + c) + b = W x + (c W 1 + b)
        shift = mixer_constant(state) * head["blin1.weight"].float().sum(dim=1)
        head["blin1.bias"] = (head["blin1.bias"].float() + shift).to(head["blin1.bias"].dtype)
        ours |= {f"head.{name}": value for name, value in head.items()}
    return MindEye2(_assigned(_network(sizes, "linear"), ours), tuple(names))


def import_mindeye2(
    checkpoint: Path,
    *,
    out: Path,
    subjects: list[str] | None = None,
    unit: str = "z-score",
    overwrite: bool = False,
) -> Decoder:
    """A published MindEye2 checkpoint to a decoder folder in half precision.

    The file is mapped and its tensors are converted a block at a time; optimiser states and the blocks that
    do nothing are never read.

    Args:
        checkpoint: last.pth of MindEye2's trainer, or the folder that DeepSpeed (ZeRO 1 or 2) wrote.
        out: the decoder folder to write.
        subjects: name of each ridge layer, in order: ascending, without the subject that was left out.
        unit: of the responses that the decoder was trained on.
        overwrite: replace a decoder that stands at ``out``.

    Raises:
        SynBrainError: a file that is no such checkpoint, or tensors that are missing, extra or misshapen.
    """
    require_replaceable(out, overwrite, [checkpoint])
    checkpoint = deepspeed_weights(checkpoint) if checkpoint.is_dir() else checkpoint
    content = load_checkpoint(checkpoint)
    weights = content.get("model_state_dict", content.get("module", content))
    state = tensors_of(weights, checkpoint, "model_state_dict")
    method = published_decoder(state, subjects, checkpoint)
    backbone = method.network.backbone.config
    # MindEye2 gave its embedder pictures in [0, 1] where [-1, 1] was expected
    source = TokenSpace(
        encoder=ENCODER, digest="", layer=LAYER, n_tokens=backbone.tokens, dim=backbone.dim,
        pictures="shifted",
    )  # fmt: skip
    epoch = content.get("epoch")
    record = {"source": "MindEye2 checkpoint"} | ({"epoch": epoch} if isinstance(epoch, int) else {})
    parts = {
        name: DecoderSubject(name, unit, np.zeros(n, np.float32), np.ones(n, np.float32))
        for name, n in zip(method.subjects, _widths(method), strict=True)
    }
    config = DecoderConfig(kind="mindeye2", training=record)
    decoder = Decoder(config, method, TokenTargets(source), parts, method.subjects[0])
    save_decoder(decoder, out, half=True, overwrite=overwrite)
    return load_decoder(out)


def deepspeed_weights(folder: Path) -> Path:
    """The file with all weights in a DeepSpeed folder; ``latest`` names the step where there are several.

    Raises:
        SynBrainError: where there is none, or several and none is the latest, or weights are spread (ZeRO 3).
    """
    latest = folder / "latest"
    inside = folder / latest.read_text().strip() if latest.is_file() else folder
    files = sorted(inside.rglob("mp_rank_*_model_states.pt"))
    if len(files) != 1 or list(inside.rglob("zero_pp_rank_*_model_states.pt")):
        raise SynBrainError(
            f"{folder} holds {len(files)} files mp_rank_*_model_states.pt with all weights",
            "pass last.pth, or join the parts with DeepSpeed's zero_to_fp32.py and pass what it writes",
        )
    return files[0]


def _widths(method: MindEye2) -> list[int]:
    return [int(n) for n in method.config()["n_voxels"]]


def _assigned(network: MindEye2Network, state: dict[str, Tensor]) -> MindEye2Network:
    network.load_state_dict(state, assign=True)
    if network.prior is not None:  # buffers of the schedule are on the meta device still
        network.prior.schedule = type(network.prior.schedule)(network.prior.config.steps)
    return network.eval()


def _published_name(ours: str) -> str:
    """``head.*`` and ``prior.*`` of ours by their published names."""
    if ours.startswith("head."):
        return "backbone." + ours.removeprefix("head.")
    return PRIOR + ours.removeprefix("prior.") if ours.startswith("prior.") else ours


def _is_recomputed(name: str) -> bool:
    return name.startswith(RECOMPUTED[0]) or name.endswith(RECOMPUTED[1])


def _modern(state: State) -> State:
    """``state`` with the head's attention named as diffusers does now."""
    backbone = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    head = low_level_weights(backbone)
    kept = {n: t for n, t in state.items() if not n.startswith(tuple(f"backbone.{p}" for p in PREFIXES))}
    return kept | {f"backbone.{name}": value for name, value in head.items()}
