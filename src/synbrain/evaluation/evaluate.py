"""A model on a dataset: every score, beside the control rows that make it readable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from synbrain.arrays import Float32
from synbrain.baselines.registry import BASELINES, make_baseline
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.evaluation.ceiling_row import ceiling_row
from synbrain.evaluation.differences import differences
from synbrain.evaluation.latents import latent_retrieval
from synbrain.evaluation.measured import Measured, measure
from synbrain.evaluation.oracle_row import oracle_row
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import N_SAMPLES, score_model
from synbrain.evaluation.scores import Scores
from synbrain.features.store import open_tokens
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.metrics.intervals import N_BOOTSTRAP
from synbrain.metrics.retrieval import N_SUBSETS, N_WAY
from synbrain.model.subject import BoundModel
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track

ROWS = ("mean_map", "ridge", "ceiling", "oracle")


def evaluate(
    model: SynBrain,
    dataset: Dataset,
    *,
    n_samples: int = N_SAMPLES,
    seed: int = 0,
    rows: Iterable[str] = ROWS,
    subject: str | None = None,
    tokens: TokenSet | None = None,
    n_way: int = N_WAY,
    n_subsets: int = N_SUBSETS,
    n_bootstrap: int = N_BOOTSTRAP,
    predictions: dict[str, Float32] | None = None,
    show_progress: bool = False,
) -> Scores:
    """Score ``model`` on the test split of ``dataset`` beside control rows.

    Baselines are fitted on the training split with the model's own tokens; nothing is fitted or chosen on
    test images. Where each image has one response, noise ceilings and distribution scores are left out.

    Args:
        model: a run.
        dataset: with training and test images; its tokens of the run's encoder must be stored.
        n_samples: synthetic trials per test image; at least 19 for 90 % intervals.
        seed: of synthetic trials, baselines, retrieval subsets and bootstrap.
        rows: control rows: names of baselines, "ceiling", "oracle" (kept only for simulated data).
        subject: of the run; where left out, the dataset's subject, or the run's only one.
        tokens: of all ``dataset`` images, where they are not to be read from its store.
        n_way, n_subsets: of raw and synthetic retrieval.
        n_bootstrap: bootstrap samples over test images.
        predictions: gets what "synbrain" and every baseline predict for the test images, (n_test_images,
            n_voxels) in the dataset's unit; for pictures, so that nothing is fitted twice.
        show_progress: bars on stderr.

    Raises:
        SynBrainError: no test or training images, missing tokens, other voxels than the run's.
    """
    wanted = tuple(rows)
    unknown = [name for name in wanted if name not in (*BASELINES, "ceiling", "oracle")]
    if unknown:
        raise SynBrainError(f"no rows {unknown}", f"choose among {[*BASELINES, 'ceiling', 'oracle']}")
    train, test = split_pairs(
        dataset, tokens or open_tokens(dataset, model.config.encoder, model.config.layers)
    )
    own = _subject_of(model, dataset, subject)
    measured = measure(test, train, dataset.space, seed=seed, n_bootstrap=n_bootstrap)
    bound = BoundModel(model, own)
    predicted = bound.predict(test.tokens)
    if predictions is not None:
        predictions["synbrain"] = predicted
    scored = {
        "synbrain": score_model(
            bound, measured, predicted=predicted, n_samples=n_samples, seed=seed, show_progress=show_progress
        )
    }
    latent_retrieval(scored["synbrain"], model, own, predicted, measured, n_way=n_way, n_subsets=n_subsets)
    for name in track(wanted, "control rows", unit="row", show=show_progress):
        row = _control(name, measured, dataset, n_samples, seed, predictions)
        if row is not None:
            scored[name] = row
    about = describe(dataset, measured, n_samples=n_samples) | {
        "n_way": min(n_way, test.n_images),
        "encoder": model.config.encoder,
        "layers": list(model.config.layers),
        "recipe": model.config.recipe,
    }
    return Scores.of_rows(scored, about, differences(scored))


def describe(dataset: Dataset, measured: Measured, *, n_samples: int) -> dict[str, Any]:
    """What a score table says about itself: data, sizes, target, seed."""
    repeats = measured.repeats
    return {
        "dataset": dataset.info.name,
        "subject": dataset.info.subject,
        "unit": dataset.info.unit,
        "n_test_images": measured.test.n_images,
        "n_test_trials": measured.test.n_trials,
        "n_train_images": measured.train.n_images,
        "n_train_trials": measured.train.n_trials,
        "repeats": [int(repeats.min()), int(repeats.max())],
        "n_voxels": measured.test.n_voxels,
        "n_constant_voxels": int(np.sum(measured.sd == 0)),
        "n_reliable_voxels": int(measured.reliable.sum()),
        "target": "trial",
        "n_samples": n_samples,
        "seed": measured.seed,
    }


def _subject_of(model: SynBrain, dataset: Dataset, subject: str | None) -> str:
    if subject is None and dataset.info.subject in model.subjects:
        subject = dataset.info.subject
    part = model.subject(subject)
    if part.n_voxels != dataset.n_voxels:
        raise SynBrainError(
            f"subject {part.name} of the run has {part.n_voxels} voxels, {dataset.path} {dataset.n_voxels}",
            "evaluate on the dataset it was trained on, or `synbrain adapt` it first",
        )
    if part.unit != dataset.info.unit:
        raise SynBrainError(
            f"the run predicts {part.unit!r}, {dataset.path} holds {dataset.info.unit!r}",
            "prepare the dataset with the scaling that the run was trained on",
        )
    return part.name


def _control(
    name: str,
    measured: Measured,
    dataset: Dataset,
    n_samples: int,
    seed: int,
    predictions: dict[str, Float32] | None,
) -> Row | None:
    if name == "ceiling":
        return ceiling_row(measured)
    if name == "oracle":
        return oracle_row(dataset, measured, n_samples=n_samples, seed=seed)
    fitted = make_baseline(name).fit(measured.train, seed=seed)
    predicted = fitted.predict(measured.test.tokens)
    if predictions is not None:
        predictions[name] = predicted
    return score_model(fitted, measured, predicted=predicted, n_samples=n_samples, seed=seed)
