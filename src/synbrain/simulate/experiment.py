"""A simulated experiment in the layout of the Natural Scenes Dataset, with the truth beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synbrain.data.reliability import ncsnr_from_trials
from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import (
    allocate_array,
    new_folder,
    require_absent,
    require_space,
    save_array,
    write_json,
    writing,
)
from synbrain.progress import track
from synbrain.simulate.cortex import make_cortex
from synbrain.simulate.noise import NoiseLevel, Strengths, make_noise, noise_level
from synbrain.simulate.objects import CATEGORIES
from synbrain.simulate.responses import (
    SceneFeatures,
    Tuning,
    category_strength,
    make_tuning,
    measure_energy,
    respond,
)
from synbrain.simulate.scenes import Scenes, draw_image, draw_scenes
from synbrain.simulate.tree import (
    BETA_SCALE,
    REPEATS,
    STIMULI,
    make_design,
    write_behaviour,
    write_betas,
    write_design,
    write_ncsnr,
    write_space,
    write_transforms,
)
from synbrain.simulate.truth import CATEGORIES_CSV, MEAN, NCSNR, NOISE, TRUTH, truth_folder

BLOCK = 128  # images drawn, or answered to, at a time
SCALE_IMAGES = 2000  # images over which the two parts of a response are brought to one scale


@dataclass(frozen=True)
class SimulationSize:
    """How much is simulated.

    Attributes:
        n_images: distinct images of each subject ("10k"); n_shared: those that every subject sees.
        sessions, trials_per_session: at most 3 * n_images trials in all.
        shape, voxel_mm: grid of the first subject; the others' differ by a few voxels.
        n_voxels: nsdgeneral voxels of the first subject; the others have up to 12 % more or fewer.
        side: pixels a side of the images.
    """

    n_images: int
    n_shared: int
    sessions: int
    trials_per_session: int
    shape: tuple[int, int, int]
    voxel_mm: float
    n_voxels: int
    side: int

    def __post_init__(self) -> None:
        if not 0 < self.n_shared <= self.n_images:
            raise SynBrainError(
                f"{self.n_shared} of {self.n_images} images cannot be shared", "choose n_shared <= n_images"
            )
        if self.sessions * self.trials_per_session > REPEATS * self.n_images:
            raise SynBrainError(
                f"{self.sessions} sessions of {self.trials_per_session} trials need more than "
                f"{REPEATS} repeats of {self.n_images} images",
                "choose more images, or fewer or shorter sessions",
            )


# Coarser voxels in the smaller sizes keep the cortex covered, so that surface maps look like a brain.
SIZES: dict[str, SimulationSize] = {
    "tiny": SimulationSize(60, 12, 3, 60, (17, 11, 11), 9.0, 120, 64),
    "demo": SimulationSize(700, 100, 7, 300, (36, 21, 24), 4.2, 1150, 128),
    "small": SimulationSize(1800, 250, 7, 750, (36, 21, 24), 4.2, 1150, 128),
    "full": SimulationSize(10000, 1000, 40, 750, (81, 104, 83), 1.8, 15724, 425),
}


def simulate(
    out: Path,
    *,
    subjects: int = 1,
    size: str | SimulationSize = "demo",
    noise: str = "medium",
    seed: int = 0,
    sessions: Sequence[int] | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> None:
    """Write an NSD-layout tree of simulated subjects into ``out``, with the truth in ``out/truth``.

    Args:
        out: the tree; nothing is left of it where the simulation is interrupted.
        subjects: how many; subject k of a seed is the same whatever ``sessions`` says.
        size: tiny, demo, small or full (``SIZES``), or sizes of one's own.
        noise: "low", "medium" or "high" (median ncsnr about 0.9, 0.45, 0.25); scales the noise alone.
        seed: the tree is a function of it and of the other arguments.
        sessions: sessions that each subject completed, where some stopped early (repeats get ragged).
        overwrite: replace ``out`` where it exists.
        show_progress: bars on stderr.

    Raises:
        SynBrainError: for an unknown size or noise level, an output that exists, or too little space.
    """
    dims, level = _size(size), noise_level(noise)
    done = _sessions(subjects, dims, sessions)
    require_absent(Path(out), overwrite)
    n_total = dims.n_shared + subjects * (dims.n_images - dims.n_shared)
    require_space(
        Path(out),
        n_total * dims.side**2 * 3
        + 4 * subjects * n_total * dims.n_voxels
        + 3 * sum(done) * dims.trials_per_session * dims.n_voxels,
    )
    with new_folder(Path(out), overwrite) as tree:
        design = make_design(dims.n_images, dims.n_shared, subjects, seed)
        write_design(tree, design)
        scenes = draw_scenes(n_total, seed)
        features = _write_stimuli(tree, scenes, dims.side, seed, show_progress)
        _write_categories(tree, scenes)
        for subject in range(1, subjects + 1):
            positions = design["masterordering"][0][: done[subject - 1] * dims.trials_per_session]
            ids = design["subjectim"][subject - 1][positions - 1] - 1
            write_behaviour(tree, subject, ids, positions, dims.trials_per_session, seed)
            _write_subject(tree, subject, dims, level, seed, features, ids, show_progress)
        write_json(
            tree / TRUTH / "simulation.json",
            {"subjects": subjects, "size": asdict(dims), "noise": level, "seed": seed, "sessions": done},
        )


def _size(size: str | SimulationSize) -> SimulationSize:
    if isinstance(size, SimulationSize):
        return size
    if size not in SIZES:
        raise SynBrainError(f"there is no size {size!r}", f"choose one of {', '.join(SIZES)}")
    return SIZES[size]


def _sessions(subjects: int, size: SimulationSize, sessions: Sequence[int] | None) -> list[int]:
    if subjects < 1:
        raise SynBrainError(f"{subjects} subjects cannot be simulated", "ask for one or more")
    done = [size.sessions] * subjects if sessions is None else list(sessions)
    if len(done) != subjects or not all(1 <= n <= size.sessions for n in done):
        raise SynBrainError(
            f"sessions {done} do not fit {counted(subjects, 'subject')} of {size.sessions} sessions",
            f"give one number from 1 to {size.sessions} for each subject",
        )
    return done


def _blocks(n: int) -> Iterator[slice]:
    for first in range(0, n, BLOCK):
        yield slice(first, min(n, first + BLOCK))


def _write_stimuli(tree: Path, scenes: Scenes, side: int, seed: int, show: bool) -> SceneFeatures:
    """Draw every image into the HDF5 file, block by block, and keep only what the cortex sees of it."""
    n = len(scenes.category)
    path = tree / STIMULI
    path.parent.mkdir(parents=True)
    energy = []
    with writing(path), h5py.File(path, "w") as file:
        brick = file.create_dataset("imgBrick", (n, side, side, 3), dtype=np.uint8)
        for rows in track(_blocks(n), "draw scenes", total=-(-n // BLOCK), unit="block", show=show):
            images = np.stack([draw_image(scenes, i, side, seed) for i in range(rows.start, rows.stop)])
            brick[rows] = images
            energy.append(measure_energy(images))
    measured = np.concatenate(energy)
    measured /= measured.mean(axis=(0, 2), keepdims=True)
    return SceneFeatures(measured, category_strength(scenes))


def _write_categories(tree: Path, scenes: Scenes) -> None:
    names = [*CATEGORIES, ""]
    table = pd.DataFrame(
        {
            "nsdId": np.arange(len(scenes.category)),
            "category": scenes.names(),
            "second": [names[int(k)] for k in scenes.category[:, 1]],
            **{key: getattr(scenes, key)[:, 0] for key in ("x", "y", "size", "contrast")},
        }
    )
    (tree / TRUTH).mkdir()
    table.to_csv(tree / TRUTH / CATEGORIES_CSV, index=False, float_format="%.4f")


def _write_subject(
    tree: Path,
    subject: int,
    size: SimulationSize,
    level: NoiseLevel,
    seed: int,
    features: SceneFeatures,
    ids: NDArray[np.int64],
    show: bool,
) -> None:
    rng = np.random.default_rng([seed, 3, subject])
    factor = 1.0 if subject == 1 else rng.uniform(0.88, 1.12)
    x, y, z = size.shape
    shape = (x + (subject - 1) % 3, y + (subject - 1) % 2, z + subject // 2 % 2)
    cortex = make_cortex(rng, shape, size.voxel_mm, round(size.n_voxels * factor))
    strengths, trial_noise = make_noise(rng, cortex, level)
    write_space(tree, subject, cortex)
    write_transforms(tree, subject, cortex)
    means = _write_means(tree, subject, make_tuning(rng, cortex), strengths, features)
    folder = truth_folder(tree, subject)
    trial_noise.save(folder / NOISE)
    save_array(folder / NCSNR, strengths.ncsnr)

    trials_path = folder / "betas.partial.npy"  # int16 of all trials, only until ncsnr is known
    betas = allocate_array(trials_path, (len(ids), cortex.n_voxels), np.int16)
    n = size.trials_per_session
    numbers = range(1, len(ids) // n + 1)
    for session in track(numbers, f"subject {subject}", unit="session", show=show):
        rows = slice((session - 1) * n, session * n)
        drifts = trial_noise.session_drift(n, rng)
        trials = trial_noise.add_to(means[ids[rows]], drifts, rng)
        limit = np.iinfo(np.int16).max
        betas[rows] = np.clip(np.rint(trials * BETA_SCALE), -limit, limit).astype(np.int16)
        write_betas(tree, subject, session, cortex, betas[rows])
    write_ncsnr(tree, subject, cortex, ncsnr_from_trials(betas, ids, np.arange(len(ids)) // n))
    del betas
    trials_path.unlink()


def _write_means(
    tree: Path, subject: int, tuning: Tuning, strengths: Strengths, features: SceneFeatures
) -> NDArray[np.float32]:
    """The noise-free response to every image, percent signal change, memory-mapped."""
    n_images, n_voxels = len(features.energy), len(tuning.late)
    means = allocate_array(truth_folder(tree, subject) / MEAN, (n_images, n_voxels), np.float32)
    some = min(n_images, SCALE_IMAGES)
    early, late = (np.empty((some, n_voxels), dtype=np.float32) for _ in range(2))
    for rows in _blocks(some):
        early[rows], late[rows] = respond(tuning, features, rows)
    centres = early.mean(axis=0), late.mean(axis=0)
    weights = np.sqrt(1 - tuning.late) / early.std(axis=0), np.sqrt(tuning.late) / late.std(axis=0)

    def mixed(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((first - centres[0]) * weights[0] + (second - centres[1]) * weights[1])

    scale = strengths.signal / mixed(early, late).std(axis=0)
    for rows in _blocks(n_images):
        means[rows] = strengths.baseline + scale * mixed(*respond(tuning, features, rows))
    means.flush()
    return np.asarray(means)
