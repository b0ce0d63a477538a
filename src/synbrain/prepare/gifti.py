"""Maps in GIfTI files: what the header says, and the values, a map in memory at a time; through nibabel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.gifti.parse_gifti_fast import GiftiImageParser
from numpy.typing import NDArray

from synbrain.errors import SynBrainError
from synbrain.prepare.surface import STRUCTURES, hemisphere_of

READ_BYTES = 2**20  # of text at a time


class GiftiHeader(NamedTuple):
    """What a GIfTI file holds: maps of so many vertices, as numbers of one type, and names of its labels."""

    n_maps: int
    n_vertices: int
    dtype: np.dtype[Any]
    labels: dict[int, str]


class _Parser(GiftiImageParser):
    """nibabel's parser, which hands over each array and forgets it; without ``take`` no array is decoded."""

    def __init__(self, take: Callable[[NDArray[Any]], None] | None) -> None:
        super().__init__(buffer_size=READ_BYTES)  # type: ignore[no-untyped-call]
        self.take = take

    def flush_chardata(self) -> None:
        """Called at every tag with the text before it."""
        if self.write_to != "Data":
            super().flush_chardata()  # type: ignore[no-untyped-call]
            return
        if self.take is None:
            self._char_blocks = None
            return
        super().flush_chardata()  # type: ignore[no-untyped-call]
        array: Any = self.da
        self.take(array.data)
        array.data = None


def _parse(path: Path, take: Callable[[NDArray[Any]], None] | None) -> Any:
    """nibabel's image without its values."""
    parser: Any = _Parser(take)
    with path.open("rb") as file:
        parser.parse(fptr=file)
    return parser.img


def gifti_header(path: Path) -> GiftiHeader:
    """How many maps a GIfTI file holds, of how many vertices; no values are decoded.

    Raises:
        SynBrainError: where it holds a mesh, or its header says the other hemisphere than its name.
    """
    image = _parse(path, None)
    _require_side(path, image)
    intents = {nib.nifti1.intent_codes.niistring[array.intent] for array in image.darrays}
    if intents & {"NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE"} or not image.darrays:
        raise SynBrainError(
            f"{path} holds a mesh, no values", "give the .func.gii or .shape.gii of the betas"
        )
    if "NIFTI_INTENT_NODE_INDEX" in intents:
        raise SynBrainError(
            f"{path} holds the values of a part of the vertices alone",
            "write all vertices (AFNI: ConvertDset -pad_to_node), and name the part with --mask",
        )
    sizes = sorted({array.dims[0] for array in image.darrays})
    if len(sizes) > 1:
        raise SynBrainError(
            f"{path} has maps of {sizes[0]} and of {sizes[-1]} vertices", "give maps of one mesh"
        )
    types: list[Any] = [nib.nifti1.data_type_codes.dtype[array.datatype] for array in image.darrays]
    n_maps = sum(int(np.prod(array.dims[1:])) for array in image.darrays)
    return GiftiHeader(n_maps, sizes[0], np.result_type(*types), dict(image.labeltable.get_labels_as_dict()))


def read_gifti(path: Path, take: Callable[[int, NDArray[Any]], None]) -> None:
    """Call ``take(number, values)`` for every map of a file, (n_vertices,) each; one array is in memory.

    Call :func:`gifti_header` before, which refuses what holds no maps.
    """
    n = 0

    def take_all(array: NDArray[Any]) -> None:
        nonlocal n
        for values in array.reshape(len(array), -1).T:  # some tools write (n_vertices, n_maps) as one array
            take(n, values)
            n += 1

    _parse(path, take_all)


def _require_side(path: Path, image: Any) -> None:
    """Raise where the header of a GIfTI file says the other hemisphere than its name."""
    metas = [image.meta, *(array.meta for array in image.darrays)]
    stated = {STRUCTURES.get(str(dict(meta or {}).get("AnatomicalStructurePrimary"))) for meta in metas}
    stated.discard(None)
    named = hemisphere_of(path).side
    if named is not None and stated and stated != {named}:
        raise SynBrainError(
            f"{path} is named as the {named} hemisphere, its header says Cortex"
            f"{'Right' if named == 'left' else 'Left'}: the hemispheres are swapped, or one was renamed",
            "find out which is true, then rename the file or mend its header (wb_command -set-structure)",
        )
