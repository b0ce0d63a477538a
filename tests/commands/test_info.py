"""`synbrain info` says what is there and what a training will take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synbrain.cli import main
from synbrain.commands.info import training_config
from synbrain.data.nsd_prepare import prepare_nsd
from synbrain.data.simulate import SimulationSize, simulate
from synbrain.training.cost import matmul_rate, training_cost


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("info")
    simulate(root / "tree", size=SimulationSize(40, 10, 2, 60, (17, 11, 11), 9.0, 90, 32), seed=1)
    return prepare_nsd(root / "tree", root / "data", subject=1).path


def test_dataset(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(prepared)]) == 0
    printed = capsys.readouterr().out
    for text in (
        "120 trials x 90 voxels",
        "percent signal change",
        "30 images",
        "10 images",
        "prf-visualrois",
    ):
        assert text in printed
    assert "ncsnr" in printed
    assert "synbrain features" in printed


def test_config_with_a_dataset(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("recipe: calibrated\npreset: tiny\nvae:\n  batch_size: 7\n  epochs: 2\n")
    config, encoder = training_config(path)
    assert (config.preset, config.vae.batch_size, encoder) == ("tiny", 7, "efficientnet-lite0")
    assert main(["info", str(prepared), "--config", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "90 trials x 90 voxels" in printed
    assert "7:" in printed
    assert "GFLOP a step of 7" in printed


def test_cost_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("recipe: reference\npreset: tiny\nvalidation_fraction: 0.1\n")
    config, _ = training_config(path)
    cost = training_cost(config, n_voxels=100, n_trials=1000)
    assert cost.steps == {"vae": config.vae.epochs * np.ceil(900 / 24), "mapper": config.mapper.steps}
    assert cost.state_bytes["vae"] == 16 * cost.parameters["vae"]
    assert cost.state_bytes["mapper"] == 20 * cost.parameters["mapper"]  # with the average of the weights
    assert cost.memory("vae", 3) - cost.memory("vae", 2) == cost.activation["vae"] > 0
    assert cost.seconds("vae", 10.0) == pytest.approx(2 * cost.seconds("vae", 20.0))
    assert matmul_rate(size=64) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such-folder"], "neither a dataset nor a run"),
        ([], "nothing to look at"),
        (["--config", "no.yaml"], "no.yaml is missing"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", *words]) == 2
    assert message in capsys.readouterr().err


def test_config_with_a_typo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("vae:\n  batchsize: 7\n")
    with pytest.raises(SystemExit) as stopped:
        main(["info", "--config", str(path)])
    assert stopped.value.code == 2
    assert "batchsize" in capsys.readouterr().err
