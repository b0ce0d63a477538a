"""Files of values on a cortical surface: names, hemisphere by hemisphere; and CIFTI, through nibabel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from synbrain.errors import SynBrainError

Side = Literal["left", "right"]
Hemispheres = Literal["both", "left", "right"]
GIFTI, CIFTI, MGH = (".func.gii", ".shape.gii", ".gii"), (".dscalar.nii", ".dtseries.nii"), (".mgh", ".mgz")
SUFFIXES = (*GIFTI[:2], *CIFTI, *MGH)
STRUCTURES: dict[str, Side] = {"CortexLeft": "left", "CortexRight": "right"}
CORTEX = {"left": "CIFTI_STRUCTURE_CORTEX_LEFT", "right": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
# how names say the hemisphere, the clearest first: BIDS, FreeSurfer (lh.NAME, NAME_lh), HCP (SUBJECT.L.NAME)
PATTERNS = (
    r"(?P<before>(?:^|_)hemi-)(?P<side>L|R|l|r|lh|rh|left|right)(?=_|\.|$)",
    r"(?P<before>^)(?P<side>lh|rh)(?=[._-])",
    r"(?P<before>[._-])(?P<side>lh|rh)(?=[._-])",
    r"(?P<before>\.)(?P<side>L|R)(?=\.)",
    r"(?P<before>(?:^|[._-]))(?P<side>left|right)(?=[._-])",
)
OTHER = {"l": "r", "r": "l", "lh": "rh", "rh": "lh", "left": "right", "right": "left"}


@dataclass(frozen=True)
class Named:
    """What a file's name says of its hemisphere.

    Attributes:
        side: of the values; None where the name does not say it.
        stem: the name without that word, the same for both files of a pair.
        partner: the other file of the pair, which may not be there.

    >>> hemisphere_of(Path("sub-01_hemi-L_space-fsaverage_betas.func.gii")).partner.name
    'sub-01_hemi-R_space-fsaverage_betas.func.gii'
    >>> hemisphere_of(Path("lh.betas_session01.mgh")).stem
    'betas_session01.mgh'
    """

    side: Side | None
    stem: str
    partner: Path


def has_suffix(path: Path, suffixes: Iterable[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes))


def is_beta_file(path: Path) -> bool:
    """Whether a file by its name holds values on a surface, and is no mask."""
    return has_suffix(path, SUFFIXES) and "mask." not in path.name.lower()


def is_cifti(path: Path) -> bool:
    return has_suffix(path, (*CIFTI, ".dlabel.nii"))


def hemisphere_of(path: Path) -> Named:
    """The hemisphere that the name of ``path`` says."""
    for pattern in PATTERNS:
        match = re.search(pattern, path.name)
        if match is None:
            continue
        word, (start, end) = match["side"], match.span("side")
        other = OTHER[word.lower()]
        other = other.upper() if word.isupper() else other
        # lh.NAME and hemi-L_NAME lose the mark after the word, NAME.lh.mgh and sub-01_hemi-L_NAME one of two
        before, after = path.name[: match.start()], path.name[end:]
        stem = before + (after if before else after[1:])
        side: Side = "left" if word.lower().startswith("l") else "right"
        return Named(side, stem, path.with_name(path.name[:start] + other + path.name[end:]))
    return Named(None, path.name, path)


def pairs(paths: Iterable[Path], hemispheres: Hemispheres = "both") -> list[tuple[Path, ...]]:
    """Files that lie side by side: left and right, or one file alone (CIFTI, volumes), in their order.

    Raises:
        SynBrainError: where a name says no hemisphere, or one of a pair is missing.
    """
    pieces: dict[Path, dict[str, Path]] = {}
    for path in paths:
        if is_cifti(path) or not has_suffix(path, (*GIFTI, *MGH)):
            pieces[path] = {"whole": path}
            continue
        named = hemisphere_of(path)
        if named.side is None:
            raise SynBrainError(
                f"{path} does not say of which hemisphere it is",
                "name it by BIDS (hemi-L, hemi-R) or FreeSurfer (lh., rh.)",
            )
        same = pieces.setdefault(path.with_name(named.stem), {})
        if named.side in same:
            raise SynBrainError(
                f"{same[named.side].name} and {path.name} are both of the {named.side} hemisphere",
                "give one file of each hemisphere, such as lh.NAME and rh.NAME",
            )
        same[named.side] = path
    sides = ("left", "right") if hemispheres == "both" else (hemispheres,)
    whole: list[tuple[Path, ...]] = []
    for same in pieces.values():
        if "whole" in same:
            whole.append((same["whole"],))
            continue
        lacking = next((side for side in sides if side not in same), None)
        if lacking is None:
            whole.append(tuple(same[side] for side in sides))
        elif hemispheres == "both":
            (side, path), *_ = same.items()
            raise SynBrainError(
                f"{path} has no file of the {lacking} hemisphere beside it "
                f"({hemisphere_of(path).partner.name})",
                f"add it, or pass --hemispheres {side} to take one hemisphere alone",
            )
    if pieces and not whole:
        raise SynBrainError(f"there is no file of the {hemispheres} hemisphere", "pass --hemispheres both")
    return whole


def cifti_axes(path: Path) -> tuple[Any, Any]:
    """nibabel's axes of a CIFTI file: that of its rows (maps), and that of its columns (brain models).

    Raises:
        SynBrainError: where it is not dense, or has other surfaces than the cortex's.
    """
    image: Any = nib.load(path)
    if not isinstance(image, nib.Cifti2Image):
        raise SynBrainError(f"{path} is no CIFTI-2 file", "write it with wb_command or nibabel")
    rows, columns = (image.header.get_axis(i) for i in range(2))
    if not isinstance(columns, nib.cifti2.BrainModelAxis):
        raise SynBrainError(
            f"{path} has a value a parcel, not a grayordinate",
            "give a .dscalar.nii or .dtseries.nii, or bring parcels as responses.npy (prepare table)",
        )
    others = sorted(set(columns.nvertices) - set(CORTEX.values()))
    if others:
        raise SynBrainError(
            f"{path} has vertices of {others[0]}",
            "give cortical surfaces and voxels: CORTEX_LEFT, CORTEX_RIGHT",
        )
    return rows, columns


def cifti_rows(path: Path, start: int, stop: int) -> NDArray[Any]:
    """Rows of a CIFTI file, (n, n_grayordinates)."""
    image: Any = nib.load(path)
    return np.asarray(image.dataobj[start:stop])
