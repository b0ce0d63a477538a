"""``synbrain consistency`` on simulated subjects: a good model beats its controls, files are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from synbrain.cli import main
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.features.encoders import get_encoder
from synbrain.features.store import open_tokens, write_tokens
from synbrain.features.tokens import pairs_of
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.noise.config import NoiseConfig
from synbrain.noise.fit import fit_response_noise
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.simulate.experiment import SimulationSize, simulate

ENCODER = "efficientnet-lite0"  # selectivity for categories needs tokens that know them
SIZE = SimulationSize(150, 40, 5, 90, (17, 11, 11), 9.0, 200, 48)


def fitted(dataset: Dataset) -> SynBrain:
    pairs = pairs_of(dataset, open_tokens(dataset, ENCODER), "train")
    fit = fit_linear_path(pairs, LinearPathConfig(n_folds=3, windows=0))
    noise = fit_response_noise(pairs, fit.out_of_fold, NoiseConfig(factors=(0,)))
    tokens = pairs.tokens
    config = RunConfig(
        encoder=ENCODER,
        encoder_digest=tokens.digest,
        linear_layers=tuple(tokens.layers),
        token_shapes=tokens.shapes,
    )
    y = pairs.trial_responses()
    part = SubjectPart(
        dataset.info.subject, dataset.space, dataset.info.unit, y.mean(axis=0), y.std(axis=0),
        linear=fit.path, noise=noise,
    )  # fmt: skip
    return SynBrain(config, {part.name: part})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated subjects that share 40 test images, and a run of the first."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder / "tree", subjects=2, size=SIZE, noise="low")
    for subject in (1, 2):
        prepare_nsd(
            folder / "tree", folder / f"s{subject}", subject=subject, options=NsdOptions(repeats="available")
        )
        dataset = load_dataset(folder / f"s{subject}")
        write_tokens(dataset, get_encoder(ENCODER), ["final"])
    fitted(load_dataset(folder / "s1")).save_pretrained(folder / "run")
    return folder


def test_profiles_selectivity_and_patterns_beat_their_controls(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["consistency", str(folder / "run"), str(folder / "s1"), "--out", str(out)]
    words += ["--full-run", str(folder / "run"), "--others", str(folder / "s2"), "--min-voxels=5"]
    words += ["--categories", str(folder / "tree/truth/image_categories.csv")]
    assert main(words) == 0
    found = json.loads((out / "consistency.json").read_text())
    means = found["means"]["profiles"]
    assert means["adapted vs full"] == pytest.approx(1.0)
    assert means["adapted vs measured"] > means["adapted vs measured, shuffled (absolute r)"] + 0.1
    assert means["adapted vs other subjects"] is not None
    selectivity = found["selectivity"]
    assert {"face", "place", "body", "word"} & set(selectivity["adapted vs measured"])
    real = np.mean(list(selectivity["adapted vs measured"].values()))
    assert real > abs(np.mean(list(selectivity["adapted vs measured, shuffled (absolute r)"].values())))
    trials = found["means"]["trials"]
    assert trials["measured"] > trials["measured, shuffled"] + 0.1
    assert trials["synthetic"] > trials["synthetic, shuffled"] + 0.05
    assert "hemisphere" not in str(list(found["profiles"]))
    table = (out / "table.md").read_text()
    assert "Category selectivity" in table
    assert "| mean |" in table
    assert (out / "consistency.png").stat().st_size > 1000


def test_a_dataset_without_areas_and_a_table_without_categories_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["consistency", str(folder / "run"), str(folder / "s1"), "--out", str(tmp_path / "out")]
    assert main([*words, "--min-voxels=1000"]) == 2
    assert "--min-voxels" in capsys.readouterr().err
    (tmp_path / "c.csv").write_text("image,kind\n1,face\n")
    assert main([*words, "--categories", str(tmp_path / "c.csv")]) == 2
    assert "nsdId or name" in capsys.readouterr().err
    assert main(["consistency", str(folder / "run"), str(folder / "s2"), "--out", str(tmp_path / "out")]) == 2
    assert "voxels" in capsys.readouterr().err
