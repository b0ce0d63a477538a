"""A base that was trained on the new subject's images: it may not be judged by what it knows of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.linear.held_out import HeldOutScores, held_out_scores
from synbrain.linear.prior import fit_with_prior, response_space
from synbrain.metrics.voxel import voxel_r
from synbrain.model.parts import SubjectPart

CONFIG = LinearPathConfig(n_folds=5, windows=0, blur=0.0, dtype="float32", alphas=(0.1, 1.0, 10.0))
N_TRAIN = 120
MARKS = [i.to_bytes(6, "big") for i in range(N_TRAIN)]


def subject(seed: int, n_voxels: int) -> Pairs:
    """Responses to 300 images: part through the tokens, part what all subjects share and no token says."""
    shared = np.random.default_rng(0)
    stored = shared.standard_normal((300, 4, 15)).astype(np.float32)
    linear = stored.reshape(300, -1) @ shared.standard_normal((60, 6)) / 8
    unsaid = shared.standard_normal((300, 6))
    rng = np.random.default_rng(seed)
    mean = (linear + unsaid) @ rng.standard_normal((6, n_voxels))
    responses = (mean + rng.standard_normal(mean.shape)).astype(np.float32)
    return Pairs(
        TokenSet("toy", "digest", {"final": stored}, np.arange(300)), responses, *2 * [np.arange(300)]
    )


def base_part(pairs: Pairs) -> tuple[SubjectPart, LinearFit]:
    fit, y = fit_linear_path(pairs, CONFIG), pairs.trial_responses()
    sd = y.std(axis=0)
    held_out = held_out_scores(fit.path, fit.out_of_fold, sd, MARKS)
    space = VoxelSpace(pairs.n_voxels)
    return SubjectPart("base", space, "z", y.mean(axis=0), sd, linear=fit.path, held_out=held_out), fit


def test_shared_images_are_judged_by_what_the_base_predicts_without_them() -> None:
    train, test = np.arange(N_TRAIN), np.arange(N_TRAIN, 300)
    part, _ = base_part(subject(1, 20).take(train))
    space = response_space([part.as_base])
    assert space is not None
    new = subject(2, 20)
    pairs, wanted = new.take(train), new.take(test).repeat_means()
    y = pairs.repeat_means()

    told = fit_with_prior(pairs, space, CONFIG, marks=MARKS)
    reached = voxel_r(told.path.predict(new.tokens.take(test)), wanted).mean()
    assert told.path.about["images_shared_with_base"] == N_TRAIN
    assert voxel_r(told.out_of_fold, y).mean() < reached + 0.08

    untold = fit_with_prior(pairs, space, CONFIG)
    assert voxel_r(untold.out_of_fold, y).mean() > reached + 0.12, "the error that marks are there to prevent"
    scratch = voxel_r(fit_linear_path(pairs, CONFIG).path.predict(new.tokens.take(test)), wanted).mean()
    assert reached > scratch - 0.01


def test_images_that_the_base_does_not_know_change_nothing() -> None:
    part, _ = base_part(subject(1, 20).take(np.arange(N_TRAIN)))
    space = response_space([part.as_base])
    assert space is not None
    pairs = subject(2, 8).take(np.arange(200, 260))
    marks = [(1000 + i).to_bytes(6, "big") for i in range(60)]
    told, untold = (fit_with_prior(pairs, space, CONFIG, marks=m) for m in (marks, ()))
    np.testing.assert_array_equal(told.out_of_fold, untold.out_of_fold)
    assert told.path.about["images_shared_with_base"] == 0


def test_held_out_scores_lead_back_to_the_cross_validated_predictions(tmp_path: Path) -> None:
    part, fit = base_part(subject(1, 20).take(np.arange(N_TRAIN)))
    held_out = part.held_out
    assert held_out is not None
    again = held_out.scores @ fit.path.mixing + fit.path.intercept
    apart = (again - fit.out_of_fold) / part.response_sd
    assert np.sqrt(np.mean(apart**2)) < 0.05
    assert held_out.save(tmp_path / "held_out") == ["held_out.safetensors"]
    loaded = HeldOutScores.load(tmp_path / "held_out")
    np.testing.assert_array_equal(loaded.scores, held_out.scores)
    assert loaded.rows_of([MARKS[7], b"nobody", MARKS[0]]).tolist() == [7, -1, 0]


def test_marks_that_do_not_match_are_refused() -> None:
    fit = fit_linear_path(subject(1, 5).take(np.arange(30)), CONFIG)
    with pytest.raises(SynBrainError, match="30 predicted"):
        held_out_scores(fit.path, fit.out_of_fold, np.ones(5, np.float32), MARKS)


def test_a_prior_on_more_voxels_than_columns_drops_none() -> None:
    """Few images share nothing among voxels: a column a voxel, of which the most variable alone were kept."""
    part, _ = base_part(subject(1, 20).take(np.arange(N_TRAIN)))
    space = response_space([part.as_base])
    assert space is not None
    new, few, test = subject(2, 20), np.arange(200, 230), np.arange(230, 300)
    alone = CONFIG.model_copy(update={"share": False})
    many, bounded = (
        fit_with_prior(new.take(few), space, alone.model_copy(update={"rank": rank})) for rank in (256, 5)
    )
    np.testing.assert_allclose(
        bounded.path.predict(new.tokens.take(test)),
        many.path.predict(new.tokens.take(test)),
        rtol=1e-3,
        atol=1e-3,
    )
