"""A small tree in NSD's layout, simulated once: three subjects, the third with two of three sessions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from synbrain.data.simulate import SimulationSize, simulate

SIZE = SimulationSize(
    n_images=40, n_shared=10, sessions=3, trials_per_session=40, shape=(17, 11, 11), voxel_mm=9.0,
    n_voxels=60, side=32,
)  # fmt: skip


@pytest.fixture(scope="session")
def nsd_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree; do not change it."""
    tree = tmp_path_factory.mktemp("nsd") / "tree"
    simulate(tree, subjects=3, size=SIZE, sessions=[3, 3, 2], seed=5)
    return tree


@pytest.fixture
def own_nsd_tree(nsd_tree: Path, tmp_path: Path) -> Path:
    """A copy of the tree that a test may spoil."""
    return Path(shutil.copytree(nsd_tree, tmp_path / "tree"))


@pytest.fixture(scope="session")
def nsd_betas() -> Callable[[Path, int], Path]:
    """The folder of a subject's betas in a tree."""
    version = "betas_fithrf_GLMdenoise_RR"
    return lambda tree, subject: tree / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm" / version
