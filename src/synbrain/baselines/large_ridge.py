"""Ridge with a cross-validated penalty for every voxel on thousands of images, in float32 and in blocks.

The same function as himalaya's ``solve_kernel_ridge_cv_eigenvalues``: no intercept, the penalty of least
squared error, mean over folds. Instead of decomposing the kernel of every fold, each penalty is factorised
once on all images, ``S = (K + alpha I)^-1``; the residuals of fold f without it are ``(S_ff)^-1 (S y)_f``
(Cawley and Talbot 2007).

A penalty costs ``n^3`` for S and ``2 n^2`` for each voxel that tries it. Every penalty is therefore tried on
few images only. The best penalty is a ratio of variances (of a voxel's noise to that of its weights), so it
hardly depends on how many images there are: with more of them a voxel tries the best one so far and its
neighbours, and goes on while an end of what it tried is best; from the largest one as well, where what it
found is worse than to predict nothing. On all images nothing is factorised for a handful of voxels alone
(:data:`RARE`): they keep the best of what the others needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from synbrain.arrays import Float32, Float64, Rows
from synbrain.describe import counted
from synbrain.linear.ridge import SINGLE_PRECISION_CONDITION, largest_eigenvalue
from synbrain.linear.scratch import Scratch
from synbrain.progress import bar

FEW = 1500  # images on which every voxel tries every penalty
GROWTH = 3  # from one number of images to the next, up to all
COMMON = 0.01  # of voxels; guesses beyond this quantile begin at it, lest few voxels factorise many penalties
RARE = 0.005  # of voxels; beyond the guesses, what no more of them ask for is not factorised on all images
SAME = 0.01  # of the kernel's smallest eigenvalue: penalties below are as good as one another
MATRICES_BYTES = 1 << 28  # of S in memory; more of them lie on disk
BLOCK_VALUES = 2**24  # of a block of voxels: 64 MiB


def chosen_ridge(
    gram: Float32,
    targets: Float32,
    alphas: Float64,
    folds: Rows,
    *,
    scale: float = 1.0,
    device: torch.device | None = None,
    show_progress: bool = False,
) -> tuple[Float64, Float32]:
    """The penalty of each voxel, and dual weights on all images.

    Of an error with several minima along the penalties, the one that few images point to is taken: a handful
    of voxels that are nearly all noise, at an error that is higher by parts of a per cent. A voxel whose best
    penalty hardly any other has may get one beside it.

    Args:
        gram: (n_images, n_images), centred kernel.
        targets: (n_images, n_voxels), centred.
        alphas: (n_alphas,) penalties, rising.
        folds: (n_images,) fold of each image.
        scale: what ``gram`` is still to be divided by, which is done to copies of it alone.
        device: where arithmetic is done; None: the CPU.
        show_progress: show a bar, in penalties.

    Returns:
        (n_voxels,) penalties, and (n_images, n_voxels) float32.
    """
    device = device or torch.device("cpu")
    n, n_voxels = targets.shape
    order = np.argsort(folds, kind="stable")
    sizes = [n]
    while sizes[0] > FEW:
        sizes.insert(0, max(FEW, sizes[0] // GROWTH))
    first = torch.zeros(n_voxels, dtype=torch.int64, device=device)
    last = torch.full_like(first, len(alphas) - 1)
    data = _Data(gram, scale, targets, folds, device)
    for size in sizes:
        some = order[np.linspace(0, n - 1, size).astype(np.int64)]
        search = _Search.on(some, data, alphas, keep=size == n)
        if size == sizes[0]:
            search.alphas = alphas = _distinct(alphas, search.kernel)
            last.fill_(len(alphas) - 1)
        search.rare = int(RARE * n_voxels) if size == n > FEW else 0
        with Scratch(memory_bytes=MATRICES_BYTES) as scratch:
            search.walk(first, last, scratch, show_progress=show_progress)
        low, high = (int(search.best.float().quantile(q)) for q in (COMMON, 1 - COMMON))
        guess = search.best.clamp(low, high)
        first, last = (guess - 1).clamp_min(0), (guess + 1).clamp_max(len(alphas) - 1)
    as_given = torch.from_numpy(np.argsort(order)).to(device)
    for some in search.weights.split(max(1, BLOCK_VALUES // n)):  # in place: a second copy is .6 GB
        some.copy_(some[:, as_given])
    return alphas[search.best.cpu().numpy()], search.weights.cpu().numpy().T


def _distinct(alphas: Float64, kernel: Tensor) -> Float64:
    """Penalties without those that do what the next larger one does, as the kernel of some images says.

    What tokens hold of independent noise is a penalty of its own: the kernel's smallest eigenvalue. Far
    below it the error of every voxel is level, and the smallest penalties, which half of the voxels would
    take by chance, are the ones that need float64.
    """
    floor = float(torch.linalg.eigvalsh(kernel.double())[1])  # centring costs the first
    return alphas[max(0, int(np.searchsorted(alphas, SAME * floor)) - 1) :]


@dataclass(frozen=True)
class _Data:
    """What :func:`chosen_ridge` is given, and where it works."""

    gram: Float32
    scale: float
    targets: Float32
    folds: Rows
    device: torch.device


@dataclass
class _Search:
    """Penalties that were tried on some images, and the best of each voxel so far.

    Attributes:
        kernel: (n, n) float32, fold by fold.
        largest: eigenvalue of it.
        images: (n,) rows of ``targets``.
        targets: (n_images, n_voxels) float32, of all images.
        folds: each fold's places.
        alphas: penalties.
        weights: (n_voxels, n) float32, dual weights under the best penalty; (n_voxels, 0) where not kept.
        error, best: (n_voxels,) least error, and its penalty's number.
        rare: no penalty beyond those of :meth:`walk` is factorised for so few voxels.
    """

    kernel: Tensor
    largest: float
    images: Tensor
    targets: Tensor
    folds: list[slice]
    alphas: Float64
    weights: Tensor
    error: Tensor = field(init=False)
    best: Tensor = field(init=False)
    rare: int = 0

    def __post_init__(self) -> None:
        n_voxels, device = self.targets.shape[1], self.kernel.device
        self.error = torch.full((n_voxels,), torch.inf, device=device)
        self.best = torch.full((n_voxels,), -1, device=device)

    @classmethod
    def on(cls, images: Rows, data: _Data, alphas: Float64, *, keep: bool) -> _Search:
        """Begin on ``images``, which are in the order of folds; weights are kept on request."""
        kernel = torch.from_numpy(data.gram[np.ix_(images, images)]).to(data.device).float()
        kernel.div_(data.scale)
        ends = np.cumsum(np.bincount(data.folds[images]))
        places = [slice(int(a), int(b)) for a, b in zip([0, *ends], ends, strict=False) if b > a]
        weights = torch.zeros((data.targets.shape[1], len(images) if keep else 0), device=data.device)
        rows, y = torch.from_numpy(images), torch.from_numpy(data.targets)
        return cls(kernel, largest_eigenvalue(kernel), rows, y, places, alphas, weights)

    def _blocks(self, voxels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some voxels at a time, and their responses (k, n) float32."""
        for some in voxels.split(max(1, BLOCK_VALUES // len(self.kernel))):
            # the responses stay on the CPU, often on disk
            yield some, self.targets[self.images[:, None], some.cpu()].to(some.device).T.float()

    def _mean_square(self, residuals: Iterable[Tensor]) -> Tensor:
        """Mean over folds of the mean square (k,) of each fold's (k, m)."""
        return torch.stack([left.square().mean(dim=1) for left in residuals]).mean(dim=0)

    def walk(self, first: Tensor, last: Tensor, scratch: Scratch, *, show_progress: bool) -> None:
        """Try penalties ``first`` to ``last`` of each voxel, and on where the best lies at an end.

        Once down the penalties and once up; what was factorised on the way down is kept in ``scratch``.
        """
        last, top = last.clone(), len(self.alphas) - 1
        factorised: dict[int, tuple[Tensor, list[Tensor]]] = {}
        what = f"penalties on {counted(len(self.kernel), 'image')}"
        progress = bar(what, total=top + 1, unit="penalty", show=show_progress)

        def try_on(a: int, beyond: Tensor, inside: Tensor | None = None) -> None:
            due = beyond if inside is None else beyond | inside
            asked = inside is not None and bool(inside.any())
            if int(due.sum()) <= (0 if asked or a in factorised else self.rare):
                return
            if a not in factorised:
                factorised[a] = self._factorised(float(self.alphas[a]), scratch)
            self._try(a, torch.nonzero(due)[:, 0], *factorised[a])

        for a in range(top, -1, -1):
            going_down = (self.best == a + 1) & (first > a)
            try_on(a, going_down, inside=(first <= a) & (a <= last))
            progress.update(1)
        for a in range(1, top + 1):
            going_up = (self.best == a - 1) & (last == a - 1)
            try_on(a, going_up)
            last[going_up] = a
        unpredictable = torch.zeros_like(last, dtype=torch.bool)
        for some, y in self._blocks(torch.arange(len(last), device=last.device)):
            nothing = self._mean_square(y[:, fold] for fold in self.folds)
            unpredictable[some] = (nothing < self.error[some]) & (last[some] < top)
        for a in range(top, -1, -1):
            try_on(a, unpredictable if a == top else unpredictable & (self.best == a + 1))
        progress.close()

    def _try(self, a: int, voxels: Tensor, matrix: Tensor, inverses: list[Tensor]) -> None:
        """Hold penalty ``a`` against the best so far of some voxels."""
        for rows, y in self._blocks(voxels):
            dual = y @ matrix
            by_fold = zip(self.folds, inverses, strict=True)
            error = self._mean_square(dual[:, fold] @ inverse for fold, inverse in by_fold)
            better = error < self.error[rows]
            improved = rows[better]
            self.error[improved], self.best[improved] = error[better], a
            if self.weights.shape[1]:
                self.weights[improved] = dual[better]

    def _factorised(self, alpha: float, scratch: Scratch) -> tuple[Tensor, list[Tensor]]:
        """``S`` float32 and the inverses of its folds' blocks; float64 on the way where alpha is small."""
        single = self.largest / alpha < SINGLE_PRECISION_CONDITION
        g = self.kernel.clone() if single else self.kernel.double()
        g.diagonal().add_(alpha)
        matrix = g.mT  # symmetric, and laid out as LAPACK wants it: factor and inverse take g's own memory
        torch.linalg.cholesky(matrix, out=matrix)
        torch.cholesky_inverse(matrix, out=matrix)
        blocks = (matrix[fold, fold] for fold in self.folds)
        inverses = [torch.cholesky_inverse(torch.linalg.cholesky(block)).float() for block in blocks]
        return scratch.tensor(tuple(matrix.shape), matrix.device).copy_(matrix), inverses
