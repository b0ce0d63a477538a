"""One place in the world for betas, masks, label volumes and runs: grids compared and brought together.

Two volumes of the same shape need not show the same brain: axes may be mirrored or permuted, and the origin
may lie elsewhere. Whatever is read beside the betas goes through :func:`positions_in`.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from synbrain.errors import SynBrainError, unreadable

FLAT = "bring them as a table, with the mask (docs/guide/layouts.md has the lines: GLMsingle)"
TOLERANCE = 0.1  # of the smallest voxel size, at every corner of the grid


@dataclass(frozen=True)
class Grid:
    """Where the values of a file lie.

    Attributes:
        path: the file, for messages.
        shape: (x, y, z) of a volume, or (n_vertices,) of a hemisphere.
        affine: (4, 4) voxel indices to mm; None for a surface, and for volumes that do not say it (HDF5,
            .npy, NIfTI headers whose qform and sform codes are both 0).
    """

    path: Path
    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


def stated_affine(header: Any) -> NDArray[np.float64] | None:
    """The affine of a NIfTI header; None where it states no position (both codes are 0).

    nibabel then invents one from the shape alone.
    """
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        return None
    return np.asarray(header.get_best_affine(), dtype=np.float64)


def positions_in(source: Grid, target: Grid) -> NDArray[np.int64]:
    """Which value of ``source`` lies where each voxel of ``target`` lies.

    Axis flips and permutations are undone exactly; nothing is resampled. Voxel centres must agree within a
    tenth of the smallest voxel size (``TOLERANCE``) at every corner of the grid. Where one of the two does
    not state its affine, shapes alone are compared.

    Args:
        source: the grid of a mask, a label volume or another run.
        target: the grid of the betas.

    Returns:
        (target.size,) int64: ``values.ravel()[positions]`` are the values of ``source`` in the C order of
        ``target``.

    Raises:
        SynBrainError: where the grids differ in anything but the order and direction of their axes.

    >>> betas = Grid(Path("betas.nii"), (2, 1, 1), np.diag([2.0, 2, 2, 1]))
    >>> mirrored = np.diag([-2.0, 2, 2, 1]); mirrored[0, 3] = 2
    >>> positions_in(Grid(Path("mask.nii"), (2, 1, 1), mirrored), betas)
    array([1, 0])
    """
    if source.affine is None or target.affine is None or len(target.shape) != 3:
        if source.shape != target.shape:
            raise _other_space(source, target, _shapes(source, target))
        return np.arange(source.size, dtype=np.int64)
    turn = ornt_transform(io_orientation(source.affine), io_orientation(target.affine))
    turned = apply_orientation(np.arange(source.size, dtype=np.int64).reshape(source.shape), turn)
    if turned.shape != target.shape:
        raise _other_space(source, target, _shapes(source, target))
    affine = source.affine @ inv_ornt_aff(turn, source.shape)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in target.shape])).reshape(3, -1).T
    distance = np.abs(apply_affine(affine, corners) - apply_affine(target.affine, corners)).max()
    if not distance <= TOLERANCE * voxel_sizes(target.affine).min():
        raise _other_space(source, target, _difference(affine, target.affine, float(distance)))
    return np.asarray(turned, dtype=np.int64).ravel()


def with_affine(grid: Grid, others: Iterable[Path]) -> Grid:
    """``grid``, placed by the first of ``others`` that has its shape, where its own file states no affine."""
    if grid.affine is not None or len(grid.shape) != 3:
        return grid
    for path in others:
        if path.exists():
            placed = grid_of(path)
            if placed.affine is not None and placed.shape == grid.shape:
                return placed
    return grid


def grid_of(path: Path) -> Grid:
    """The grid of a NIfTI or MGH volume; trailing axes are left aside."""
    try:
        image = load_image(path)
    except (
        OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError, nib.wrapstruct.WrapStructError,
    ) as error:  # fmt: skip
        raise unreadable(path, error) from error
    affine = stated_affine(image.header) if isinstance(image, nib.Nifti1Pair) else image.affine
    return Grid(path, tuple(int(size) for size in image.shape[:3]), affine)


def is_turned(positions: NDArray[np.int64]) -> bool:
    """Whether :func:`positions_in` had axes to flip or permute."""
    return not np.array_equal(positions, np.arange(len(positions)))


def _shapes(source: Grid, target: Grid) -> str:
    return f"shapes {source.shape} and {target.shape}"


def _difference(affine: NDArray[np.float64], target: NDArray[np.float64], distance: float) -> str:
    sizes, wanted = voxel_sizes(affine), voxel_sizes(target)
    if not np.allclose(sizes, wanted, rtol=1e-3):
        return f"voxels of {_mm(sizes)} and {_mm(wanted)}"
    if np.allclose(affine[:3, :3], target[:3, :3], atol=1e-3 * wanted.min()):
        return f"origins that differ by {_mm(affine[:3, 3] - target[:3, 3])}"
    return f"axes turned or sheared against each other, up to {distance:.3g} mm apart"


def _mm(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{round(float(value), 3) + 0.0:g}" for value in values) + ") mm"


def _other_space(source: Grid, target: Grid, difference: str) -> SynBrainError:
    if target.shape[1:] == (1, 1) and source.shape[1:] != (1, 1):
        return SynBrainError(f"{target.path} holds the {target.shape[0]} voxels of a mask, no volume", FLAT)
    return SynBrainError(
        f"{source.path} and {target.path} lie in different spaces: they have {difference}",
        "resample one of them to the grid of the betas (labels with nearest neighbours), or choose files of "
        "one space",
    )


def load_image(path: Path) -> Any:
    """A NIfTI or MGH image by its content: a gzip name on plain bytes, and the reverse, are read alike."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if path.suffix in (".mgh", ".mgz") or path.name.endswith(".mgh.gz"):
        return nib.MGHImage.from_bytes(raw)
    is_second = 540 in (int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big"))
    return (nib.Nifti2Image if is_second else nib.Nifti1Image).from_bytes(raw)
