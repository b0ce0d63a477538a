"""What fitting a linear path takes, before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synbrain.linear.candidates import BLOCK_BYTES, candidate_windows
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.kernels import CHUNK_BYTES, TILE, blur_matrix
from synbrain.linear.patterns import DENSE_VOXELS, OVERSAMPLES, POWER_STEPS, REST_STEPS
from synbrain.linear.scratch import MEMORY_BYTES
from synbrain.linear.voxels import SINGLE_BYTES

# What the data decide, as measured: the share of penalties that voxels come near to choosing, and how many
# candidates a voxel uses over all folds, in units of ``keep`` (benchmarks/nsd_size.py).
TRIED, USED = 0.9, 1.3
# Of the rate of large float32 products: what fits of so many images reach on CPUs, factorisations and copies
# included (docs/research/performance.md); between them along the logarithm, beyond them as at the nearer one.
ATTAINED = {1500: 0.5, 9000: 0.6}
# Seconds beside arithmetic: for a token value that is read, widened and centred in all passes,
# and for a weight on the tokens that is summed, brought to size and stored. Fits of 200 and 400 images.
A_TOKEN, A_WEIGHT = 10e-9, 45e-9
PROGRAM_BYTES = 400 << 20  # what the imported libraries take


@dataclass(frozen=True)
class LinearPathCost:
    """Cost of one linear path.

    Attributes:
        gflop: step -> GFLOP; "kernels", "choice", "voxels", "patterns", "duals" and "projection".
        memory: bytes of own memory at most, data and mapped files not counted.
        scratch: bytes of mapped files.
        moved: seconds for what is read and written rather than computed.
        attained: share of a CPU's rate of large float32 products that is reached.
    """

    gflop: Mapping[str, float]
    memory: int
    scratch: int
    moved: float = 0.0
    attained: float = ATTAINED[1500]

    @property
    def total(self) -> float:
        """GFLOP in all."""
        return sum(self.gflop.values())

    def seconds(self, gflop_per_second: float) -> float:
        """Time at a measured rate of large float32 products, and for moving values."""
        return self.moved + self.total / (self.attained * gflop_per_second)


def in_turn(costs: Sequence[LinearPathCost]) -> LinearPathCost:
    """Of several paths that are fitted one after another, as those on tokens of several encoders are."""
    gflop = {step: sum(cost.gflop[step] for cost in costs) for step in costs[0].gflop}
    memory, scratch = (max(of) for of in zip(*((cost.memory, cost.scratch) for cost in costs), strict=True))
    return LinearPathCost(gflop, memory, scratch, sum(cost.moved for cost in costs), costs[0].attained)


def linear_path_cost(
    n_images: int, n_voxels: int, shapes: Mapping[str, tuple[int, int]], config: LinearPathConfig
) -> LinearPathCost:
    """Arithmetic and memory of :func:`synbrain.linear.fit.fit_linear_path`.

    With n images, V voxels, F folds of m = n / F images: n^2 times the tokens' values for the kernels, n^3
    (and m^3 F^2) for each factorisation, n^2 V for each candidate of a voxel, n V r for patterns.

    Args:
        n_images: distinct training images.
        n_voxels: of a response.
        shapes: layer -> (n_tokens, dim).
        config: of the linear path.
    """
    n, v, n_folds = n_images, n_voxels, min(config.n_folds, n_images)
    windows = candidate_windows(n, config)
    n_kernels, n_alphas = 1 + len(windows), len(config.alphas)
    shared = config.share and n_folds >= 3
    rank = min(config.rank, v, n - 1) if shared else v
    size = -(-n // n_folds)
    rest = max(0, min(config.rest, v - rank, n - size - 1)) if shared else 0
    k = min(config.components, v) if shared else 0
    # penalties that are tried with every kernel but the first
    tried = max(1.0, TRIED * n_alphas)
    candidates = n_alphas + (n_kernels - 1) * tried
    used = USED * min(config.keep, candidates)  # by a voxel, over all folds

    halved = 0.5 * (1 + min(TILE, n) / n)  # of a symmetric product
    tokens = sum(n_tokens * dim for n_tokens, dim in shapes.values())
    blurred = sum(_positions(n_tokens, config) * dim for n_tokens, dim in shapes.values()) if windows else 0
    kernels = 2 * n**2 * halved * (tokens + blurred)

    s = min(n, config.select_images)
    one = s**3 + 2 * s**2 * v * (1 + 1 / n_folds)
    choice = candidates * (one + (one if k else 0) * (n_folds + 1) * k / v)

    pairs = n_folds * 5 * n_folds * size**3 if shared else 0
    of_voxel = 2 * n**2 * (1 + 1 / n_folds) + (4 * n**2 if shared else 0)
    # a candidate that no voxel uses is not solved on all images; voxels agree on many, hence the third
    solved = candidates * (1 - (1 - min(1.0, used / candidates / 3)) ** (v + (n_folds + 1) * k))
    voxels = solved * (n**3 + pairs) + used * v * of_voxel

    patterns = _pattern_flop(n, v, n_folds, rank, rest) if shared else 0.0
    kept = rank + rest
    of_all = used / USED * v  # candidates of voxels, from all folds
    columns = min(solved * kept, of_all) + used * (n_folds + 1) * k
    duals = solved * n**3 / 3 + 2 * n**2 * columns + 2 * n * of_all * kept
    stored = min(kept + k, v)
    gflop = {"kernels": kernels, "choice": choice, "voxels": voxels, "patterns": patterns, "duals": duals}
    gflop["projection"] = 2.0 * n * (tokens + blurred) * stored
    outer = 2 * n_folds * n * v * (2 if 4 * n_folds * n * v <= SINGLE_BYTES else 1) if shared else 0
    inverting = (4 + n_folds * n_folds * size**2 / n**2) * 4 * n**2  # float64, two in float32, blocks
    fitting = 2 * 4 * n * v + outer + inverting + 2 * BLOCK_BYTES
    sharing = 4 * n * v * 3 + max(outer, 4 * n * v * 2) + 4 * (n_folds + 1) * v * kept
    projecting = 4 * n_kernels * n * stored + 4 * n * v + 2 * CHUNK_BYTES
    making = 4 * len(windows) * n**2 + 2 * CHUNK_BYTES
    scratch = 4 * n_kernels * n**2 + 2 * n * blurred + candidates * 4 * n_folds * size**2
    scratch += 4 * n * v + (4 * (tokens + blurred) + 2 * tokens) * stored
    memory = PROGRAM_BYTES + min(scratch, MEMORY_BYTES) + max(fitting, sharing, projecting, making)
    moved = tokens * (A_TOKEN * n + A_WEIGHT * stored)
    gflop = {step: flop / 1e9 for step, flop in gflop.items()}
    attained = float(np.interp(np.log(n), np.log(list(ATTAINED)), list(ATTAINED.values())))
    return LinearPathCost(gflop, round(memory), round(scratch), moved, attained)


def _pattern_flop(n: int, v: int, n_folds: int, rank: int, rest: int) -> float:
    """Of the patterns of v voxels over n images, and of what they leave over: no fewer axes than ``rest``."""
    further = (REST_STEPS + 2) * (4.0 * n * v + 8.0 * v * rank) * min(v, rest + OVERSAMPLES) if rest else 0.0
    if v <= max(DENSE_VOXELS, 2 * rank):
        return (n_folds + 1) * (2.0 * n * v**2 + further)
    steps = (POWER_STEPS + 2) * 8.0 * n * v * min(v, rank + OVERSAMPLES)
    return (n_folds + 1) * (steps + further)


def _positions(n_tokens: int, config: LinearPathConfig) -> int:
    """Positions of a layer's blurred grid."""
    matrix = blur_matrix(n_tokens, config.side, config.blur)
    return n_tokens if matrix is None else len(matrix)
