"""Data that all examples share: two simulated subjects and a model of the first, made once and then kept.

They lie in ``examples/data`` (or where ``SYNBRAIN_EXAMPLES`` points). Making them takes about a minute on one core.
"""

from __future__ import annotations

import os
from pathlib import Path

from synbrain import Dataset, SynBrain, SynBrainError, TrainOptions, load_dataset, train
from synbrain.features.store import make_tokens
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.simulate.experiment import SimulationSize, simulate

FOLDER = Path(os.environ.get("SYNBRAIN_EXAMPLES", Path(__file__).parent / "data"))
# 240 images of each subject, 60 of them shared; 5 sessions of 144 trials, so that each image is seen 3 times
SIZE = SimulationSize(
    n_images=240, n_shared=60, sessions=5, trials_per_session=144, shape=(24, 15, 16), voxel_mm=6.3,
    n_voxels=400, side=96,
)  # fmt: skip


def example_dataset(subject: int = 1) -> Dataset:
    """One of two simulated subjects in NSD's layout, prepared, with tokens of EfficientNet-Lite0."""
    tree, folder = FOLDER / "simulated-nsd", FOLDER / f"subject{subject}"
    if not tree.exists():
        simulate(tree, subjects=2, size=SIZE, noise="low")
    if folder.exists():
        return load_dataset(folder)
    dataset = prepare_nsd(tree, folder, subject=subject, options=NsdOptions(test_set="shared1000"))
    make_tokens(dataset)
    return dataset


def example_model() -> SynBrain:
    """A model of the first subject, with the recommended recipe."""
    folder = FOLDER / "run"
    try:
        return SynBrain.from_pretrained(folder)
    except SynBrainError:  # not made yet, or by another version
        return train([example_dataset()], TrainOptions(), out=folder, overwrite=True)
