"""``synbrain train``: recipes and options, a run that loads, refusals, interruption and continuation."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures.training import MICRO
from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.model.synbrain import SynBrain
from synbrain.networks.fit import vae as vae_stage
from synbrain.networks.fit.metrics_log import read_log
from synbrain.networks.presets import PRESETS
from synbrain.prepare.table import prepare_table

SHORT = [
    "--encoder=pixels", "--preset=micro", "--vae.epochs=2", "--vae.batch-size=8", "--vae.log-every=1",
    "--mapper.steps=12", "--mapper.round-steps=6", "--mapper.batch-size=8", "--mapper.log-every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images x 2 trials of 5 voxels that see the images' colours, with tokens of the pixels encoder."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    lines, responses = ["image,repeat,split"], []
    for image in range(24):
        colours = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32)).save(folder / "images" / f"{image}.png")
        for repeat in range(2):
            lines.append(f"{image}.png,{repeat},{'test' if image >= 18 else 'train'}")
            responses.append(colours.reshape(-1)[:5] / 100 + rng.standard_normal(5) / 2)
    (folder / "trials.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "responses.npy", np.array(responses, dtype=np.float32))
    prepare_table(folder, folder / "dataset")
    assert main(["features", str(folder / "dataset"), "--encoder", "pixels", "--layers", "grid4"]) == 0
    return folder / "dataset"


@pytest.fixture(autouse=True)
def micro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "micro", MICRO)


def train(dataset: Path, out: Path, *more: str) -> int:
    return main(["train", str(dataset), "--out", str(out), *SHORT, *more])


@pytest.mark.parametrize("recipe", ["reference", "calibrated"])
def test_a_run_loads_alone_and_predicts(recipe: str, dataset: Path, tmp_path: Path) -> None:
    more = ["--linear.n-folds=3", "--linear.windows=0"] if recipe == "calibrated" else []
    assert train(dataset, tmp_path / "run", "--recipe", recipe, *more) == 0
    model = SynBrain.from_pretrained(tmp_path / "run")
    picture = load_dataset(dataset).load_image(0)
    assert model.predict([picture]).shape == (1, 5)
    assert (model.subject().linear is None) is (recipe == "reference")
    left = sorted(path.name for path in (tmp_path / "run" / "training").iterdir())
    assert left == ["config.json", "log.jsonl"], "checkpoints of a finished run go"


def test_options_override_the_recipe_and_the_rest_stays(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("vae:\n  lr: 0.002\n  loss:\n    replicas: 1\n")
    words = ["--recipe", "reference", "--config", str(config), "--mapper.clip-grad", "0.5"]
    assert train(dataset, tmp_path / "run", *words) == 0
    said = json.loads((tmp_path / "run" / "training" / "config.json").read_text())
    assert (said["vae"]["lr"], said["vae"]["loss"]["replicas"], said["mapper"]["clip_grad"]) == (
        0.002,
        1,
        0.5,
    )
    assert (said["vae"]["weight_decay"], said["vae"]["loss"]["clip_weight"]) == (0.05, 1000)  # the recipe's


@pytest.mark.parametrize(
    ("content", "named"),
    [("vae:\n  lrr: 0.1\n", "lrr"), ("mappper:\n  lr: 0.1\n", "mappper")],
)
def test_a_config_key_with_a_typo_is_named(
    content: str, named: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        train(dataset, tmp_path / "run", "--config", str(config))
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_value_out_of_range_is_named(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(dataset, tmp_path / "run", "--vae.lr=-1") == 2
    assert "--vae.lr cannot be -1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_tokens_say_how_to_make_them(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(dataset, tmp_path / "run", "--encoder=efficientnet-lite0") == 2
    assert "synbrain features" in capsys.readouterr().err


def test_an_output_that_exists_is_kept(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert train(dataset, out, "--recipe=reference") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "mine.txt").read_text() == "mine"


def test_ctrl_c_then_resume_gives_the_uninterrupted_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(dataset, whole, "--recipe=reference") == 0
    batch_rows, calls = vae_stage.batch_rows, []

    def pressing(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return batch_rows(*given)

    with monkeypatch.context() as patched:
        patched.setattr(vae_stage, "batch_rows", pressing)
        assert train(dataset, cut, "--recipe=reference") == 130
    assert train(dataset, cut, "--recipe=reference") == 2
    assert "--resume" in capsys.readouterr().err
    assert train(dataset, cut, "--recipe=reference", "--resume", "--vae.lr=0.5") == 2
    assert "vae.lr" in capsys.readouterr().err
    assert train(dataset, cut, "--recipe=reference", "--resume") == 0
    logs = [read_log(out / "training" / "log.jsonl") for out in (whole, cut)]
    assert logs[0] == logs[1]
    weights = [(out / "mapper" / "model.safetensors").read_bytes() for out in (whole, cut)]
    assert weights[0] == weights[1]


def test_a_model_without_networks_is_the_linear_path_and_noise(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(dataset), "--encoder=pixels", "--networks=false", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    run = SynBrain.from_pretrained(tmp_path / "run")
    assert run.vae is None
    assert run.config.mapper_layer is None
    part = run.subject()
    assert part.linear is not None
    assert part.noise is not None
    images = [load_dataset(dataset).load_image(row) for row in (20, 21)]
    assert run.sample(images, 3).shape == (3, 2, 5)
    whole = ["train", str(dataset), *SHORT, "--out", str(tmp_path / "whole")]
    assert main(whole) == 0
    same = SynBrain.from_pretrained(tmp_path / "whole").subject().linear
    assert same is not None
    np.testing.assert_array_equal(same.mixing, part.linear.mixing)
    capsys.readouterr()
    assert main([*words[:-1], str(tmp_path / "other"), "--recipe=reference"]) == 2
    assert "leave --networks at true" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
