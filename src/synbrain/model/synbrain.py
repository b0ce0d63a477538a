"""SynBrain: images in, mean responses and synthetic trials out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from synbrain.arrays import Float32
from synbrain.data.known_pictures import NO_PICTURES, KnownPictures
from synbrain.data.options import PictureOptions
from synbrain.data.pictures import RULES
from synbrain.describe import as_html, as_text
from synbrain.errors import SynBrainError
from synbrain.features.encoder import Encoder
from synbrain.features.encoders import get_encoder
from synbrain.features.encoding import batches_of, encode_images
from synbrain.features.images import Images, check_images
from synbrain.features.tokens import TokenSet
from synbrain.model.folder import fetch, load_run, run_digest, save_run
from synbrain.model.pair import NetworkPair
from synbrain.model.parts import RunConfig, RunParts, SubjectPart, require_counts
from synbrain.model.report import TrainingReport
from synbrain.networks.brainvae import BrainVAE
from synbrain.networks.config import Precision
from synbrain.networks.mapper import Mapper
from synbrain.networks.precision import chosen_precision
from synbrain.noise.predictive import Predictive

BATCH, PROJECTED = 64, 512


class SynBrain:
    """A fitted model of one or more subjects; loads alone, without its data.

    Args:
        config: recipe, encoder and layers.
        subjects: name -> what belongs to that subject.
        vae: its decoder gives the networks' part of the mean; None: linear path only.
        mapper: tokens to latents; None beside a ``vae``: tokens are decoded as they are.
        report: how well it does on held-out training images, where it was trained here.
        known_pictures: that it was trained on or kept from, to know them again in other files.
        encoder: an encoder to use instead of the registry's (its digest must be the run's).
        device: where networks and linear paths run.

    >>> from synbrain import TrainOptions, train
    >>> from synbrain.simulate.example import toy_dataset
    >>> dataset = toy_dataset()
    >>> options = TrainOptions(encoder="pixels", vae={"epochs": 1}, mapper={"steps": 10, "round_steps": 10})
    >>> model = train([dataset], options)
    >>> pictures = [dataset.load_image(row) for row in range(3)]
    >>> model.predict(pictures).shape, model.sample(pictures, n_samples=5, seed=7).shape
    ((3, 12), (5, 3, 12))
    """

    def __init__(
        self,
        config: RunConfig,
        subjects: dict[str, SubjectPart],
        vae: BrainVAE | None = None,
        mapper: Mapper | None = None,
        report: TrainingReport | None = None,
        known_pictures: KnownPictures = NO_PICTURES,
        *,
        encoder: Encoder | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if not subjects:
            raise SynBrainError("a run without subjects", "give at least one subject part")
        if vae is not None and config.mapper_layer is None:
            raise SynBrainError("the networks read no layer", "set mapper_layer in the run's config")
        for name, subject in subjects.items():
            if vae is None and subject.linear is None:
                raise SynBrainError(f"nothing of subject {name} predicts", "give a vae or a linear path")
        self.config = config
        self.subjects = subjects
        self.vae = vae
        self.mapper = mapper
        self.report = report
        self.known_pictures = known_pictures
        self.digest = ""  # of the folder that the run was opened from, or last saved to
        self.precision: Precision = "fp32"  # of the networks, see :meth:`computing_in`
        self.folder: Path | None = None  # that folder, where it is the user's
        self.pictures = RULES  # how picture files are decoded
        self._encoder = encoder
        self.to(device)

    def _parts(self) -> RunParts:
        return RunParts(self.config, self.subjects, self.vae, self.mapper, self.report, self.known_pictures)

    def __repr__(self) -> str:
        return as_text("SynBrain", self._parts().facts | {"device": self.device})

    def _repr_html_(self) -> str:
        return as_html("SynBrain", self._parts().facts | {"device": self.device})

    def to(self, device: str | torch.device) -> Self:
        """Move the networks to ``device`` and return self."""
        self.device = torch.device(device)
        for module in (self.vae, self.mapper):
            if module is not None:
                module.to(self.device).eval()
        return self

    def computing_in(self, precision: Precision) -> Self:
        """The same model (it shares its networks) whose networks compute in another precision.

        Args:
            precision: fp32, bf16, fp16, or auto: bf16 for wide networks on a CPU that has it, else fp32.
                In bf16 their part of a response is off by about 2 % of its sd (docs/research/performance.md).
        """
        other = copy.copy(self)
        other.precision = precision
        return other

    def fold(self) -> Self:
        """Fold the mapper's modulation, in place, and return self: equal predictions, less memory.

        The published mapper falls from 410 M to 268 M parameters. The model can then predict, sample and be
        saved (as a copy for inference), but its mapper cannot be trained further.
        """
        if self.mapper is not None:
            self.mapper = self.mapper.fold()
        return self

    def using(self, *, pictures: PictureOptions | None = None, encoder_weights: str | None = None) -> Self:
        """The same model (it shares its networks) that takes pictures in another way.

        Args:
            pictures: how transparent and turned pictures are decoded.
            encoder_weights: file, folder or hub id of the encoder's weights, where the run cannot name it.
        """
        other = copy.copy(self)
        if pictures is not None:
            other.pictures = pictures
        if encoder_weights is not None:
            other._encoder = get_encoder(self.config.encoder, weights=encoder_weights, device=self.device)
        return other

    @classmethod
    def from_pretrained(
        cls,
        run: str | Path,
        *,
        device: str | torch.device = "cpu",
        encoder: Encoder | None = None,
        fold: bool = False,
    ) -> Self:
        """Open a run: a folder, or the id of one on the Hugging Face hub.

        Args:
            run: folder or id.
            device: where the networks run.
            encoder: an encoder to use instead of the registry's.
            fold: for inference alone, see :meth:`fold`.

        Raises:
            SynBrainError: where it is no run, a file is missing, or a checksum differs.
        """
        folder = fetch(run)
        model = cls(*load_run(folder, device), device=device, encoder=encoder)
        model.digest = run_digest(folder)
        model.folder = folder if Path(run).exists() else None
        return model.fold() if fold else model

    def save_pretrained(
        self, folder: str | Path, *, overwrite: bool = False, scores: dict[str, Any] | None = None
    ) -> Path:
        """Write the run as JSON and safetensors with a model card; returns the folder.

        Args:
            folder: may hold ``training/`` already, nothing else unless ``overwrite``.
            overwrite: replace a run that stands there.
            scores: goes into ``scores.json`` and the card.
        """
        save_run(Path(folder), self._parts(), overwrite=overwrite, scores=scores)
        self.digest = run_digest(Path(folder))
        return Path(folder)

    def subject(self, name: str | None = None) -> SubjectPart:
        """The part of subject ``name``; runs of one subject need no name."""
        if name is None and len(self.subjects) == 1:
            return next(iter(self.subjects.values()))
        if name not in self.subjects:
            asked = "no subject was named" if name is None else f"the run has no subject {name!r}"
            raise SynBrainError(asked, f"choose one of {', '.join(self.subjects)}")
        return self.subjects[name]

    def predict(
        self, images: Images | TokenSet, *, subject: str | None = None, batch_size: int = BATCH
    ) -> Float32:
        """Mean responses.

        Args:
            images: paths, PIL images, a uint8 array (n, h, w, 3), or tokens of the run's encoder.
            subject: whose responses; may be left out where the run has one subject.
            batch_size: images at a time; more of them where tokens are given and a run has no networks.

        Returns:
            (n_images, n_voxels) float32, in the subject's unit.
        """
        part = self.subject(subject)
        if self.vae is None and isinstance(images, TokenSet):  # weights are widened once a batch
            batch_size = max(batch_size, PROJECTED)
        means = [mean for _, mean in self.iter_means(images, subject=part.name, batch_size=batch_size)]
        return np.concatenate(means) if means else np.zeros((0, part.n_voxels), dtype=np.float32)

    def sample(
        self,
        images: Images | TokenSet,
        n_samples: int = 1,
        seed: int = 0,
        *,
        subject: str | None = None,
        predictive: bool = False,
        noise_factor: float | None = None,
        batch_size: int = BATCH,
    ) -> Float32:
        """Synthetic trials: the mean plus the subject's trial noise.

        All trials of an image share its predicted mean, as repeats in a scanner share the true one, and vary
        as much as repeats do. The true mean is not known, however: ``predictive`` draws hold its error too,
        each draw its own, and spread as far as a new measurement may lie from the prediction.

        A run without a noise part (recipe ``reference``) is deterministic and gives its mean ``n_samples``
        times, unless ``noise_factor`` asks for the paper's sampling: z = mapped latent + noise_factor * eps,
        eps standard normal (appendix E).

        Args:
            images: as for :meth:`predict`.
            n_samples: trials per image.
            seed: the trials of image i depend on it, on i and on the subject's name, not on the batches.
            subject: whose responses.
            predictive: draw what one measurement may be: trial noise and error of the mean.
            noise_factor: the published isotropic latent noise, instead of the noise part.
            batch_size: images at a time.

        Returns:
            (n_samples, n_images, n_voxels) float32, in the subject's unit.
        """
        kind: dict[str, Any] = {"predictive": predictive, "noise_factor": noise_factor}
        batches = self.iter_samples(images, n_samples, seed, subject=subject, batch_size=batch_size, **kind)
        empty = np.zeros((max(n_samples, 0), 0, self.subject(subject).n_voxels), dtype=np.float32)
        return np.concatenate([empty, *(trials for _, trials in batches)], axis=1)

    def iter_means(
        self,
        images: Images | TokenSet,
        *,
        subject: str | None = None,
        batch_size: int = BATCH,
        start: int = 0,
    ) -> Iterator[tuple[slice, Float32]]:
        """Yield (rows, (n_rows, n_voxels) float32) batch by batch from image ``start`` on."""
        for rows, tokens in self._token_batches(images, batch_size, start):
            yield rows, self._mean(tokens, self.subject(subject))

    def iter_samples(
        self,
        images: Images | TokenSet,
        n_samples: int,
        seed: int = 0,
        *,
        subject: str | None = None,
        predictive: bool = False,
        noise_factor: float | None = None,
        batch_size: int = BATCH,
        start: int = 0,
    ) -> Iterator[tuple[slice, Float32]]:
        """Yield (rows, (n_samples, n_rows, n_voxels) float32) batch by batch, in bounded memory.

        ``start`` must be a multiple of ``batch_size`` for bytes equal to those of an uninterrupted pass.
        """
        part = self.subject(subject)
        require_counts(n_samples, seed)
        if noise_factor is not None and self.vae is None:
            raise SynBrainError("noise_factor needs the networks", "leave it out for a linear run")
        if noise_factor is not None and predictive:
            raise SynBrainError("noise_factor with predictive", "give one of them, not both")
        seed = part.seed_of_trials(seed)
        for rows, tokens in self._token_batches(images, batch_size, start):
            if noise_factor is not None:
                linear = self._linear(tokens, part)
                noisy = self._pair().noisy(tokens, part.n_voxels, n_samples, seed, rows.start, noise_factor)
                trials = np.stack([part.mean_of(decoded, linear) for decoded in noisy])
            elif part.noise is not None and predictive:
                distribution = part.noise.predictive(self._mean(tokens, part), tokens)
                trials = distribution.sample(n_samples, seed, rows.start)
            elif part.noise is not None:
                trials = part.noise.sample(self._mean(tokens, part), n_samples, seed, rows.start)
            else:
                trials = np.repeat(self._mean(tokens, part)[None], n_samples, axis=0)
            yield rows, trials

    def iter_predictive(
        self, images: Images | TokenSet, *, subject: str | None = None, batch_size: int = BATCH
    ) -> Iterator[tuple[slice, Predictive]]:
        """Yield (rows, what one trial of these images may be); an error where the run has no noise part."""
        part = self.subject(subject)
        if part.noise is None:
            raise SynBrainError(
                f"the run has no trial noise for {part.name}, so no density and no interval",
                "use recipe calibrated, or `synbrain calibrate`",
            )
        for rows, tokens in self._token_batches(images, batch_size):
            yield rows, part.noise.predictive(self._mean(tokens, part), tokens)

    def interval(
        self, images: Images | TokenSet, level: float = 0.9, *, subject: str | None = None
    ) -> Float32:
        """Central intervals that hold a new single trial with probability ``level``: quantiles, not sampled.

        They hold trial noise and what is not known of the mean: more for images unlike the training images.

        Returns:
            (2, n_images, n_voxels) float32, lower and upper ends, in the subject's unit.

        Raises:
            SynBrainError: where the run has no noise part, or for a level that is not between 0 and 1.
        """
        ends = [batch.interval(level) for _, batch in self.iter_predictive(images, subject=subject)]
        return np.concatenate([np.zeros((2, 0, self.subject(subject).n_voxels), np.float32), *ends], axis=1)

    def log_prob(
        self, images: Images | TokenSet, responses: NDArray[Any], *, subject: str | None = None
    ) -> NDArray[np.float64]:
        """(n,) float64, log predictive density of one trial ``responses[i]`` (n, n_voxels) for each image i.

        Raises:
            SynBrainError: where the run has no noise part.
        """
        part, y = self.subject(subject), np.asarray(responses, dtype=np.float32)
        images = images if isinstance(images, TokenSet) else check_images(images)
        if y.shape != (len(images), part.n_voxels):
            raise SynBrainError(
                f"responses of shape {y.shape} for {len(images)} images x {part.n_voxels} voxels",
                "give one trial per image (repeat an image for each of its trials)",
            )
        batches = self.iter_predictive(images, subject=part.name)
        return np.concatenate([np.zeros(0), *(batch.log_prob(y[rows]) for rows, batch in batches)])

    def noise_ceiling(self, n_repeats: float = 1, *, subject: str | None = None) -> Float32:
        """(n_voxels,) float32, share of the variance of ``n_repeats``-trial means that is signal.

        From the noise part where it was fitted on repeats, else from the space's ncsnr: NSD data manual,
        NC = ncsnr^2 / (ncsnr^2 + 1 / n). Its square root is the highest correlation that can be expected.
        """
        return self.subject(subject).noise_ceiling(n_repeats)

    def tokens(self, images: Images | TokenSet) -> TokenSet:
        """Tokens of ``images`` through the run's encoder; tokens are checked and given back.

        Raises:
            SynBrainError: tokens of another encoder, or an image that cannot be read.
        """
        if isinstance(images, TokenSet):
            self.config.require_encoder_of(images)
            return images.only(*self.config.layers)
        return self.tokens(encode_images(self.encoder, images, self.config.layers, rules=self.pictures))

    @property
    def encoder(self) -> Encoder:
        """The run's encoder, built on first use on the run's device."""
        if self._encoder is None:
            self._encoder = get_encoder(
                self.config.encoder, weights=self.config.encoder_hub_id, device=self.device
            )
        return self._encoder

    def _token_batches(
        self, images: Images | TokenSet, batch_size: int, start: int = 0
    ) -> Iterator[tuple[slice, TokenSet]]:
        """Tokens batch by batch; images are encoded as their batch comes, so memory stays bounded."""
        for rows, batch in batches_of(images, batch_size, start):
            yield rows, self.tokens(batch)

    @property
    def network_precision(self) -> Precision:
        """What the networks compute in here and now: auto is resolved."""
        wide = self.vae or self.mapper
        return "fp32" if wide is None else chosen_precision(self.precision, self.device, wide)

    def _pair(self) -> NetworkPair:
        assert self.vae is not None
        assert self.config.mapper_layer is not None
        return NetworkPair(self.vae, self.mapper, self.config.mapper_layer, self.device, self.precision)

    def _linear(self, tokens: TokenSet, part: SubjectPart) -> Float32 | None:
        return None if part.linear is None else part.linear.predict(tokens, self.device)

    def _mean(self, tokens: TokenSet, part: SubjectPart) -> Float32:
        linear = self._linear(tokens, part)
        if self.vae is None:
            assert linear is not None
            return linear
        return part.mean_of(self._pair().decoded(tokens, part.n_voxels), linear)
