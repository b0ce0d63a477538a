from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from himalaya.kernel_ridge import solve_kernel_ridge_eigenvalues
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_info, threadpool_limits

from synbrain.baselines import kernels, ridge
from synbrain.baselines.kernels import TokenKernels
from synbrain.baselines.ridge import BandedRidge, Ridge, cross_fit, folds
from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs
from synbrain.metrics.voxel import voxel_r


def flat(pairs: Pairs, layer: str) -> np.ndarray:
    return pairs.tokens.read(layer).reshape(pairs.n_images, -1).astype(np.float64)


def only(pairs: Pairs, *layers: str) -> Pairs:
    return Pairs(pairs.tokens.only(*layers), pairs.responses, pairs.trials, pairs.image_of_trial)


@pytest.mark.parametrize("budget", [50, kernels.BLOCK_VALUES])
def test_kernels_against_numpy_in_blocks_of_any_size(
    make_pairs, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(kernels, "BLOCK_VALUES", budget)
    train, test, _ = make_pairs()
    fitted, grams = TokenKernels.fit(train.tokens)
    crossed = fitted.against(test.tokens)
    for k, layer in enumerate(("final", "early")):
        x, new = flat(train, layer), flat(test, layer)
        centre = x.mean(axis=0)
        scale = np.mean(np.sum((x - centre) ** 2, axis=1))
        np.testing.assert_allclose(grams[k], (x - centre) @ (x - centre).T / scale, atol=1e-5)
        np.testing.assert_allclose(crossed[k], (new - centre) @ (x - centre).T / scale, atol=1e-5)
        assert np.mean(np.diag(grams[k])) == pytest.approx(1)


def test_few_images_are_solved_by_one_thread_of_blas(make_pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _, _ = make_pairs()
    seen: list[set[int]] = []
    solve = ridge.solve_kernel_ridge_cv_eigenvalues

    def watched(*given, **named):
        seen.append({lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"})
        return solve(*given, **named)

    monkeypatch.setattr(ridge, "solve_kernel_ridge_cv_eigenvalues", watched)
    with threadpool_limits(2, user_api="blas"):
        few = Ridge().fit(train)
        monkeypatch.setattr(ridge, "FEW_IMAGES", train.n_images - 1)
        many = Ridge().fit(train)
    assert seen == [{1}, {2}]
    np.testing.assert_allclose(few.weights, many.weights, atol=1e-6)


def test_per_voxel_penalties_and_weights_against_sklearn(make_pairs) -> None:
    """himalaya's choice among three penalties, and its predictions, are sklearn's with the same folds."""
    train, test, _ = make_pairs(noise=2.0)
    train, test = only(train, "final"), only(test, "final")
    alphas = np.array([1e-2, 1.0, 1e2])
    model = Ridge(alphas=alphas).fit(train, seed=0)
    scale = model.kernels.scales["final"]  # type: ignore[union-attr]
    x, new = flat(train, "final"), flat(test, "final")
    centre = x.mean(axis=0)
    y = train.repeat_means().astype(np.float64)
    for voxel in range(train.n_voxels):
        reference = RidgeCV(
            alphas * scale,
            cv=folds(train.tokens.families, 5, 0),
            scoring="neg_mean_squared_error",
            fit_intercept=False,
        ).fit(x - centre, y[:, voxel] - y[:, voxel].mean())
        assert model.best_alphas[voxel] == pytest.approx(reference.alpha_ / scale)
        np.testing.assert_allclose(
            model.predict(test.tokens)[:, voxel],
            reference.predict(new - centre) + y[:, voxel].mean(),
            rtol=1e-3,
            atol=1e-3,
        )


def test_a_scale_of_the_tokens_changes_nothing(make_pairs) -> None:
    train, test, _ = make_pairs()
    before = Ridge().fit(train).predict(test.tokens)
    train.tokens.layers["early"] *= np.float16(4)  # the same array stands behind test.tokens
    np.testing.assert_allclose(Ridge().fit(train).predict(test.tokens), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", [Ridge, BandedRidge])
def test_a_unit_of_the_responses_changes_nothing(make_pairs, model: type[Ridge]) -> None:
    """In volts, himalaya took all penalties for equally good, and predicted the mean."""
    train, test, _ = make_pairs()
    scale = np.float32(2.0**-30)
    volts = replace(train, responses=np.asarray(train.responses) * scale)
    expected = model().fit(train).predict(test.tokens)
    predicted = model().fit(volts).predict(test.tokens)
    assert expected.std(axis=0).min() > 0.1
    np.testing.assert_allclose(predicted / scale, expected, rtol=1e-5, atol=1e-6)


def test_cross_fitted_predictions_do_not_see_their_image(make_pairs) -> None:
    train, _, means = make_pairs(n_images=60)
    model = Ridge().fit(train)
    out = model.cross_fitted(train)
    assert voxel_r(out, means[:60]).mean() > 0.8
    held = next(folds(train.tokens.families, 5, 0).split(model.gram))[1]
    targets = train.repeat_means()
    targets[held] += 100.0
    changed = cross_fit(model.gram, targets, model.best_alphas, folds(train.tokens.families, 5, 0))
    np.testing.assert_allclose(changed[held], out[held], rtol=1e-4, atol=1e-4)
    train_rows = np.setdiff1d(np.arange(60), held)
    centre = train.repeat_means()[train_rows].mean(axis=0)
    reference = KernelRidge(alpha=model.best_alphas, kernel="precomputed").fit(
        model.gram[np.ix_(train_rows, train_rows)], train.repeat_means()[train_rows] - centre
    )
    expected = reference.predict(model.gram[np.ix_(held, train_rows)]) + centre
    np.testing.assert_allclose(out[held], expected, rtol=1e-3, atol=1e-3)


def test_banded_ridge_is_ridge_for_one_layer_and_no_worse_for_two(make_pairs) -> None:
    train, test, means = make_pairs(n_images=60, noise=1.5)
    one, one_test = only(train, "final"), only(test, "final")
    np.testing.assert_allclose(
        BandedRidge().fit(one).predict(one_test.tokens), Ridge().fit(one).predict(one_test.tokens), atol=1e-3
    )
    banded = BandedRidge().fit(train)
    assert np.all(banded.deltas[0] > banded.deltas[1])  # the layer that decides weighs more in every voxel
    better = voxel_r(banded.predict(test.tokens), means[60:]).mean()
    assert better > voxel_r(Ridge().fit(train).predict(test.tokens), means[60:]).mean()


def test_tokens_of_another_encoder_are_refused(make_pairs) -> None:
    train, test, _ = make_pairs()
    model = Ridge().fit(train)
    other = type(test.tokens)("toy", "other digest", test.tokens.layers, test.tokens.rows)
    with pytest.raises(SynBrainError, match="own encoder"):
        model.predict(other)


def test_cross_fitting_solves_what_himalaya_solves() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.standard_normal((30, 8)), rng.standard_normal((30, 5)).astype(np.float32)
    gram, alphas = features @ features.T, np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    found = cross_fit(gram, targets, alphas, folds(np.arange(30), 3, 1))
    for train, held in folds(np.arange(30), 3, 1).split(gram):
        offset = targets[train].mean(axis=0, dtype=np.float64)
        weights = solve_kernel_ridge_eigenvalues(gram[np.ix_(train, train)], targets[train] - offset, alphas)
        expected = gram[np.ix_(held, train)] @ weights + offset
        np.testing.assert_allclose(found[held], expected, rtol=1e-4, atol=1e-5)
