"""``synbrain view`` and the run that comes with the package."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.metrics.ceiling import correlation_ceiling
from synbrain.model.folder import DEMO, demo_dataset
from synbrain.model.synbrain import SynBrain
from synbrain.viewer import page as pages
from synbrain.viewer.packing import quantised
from synbrain.viewer.page import as_script_data
from synbrain.viewer.source import Source


def test_the_demo_run_predicts_offline() -> None:
    model, dataset = SynBrain.from_pretrained(DEMO), load_dataset(demo_dataset())
    rows = dataset.image_rows("test")
    predicted = model.predict([dataset.load_image(int(row)) for row in rows])
    image = dataset.trials["image"].to_numpy()
    measured = np.stack([dataset.responses[image == row].mean(axis=0) for row in rows])
    # the recordings beside it are its own subject's: patterns over images agree, voxel by voxel
    a, b = predicted - predicted.mean(axis=0), measured - measured.mean(axis=0)
    r = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    assert np.mean(r) > 0.5
    assert model.sample([dataset.load_image(0)], 3).shape == (3, 1, model.subject().n_voxels)
    size = sum(p.stat().st_size for p in demo_dataset().parent.rglob("*") if p.is_file())
    assert size < 3_000_000


def test_the_command_writes_the_page_of_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["view", "demo", "--export", str(tmp_path / "page.html"), "--images", "2", "--trials", "1"]
    assert main(words) == 0
    text = (tmp_path / "page.html").read_text()
    found = re.search(r'id="viewer-data">(.*?)</script>', text, re.S)
    assert found is not None
    data = json.loads(found[1])
    assert len(data["responses"]) == 2
    assert data["geometry"]["kind"] == "surface"
    assert data["responses"][0]["nearest"][0]["picture"].startswith("data:image/jpeg")
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["view", DEMO, "--export", str(tmp_path / "other.txt")]) == 2


def test_what_does_not_fit_is_told(
    shown_dataset: Dataset, make_model: Callable[..., SynBrain], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SynBrainError, match="voxels"):
        Source(SynBrain.from_pretrained(DEMO), shown_dataset)
    with pytest.raises(SynBrainError, match=r"run predicts 'z-score', .* holds 'percent signal change'"):
        Source(make_model(shown_dataset.space, unit="z-score"), shown_dataset)
    with pytest.warns(SynBrainWarning, match="the run is of someone, .* of subj01: if these are two people"):
        Source(make_model(shown_dataset.space, name="someone"), shown_dataset)
    source = Source(make_model(shown_dataset.space))
    with pytest.raises(SynBrainError, match="needs pictures"):
        pages.exported(source, 2)
    assert source.head("server")["images"] == []
    pages.bundle.cache_clear()
    monkeypatch.setattr(pages, "HERE", files("synbrain.noise"))
    with pytest.raises(SynBrainError, match="make viewer"):
        pages.bundle("viewer.js")


def test_names_cannot_leave_the_script() -> None:
    text = str(as_script_data({"name": "</script><script>alert(1)</script><!--"}))
    assert "<" not in text
    assert json.loads(text)["name"].startswith("</script>")


def test_packed_values_come_back() -> None:
    values = np.array([0.0, -3.2, np.nan, 1.7])
    packed = quantised(values)
    read = np.frombuffer(base64.b64decode(packed["data"]), "<i2")
    assert read[2] == -32768
    np.testing.assert_allclose(read[[0, 1, 3]] * packed["scale"], values[[0, 1, 3]], atol=1e-4)
    assert quantised(np.zeros(3))["scale"] == 1.0


def test_the_baseline_is_the_mean_of_all_training_trials(source: Source, shown_dataset: Dataset) -> None:
    rows = shown_dataset.trial_rows("train")
    assert source._statistics is not None
    np.testing.assert_allclose(source._statistics[0], shown_dataset.responses[rows].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(source._statistics[1], shown_dataset.responses[rows].std(axis=0), atol=1e-3)


def test_decoded_pictures_are_shown_where_a_decoder_is_given(source: Source) -> None:
    given: list[tuple[int, ...]] = []

    class Decode:
        words = "what these are"

        def __call__(self, responses: np.ndarray) -> dict[str, list[Image.Image]]:
            given.append(responses.shape)
            return {"retrieved": [Image.new("RGB", (16, 16), "red") for _ in responses]}

    other = replace(source, decode=cast(Any, Decode()))
    made = other.of_test_image(0)["decoded"]
    assert [row["label"] for row in made] == ["retrieved"]
    assert made[0]["expected"].startswith("data:image/jpeg")
    assert made[0]["measured"].startswith("data:image/jpeg")
    assert "measured" not in other.of_picture("new", Image.new("RGB", (16, 16)))["decoded"][0]
    assert given == [(2, source.part.n_voxels), (1, source.part.n_voxels)]
    assert other.head("server")["decoder"] == "what these are"
    assert source.head("server")["decoder"] is None


def test_the_ceiling_of_ragged_repeats_is_that_of_scores(source: Source, shown_dataset: Dataset) -> None:
    """It was that of the average number of trials: too high where many images have one."""
    trials = shown_dataset.trials
    some = np.isin(trials["image"], source.test_rows[1:])
    ragged = replace(shown_dataset, trials=trials[~some | (trials["repeat"] == 0)])
    counts = ragged.trials["image"].value_counts()[source.test_rows].to_numpy()
    assert counts.tolist() == [3] + [1] * (len(counts) - 1)
    noise = source.part.noise
    assert noise is not None
    snr = np.sqrt(noise.signal_variance / noise.noise_variance)
    shown = Source(source.model, ragged, source.options)._ceiling
    np.testing.assert_allclose(shown, correlation_ceiling(snr, counts), rtol=1e-5)
