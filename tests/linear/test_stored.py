"""What is stored predicts what its parts predict: every way to a path, few and many voxels and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synbrain.errors import SynBrainError
from synbrain.features.tokens import Pairs, TokenSet
from synbrain.linear import by_encoder, path, prior, storing
from synbrain.linear import fit as fit_module
from synbrain.linear.by_encoder import fit_each_encoder
from synbrain.linear.candidates import Problem
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import LinearFit, fit_linear_path, image_weights
from synbrain.linear.path import LinearPath, joined
from synbrain.linear.prior import BasePath, ResponseSpace, fit_with_prior, response_space
from synbrain.linear.storing import as_stored, column_sizes, require_kept
from synbrain.metrics.voxel import blocks

N_NEW = 12
CONFIG = LinearPathConfig(windows=1, side=2, alphas=(1.0, 30.0), n_folds=3, components=8, keep=3)
# few and many images and voxels on either side of the 256 columns that a map has at most
SIZES = [(40, 30), (40, 300), (290, 30), (290, 280)]


def recorded(n: int, n_voxels: int, seed: int = 0, rank: int = 12) -> tuple[Pairs, TokenSet]:
    """Two encoders' tokens far from zero; voxels in units from a hundredth to a hundred; two trials each."""
    rng, stimuli = np.random.default_rng([seed, n, n_voxels]), np.random.default_rng(n)
    shapes = {"one:grid": (9, 5), "two:final": (1, 30)}
    layers = {
        name: stimuli.normal(4, 1, (n + N_NEW, *shape)).astype(np.float16) for name, shape in shapes.items()
    }
    flat = np.concatenate([x.reshape(len(x), -1).astype(float) - 4 for x in layers.values()], axis=1)
    truth = flat @ rng.normal(size=(flat.shape[1], rank)) / 9 @ rng.normal(size=(rank, n_voxels)) / 3
    unit = np.logspace(-2, 2, n_voxels)[rng.permutation(n_voxels)]
    image = np.repeat(np.arange(n), 2)
    trials = (truth[image] + rng.normal(size=(2 * n, n_voxels)) + 5) * unit
    every = TokenSet("one+two", "digest", layers, np.arange(n + N_NEW))
    pairs = Pairs(every.take(np.arange(n)), trials.astype(np.float32), np.arange(2 * n), image)
    return pairs, every.take(np.arange(n, n + N_NEW))


def plain(map_: LinearPath, tokens: TokenSet) -> np.ndarray:
    """What a stored path predicts, in float64 and in one line."""
    flat = (
        tokens.read(name).reshape(len(tokens), -1).astype(float) @ map_.projections[name]
        for name in map_.layers
    )
    return sum(flat) @ map_.mixing.astype(float) + map_.intercept


def close(stored: np.ndarray, expected: np.ndarray, most: float) -> None:
    """Every voxel to within ``most`` of the sd of its own predictions, whatever its unit."""
    off = np.sqrt(np.mean((stored - expected) ** 2, axis=0)) / np.maximum(expected.std(axis=0), 1e-12)
    assert off.max() < most, np.quantile(off, [0.5, 0.9, 1])


@dataclass
class Parts:
    """What went into paths, kept on the way."""

    dual: list[Callable[[TokenSet], np.ndarray]] = field(default_factory=list)
    unfolded: list[LinearPath] = field(default_factory=list)
    sums: list[tuple[list[LinearPath], np.ndarray]] = field(default_factory=list)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    kept = Parts()
    to_path, fold, add = fit_module._path, prior._folded, joined

    def spied_path(tokens: TokenSet, fitted: Any, problem: Problem, scratch: Any) -> LinearPath:
        kept.dual.append(lambda new: from_duals(fitted, problem, new))
        return to_path(tokens, fitted, problem, scratch)

    def spied_fold(map_: LinearPath, space: ResponseSpace) -> LinearPath:
        kept.unfolded.append(map_)
        return fold(map_, space)

    def spied_sum(paths: list[LinearPath], shares: np.ndarray, *others: Any) -> LinearPath:
        kept.sums.append((paths, shares))
        return add(paths, shares, *others)

    monkeypatch.setattr(fit_module, "_path", spied_path)
    monkeypatch.setattr(prior, "_folded", spied_fold)
    for module in (prior, by_encoder):
        monkeypatch.setattr(module, "joined", spied_sum)
    return kept


