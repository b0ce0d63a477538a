"""``Decoder``: a subject's responses to image tokens, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from synbrain.arrays import Float32
from synbrain.data.dataset import Dataset
from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.decoding.protocol import DecodingMethod, Pictures, TokenSpace
from synbrain.decoding.targets import TokenTargets
from synbrain.describe import as_html, as_text, counted
from synbrain.errors import SynBrainError
from synbrain.features.tokens import TokenSet
from synbrain.model.subject import note_other_person

DECODER_FORMAT = 1
Repeats = Literal["outputs", "responses"]
AT_ONCE = 512  # responses
NEW = "-new"  # ends the name of an adapted subject whose name the base has given to another


class DecoderConfig(BaseModel):
    """What ``config.json`` of a decoder says beside sizes; no path and no setting of an experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = DECODER_FORMAT
    kind: str = Field(description="key in METHODS")
    seed: int = 0
    adapted_from: str = Field("", description="digest of the decoder that this one was adapted from")
    synthetic: dict[str, Any] | None = Field(
        None, description="lineage of synthetic trials that it was trained on: run, seed, recipe, weight"
    )
    training: dict[str, Any] = Field(default_factory=dict, description="budget, images, trials, steps")
    validation: dict[str, Any] = Field(default_factory=dict, description="figures on validation images")
    last_fit: dict[str, int] = Field(
        default_factory=dict,
        description="images and steps of the last fit, which saw the validation images too; `validation` is "
        "then of a fit before it. Empty: the weights are those that `validation` judges",
    )
    # marks of images (training/leakage.py), so that training and test images are never mixed
    trained_images: str = ""
    test_images: str = ""


