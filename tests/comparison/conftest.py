from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synbrain.comparison.compare import Comparison, compare
from synbrain.comparison.job import Job
from synbrain.comparison.methods import METHODS, Method
from synbrain.comparison.options import CompareOptions
from synbrain.data.dataset import Dataset, DatasetInfo, Stimuli
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.evaluation.row import Row
from synbrain.evaluation.score_model import score_arrays
from synbrain.features.tokens import TokenSet

N_VOXELS, N_IMAGES = 6, 48


class Toy:
    """A linear brain of a few voxels: dataset, tokens and true means."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        tokens = rng.normal(size=(N_IMAGES, 3, 8)).astype(np.float32)
        weights = rng.normal(size=(24, N_VOXELS)) / 4
        self.means = (tokens.reshape(N_IMAGES, -1) @ weights + 3 * rng.normal(size=N_VOXELS)).astype(
            np.float32
        )
        image = np.repeat(np.arange(N_IMAGES), 3)
        responses = (self.means[image] + rng.normal(size=(len(image), N_VOXELS))).astype(np.float32)
        split = np.where(np.arange(N_IMAGES) % 3 < 2, "train", "test")
        trials = pd.DataFrame({"image": image, "session": 0, "repeat": 0, "split": split[image]})
        trials["repeat"] = trials.groupby("image").cumcount()
        images = pd.DataFrame({"name": [f"{i}.png" for i in range(N_IMAGES)], "split": split})
        atlas = Atlas(np.arange(N_VOXELS, dtype=np.int32) % 3, {1: "one", 2: "two"}, "drawn")
        space = VoxelSpace(N_VOXELS, atlases={"toy": atlas})
        info = DatasetInfo(
            name="toy", subject="s1", unit="percent", n_trials=len(image), n_voxels=N_VOXELS,
            n_images=N_IMAGES, stimuli=Stimuli(kind="folder", path="images"),
        )  # fmt: skip
        self.dataset = Dataset(folder, info, trials, images, responses, space)
        self.tokens = TokenSet("toy", "digest", {"final": tokens}, np.arange(N_IMAGES))


class Fake:
    """Predicts the truth plus an error; counts how often it is fitted; raises where told to."""

    def __init__(self, truth: np.ndarray, error: float, raises: BaseException | None = None) -> None:
        self.truth, self.error, self.raises = truth, error, raises
        self.setting: Any = "first"
        self.seeds: list[int] = []
        self.reason: str | None = None

    def identity(self, job: Job) -> Any:
        return self.setting

    def why_not(self, job: Job) -> str | None:
        return self.reason

    def score(self, job: Job) -> Row:
        self.seeds.append(job.seed)
        if self.raises is not None:
            raise self.raises
        rng = np.random.default_rng([job.seed, 5])
        predicted = self.truth[job.measured.test.tokens.rows]
        predicted = predicted + self.error * rng.normal(size=predicted.shape)

        def draw(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
            noise = np.random.default_rng(seed).normal(size=(n, len(rows), N_VOXELS))
            return predicted[rows] + noise

        return score_arrays(predicted.astype(np.float32), draw, job.measured, n_samples=job.options.samples)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "data")


@pytest.fixture
def fakes(toy: Toy) -> dict[str, Fake]:
    return {"good": Fake(toy.means, 0.2), "poor": Fake(toy.means, 3.0)}


@pytest.fixture
def registry(fakes: dict[str, Fake]) -> dict[str, Method]:
    real = {name: METHODS[name] for name in ("mean_map", "ridge")}
    made = {name: Method(fake, f"a fake, {name}", "networks") for name, fake in fakes.items()}
    return {**real, **made, "ceiling": METHODS["ceiling"]}


@pytest.fixture
def run(toy: Toy, registry: dict[str, Method], tmp_path: Path) -> Callable[..., Comparison]:
    def compare_toy(*methods: str, **given: Any) -> Comparison:
        settings = {"seeds": 2, "n_bootstrap": 200, "methods": list(methods) or ["all"]}
        settings |= {name: given.pop(name) for name in CompareOptions.model_fields if name in given}
        where = {"out": tmp_path / "out", "registry": registry, "tokens": toy.tokens} | given
        return compare(toy.dataset, CompareOptions.model_validate(settings), **where)

    return compare_toy
