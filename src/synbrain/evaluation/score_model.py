"""One fitted model, or arrays of predictions, scored into one row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from synbrain.arrays import Rows
from synbrain.baselines.protocol import ResponseModel
from synbrain.errors import SynBrainError
from synbrain.evaluation.measured import Measured
from synbrain.evaluation.options import N_SAMPLES
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_mean import score_mean
from synbrain.evaluation.score_trials import Draw, score_trials


def score_model(
    model: ResponseModel,
    measured: Measured,
    *,
    predicted: NDArray[Any] | None = None,
    n_samples: int = N_SAMPLES,
    seed: int = 0,
    summary: bool = False,
    show_progress: bool = False,
) -> Row:
    """Score a fitted model: its mean, how its trials vary, and its predictive draws.

    A model that has ``predictive_around`` parts what a trial adds from what is not known of the mean, see
    :mod:`synbrain.evaluation.score_trials`; the trials of any other stand for both.

    Args:
        model: SynBrain or a baseline, fitted on the training split alone.
        measured: what it is scored against.
        predicted: (n_test_images, n_voxels), what ``model`` predicts for the test images, if known.
        n_samples: trials, and predictive draws, per test image; at least 19 for 90 % intervals.
        seed: of both.
        summary: also sum what pictures of the trial distribution need.
        show_progress: a bar over test images.
    """
    tokens = measured.test.tokens
    mean = model.predict(tokens) if predicted is None else predicted

    def draw(images: Rows, n: int, block_seed: int) -> NDArray[Any]:
        around = getattr(model, "sample_around", None)  # spares a second prediction where there is one
        if around is not None:
            return np.asarray(around(mean[images], n, block_seed))
        return model.sample(tokens.take(images), n, block_seed)

    around_mean = getattr(model, "predictive_around", None)

    def predictive(images: Rows, n: int, block_seed: int) -> NDArray[Any]:
        assert around_mean is not None
        return np.asarray(around_mean(mean[images], tokens.take(images), n, block_seed))

    return score_arrays(
        mean,
        draw,
        measured,
        predictive=None if around_mean is None else predictive,
        n_samples=n_samples,
        seed=seed,
        summary=summary,
        show_progress=show_progress,
    )


def score_arrays(
    predicted: NDArray[Any],
    draw: Draw | None,
    measured: Measured,
    *,
    predictive: Draw | None = None,
    n_samples: int = N_SAMPLES,
    seed: int = 0,
    summary: bool = False,
    show_progress: bool = False,
) -> Row:
    """Score predictions of the test images.

    Args:
        predicted: (n_test_images, n_voxels), the dataset's unit, in the order of ``measured.test``.
        draw: (image rows, n_samples, seed) -> (n_samples, n, n_voxels); None leaves out the
            distribution scores.
        measured: what they are scored against.
        predictive: the same for predictive draws; None: those of ``draw`` are taken for them.
        n_samples, seed, summary, show_progress: as :func:`score_model`.

    Raises:
        SynBrainError: where shapes do not fit or predictions are not finite.
    """
    expected = (measured.test.n_images, measured.test.n_voxels)
    if predicted.shape != expected:
        raise SynBrainError(
            f"predictions have shape {predicted.shape}, the test set {expected}",
            "predict every test image on the dataset's own voxels",
        )
    if not np.isfinite(predicted).all():
        raise SynBrainError("predictions hold NaN or infinite values", "train the model again")
    row = score_mean(predicted, measured)
    if draw is not None:
        row |= score_trials(
            draw,
            measured,
            n_samples,
            seed,
            predictive=predictive,
            summary=summary,
            show_progress=show_progress,
        )
    return row.with_rois(measured.space)
