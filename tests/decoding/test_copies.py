"""Pictures of the subject that another dataset stores in other files are not shown by synthetic trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.colours import N_IMAGES, N_TEST, linear_run
from synbrain import Dataset, load_dataset
from synbrain.cli import main
from synbrain.decoding.experiments.arms import Arms
from synbrain.decoding.options import AugmentOptions, DecoderOptions
from synbrain.decoding.subjects import decoding_data

RIDGE = DecoderOptions(method="ridge", encoder="pixels", components=2)


def photographs(folder: Path, name: str, suffix: str, n_test: int) -> Dataset:
    """The same pictures for every name, which thumbnails tell apart, in files of one kind."""
    source = folder / f"{name}-source"
    (source / "images").mkdir(parents=True)
    rng = np.random.default_rng(5)
    lines, responses = ["image,repeat,split"], []
    for i in range(N_IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(source / "images" / f"{name}{i:02}.{suffix}")
        lines.append(f"{name}{i:02}.{suffix},0,{'test' if i >= N_IMAGES - n_test else 'train'}")
        responses.append(rng.standard_normal(12))
    (source / "trials.csv").write_text("\n".join(lines) + "\n")
    np.save(source / "responses.npy", np.array(responses, dtype=np.float32))
    assert main(["prepare", "table", str(source), str(folder / name), "--name", name]) == 0
    assert main(["features", str(folder / name), "--encoder", "pixels"]) == 0
    return load_dataset(folder / name)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("copies")


@pytest.fixture(scope="module")
def mine(here: Path) -> Dataset:
    return photographs(here, "mine", "png", N_TEST)


@pytest.fixture(scope="module")
def theirs(here: Path) -> Dataset:
    """The same pictures, of which none is a test image here."""
    return photographs(here, "theirs", "bmp", 0)


def test_a_curve_shows_no_copy_of_a_validation_image(mine: Dataset, theirs: Dataset) -> None:
    data = decoding_data([mine], RIDGE)
    (subject,) = data.subjects
    validation = set(subject.validation.tokens.image_rows.tolist())
    rows = Arms(linear_run(mine), mine, theirs).shown(AugmentOptions(hours=0.2), data)
    # nor a test image; the pictures are in one order here
    assert set(rows.tolist()) == set(range(N_IMAGES - N_TEST)) - validation