def from_duals(fitted: Any, problem: Problem, new: TokenSet) -> np.ndarray:
    """Kernels of new images with the training images times dual weights, in float64; without an intercept."""
    total: np.ndarray | float = 0.0
    for k, weights in fitted.duals.items():
        kernel, dual = problem.kernels[k], weights[problem.layout.place].double().numpy()
        for grid in kernel.grids:
            x, fresh = grid.features[grid.rows].astype(float), new.read(grid.layer).astype(float)
            if grid.blur is not None:
                fresh = np.einsum("pt,itd->ipd", grid.blur, fresh)
            seen = kernel.window.weights(grid.n_positions) * kernel.factor * grid.scale**2
            total = total + np.einsum("p,ipd,jpd->ij", seen, fresh - x.mean(0), x - x.mean(0)) @ dual
    assert isinstance(total, np.ndarray)
    return total if fitted.mixing is None else total @ fitted.mixing.astype(float)


HOW: dict[str, dict[str, Any]] = {
    "shared": {},
    "shared, no components": {"components": 0},
    "patterns alone": {"rest": 0},
    "every voxel alone": {"share": False},
    "float32": {"dtype": "float32"},
    "rank 5": {"rank": 5},
    "rank 5 and 3 more directions": {"rank": 5, "rest": 3},
    "plain ridge": {"windows": 0, "blur": 0.0},
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("how", HOW)
def test_a_fitted_path_is_its_dual_weights(how: str, size: tuple[int, int], parts: Parts) -> None:
    pairs, new = recorded(*size)
    made = fit_linear_path(pairs, CONFIG.model_copy(update=HOW[how])).path
    weights = image_weights(pairs) / pairs.n_images
    level = weights @ (pairs.repeat_means() - parts.dual[-1](pairs.tokens))
    for tokens in (pairs.tokens, new):
        close(made.predict(tokens), parts.dual[-1](tokens) + level, 3e-3)
        close(made.predict(tokens), plain(made, tokens), 1e-3)


def base_of(*seeds: int) -> ResponseSpace:
    bases = []
    for seed in seeds:
        pairs, _ = recorded(90, 50, seed)
        paths = fit_each_encoder(pairs, CONFIG, alone).path
        bases.append(BasePath(paths, pairs.repeat_means().std(axis=0)))
    space = response_space(bases)
    assert space is not None
    return space


def alone(pairs: Pairs, config: LinearPathConfig, number: int) -> LinearFit:
    return fit_linear_path(pairs, config)


def through(space: ResponseSpace, unfolded: LinearPath, tokens: TokenSet) -> np.ndarray:
    """What a path that reads base responses predicts, by making them in float64."""
    features = []
    for base, root in zip(space.paths, space.roots, strict=True):
        bare = replace(base, mixing=np.eye(len(root), dtype=np.float32), intercept=np.zeros(len(root)))
        features.append(plain(bare, tokens) @ root)
    stored = np.zeros((len(next(iter(tokens.layers.values()))), 1, space.dim))
    stored[tokens.rows, 0] = np.concatenate(features, axis=1)
    return plain(unfolded, replace(tokens, layers={**tokens.layers, prior.LAYER: stored}))


@pytest.mark.parametrize(
    ("bases", "share", "size"),
    [
        *((bases, share, size) for bases in (0, 1) for share in (True, False) for size in SIZES[:3]),
        *((bases, True, SIZES[3]) for bases in (0, 1)),
        *((2, share, SIZES[1]) for share in (True, False)),
    ],
)
def test_a_sum_of_paths_is_what_its_parts_predict(
    bases: int, share: bool, size: tuple[int, int], parts: Parts
) -> None:
    """Of two encoders, and of the paths without, through and with the responses of base subjects."""
    config = CONFIG.model_copy(update={"share": share})
    pairs, new = recorded(*size, seed=9)
    if bases == 0:
        made = fit_each_encoder(pairs, config, alone).path
        paths, shares = parts.sums[-1]
        each = [lambda tokens, p=p: plain(p, tokens) for p in paths]
    else:
        space = base_of(*range(bases))
        parts.unfolded.clear()
        made = fit_with_prior(pairs, space, config).path
        _, shares = parts.sums[-1]
        each = [lambda tokens, p=p: through(space, p, tokens) for p in parts.unfolded]
        assert len(each) == 3
    for tokens in (pairs.tokens, new):
        expected = sum(share * predict(tokens) for share, predict in zip(shares, each, strict=True))
        close(made.predict(tokens), expected, 3e-2)  # a thousandth of the variance may be cut


def test_with_a_prior_for_each_of_two_encoders(parts: Parts) -> None:
    """`adapt --also`: sums of sums."""
    pairs, new = recorded(40, 300, seed=9)
    spaces = [response_space([BasePath(p, np.ones(50, np.float32))]) for p in one_path_an_encoder()]

    def fit(of: Pairs, config: LinearPathConfig, number: int) -> LinearFit:
        space = spaces[number]
        assert space is not None
        return fit_with_prior(of, space, config)

    parts.sums.clear()
    parts.unfolded.clear()
    made = fit_each_encoder(pairs, CONFIG, fit).path
    of_encoders = parts.sums[-1][1]
    for tokens in (pairs.tokens, new):
        expected = np.zeros((len(tokens), 300))
        for number, (_, shares) in enumerate(parts.sums[:2]):
            for share, unfolded in zip(shares, parts.unfolded[3 * number : 3 * number + 3], strict=True):
                space = spaces[number]
                assert space is not None
                expected += of_encoders[number] * share * through(space, unfolded, tokens)
        close(made.predict(tokens), expected, 3e-2)  # cut twice


def one_path_an_encoder() -> list[LinearPath]:
    pairs, _ = recorded(90, 50)
    fits = [
        fit_linear_path(replace(pairs, tokens=pairs.tokens.only(layer)), CONFIG)
        for layer in pairs.tokens.layers
    ]
    return [fit.path for fit in fits]


@pytest.mark.parametrize("ratio", [1e-7, 1e7])
def test_layers_of_very_different_size_are_both_kept(ratio: float, parts: Parts) -> None:
    """Weights over the largest of all layers: float16 rounded those of a layer of large tokens away."""
    pairs, new = recorded(60, 20)
    layers = {name: x.astype(np.float32) for name, x in pairs.tokens.layers.items()}
    layers["two:final"] *= np.float32(ratio)
    pairs = replace(pairs, tokens=replace(pairs.tokens, layers=layers))
    new = replace(new, layers=layers)
    made = fit_linear_path(pairs, CONFIG).path
    assert {str(of.dtype) for of in made.projections.values()} == {"float16", "float32"}
    level = (pairs.repeat_means() - parts.dual[-1](pairs.tokens)).mean(axis=0)
    close(made.predict(new), parts.dual[-1](new) + level, 3e-3)


def test_a_cut_sum_loses_no_voxel_for_its_unit() -> None:
    """Of more patterns than columns, those are cut that matter least for voxels over their sd."""
    rng = np.random.default_rng(0)
    tokens = TokenSet("e", "d", {"a": rng.normal(3, 1, (80, 60, 1))}, np.arange(80))
    unit = np.repeat([1e-3, 1e3], 20).astype(np.float32)
    paths = [
        LinearPath(
            {"a": rng.normal(size=(60, 24)).astype(np.float32)},
            (rng.normal(size=(24, 40)) * 0.7 ** np.arange(24)[:, None] * unit).astype(np.float32),
            unit,
            {"a": (60, 1)},
            {},
        )
        for _ in range(2)
    ]
    shares = np.full((2, 40), 0.5)
    made = joined(paths, shares, tokens, unit, 30, "float16")
    assert len(made.mixing) == 30
    close(made.predict(tokens), sum(plain(p, tokens) / 2 for p in paths), 0.05)


def test_a_sum_of_many_patterns_gets_the_columns_that_it_needs() -> None:
    """Two encoders may say different things of every voxel: half of it was cut, and nothing could see it."""
    rng = np.random.default_rng(0)
    tokens = TokenSet("e", "d", {"a": rng.normal(3, 1, (200, 80, 1))}, np.arange(200))
    unit = np.ones(300, dtype=np.float32)
    paths = [
        LinearPath(
            {"a": rng.normal(size=(80, 30)).astype(np.float32)},
            rng.normal(size=(30, 300)).astype(np.float32),
            1000 * unit,
            {"a": (80, 1)},
            {},
        )
        for _ in range(2)
    ]
    made = joined(paths, np.full((2, 300), 0.5), tokens, unit, 30, "float16")
    assert 30 < len(made.mixing) <= 60
    close(made.predict(tokens), sum(plain(p, tokens) / 2 for p in paths), 0.1)


@pytest.mark.parametrize("level", [1e4, 1e8])
def test_voxels_that_hardly_vary_around_a_large_mean_are_no_fault(level: float) -> None:
    """float32 rounds what such a voxel varies by, beside its mean; one of them would be above a per cent."""
    pairs, _ = recorded(40, 30)
    y = pairs.responses / pairs.responses.std(axis=0)
    y[:, :5] = y[:, :5] * 1e-3 + level
    fit_each_encoder(replace(pairs, responses=y), CONFIG, alone)


@pytest.mark.parametrize(("times", "dtype"), [(1.0, "float16"), (3e-4, "float16"), (1e-6, "float32")])
def test_a_layer_is_gone_over_once_whatever_it_is_stored_in(
    times: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another layer's weights are a million times larger, float16 has next to no digits left."""
    weights = times * torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0))
    passes = []

    def counted(*shape: int) -> Iterator[slice]:
        passes.append(shape)
        return blocks(*shape)

    monkeypatch.setattr(storing, "blocks", counted)
    size = torch.full((3,), 5.0)
    kept = as_stored(weights, size, "float16")
    assert kept.dtype == dtype
    assert len(passes) == 1
    close(kept.astype(np.float32), (weights / size).numpy(), 1e-3)
    assert as_stored(weights, size, "float32").dtype == np.float32


