"""What the page shows of a picture: maps, ROI means, similar training images."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synbrain.arrays import Float32, Rows
from synbrain.data.dataset import Dataset
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import TokenSet
from synbrain.model.parts import SubjectPart
from synbrain.model.request import roi_means
from synbrain.model.subject import part_of, require_recorded
from synbrain.model.synbrain import SynBrain
from synbrain.noise.predictive import Predictive, interval_ends
from synbrain.viewer import packing
from synbrain.viewer.options import ViewOptions
from synbrain.viewer.packing import Json

if TYPE_CHECKING:
    from synbrain.viewer.decoded import DecodedPictures

LEVEL = 0.9  # of the predictive interval
ROI_TRIALS = 100  # trials of a picture from which the sd of an ROI's mean is taken
MAX_NEIGHBOURS = 2000  # training images that are searched for similar responses
N_NEAREST, BLOCK = 6, 512
AS_USUAL = ViewOptions()
PICTURE_SIDE, THUMB_SIDE, DECODED_SIDE = 224, 72, 112


@dataclass(frozen=True)
class Source:
    """A run, and the dataset whose images it is shown beside.

    Attributes:
        model: the run.
        dataset: of the same subject, or None: pictures that are dropped alone.
        options: of the page.
        decode: responses to pictures, where a decoder is given.
    """

    model: SynBrain
    dataset: Dataset | None = None
    options: ViewOptions = AS_USUAL
    decode: DecodedPictures | None = None
    # one picture at a time: torch and the encoder's buffers are shared by all requests
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        part, dataset = self.part, self.dataset
        if dataset is None:
            return
        if dataset.n_voxels != part.n_voxels:
            raise SynBrainError(
                f"subject {part.name} of the run has {counted(part.n_voxels, *part.space.unit_words)}, "
                f"{dataset.path} {dataset.n_voxels}",
                "give the dataset that the run was trained on",
            )
        if dataset.info.unit != part.unit:  # measured and expected maps share a scale of colours
            raise SynBrainError(
                f"the run predicts {part.unit!r}, {dataset.path} holds {dataset.info.unit!r}",
                "prepare the dataset with the scaling that the run was trained on",
            )
        require_recorded(part, dataset, chosen=self.options.subject is not None)

    @property
    def part(self) -> SubjectPart:
        if self.dataset is None:
            return self.model.subject(self.options.subject)
        return part_of(self.model, self.dataset, self.options.subject)

    @cached_property
    def test_rows(self) -> Rows:
        """Rows of the dataset's test images; training images where it has none."""
        if self.dataset is None:
            return np.zeros(0, dtype=np.int64)
        test = self.dataset.image_rows("test")
        return test if len(test) else self.dataset.image_rows("train")

    @cached_property
    def _statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Mean and sd (n_voxels,) over the training trials, read block by block."""
        if self.dataset is None:
            mean = self.part.response_mean.astype(np.float64)
            return (mean, self.part.response_sd.astype(np.float64)) if np.any(mean) else None
        rows = self.dataset.trial_rows("train")
        rows = rows if len(rows) else np.arange(self.dataset.n_trials)
        total, squares = np.zeros(self.part.n_voxels), np.zeros(self.part.n_voxels)
        for start in range(0, len(rows), BLOCK):
            block = np.asarray(self.dataset.responses[rows[start : start + BLOCK]], dtype=np.float64)
            total += block.sum(axis=0)
            squares += (block**2).sum(axis=0)
        mean = total / len(rows)
        return mean, np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))

    @cached_property
    def _ceiling(self) -> Float32 | None:
        """(n_voxels,) highest correlation to expect with the mean over the repeats of a test image."""
        repeats = 1.0
        if self.dataset is not None and len(self.test_rows):
            counts = np.bincount(self.dataset.trials["image"].to_numpy(dtype=np.int64))[self.test_rows]
            repeats = 1 / float(np.mean(1 / counts))  # noise is left in means by 1/n
        try:
            share = self.model.noise_ceiling(repeats, subject=self.part.name)
        except SynBrainError:
            return None
        return np.asarray(np.sqrt(np.maximum(share, 0)), dtype=np.float32)

    @cached_property
    def _neighbours(self) -> tuple[Rows, Float32] | None:
        """Rows of training images, and their measured mean responses as unit vectors (n, n_voxels)."""
        if self.dataset is None or self._statistics is None:
            return None
        rows = self.dataset.image_rows("train")
        if len(rows) < 2:
            return None
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_NEIGHBOURS)).astype(int)]
        return rows, self._as_pattern(np.stack([self._measured(row) for row in rows]))

    def _as_pattern(self, responses: NDArray[Any]) -> Float32:
        """Responses minus the mean map in training sd, centred over voxels, of length 1."""
        assert self._statistics is not None
        mean, sd = self._statistics
        pattern = (responses - mean) / np.where(sd > 0, sd, np.inf)
        pattern -= pattern.mean(axis=1, keepdims=True)
        length = np.linalg.norm(pattern, axis=1, keepdims=True)
        return np.asarray(pattern / np.where(length > 0, length, 1), dtype=np.float32)

    @cached_property
    def _tokens(self) -> TokenSet | None:
        if self.dataset is None:
            return None
        try:
            return self.model.tokens(open_tokens(self.dataset, self.model.config.encoder))
        except SynBrainError:  # none are stored, or of other weights: pictures are encoded as they come
            return None

    def _measured(self, row: int) -> Float32:
        assert self.dataset is not None
        trials = np.flatnonzero(self.dataset.trials["image"].to_numpy() == row)
        return np.asarray(self.dataset.responses[trials].mean(axis=0), dtype=np.float32)

    def head(self, mode: str) -> Json:
        """Everything about the run that does not depend on the picture."""
        part, dataset = self.part, self.dataset
        with self.lock:
            baseline = None if self._statistics is None else packing.quantised(self._statistics[0])
            ceiling = None if self._ceiling is None else packing.quantised(self._ceiling)
        about = dataset.info.name if dataset is not None else "no dataset"
        names = [] if dataset is None else [str(dataset.images["name"].iloc[row]) for row in self.test_rows]
        return {
            "title": f"SynBrain: {part.name}",
            "lead": f"recipe {self.model.config.recipe}, encoder {self.model.config.encoder}, "
            f"{part.n_voxels} {part.space.unit_names}, {about}",
            "mode": mode,
            "unit": part.unit,
            "unit_name": part.space.unit_name,
            "unit_names": part.space.unit_names,
            "n_voxels": part.n_voxels,
            "geometry": packing.geometry(part.space, self.options.mni),
            "atlases": packing.atlases(part.space),
            "ceiling": ceiling,
            "interval": self._interval(),
            "baseline": baseline,
            "images": names,
            "decoder": None if self.decode is None else self.decode.words,
        }

    def _interval(self) -> Json | None:
        """Level and ends of the predictive interval, in sd around the mean; the page puts it together."""
        noise = self.part.noise
        if noise is None:
            return None
        ends = interval_ends(LEVEL, noise.skew, noise.tail)
        return {"level": LEVEL, "low": packing.quantised(ends[0]), "high": packing.quantised(ends[1])}

    def of_test_image(self, number: int) -> Json:
        """The response to test image ``number`` (a position in ``test_rows``), with what was measured."""
        assert self.dataset is not None
        row = int(self.test_rows[number])
        image = self.dataset.load_image(row)
        with self.lock:
            tokens = None if self._tokens is None else self._tokens.take(np.array([row]))
            return self._response(str(self.dataset.images["name"].iloc[row]), image, tokens, row)

    def of_picture(self, name: str, image: Image.Image) -> Json:
        """The response to any picture."""
        with self.lock:
            return self._response(name, image, None, None)

    def _response(self, name: str, image: Image.Image, tokens: TokenSet | None, row: int | None) -> Json:
        part, options = self.part, self.options
        tokens = self.model.tokens([image]) if tokens is None else tokens
        expected = self.model.predict(tokens, subject=part.name)
        maps: Json = {"expected": packing.quantised(expected[0])}
        trials, unknown = None, None
        if part.noise is not None:
            seed = part.seed_of_trials(options.seed)
            trials = part.noise.sample(expected, max(ROI_TRIALS, options.trials), seed)[:, 0]
            maps["sd"] = packing.quantised(np.sqrt(part.noise.trial.variance(expected))[0])
            unknown = part.noise.predictive(expected, tokens)
            maps["error"] = packing.quantised(np.sqrt(unknown.error_variance)[0])
            maps["trials"] = [packing.quantised(trial) for trial in trials[: options.trials]]
        measured = None if row is None else self._measured(row)
        if measured is not None:
            maps["measured"] = packing.quantised(measured)
        made: Json = {"name": name, "picture": packing.picture(image, PICTURE_SIDE), "maps": maps}
        made["rois"] = self._rois(expected[0], trials, unknown, measured)
        made["nearest"] = self._nearest(expected)
        if self.decode is not None:
            made["decoded"] = self._decoded(self.decode, expected, measured)
        return made

    def _decoded(self, decode: DecodedPictures, expected: Float32, measured: Float32 | None) -> list[Json]:
        """What the decoder makes of the expected response and of the measured mean, a row each kind."""
        responses = {"expected": expected[0]} | ({} if measured is None else {"measured": measured})
        pictures = decode(np.stack(list(responses.values())))
        return [
            {"label": label}
            | {name: packing.picture(p, DECODED_SIDE) for name, p in zip(responses, row, strict=True)}
            for label, row in pictures.items()
        ]

    def _rois(
        self,
        expected: Float32,
        trials: Float32 | None,
        unknown: Predictive | None,
        measured: Float32 | None,
    ) -> list[Json]:
        """Means over each ROI. Both sds are those of the ROI's mean: voxels vary, and err, together."""
        if not self.part.space.roi_masks():
            return []
        names, weights = roi_means(self.part.space)
        columns = {"expected": expected @ weights}
        if trials is not None:
            columns["sd"] = (trials @ weights).std(axis=0, ddof=1)
        if unknown is not None:
            columns["error"] = np.sqrt(unknown.growth[0]) * unknown.error.sd_of_means(weights)
        if measured is not None:
            columns["measured"] = measured @ weights
        if self._statistics is not None:
            columns["baseline"] = self._statistics[0] @ weights
        if self._ceiling is not None:
            columns["ceiling"] = self._ceiling @ weights
        rows = []
        for k, name in enumerate(names):
            atlas, _, label = name.partition("/")
            rows.append({"atlas": atlas, "name": label} | {c: float(v[k]) for c, v in columns.items()})
        return rows

    def _nearest(self, expected: Float32) -> list[Json]:
        if self._neighbours is None:
            return []
        assert self.dataset is not None
        rows, patterns = self._neighbours
        r = patterns @ self._as_pattern(expected)[0]
        shown = []
        for place in np.argsort(-r)[:N_NEAREST]:
            row = int(rows[place])
            try:
                thumb = packing.picture(self.dataset.load_image(row), THUMB_SIDE, 75)
            except SynBrainError:  # the stimuli may lie elsewhere; the rest of the page does not need them
                return []
            name = str(self.dataset.images["name"].iloc[row])
            shown.append({"name": name, "r": float(r[place]), "picture": thumb})
        return shown
