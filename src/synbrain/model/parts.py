"""What a run is made of: its configuration and one part per subject."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load_file, save_file

from synbrain.arrays import Float32
from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.data.space import VoxelSpace
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.scale import Scale
from synbrain.features.tokens import TokenSet, note_other_files
from synbrain.files import atomic_path, digest_of, read_json, write_json
from synbrain.linear.held_out import HeldOutScores
from synbrain.linear.path import LinearPath
from synbrain.linear.prior import BasePath
from synbrain.metrics.ceiling import noise_ceiling
from synbrain.model.report import TrainingReport
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.mapper import Mapper
from synbrain.noise.response_noise import ResponseNoise

# 1 said "stages" for an encoder's layers, 2 kept what adaptation and noise say untyped, 3 had one number
# for the spread of trials and the error of the mean
RUN_FORMAT = 4
SUBJECT_JSON, SCALE = "subject.json", "scale.safetensors"
Recipe = Literal["reference", "calibrated"]


class Adaptation(BaseModel):
    """What an adaptation was given and what it changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    budget: str = Field(description="number and unit, such as '1 hours', or 'all'")
    n_images: int
    n_trials: int
    update: str = Field(description="what of the mapper was trained further, or 'no networks'")
    updated_parameters: dict[str, int] = Field(description="number trained further, 'vae' and 'mapper'")


class RunConfig(BaseModel):
    """What ``config.json`` of a run says; no path and no setting of the experiment.

    Sizes of the networks stand in the ``config.json`` of ``vae/`` and ``mapper/``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = RUN_FORMAT
    recipe: Recipe = "calibrated"
    encoder: str = Field(description="name in the encoder registry")
    encoder_digest: str = Field(description="of weights and preprocessing; empty: not known")
    encoder_hub_id: str | None = Field(None, description="where the encoder's weights can be had by name")
    linear_layers: tuple[str, ...] = Field((), description="token layers that the linear paths read")
    mapper_layer: str | None = Field(None, description="token layer that the mapper (or decoder) reads")
    token_shapes: dict[str, tuple[int, int]] = Field(
        default_factory=dict, description="layer -> (n_tokens, dim)"
    )
    given_tokens: dict[str, str] = Field(
        default_factory=dict, description="layer -> SHA-256 of the file that a user gave its tokens in"
    )
    seeds: tuple[int, ...] = (0,)
    base_digest: str = Field("", description="of the run that this one was adapted from")
    adaptation: Adaptation | None = Field(None, description="of an adapted run: budget and what was updated")
    # marks of images (training/leakage.py), so that no later adaptation mixes training and test images
    trained_images: str = ""
    test_images: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that the run reads."""
        extra = () if self.mapper_layer is None else (self.mapper_layer,)
        return tuple(dict.fromkeys(self.linear_layers + extra))

    def require_encoder_of(self, tokens: TokenSet) -> None:
        """Refuse tokens of another encoder than the run's, or of other weights; note another file."""
        # imported runs do not know the weights of their encoder: their digest is empty
        expected = (self.encoder, self.encoder_digest or tokens.digest)
        if (tokens.encoder, tokens.digest) != expected:
            mend = f"`synbrain features DATASET --encoder {self.encoder}"
            if tokens.encoder == self.encoder:
                mend = f"take the weights of {self.encoder} that the run was fitted with: {mend} --overwrite`"
            else:
                mend = f"make tokens with {mend}`"
            raise SynBrainError(
                f"tokens of {tokens.encoder} (digest {tokens.digest[:12]}) for a run on "
                f"{self.encoder} (digest {self.encoder_digest[:12]})",
                mend,
            )
        note_other_files(self.encoder, tokens.given, self.given_tokens, "the run")


