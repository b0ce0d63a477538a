"""A model on a dataset: every score, beside the control rows that make it readable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synbrain.arrays import Float32, Rows
from synbrain.baselines.kept import ridge_predictions
from synbrain.baselines.protocol import point_mass
from synbrain.baselines.registry import BASELINES, make_baseline
from synbrain.data.dataset import Dataset, datasets_of
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.evaluation.about import About
from synbrain.evaluation.ceiling_row import ceiling_row
from synbrain.evaluation.differences import differences
from synbrain.evaluation.latents import latent_retrieval
from synbrain.evaluation.measured import Measured, measure
from synbrain.evaluation.options import EvaluateOptions
from synbrain.evaluation.oracle_row import oracle_row
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import score_arrays, score_model
from synbrain.evaluation.scores import Scores
from synbrain.features.store import open_untuned
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.linear.plain import MANY_IMAGES
from synbrain.model.subject import (
    BoundModel,
    n_fitted_images,
    part_of,
    require_model,
    require_recorded,
    require_unseen,
)
from synbrain.model.synbrain import SynBrain
from synbrain.progress import track

AS_USUAL = EvaluateOptions()


@dataclass(frozen=True)
class Evaluation:
    """Scores, and what they were made from.

    Attributes:
        scores: the table.
        measured: test trials and training statistics.
        subject: of the run.
        rows: row -> its scores with everything that intervals and pictures need.
        predictions: "synbrain" and every baseline -> (n_test_images, n_voxels) in the dataset's unit.
        is_unseen: whether it is known that the run was not trained on the test images.
    """

    scores: Scores
    measured: Measured
    subject: str
    rows: dict[str, Row]
    predictions: dict[str, Float32]
    is_unseen: bool


def evaluate(
    model: SynBrain,
    dataset: Dataset,
    options: EvaluateOptions = AS_USUAL,
    *,
    tokens: TokenSet | None = None,
    show_progress: bool = False,
) -> Scores:
    """Score ``model`` on the test split of ``dataset`` beside control rows.

    Baselines are fitted on the whole training split with the model's own tokens, also where the model saw a
    part of it; nothing is fitted or chosen on test images. Where next to no image was repeated, noise
    ceilings and distribution scores are left out.

    Args:
        model: a run.
        dataset: with training and test images; its tokens of the run's encoder must be stored.
        options: sizes, seed and control rows.
        tokens: of all ``dataset`` images, where they are not to be read from its store.
        show_progress: bars on stderr.

    Raises:
        SynBrainError: no test or training images, missing tokens, other voxels than the run's; test images
            that the run was trained on.

    >>> from synbrain import TrainOptions, train
    >>> from synbrain.simulate.example import toy_dataset
    >>> dataset = toy_dataset()
    >>> options = TrainOptions(encoder="pixels", vae={"epochs": 1}, mapper={"steps": 10, "round_steps": 10})
    >>> model = train([dataset], options)
    >>> scores = evaluate(model, dataset, EvaluateOptions(rows=["mean_map", "ridge", "ceiling"]))
    >>> scores.value("mean_map", "voxel_r") < scores.value("synbrain", "voxel_r")
    True
    """
    require_model(model)
    (dataset,) = datasets_of(dataset)
    return evaluation_of(model, dataset, options, tokens=tokens, show_progress=show_progress).scores


def evaluation_of(
    model: SynBrain,
    dataset: Dataset,
    options: EvaluateOptions = AS_USUAL,
    *,
    tokens: TokenSet | None = None,
    summary: bool = False,
    show_progress: bool = False,
) -> Evaluation:
    """:func:`evaluate` with the predictions, and on request what pictures of the trials are drawn from."""
    unknown = [name for name in options.rows if name not in (*BASELINES, "ceiling", "oracle")]
    if unknown:
        raise SynBrainError(f"no rows {unknown}", f"choose among {[*BASELINES, 'ceiling', 'oracle']}")
    if tokens is None:
        dataset, tokens = open_untuned(dataset, model.config.encoder, model.config.layers)
    train, test = split_pairs(dataset, tokens)
    is_unseen = require_unseen(model, dataset)
    subject = _subject_of(model, dataset, options.subject)
    measured = measure(
        test,
        train,
        dataset.space,
        seed=options.seed,
        n_bootstrap=options.n_bootstrap,
        device=model.device,
    )
    bound = BoundModel(model, subject)
    predictions = {"synbrain": bound.predict(test.tokens)}
    of_model = score_model(
        bound,
        measured,
        predicted=predictions["synbrain"],
        n_samples=options.samples,
        seed=options.seed,
        summary=summary,
        show_progress=show_progress,
    )
    retrieval = latent_retrieval(
        model, subject, predictions["synbrain"], measured, n_way=options.n_way, n_subsets=options.n_subsets
    )
    rows = {"synbrain": of_model | retrieval}
    for name in track(options.rows, "control rows", unit="row", show=show_progress):
        row, predicted = _control(name, measured, dataset, options, show_progress=show_progress)
        if row is not None:
            rows[name] = row
        if predicted is not None:
            predictions[name] = predicted
    about = describe(dataset, measured, n_samples=options.samples).model_copy(
        update={
            "run_digest": model.digest or None,
            "n_fitted_images": n_fitted_images(model, model.subject(subject)),
            "n_way": min(options.n_way, test.n_images),
            "n_subsets": options.n_subsets,
            "n_bootstrap": options.n_bootstrap,
            "encoder": model.config.encoder,
            "layers": list(model.config.layers),
            "recipe": model.config.recipe,
        }
    )
    scores = Scores.of_rows(rows, about, differences(rows, n_images=test.n_images))
    return Evaluation(scores, measured, subject, rows, predictions, is_unseen)


def describe(dataset: Dataset, measured: Measured, *, n_samples: int) -> About:
    """What a score table says about itself: data, sizes, target, seed."""
    repeats = measured.repeats
    return About(
        dataset=dataset.info.name,
        dataset_digest=dataset.digest,
        subject=dataset.info.subject,
        unit=dataset.info.unit,
        n_test_images=measured.test.n_images,
        n_test_trials=measured.test.n_trials,
        n_train_images=measured.train.n_images,
        n_train_trials=measured.train.n_trials,
        repeats=[int(repeats.min()), int(repeats.max())],
        n_voxels=measured.test.n_voxels,
        voxels_are=dataset.space.unit_names,
        n_constant_voxels=int(np.sum(measured.sd == 0)),
        n_reliable_voxels=int(measured.reliable.sum()),
        target="trial",
        n_samples=n_samples,
        seed=measured.seed,
    )


def _subject_of(model: SynBrain, dataset: Dataset, subject: str | None) -> str:
    part = part_of(model, dataset, subject)
    if part.n_voxels != dataset.n_voxels:
        raise SynBrainError(
            f"subject {part.name} of the run has {counted(part.n_voxels, *part.space.unit_words)}, "
            f"{dataset.path} {dataset.n_voxels}",
            "evaluate on the dataset it was trained on, or `synbrain adapt` it first",
        )
    if part.unit != dataset.info.unit:
        raise SynBrainError(
            f"the run predicts {part.unit!r}, {dataset.path} holds {dataset.info.unit!r}",
            "prepare the dataset with the scaling that the run was trained on",
        )
    require_recorded(part, dataset, chosen=subject is not None)
    return part.name


def _control(
    name: str, measured: Measured, dataset: Dataset, options: EvaluateOptions, *, show_progress: bool
) -> tuple[Row | None, Float32 | None]:
    """The row called ``name`` (None where it does not apply), and what a baseline predicts."""
    n_samples, seed = options.samples, options.seed
    if name == "ceiling":
        return ceiling_row(measured), None
    if name == "oracle":
        return oracle_row(dataset, measured, n_samples=n_samples, seed=seed), None
    train, tokens = measured.train, measured.test.tokens
    shown = show_progress and train.n_images >= MANY_IMAGES  # minutes, which want a bar of their own
    if name == "ridge":
        predicted = ridge_predictions(train, tokens, seed=seed, device=measured.device, show_progress=shown)

        def trials(images: Rows, n: int, _: int) -> Float32:
            return point_mass(predicted[images], n)

        return score_arrays(predicted, trials, measured, n_samples=n_samples, seed=seed), predicted
    fitted = make_baseline(name, measured.device).fit(train, seed=seed, show_progress=shown)
    predicted = np.asarray(fitted.predict(tokens))
    return score_model(fitted, measured, predicted=predicted, n_samples=n_samples, seed=seed), predicted
