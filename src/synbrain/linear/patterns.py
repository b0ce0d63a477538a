"""Share among voxels: predictions in patterns that the images explain, each with a gain of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import eigh
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from synbrain.arrays import Float64
from synbrain.linear.meter import Meter
from synbrain.linear.ridge import FoldLayout

LARGEST_GAIN = 1.5
DENSE_VOXELS = 2500  # up to here the covariance of all voxels is written out
OVERSAMPLES, POWER_STEPS = 16, 4
REST_STEPS = 0  # what is left over needs no exact axes: one gain is for all of them
REST_LOST = 0.01  # of the variance of predictions that may be left out of the stored map


@dataclass(frozen=True)
class Patterns:
    """Orthonormal patterns and the means that scores on them are taken around.

    Attributes:
        patterns: (n_voxels, r) float32; those with a gain each first, then those with one in common.
        predicted_mean, response_mean: (n_voxels,) float32.
        n_single: how many have a gain each.
    """

    patterns: Tensor
    predicted_mean: Tensor
    response_mean: Tensor
    n_single: int

    def first(self, k: int) -> Patterns:
        """The first ``k`` patterns alone."""
        return replace(self, patterns=self.patterns[:, :k], n_single=min(k, self.n_single))


@dataclass(frozen=True)
class SharedMap:
    """``shared = response_mean + (predicted - predicted_mean) @ patterns @ diag(gains) @ patterns.T``.

    Attributes:
        basis: patterns and means.
        gains: (r,) float32, falling; of all patterns in ``basis``.
    """

    basis: Patterns
    gains: Tensor

    @classmethod
    def of(cls, basis: Patterns, gains: Float64) -> SharedMap:
        """With the patterns that have a gain, one at least."""
        kept = max(1, int(np.count_nonzero(gains[: basis.patterns.shape[1]])))
        used = torch.from_numpy(gains[:kept].astype(np.float32)).to(basis.patterns.device)
        return cls(basis.first(kept), used)

    @property
    def reduce(self) -> Tensor:
        """(n_voxels, r) float32."""
        return self.basis.patterns

    @property
    def expand(self) -> Tensor:
        """(r, n_voxels) float32, gains included."""
        return self.gains[:, None] * self.basis.patterns.T

    def apply(self, predicted: Tensor) -> Tensor:
        """(n_voxels, n) predictions, shared."""
        means = self.basis.predicted_mean @ self.reduce
        scores = self.reduce.T @ predicted - means[:, None]
        return torch.addmm(self.basis.response_mean[:, None], self.expand.T, scores)


def fold_patterns(
    unseen: Tensor, outer: Tensor, y: Tensor, layout: FoldLayout, rank: int, rest: int, meter: Meter
) -> list[Patterns]:
    """Patterns of the predictions without each outer fold, and last those of all images.

    Of many voxels the patterns hold only a part of what is predicted; what they leave over follows in
    further directions, the principal axes of predictions.

    Args:
        unseen: (n_voxels, n_places) predictions out of fold.
        outer: (n_outer, n_voxels, n_places), of :class:`synbrain.linear.voxels.VoxelFit`.
        y: (n_voxels, n_places) repeat means, in units in which voxels may be compared.
        layout: of the images.
        rank: patterns at most.
        rest: directions of what they leave over at most.
        meter: counts.
    """
    rank = min(rank, max(1, len(layout.place) - 1))  # centred images span no more
    rest = max(0, min(rest, len(y) - rank, len(layout.place) - layout.size - 1))  # without a fold
    bases: list[Patterns] = []
    for f in range(len(outer) + 1):
        weights = layout.weights.clone()
        if f < len(outer):
            weights[f * layout.size : (f + 1) * layout.size] = 0
        weights /= weights.sum()
        predicted = outer[f].float() if f < len(outer) else unseen
        means = predicted @ weights, y @ weights
        patterns = explained_patterns(predicted, y, weights, rank, meter)
        if rest:
            further = left_over(predicted, means[0], weights, patterns, rest, meter)
            patterns = torch.cat([patterns, further], dim=1)
        bases.append(Patterns(patterns, *means, min(rank, len(y))))
        del predicted  # before the next fold's is widened
    return bases


def share_voxels(
    unseen: Tensor, y: Tensor, bases: list[Patterns], layout: FoldLayout
) -> tuple[SharedMap, Tensor, Tensor]:
    """The map for all images, and out-of-fold predictions shared by maps that did not see their fold.

    The gain of a pattern (:func:`explained_patterns`) is the slope of the measured on the predicted score:
    near 1 where a pattern is predicted as well as it seems, 0 where it is noise of single voxels, above 1
    where ridge shrank too much. Gains fall from pattern to pattern (isotonic regression), within [0, 1.5].
    Directions beyond the patterns have one gain in common, the last and smallest, and as many are kept as
    lose next to nothing of what is predicted (:data:`REST_LOST`).
    It is the curds and whey of Breiman and Friedman (1997) with these patterns for canonical coordinates.

    A slope may not be measured on images whose noise is in its pattern. Out-of-fold predictions do not
    suffice for that: those of one fold were fitted on the responses of the others, so their patterns hold
    that noise, and with many voxels every noise pattern gets a slope of 1 or more. So each fold is scored on
    patterns of predictions in which it had no part at all (:func:`fold_patterns`).

    Args:
        unseen, y: (n_voxels, n_places).
        bases: of :func:`fold_patterns`.
        layout: of the images.

    Returns:
        The map; (n_voxels, n_places) float32 out-of-fold predictions by such maps, and by maps whose gains
        are 1, which leave every voxel as it is but for what the patterns do not hold.
    """
    n_outer, n_single = len(bases) - 1, bases[-1].n_single
    slopes, whole = Slopes.none(n_outer, bases[-1].patterns.shape[1]), 0.0
    for f, basis in enumerate(bases[:-1]):
        fold = slice(f * layout.size, (f + 1) * layout.size)
        ahead = unseen[:, fold] - basis.predicted_mean[:, None]
        measured = basis.patterns.T @ (y[:, fold] - basis.response_mean[:, None])
        slopes.measure(f, basis.patterns.T @ ahead, measured, layout.weights[fold])
        whole += float((ahead.square() @ layout.weights[fold]).sum(dtype=torch.float64))
    lost = whole - slopes.powers.sum(axis=0).cumsum()[n_single - 1 :]
    enough = np.flatnonzero(lost <= REST_LOST * whole)
    n_kept = n_single + int(enough[0] if len(enough) else len(lost) - 1)
    bases = [basis.first(n_kept) for basis in bases]
    slopes = slopes.pooled(n_single, n_kept)

    def mapped(basis: Patterns, gains: Float64) -> SharedMap:
        each = np.append(gains[:n_single], np.repeat(gains[n_single:], n_kept - n_single))
        return SharedMap(basis, torch.from_numpy(each.astype(np.float32)).to(basis.patterns.device))

    total = mapped(bases[-1], slopes.gains())
    shared, as_it_is = torch.empty_like(unseen), torch.empty_like(unseen)
    for f in range(layout.n_folds):
        fold = slice(f * layout.size, (f + 1) * layout.size)
        # where memory did not allow the fold's own patterns (many images), those of all images serve
        of_fold = mapped(bases[f], slopes.gains(without=f)) if f < n_outer else total
        shared[:, fold] = of_fold.apply(unseen[:, fold])
        as_it_is[:, fold] = replace(of_fold, gains=torch.ones_like(of_fold.gains)).apply(unseen[:, fold])
    return total, shared, as_it_is


@dataclass(frozen=True)
class Slopes:
    """What gains are made of: products of predicted and measured scores, and powers of predicted ones.

    Attributes:
        products, powers: (n_outer, n_gains) float64, one row for each fold that was scored.
    """

    products: Float64
    powers: Float64

    @classmethod
    def none(cls, n_outer: int, n_gains: int) -> Slopes:
        """Room for ``n_outer`` folds."""
        return cls(np.zeros((n_outer, n_gains)), np.zeros((n_outer, n_gains)))

    def measure(self, fold: int, predicted: Tensor, measured: Tensor, weights: Tensor) -> None:
        """Enter the scores (n_gains, n) of a fold's images."""
        ahead, weight = predicted.double(), weights.double()
        self.products[fold] = ((ahead * measured.double()) @ weight).cpu().numpy()
        self.powers[fold] = (ahead.square() @ weight).cpu().numpy()

    def pooled(self, start: int, stop: int) -> Slopes:
        """Those before ``stop``, with one gain for all from ``start`` on."""
        if stop <= start:
            return Slopes(self.products[:, :start], self.powers[:, :start])
        products, powers = (
            np.column_stack([of[:, :start], of[:, start:stop].sum(axis=1)])
            for of in (self.products, self.powers)
        )
        return Slopes(products, powers)

    def gains(self, without: int | None = None) -> Float64:
        """(n_gains,) :func:`falling_gains` from all folds, or all but one."""
        kept = np.arange(len(self.products)) != (-1 if without is None else without)
        return falling_gains(self.products[kept].sum(axis=0), self.powers[kept].sum(axis=0))