# --- the check that every fit makes -------------------------------------------------------------------------


def test_a_map_that_lost_voxels_on_its_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, _ = recorded(40, 300)
    every_voxel = CONFIG.model_copy(update={"share": False})

    def lossy(weights: torch.Tensor, size: torch.Tensor, dtype: str, *where: Any) -> np.ndarray:
        kept = as_stored(weights, size, dtype, *where)
        kept[:, 256:] = 0
        return kept

    monkeypatch.setattr(fit_module, "as_stored", lossy)
    with pytest.raises(SynBrainError, match=r"not predict what was fitted for \d+ of 300 voxels"):
        fit_linear_path(pairs, every_voxel)
    monkeypatch.undo()
    monkeypatch.setattr(path, "as_stored", lossy)
    with pytest.raises(SynBrainError, match="not predict what was fitted"):
        fit_each_encoder(pairs, every_voxel, alone)


def test_a_sum_that_is_cut_to_too_few_columns_is_refused() -> None:
    """The fault of an earlier version: of columns that stand for voxels all but the largest were dropped."""
    pairs, _ = recorded(40, 30, rank=30)
    fits = [
        fit_linear_path(replace(pairs, tokens=part), CONFIG.model_copy(update={"rank": 28}))
        for part in (pairs.tokens.only("one:grid"), pairs.tokens.only("two:final"))
    ]
    cut = [replace(f.path, projections={k: p[:, :3] for k, p in f.path.projections.items()},
                   mixing=f.path.mixing[:3]) for f in fits]  # fmt: skip
    whole = [fit.path.predict(pairs.tokens) for fit in fits]
    require_kept(whole[0], whole[0] + 3, np.ones(30, np.float32))
    with pytest.raises(SynBrainError, match="of 30 voxels"):
        require_kept(cut[0].predict(pairs.tokens), whole[0], pairs.repeat_means().std(axis=0))