@dataclass(frozen=True)
class DecoderSubject:
    """One subject of a decoder.

    Attributes:
        name: as in the training data.
        unit: of its responses.
        mean, sd: (n_voxels,) float32 of the training trials; the method sees ``(response - mean) / sd``.
    """

    name: str
    unit: str
    mean: Float32
    sd: Float32

    @property
    def n_voxels(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class Decoder:
    """Responses of one subject to image tokens.

    ::

        decoder = Decoder.from_pretrained("decoders/subj1")
        decoder.backbone(responses)          # (n, tokens, dim): what the prior is conditioned on
        decoder.embed(responses)             # (n, tokens, dim): for retrieval
        decoder.predict_tokens(responses)    # (1, n, tokens, dim): image tokens

    Responses are (n, n_voxels) float32 in the subject's unit, or (n, n_repeats, n_voxels) for repeats of one
    image. Repeats are averaged as ``repeats`` says: "outputs" decodes each and averages what comes out
    (published), "responses" decodes the mean response.

    Attributes:
        config: kind, lineage, and which images it may not be tested on.
        method: what decodes.
        targets: from an encoder's tokens to the space of the output.
        subjects: by name.
        active: whose responses the methods take; see :meth:`for_subject`.
        known_pictures: that it was trained on or kept from, to know them again in other files.

    >>> from synbrain.decoding.options import DecoderOptions
    >>> from synbrain.decoding.train import train_decoder
    >>> from synbrain.simulate.example import toy_dataset
    >>> dataset, options = toy_dataset(), DecoderOptions(method="ridge", encoder="pixels")
    >>> out = dataset.path.parent / "decoder"
    >>> decoder = train_decoder([dataset], options, out=out, overwrite=True)
    >>> decoder.predict_tokens(dataset.responses[:4]).shape[:2]
    (1, 4)
    """

    config: DecoderConfig
    method: DecodingMethod
    targets: TokenTargets
    subjects: dict[str, DecoderSubject]
    active: str
    known_pictures: KnownPictures = NO_PICTURES

    def _facts(self) -> dict[str, Any]:
        space, training = self.space, self.config.training
        subjects = (f"{s.name} ({counted(s.n_voxels, 'voxel')}, {s.unit})" for s in self.subjects.values())
        facts = {
            "method": self.config.kind,
            "subjects": "; ".join(subjects),
            "output": f"{space.n_tokens} x {space.dim} tokens of {space.encoder} ({space.layer})",
        }
        if len(self.subjects) > 1:
            facts["decodes"] = self.active
        if "n_images" in training and "n_trials" in training:  # imported decoders say neither
            kind = "measured" if self.config.synthetic is None else "measured and synthetic"
            facts["fitted on"] = (
                f"{counted(training['n_images'], 'image')}, {counted(training['n_trials'], 'trial')} ({kind})"
            )
        return facts

    def __repr__(self) -> str:
        return as_text("Decoder", self._facts())

    def _repr_html_(self) -> str:
        return as_html("Decoder", self._facts())

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, subject: str | None = None, device: str = "cpu") -> Self:
        """Open a decoder folder (or a Hugging Face hub id).

        Args:
            folder: what :meth:`save_pretrained` wrote.
            subject: whose responses will be decoded; the only or first one where left out.
            device: where networks work.

        Raises:
            SynBrainError: a file is missing, was altered, or is of another version; no such subject.
        """
        from synbrain.decoding.folder import load_decoder

        loaded = load_decoder(folder, device)
        return cls(**vars(loaded)) if subject is None else cls(**vars(loaded.for_subject(subject)))

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write JSON, safetensors and a card, whole or not at all; the folder loads alone.

        Raises:
            SynBrainError: where ``folder`` exists and ``overwrite`` is not set.
        """
        from synbrain.decoding.folder import save_decoder

        return save_decoder(self, Path(folder), overwrite=overwrite)

    @property
    def subject(self) -> DecoderSubject:
        """The subject whose responses are decoded."""
        return self.subjects[self.active]

    @property
    def n_voxels(self) -> int:
        """Of the active subject."""
        return self.subject.n_voxels

    @property
    def unit(self) -> str:
        """Of the active subject's responses."""
        return self.subject.unit

    @property
    def space(self) -> TokenSpace:
        """The token space of every output."""
        return self.targets.space

    def for_subject(self, name: str) -> Self:
        """The same decoder for another of its subjects.

        Raises:
            SynBrainError: where it was fitted on no subject of that name.
        """
        if name not in self.subjects:
            raise SynBrainError(
                f"the decoder has no subject {name!r}",
                f"choose among {', '.join(self.subjects)}, or `synbrain decoder adapt` it to the new one",
            )
        return replace(self, active=name)

    def for_dataset(self, dataset: Dataset) -> Self:
        """The same decoder for the subject of ``dataset``, where it knows one of that name.

        A decoder of several subjects calls them as their datasets are called, a decoder of one as its dataset
        calls the subject. Where it knows neither, it stays as it is, and that is said.

        Raises:
            SynBrainError: for another number of voxels or another unit than the dataset's.
        """
        name = self.name_of(dataset)
        chosen = self if name is None else self.for_subject(name)
        if chosen.n_voxels != dataset.n_voxels:
            raise SynBrainError(
                f"the decoder reads {counted(chosen.n_voxels, 'voxel')} of {chosen.active}, {dataset.path} "
                f"has {dataset.n_voxels} of {dataset.info.subject}",
                "give a decoder of this subject, or `synbrain decoder adapt` it",
            )
        chosen.require_unit(dataset.info.unit)
        if name is None:
            mend = "`synbrain decoder adapt` the decoder first"
            note_other_person(f"the decoder is of {chosen.active}", dataset, mend)
        return chosen

    def name_of(self, dataset: Dataset) -> str | None:
        """What the decoder calls the subject of a dataset; None where it knows none of that name."""
        names = (dataset.info.name, dataset.info.subject)
        if "adaptation" in self.config.training:  # perhaps to a subject of a name that its base knew
            given = self.active
            while given.endswith(NEW):
                given = given.removesuffix(NEW)
            if given in names:
                return self.active
        return next((name for name in names if name in self.subjects), None)

    def backbone(self, responses: NDArray[Any], *, repeats: Repeats = "outputs") -> Float32:
        """(n, n_tokens, dim) float32: what the prior is conditioned on; without a prior, the prediction.

        Raises:
            SynBrainError: another number of voxels, or values that are not finite.
        """
        return self._through(self.method.backbone, responses, repeats)

    def embed(self, responses: NDArray[Any], *, repeats: Repeats = "outputs") -> Float32:
        """(n, n_tokens, dim) float32, compared with :meth:`image_tokens` by cosine for retrieval.

        Raises:
            SynBrainError: as :meth:`backbone`.
        """
        return self._through(self.method.embed, responses, repeats)

    def predict_tokens(
        self, responses: NDArray[Any], n_samples: int = 1, seed: int = 0, *, repeats: Repeats = "outputs"
    ) -> Float32:
        """(n_samples, n, n_tokens, dim) float32, image tokens by the diffusion prior (else a point mass).

        Row i depends on response i, on i and on the seed, not on how many responses are decoded with it.

        Raises:
            SynBrainError: as :meth:`backbone`; fewer than one sample.
        """
        if n_samples < 1:
            raise SynBrainError(counted(n_samples, "sample"), "ask for at least one")
        return self.method.predict_tokens(self.backbone(responses, repeats=repeats), n_samples, seed)

    def image_tokens(self, tokens: TokenSet, pictures: Pictures = "plain") -> Float32:
        """(n_images, n_tokens, dim) float32, tokens of images in the space of the outputs.

        Raises:
            SynBrainError: for tokens of another encoder, layer or picture convention.
        """
        return self.targets.of(tokens, pictures)

    def require_unit(self, unit: str) -> None:
        """Refuse responses in another unit than the decoder was trained on."""
        if unit != self.unit:
            raise SynBrainError(
                f"the decoder reads {self.unit!r}, the responses are in {unit!r}",
                "prepare the dataset with the scaling that the decoder was trained on",
            )

    def _through(self, method: Any, responses: NDArray[Any], repeats: Repeats) -> Float32:
        given = np.asarray(responses)
        if given.ndim not in (2, 3) or given.shape[-1] != self.n_voxels:
            raise SynBrainError(
                f"responses of shape {given.shape} for a decoder of {counted(self.n_voxels, 'voxel')} "
                f"({self.active})",
                "give (n, n_voxels) responses of the decoder's subject, or adapt it to the new subject",
            )
        if given.ndim == 3 and repeats == "responses":
            given = given.mean(axis=1)
        flat = given.reshape(-1, self.n_voxels)
        out = np.empty((len(flat), self.space.n_tokens, self.space.dim), dtype=np.float32)
        for start in range(0, len(flat), AT_ONCE):
            part = np.asarray(flat[start : start + AT_ONCE], dtype=np.float32)
            if not np.isfinite(part).all():
                raise SynBrainError(
                    f"responses {start} to {start + len(part)} hold values that are not finite",
                    "leave these trials out, or look at them with `synbrain check`",
                )
            scaled = (part - self.subject.mean) / self.subject.sd
            out[start : start + len(part)] = method(scaled.astype(np.float32), self.active)
        if given.ndim == 3:
            out = out.reshape(*given.shape[:2], *out.shape[1:]).mean(axis=1)
        return out