def explained_patterns(
    predictions: Tensor, responses: Tensor, weights: Tensor, rank: int, meter: Meter
) -> Tensor:
    """(n_voxels, r) float32 orthonormal patterns in which predictions and responses vary together most.

    Principal axes of their symmetrised cross-covariance over images. As predictions do not know the noise
    of the responses that they are held against, its expectation holds none, where the covariance of either
    holds its own.

    Args:
        predictions: (n_voxels, n) float32, none fitted on its own image.
        responses: (n_voxels, n) float32, repeat means.
        weights: (n,) float32, sum 1.
        rank: patterns at most; not more than there are voxels.
        meter: counts.
    """
    n_voxels, n = responses.shape
    rank = min(rank, n_voxels)
    means = (responses @ weights)[:, None], (predictions @ weights)[:, None]
    if n_voxels <= max(DENSE_VOXELS, 2 * rank):
        meter.product(n_voxels, n, n_voxels)
        cross = (responses - means[0]) @ ((predictions - means[1]) * weights).T
        whole = cross.double().cpu().numpy()
        patterns = eigh((whole + whole.T) / 2, subset_by_index=(n_voxels - rank, n_voxels - 1))[1]
        return torch.from_numpy(patterns[:, ::-1].astype(np.float32)).to(responses.device)

    def times(x: Tensor) -> Tensor:
        """``(A diag(w) B' + B diag(w) A') x / 2`` for A and B around their means."""
        meter.product(2 * n_voxels, 2 * n, x.shape[1])
        of_predictions = predictions.T @ x - means[1].T @ x
        of_responses = responses.T @ x - means[0].T @ x
        total = responses @ (of_predictions.mul_(weights[:, None]))
        total -= means[0] * of_predictions.sum(dim=0)
        total += predictions @ (of_responses.mul_(weights[:, None]))
        return total.sub_(means[1] * of_responses.sum(dim=0)).div_(2)

    return _leading(times, n_voxels, rank, POWER_STEPS, responses.device)


