"""Scores of synthetic trials and of predictive draws, against the held-out repeats.

CRPS, energy score and coverage judge what is said of a trial before it is measured: they take predictive
draws, which hold trial noise and the error of the mean. Variance ratio and noise covariance ask whether
trials of one image vary as in a scanner: they take trials.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from synbrain.arrays import Rows
from synbrain.evaluation.measured import Measured
from synbrain.evaluation.row import Row, TrialSummary
from synbrain.metrics.device import Device
from synbrain.metrics.distribution import (
    covariance_r,
    crps_and_covered,
    energy_score,
    min_samples,
    noise_products,
    variance_ratio,
)
from synbrain.metrics.intervals import mean_replicates
from synbrain.progress import bar

# (rows of the test images, number of samples, seed) -> (n_samples, n, n_voxels)
Draw = Callable[[Rows, int, int], NDArray[Any]]
LEVELS = {"coverage_50": 0.5, "coverage_90": 0.9}
CURVE = (0.1, 0.25, 0.75)  # further levels of the reliability curve in pictures
METRICS = ("crps", "energy_score", "variance_ratio", *LEVELS, "noise_covariance_r")
NO_REPEATS = "too few test images were shown again, so their variability is unknown"


def score_trials(
    draw: Draw,
    measured: Measured,
    n_samples: int,
    seed: int,
    *,
    predictive: Draw | None = None,
    summary: bool = False,
    show_progress: bool = False,
) -> Row:
    """Scores of synthetic trials and predictive draws; samples of a few images at a time are in memory.

    Every block of images has a seed of its own made from ``seed``, so that blocks are independent.

    Args:
        draw: gives synthetic trials of some test images.
        measured: what they are scored against.
        n_samples: trials, and predictive draws, per image.
        seed: of both.
        predictive: gives predictive draws of some test images; None: trials are taken for them, as of a model
            that does not part the two.
        summary: also sum what pictures of the distribution need.
        show_progress: a bar over test images.
    """
    if not measured.has_repeats:
        return Row(values=dict.fromkeys(METRICS), notes=dict.fromkeys(METRICS, NO_REPEATS))
    n, n_voxels, alive = measured.test.n_images, measured.test.n_voxels, measured.sd > 0
    shown = [*LEVELS.values(), *(CURVE if summary else ())]
    levels = sorted(level for level in shown if n_samples >= min_samples(level))
    chosen = measured.covariance_voxels
    sums = _Sums.zero(n, int(alive.sum()), len(chosen), levels)
    progress = bar("score trials", total=n, unit="image", show=show_progress)
    for part in _in_turn(_blocks(draw, predictive, measured, n_samples, seed), levels):
        sums.add(part)
        progress.update(len(part.images))
    progress.close()
    row = _summarised(measured, sums, n_samples)
    if not summary:
        return row
    inside = np.full((len(levels), n_voxels), np.nan)
    inside[:, alive] = [sums.inside[level] / measured.test.n_trials for level in levels]
    both = (products / sums.freedom for products in (sums.measured_products, sums.synthetic_products))
    return row | Row(trials=TrialSummary(np.array(levels), inside, chosen, *both))


@dataclass(frozen=True)
class _Block:
    """Some test images: ``drawn`` trials, ``predictive`` draws (both standardised) and measured trials.

    Attributes:
        images: rows of the test images.
        drawn, predictive: (n_samples, n, n_alive).
        trials: (n_trials, n_alive).
        local: (n_trials,) row among ``images``.
        chosen: positions among the alive voxels whose noise covariance is summed.
        device: where draws are scored.
    """

    images: Rows
    drawn: NDArray[np.float32]
    predictive: NDArray[np.float32]
    trials: NDArray[np.float32]
    local: Rows
    chosen: Rows
    device: Device = "cpu"


def _blocks(
    draw: Draw, predictive: Draw | None, measured: Measured, n_samples: int, seed: int
) -> Iterator[_Block]:
    chosen = (np.cumsum(measured.sd > 0) - 1)[measured.covariance_voxels]
    for number, images, raw, local in measured.image_blocks(n_samples):
        own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        drawn = samples = measured.standardised(draw(images, n_samples, own_seed))
        if predictive is not None:
            samples = measured.standardised(predictive(images, n_samples, own_seed))
        trials = measured.standardised(raw)
        yield _Block(images, drawn, samples, trials, local, chosen, measured.device)


@dataclass
class _Sums:
    """Scores summed over trials: of each image, and of each voxel that is not constant.

    Attributes:
        images: rows of the test images that were added.
        of_image: name -> (n_images,).
        crps, synthetic, measured: (n_alive,); the last two are squares within images.
        inside: level -> (n_alive,) number of trials inside the central interval.
        synthetic_products, measured_products: (n, n) sums of outer products within images.
        freedom: degrees of freedom of the squares and products.
    """

    images: Rows
    of_image: dict[str, NDArray[Any]]
    crps: NDArray[Any]
    synthetic: NDArray[Any]
    measured: NDArray[Any]
    inside: dict[float, NDArray[Any]]
    synthetic_products: NDArray[Any]
    measured_products: NDArray[Any]
    freedom: int = 0

    @classmethod
    def zero(cls, n_images: int, n_alive: int, n_chosen: int, levels: Sequence[float]) -> _Sums:
        named = [name for name, level in LEVELS.items() if level in levels]
        of_image = {name: np.zeros(n_images) for name in ("crps", "energy_score", *named)}
        crps, synthetic, measured = (np.zeros(n_alive) for _ in range(3))
        inside = {level: np.zeros(n_alive) for level in levels}
        drawn, repeated = (np.zeros((n_chosen, n_chosen)) for _ in range(2))
        return cls(np.arange(n_images), of_image, crps, synthetic, measured, inside, drawn, repeated)

    def add(self, part: _Sums) -> None:
        """Add the sums of some images."""
        for name, values in part.of_image.items():
            self.of_image[name][part.images] += values
        for level, number in part.inside.items():
            self.inside[level] += number
        self.crps += part.crps
        self.synthetic += part.synthetic
        self.measured += part.measured
        self.synthetic_products += part.synthetic_products
        self.measured_products += part.measured_products
        self.freedom += part.freedom

    @classmethod
    def of(cls, block: _Block, levels: Sequence[float]) -> _Sums:
        """Score some images."""
        trials, local = block.trials, block.local
        sums = cls.zero(len(block.images), trials.shape[1], len(block.chosen), levels)
        sums.images = block.images
        scores, inside = crps_and_covered(block.predictive, trials, local, levels, block.device)
        sums.crps += scores.sum(axis=0)
        per_trial = {"crps": scores.mean(axis=1)}
        energy = energy_score(block.predictive, trials, local, block.device)
        per_trial["energy_score"] = energy / np.sqrt(trials.shape[1])
        for level, hit in inside.items():
            sums.inside[level] += hit.sum(axis=0)
        per_trial |= {name: inside[level].mean(axis=1) for name, level in LEVELS.items() if level in inside}
        for name, values in per_trial.items():
            np.add.at(sums.of_image[name], local, values)
        sums._spread(block)
        return sums

    def _spread(self, block: _Block) -> None:
        """Within-image squares and products; images weigh by their degrees of freedom."""
        for image in np.unique(block.local):
            repeats = np.asarray(block.trials[block.local == image], dtype=np.float64)
            weight = len(repeats) - 1
            if weight < 1:
                continue
            self.freedom += weight
            drawn = np.asarray(block.drawn[:, image], dtype=np.float64)
            one, many = np.zeros(len(repeats), dtype=np.int64), np.zeros(len(drawn), dtype=np.int64)
            self.measured += repeats.var(axis=0, ddof=1) * weight
            self.measured_products += noise_products(repeats[:, block.chosen], one)[0]
            if len(drawn) > 1:
                self.synthetic += drawn.var(axis=0, ddof=1) * weight
                products, n = noise_products(drawn[:, block.chosen], many)
                self.synthetic_products += products / n * weight


def _in_turn(blocks: Iterator[_Block], levels: Sequence[float]) -> Iterator[_Sums]:
    """Sums of each block, scored in as many threads as torch has while the next block is drawn.

    numpy's elementwise work runs in one thread; blocks come back in their order, so sums are the same
    however many threads there are.
    """
    workers = torch.get_num_threads()
    if workers == 1:
        yield from (_Sums.of(block, levels) for block in blocks)
        return
    waiting: deque[Future[_Sums]] = deque()
    # small products in each thread: threads of BLAS would wait for each other, busily
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for block in blocks:
            waiting.append(pool.submit(_Sums.of, block, levels))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _summarised(measured: Measured, sums: _Sums, n_samples: int) -> Row:
    row = Row()
    alive, counts = measured.sd > 0, measured.repeats.astype(float)

    def of_voxels(values: NDArray[Any]) -> NDArray[Any]:
        out = np.full(len(alive), np.nan)
        out[alive] = values
        return out

    for name, totals in sums.of_image.items():
        row.values[name] = float(totals.sum() / counts.sum())
        row.replicates[name] = mean_replicates(measured.weights, totals, counts)
    for name, level in LEVELS.items():
        if level in sums.inside:
            row.per_voxel[name] = of_voxels(sums.inside[level] / counts.sum())
        else:
            row.values[name] = None
            row.notes[name] = f"needs {min_samples(level)} samples, has {n_samples}"
    row.per_voxel["crps"] = of_voxels(sums.crps / counts.sum())
    ratio = variance_ratio(sums.synthetic / sums.freedom, sums.measured / sums.freedom)
    row.per_voxel["variance_ratio"] = of_voxels(ratio)
    fine = ratio[np.isfinite(ratio)]
    quartiles = np.quantile(fine, [0.25, 0.5, 0.75]) if len(fine) else [None] * 3
    for name, value in zip(("_q25", "", "_q75"), quartiles, strict=True):
        row.values[f"variance_ratio{name}"] = None if value is None else float(value)
    row.values["noise_covariance_r"] = covariance_r(sums.synthetic_products, sums.measured_products)
    return row
