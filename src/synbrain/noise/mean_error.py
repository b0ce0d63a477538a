"""How large errors of the mean are: by voxel, and by an image's distance from the training images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from synbrain.arrays import Float64
from synbrain.features.tokens import TokenSet
from synbrain.noise.image_distance import ImageDistance, left_out_distances, pooled
from synbrain.noise.parts import growth as growth_of
from synbrain.noise.residuals import Residuals
from synbrain.noise.variance import VarianceFit

PENALTIES = (0.01, 0.1, 1.0)
LEAST_IMAGES = 20  # from which a growth with distance is fitted
STEEPEST = 1.5
PRIOR_SD = 0.5  # of the growth around what base subjects have


@dataclass(frozen=True)
class Errors:
    """Squared errors of the mean, trial noise taken out.

    Attributes:
        variance: (n_voxels,), in unit^2, at an average distance.
        of_image: (n_images,), mean over voxels, each over its residual variance.
        shown: (n_images,) bool, images that have trials.
    """

    variance: Float64
    of_image: Float64
    shown: np.ndarray


def error_sizes(residuals: Residuals, variance: VarianceFit) -> Errors:
    """``mean over images of (ybar - m)^2 - var_trial(m) / repeats``, drawn together over voxels.

    As a fraction of the variance of single trials around the mean, voxels are drawn to their common value by
    standard errors (empirical Bayes), and are 0 at least. All have the same one, the mean: from few images a
    voxel whose errors happen to be small would get a small one as well, and weigh too much.
    """
    repeats, shown = residuals.repeats[:, None], residuals.shown
    of_image = np.zeros(len(shown))
    rows: list[tuple[Float64, ...]] = []
    for block in residuals.blocks():
        total = np.maximum(np.mean(block.around**2, axis=0), 1e-24)
        excess = (block.error**2 - variance.of(block.mean, block.voxels) / repeats) / total
        of_image += excess.sum(axis=1)
        seen = excess[shown]
        rows.append((total, seen.mean(axis=0), seen.var(axis=0) / len(seen)))
    total, fraction, uncertain = (np.concatenate(part) for part in zip(*rows, strict=True))
    alive = total > 1e-20
    common, usual = (float(of[alive].mean()) if alive.any() else 0.0 for of in (fraction, uncertain))
    between = max(float(np.mean((fraction[alive] - common) ** 2)) - usual, 0.0) if alive.any() else 0.0
    drawn = common + (fraction - common) * between / max(between + usual, 1e-12)
    return Errors(np.where(alive, np.maximum(drawn, 0) * total, 0), of_image / len(total), shown)


@dataclass(frozen=True)
class Distances:
    """Distances of the images at hand, by penalty, and the distance of any other image.

    Attributes:
        distance: for new images.
        values: (n_images,) v of the images at hand, left out of its fit; mean 1.
        others: the same at other penalties.
    """

    distance: ImageDistance
    values: Float64
    others: tuple[Distances, ...] = ()


def distances_of(tokens: TokenSet, known: ImageDistance | None, *, seed: int) -> Distances | None:
    """Of training images, each from the others; or from images that a known distance was fitted on."""
    if known is not None:
        values = known.of(tokens)
        return Distances(known.in_units_of(values), values / max(float(values.mean()), 1e-12))
    if len(tokens) < LEAST_IMAGES:
        return None
    layers = tuple(tokens.layers)
    dims = [tokens.shapes[layer][1] for layer in layers]
    features = pooled(tokens, layers)
    made = []
    for penalty in PENALTIES:
        values = left_out_distances(features, layers, dims, penalty, tokens.families, seed=seed)
        distance = ImageDistance.fit(features, layers, dims, penalty).in_units_of(values)
        made.append(Distances(distance, values / max(float(values.mean()), 1e-12)))
    return replace(made[0], others=tuple(made[1:]))


@dataclass(frozen=True)
class Growth:
    """Growth of the mean's variance with distance: its slope, and (n_images,) its values, about 1."""

    slope: float
    values: Float64
    distances: Distances | None

    def at(self, slope: float) -> Growth:
        """Another slope over the same distances; nothing where none are known."""
        if self.distances is None:
            return self
        return Growth(slope, growth_of(self.distances.values, slope), self.distances)


def fit_growth(errors: Errors, distances: Distances | None, prior: float | None) -> Growth:
    """Least squares of the images' squared errors on distance, ``e = c (1 + slope (v - 1))``.

    The slope is drawn to the prior (0 without one) by its standard error, and lies between 0 and STEEPEST. Of
    several penalties the one that fits best is taken.
    """
    n = len(errors.of_image)
    if distances is None:
        return Growth(0.0, np.ones(n), None)
    e = errors.of_image[errors.shown]
    level = float(e.mean())
    if level <= 0 or (len(e) < LEAST_IMAGES and prior is None):
        return Growth(0.0, np.ones(n), None)
    best: tuple[float, float, float, Distances] | None = None
    for one in (distances, *distances.others):
        x = one.values[errors.shown] - 1
        x = x - x.mean()
        spread = float(np.sum(x**2))
        if spread < 1e-9:
            continue
        raw = float(np.sum(x * e)) / spread / level
        left = e / level - 1 - raw * x
        uncertain = float(np.sum((x * left) ** 2)) / spread**2
        gain = raw * abs(raw) * spread  # variance explained, with the slope's sign
        if best is None or gain > best[0]:
            best = (gain, raw, uncertain, one)
    if best is None:
        return Growth(0.0, np.ones(n), None)
    _, raw, uncertain, chosen = best
    target, width = (0.0, 1.0) if prior is None else (prior, PRIOR_SD**2)
    slope = float(np.clip(target + (raw - target) * width / (width + uncertain), 0, STEEPEST))
    chosen = replace(chosen, others=())
    return Growth(slope, growth_of(chosen.values, slope), chosen)