def left_over(
    predictions: Tensor, mean: Tensor, weights: Tensor, patterns: Tensor, most: int, meter: Meter
) -> Tensor:
    """(n_voxels, most) float32 principal axes of what ``patterns`` leave over of the predictions.

    Args:
        predictions: (n_voxels, n) float32.
        mean: (n_voxels,) of the predictions.
        weights: (n,) float32, sum 1.
        patterns: (n_voxels, r) orthonormal.
        most: axes that are returned, not more than there are voxels beyond the patterns.
        meter: counts.
    """
    n_voxels, n = predictions.shape

    def outside(x: Tensor) -> Tensor:
        meter.product(2 * n_voxels, patterns.shape[1], x.shape[1])
        return torch.addmm(x, patterns, patterns.T @ x, alpha=-1)

    def times(x: Tensor) -> Tensor:
        """``(I - P P') A diag(w) A' (I - P P') x`` for A around its mean."""
        meter.product(2 * n_voxels, n, x.shape[1])
        x = outside(x)
        on_images = (predictions.T @ x - mean @ x).mul_(weights[:, None])
        seen = torch.addmm(predictions @ on_images, mean[:, None], on_images.sum(dim=0)[None], alpha=-1)
        return outside(seen)

    axes = outside(_leading(times, n_voxels, most, REST_STEPS, predictions.device))
    # where little is left over, axes are rounding errors, which need not be orthogonal to the patterns
    orthonormal: Tensor = torch.linalg.qr(axes)[0]
    return orthonormal


def _leading(
    times: Callable[[Tensor], Tensor], n_voxels: int, rank: int, steps: int, device: torch.device
) -> Tensor:
    """Leading eigenvectors (n_voxels, rank) float32 of the symmetric matrix that ``times`` applies.

    Subspace iteration: exact where eigenvalues fall, and in matrix products alone (Halko et al. 2011).
    """
    width = min(n_voxels, rank + OVERSAMPLES)
    start = np.random.default_rng(0).normal(size=(n_voxels, width)).astype(np.float32)
    basis = torch.from_numpy(start).to(device)
    for _ in range(steps + 1):
        basis = torch.linalg.qr(times(basis))[0]
    inner = (basis.T @ times(basis)).double()
    turn: Tensor = torch.linalg.eigh((inner + inner.T) / 2)[1].flip(1)[:, :rank]
    return basis @ turn.float()


def falling_gains(products: Float64, powers: Float64) -> Float64:
    """Falling slopes ``products / powers`` of patterns, in [0, 1.5].

    A pattern without power, such as that of a voxel that never varies, has the gain of the next one that has
    some, and 0 after the last.
    """
    known = np.flatnonzero(powers > 0)
    if not len(known):
        return np.zeros_like(powers)
    falling = IsotonicRegression(increasing=False, y_min=0, y_max=LARGEST_GAIN)
    slopes = products[known] / powers[known]
    gains = falling.fit_transform(np.arange(len(known)), slopes, sample_weight=powers[known])
    return np.asarray(np.append(gains, 0)[np.searchsorted(known, np.arange(len(powers)))])