@dataclass(frozen=True)
class SubjectPart:
    """What belongs to one subject: space, unit, scale, linear path and noise.

    The networks work in the scale ``(response - response_mean) / response_sd``. A run without a linear
    path predicts ``response_mean + response_sd * decoded``; with one, ``linear + shrink * response_sd *
    decoded``: there the decoder gives what the linear path leaves over.

    Attributes:
        name: the subject's name, also its folder's.
        space: positions, ROIs and ncsnr of the voxels.
        unit: unit of the responses.
        scaling: what leads back to the raw unit, copied from the dataset.
        response_mean, response_sd: (n_voxels,) float32, in ``unit``; 0 and 1 where
            responses go in as they are.
        linear: tokens to mean responses, if the recipe has it.
        held_out: what ``linear`` predicts for its training images without them, for later adaptations.
        noise: trial-to-trial variability, if the recipe has it.
        shrink: (n_voxels,) float32, weight of the networks beside a linear path.
    """

    name: str
    space: VoxelSpace
    unit: str
    response_mean: NDArray[np.float32]
    response_sd: NDArray[np.float32]
    scaling: dict[str, Any] = field(default_factory=dict)
    linear: LinearPath | None = None
    held_out: HeldOutScores | None = None
    noise: ResponseNoise | None = None
    shrink: NDArray[np.float32] | float = 1.0

    def __post_init__(self) -> None:
        n_voxels = self.space.n_voxels
        shrink = np.broadcast_to(np.asarray(self.shrink, dtype=np.float32), (n_voxels,))
        object.__setattr__(self, "shrink", np.ascontiguousarray(shrink))
        sizes = {"response_mean": self.response_mean.shape[0], "response_sd": self.response_sd.shape[0]}
        sizes |= {"linear": self.linear.n_voxels} if self.linear is not None else {}
        sizes |= {"noise": self.noise.n_voxels} if self.noise is not None else {}
        wrong = {part: size for part, size in sizes.items() if size != n_voxels}
        if wrong:
            raise SynBrainError(
                f"{wrong} voxels in a space of {n_voxels}", "fit every part of a subject on one dataset"
            )
        if not self.name or self.name != Path(self.name).name or self.name.startswith("."):
            raise SynBrainError(f"{self.name!r} is no name for a subject", "use letters and digits")

    @property
    def n_voxels(self) -> int:
        return self.space.n_voxels

    @property
    def scale(self) -> Scale:
        """From the subject's unit to the networks', and back."""
        return Scale(self.response_mean.astype(np.float64), self.response_sd.astype(np.float64))

    @property
    def as_base(self) -> BasePath | None:
        """What a new subject's linear path may use of this one; None without a linear path."""
        if self.linear is None:
            return None
        return BasePath(self.linear, self.response_sd, self.held_out)

    def mean_of(self, decoded: Float32, linear: Float32 | None) -> Float32:
        """Mean responses (n_images, n_voxels) from what the networks decode and the linear path predicts."""
        scaled = decoded * self.response_sd
        mean = self.response_mean + scaled if linear is None else linear + self.shrink * scaled
        return np.asarray(mean, dtype=np.float32)

    def seed_of_trials(self, seed: int) -> int:
        """The seed of this subject's trials, made of ``seed`` and its name.

        Two people do not share their noise. With one seed for all, the noise of two synthetic subjects was
        the same to the last voxel, and whatever compares subjects would have found it.
        """
        return int(digest_of([self.name, int(seed)])[:16], 16)

    def noise_ceiling(self, n_repeats: float = 1) -> Float32:
        """(n_voxels,) float32, see :meth:`synbrain.model.synbrain.SynBrain.noise_ceiling`."""
        if n_repeats < 1:
            raise SynBrainError(f"a noise ceiling of {n_repeats} trials", "give at least 1")
        if self.noise is not None and self.noise.record.source == "repeats":
            return self.noise.noise_ceiling(n_repeats)
        if self.space.ncsnr is None:
            raise SynBrainError(
                f"neither repeats nor ncsnr are known for {self.name}",
                "calibrate the run on a dataset with repeats",
            )
        return noise_ceiling(self.space.ncsnr, n_repeats).astype(np.float32)

    def save(self, folder: Path) -> list[str]:
        """Write the subject into ``folder`` and return the file names written, relative to it."""
        folder.mkdir(parents=True, exist_ok=True)
        given = {"space": self.space, "linear": self.linear, "held_out": self.held_out, "noise": self.noise}
        parts = {name: part for name, part in given.items() if part is not None}
        files = [f"{name}/{file}" for name, part in parts.items() for file in part.save(folder / name)]
        tensors = {"response_mean": self.response_mean, "response_sd": self.response_sd}
        tensors |= {"shrink": np.asarray(self.shrink)}
        with atomic_path(folder / SCALE) as partial:
            save_file({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in tensors.items()}, partial)
        about = {"name": self.name, "unit": self.unit, "scaling": self.scaling, "parts": sorted(parts)}
        write_json(folder / SUBJECT_JSON, about)
        return [SUBJECT_JSON, SCALE, *files]

    @classmethod
    def load(cls, folder: Path) -> SubjectPart:
        """Read a subject that :meth:`save` wrote."""
        about = read_json(folder / SUBJECT_JSON)
        tensors = load_file(folder / SCALE)
        parts = about["parts"]
        return cls(
            name=about["name"],
            space=VoxelSpace.load(folder / "space"),
            unit=about["unit"],
            response_mean=tensors["response_mean"],
            response_sd=tensors["response_sd"],
            scaling=about["scaling"],
            linear=LinearPath.load(folder / "linear") if "linear" in parts else None,
            held_out=HeldOutScores.load(folder / "held_out") if "held_out" in parts else None,
            noise=ResponseNoise.load(folder / "noise") if "noise" in parts else None,
            shrink=tensors["shrink"],
        )


class RunParts(NamedTuple):
    """Everything that a run folder holds, in the order that :class:`SynBrain` takes it."""

    config: RunConfig
    subjects: dict[str, SubjectPart]
    vae: BrainVAE | None = None
    mapper: Mapper | None = None
    report: TrainingReport | None = None
    known_pictures: KnownPictures = NO_PICTURES

    @property
    def facts(self) -> dict[str, Any]:
        """What a glance at the run should tell."""
        made = {"linear path": any(part.linear is not None for part in self.subjects.values())}
        made |= {"VAE": self.vae is not None, "mapper": self.mapper is not None}
        made["trial noise"] = any(part.noise is not None for part in self.subjects.values())
        subjects = (
            f"{part.name} ({counted(part.n_voxels, *part.space.unit_words)}, {part.unit})"
            for part in self.subjects.values()
        )
        return {
            "recipe": self.config.recipe,
            "encoder": f"{self.config.encoder} ({', '.join(self.config.layers)})",
            "subjects": "; ".join(subjects),
            "parts": ", ".join(name for name, there in made.items() if there),
        }


def require_counts(n_samples: int, seed: int) -> None:
    """Refuse what numpy's users also call a seed (None, a generator): trials depend on a number alone.

    Raises:
        SynBrainError: where one of them is no whole number, or too small.
    """
    are_whole = isinstance(n_samples, Integral) and isinstance(seed, Integral)
    if not are_whole or n_samples < 1 or seed < 0:
        mend = "give whole numbers: n_samples >= 1 and seed >= 0"
        raise SynBrainError(f"{n_samples} samples with seed {seed}", mend)
