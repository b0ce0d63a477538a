"""What a page says of voxels that it cannot draw in their places."""

from __future__ import annotations

import re

import numpy as np
import pytest

from synbrain.data.space import SpaceKind, VoxelSpace
from synbrain.viewer.packing import geometry


@pytest.mark.parametrize(
    ("kind", "mesh", "told"),
    [
        ("surface", "fsLR", r"these vertices are of fsLR.*NAME\.func\.gii"),
        ("surface", "other", r"these vertices are of another mesh.*NAME\.func\.gii"),
        ("grayordinates", "fsLR", r"these grayordinates are of fsLR.*NAME\.dscalar\.nii"),
        ("none", None, r"No positions are known for these units"),
    ],
)
def test_a_mesh_that_is_not_drawn_is_named(kind: SpaceKind, mesh: str | None, told: str) -> None:
    shape = {"surface": (32492, 32492), "grayordinates": (32492, 32492, 3, 3, 3)}.get(kind)
    space = VoxelSpace(5, kind, shape, index=np.arange(5) if shape else None, mesh=mesh)
    drawn = geometry(space)
    assert drawn["kind"] == "grid"
    assert re.search(told, drawn["note"])
