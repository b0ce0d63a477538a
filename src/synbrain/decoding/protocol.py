"""What every decoding method is, and the token space that its output lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from synbrain.arrays import Float32
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, note_other_files

Pictures = Literal["plain", "shifted"]
State = dict[str, Tensor]


class TokenSpace(BaseModel):
    """Where tokens come from. Tokens of two spaces are never compared.

    Example:
        >>> space = TokenSpace(encoder="clip", digest="ab12", layer="final", n_tokens=256, dim=1664)
        >>> space.model_copy(update={"pictures": "shifted"}) == space
        False
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    encoder: str = Field(description="name in the encoder registry")
    digest: str = Field(description="of weights and preprocessing; empty: not known")
    layer: str
    n_tokens: int
    dim: int
    # MindEye2 gives pictures in [0, 1] to an embedder that expects [-1, 1], so CLIP sees washed-out ones
    pictures: Pictures = Field(
        "plain", description="plain, or shifted: pixels x as .5 + .5 x before normalisation (MindEye2)"
    )
    reduction: str = Field("", description="digest of pooling and components; empty: none")
    given: str = Field("", description="SHA-256 of the file that a user gave the tokens in; empty: none")

    def require(self, other: TokenSpace) -> None:
        """Refuse ``other`` where it is another space; warn where its tokens come from another file.

        Raises:
            SynBrainError: naming what differs.
        """
        mine, theirs = (space.model_dump(exclude={"given"}) for space in (self, other))
        differing = [name for name in mine if mine[name] != theirs[name]]
        if differing:
            differences = ", ".join(
                f"{name} {theirs[name]!r} instead of {mine[name]!r}" for name in differing
            )
            raise SynBrainError(
                f"tokens of another space: {differences}",
                "encode the images with the decoder's encoder, layer and picture convention",
            )
        if self.given and other.given:
            note_other_files(self.encoder, {self.layer: other.given}, {self.layer: self.given}, "the decoder")


@dataclass(frozen=True)
class DecodingSubject:
    """What a method is fitted on: one subject's responses and the tokens of the images that it saw.

    Attributes:
        name: of the subject.
        train: training images with their trials; responses in the dataset's unit.
        targets: (n_train_images, n_tokens, dim) float32, row i belongs to image i of ``train``.
        validation: training images that no weight is fitted on.
        validation_targets: (n_validation_images, n_tokens, dim) float32.
        mean, sd: (n_voxels,) float32 of the training trials, the dataset's unit.
        synthetic: synthetic trials of further images, in the same unit, or none.
        synthetic_targets: (n_synthetic_images, n_tokens, dim) float32.
        synthetic_weight: share of the samples of a step that is synthetic, in [0, 1).
    """

    name: str
    train: Pairs
    targets: Float32
    validation: Pairs
    validation_targets: Float32
    mean: Float32
    sd: Float32
    synthetic: Pairs | None = None
    synthetic_targets: Float32 | None = None
    synthetic_weight: float = 0.0

    @property
    def n_voxels(self) -> int:
        return self.train.n_voxels

    def scaled(self, responses: Float32) -> Float32:
        """(n, n_voxels) float32 in the dataset's unit to z-scores of the training trials."""
        return ((responses - self.mean) / self.sd).astype("float32")


class DecodingMethod(Protocol):
    """A fitted way from responses to tokens. Responses are (n, n_voxels) float32 z-scores of one subject.

    What :class:`synbrain.Decoder` wraps with scaling, checks and the folder format. ``subject`` names whose
    responses these are; methods of one subject may ignore it.
    """

    def config(self) -> dict[str, Any]:
        """JSON-able sizes and settings, enough for :meth:`restore`."""
        ...

    def state(self) -> State:
        """All tensors, by name."""
        ...

    @classmethod
    def restore(cls, config: dict[str, Any], state: State, device: str = "cpu") -> Self:
        """The method that :meth:`config` and :meth:`state` describe."""
        ...

    def backbone(self, responses: Float32, subject: str) -> Float32:
        """(n, n_tokens, dim) float32: what the prior is conditioned on (without a prior: the prediction)."""
        ...

    def embed(self, responses: Float32, subject: str) -> Float32:
        """(n, n_tokens, dim) float32: compared with image tokens for retrieval."""
        ...

    def predict_tokens(self, backbone: Float32, n_samples: int, seed: int) -> Float32:
        """(n_samples, n, n_tokens, dim) float32, image tokens given :meth:`backbone`.

        Row i depends on the backbone of row i, on i and the seed alone, not on the size of a batch.
        """
        ...


def chosen_step(method: DecodingMethod) -> int | None:
    """The training step that validation images chose, whose weights these are.

    None for a method that needs no such choice, and is fitted to these images as well.
    """
    return getattr(method, "kept_step", None)