def test_a_folding_that_forgets_the_base_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, _ = recorded(40, 30, seed=9)
    space = base_of(0)
    nothing = {"one:grid": np.float32(0), "two:final": np.float32(0)}
    with_base = ResponseSpace.weights
    monkeypatch.setattr(
        ResponseSpace, "weights", lambda *given: {k: of * nothing[k] for k, of in with_base(*given).items()}
    )
    with pytest.raises(SynBrainError, match="not predict what was fitted"):
        fit_with_prior(pairs, space, CONFIG)


def test_what_is_not_finite_is_refused_and_what_is_nothing_is_not() -> None:
    nothing, one = np.zeros((9, 4), np.float32), np.ones(4, np.float32)
    require_kept(nothing, nothing, one)
    with pytest.raises(SynBrainError, match="4 of 4"):
        require_kept(np.full((9, 4), np.nan), np.random.default_rng(0).normal(size=(9, 4)), one)
    with pytest.raises(SynBrainError, match="4 of 4"):
        require_kept(nothing, np.full((9, 4), np.nan), one)
    with pytest.raises(SynBrainError, match="4 of 4"):
        require_kept(np.full((9, 4), np.nan), nothing, one)


def test_weights_are_brought_to_one_and_zeros_stay() -> None:
    weights = {"a": torch.tensor([[2.0, 0.0], [-8.0, 0.0]]), "b": torch.tensor([[4.0, 0.0]])}
    size = column_sizes(weights)
    assert size.tolist() == [8.0, 1.0]
    assert as_stored(weights["a"], size, "float16").tolist() == [[0.25, 0.0], [-1.0, 0.0]]


def test_a_path_from_disk_predicts_the_same(tmp_path: Path) -> None:
    pairs, new = recorded(60, 20)
    layers = {name: x.astype(np.float32) for name, x in pairs.tokens.layers.items()}
    layers["two:final"] *= np.float32(1e7)  # one layer in float32, the other in float16
    made = fit_linear_path(replace(pairs, tokens=replace(pairs.tokens, layers=layers)), CONFIG).path
    made.save(tmp_path)
    again = LinearPath.load(tmp_path)
    np.testing.assert_array_equal(
        again.predict(replace(new, layers=layers)), made.predict(replace(new, layers=layers))
    )
    assert again.projections["two:final"].dtype == np.float32
