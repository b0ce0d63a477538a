"""Encoders tuned before teach another: what they predict for units that did not see an image is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.model.synbrain import SynBrain
from synbrain.tuning.network import TuningNetwork
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.subjects import TuningSubject
from synbrain.tuning.teachers import Teacher, taught_targets
from synbrain.tuning.tune import tune_encoder
from synbrain.tuning.write import Tuned

SMALL = TuneOptions(
    size=32, side=2, channels=6, epochs=6, batch_size=8, validation_fraction=0.3, layers=["block2", "block4"],
    lr_readout=1e-2, freeze=["_conv_stem.", "_bn0.", "_blocks.0.", "_blocks.1.", "_blocks.2."],
)  # fmt: skip


@pytest.fixture(scope="module")
def teacher(pair: list[Dataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    out = tmp_path_factory.mktemp("teacher") / "first"
    return out, tune_encoder(pair, SMALL, out=out)


def taught_by(folders: list[Path], subjects: list[TuningSubject], work: Path) -> list[NDArray[np.float16]]:
    name = "-".join(folder.name for folder in folders)
    files = [work / f"{name}-{i}.npy" for i in range(len(subjects))]
    teachers = [Teacher.of(str(folder), [s.dataset for s in subjects]) for folder in folders]
    return taught_targets(teachers, subjects, files, torch.device("cpu"), False)


def test_teachers_tell_every_unit_of_every_image_in_the_unit_of_the_targets(
    teacher: tuple[Path, Tuned], subjects: list[TuningSubject], tmp_path: Path
) -> None:
    out, made = teacher
    taught = taught_by([out], subjects, tmp_path)
    assert [t.shape for t in taught] == [(24, 8), (24, 8)]
    pixels = torch.from_numpy(np.array(subjects[1].pixels[:5])).float()
    seen = made.encoder.forward(made.encoder.preprocess.normalised(pixels))["readout"]
    with torch.no_grad():
        by_readouts = torch.cat([readout.forward(seen) for readout in made.readouts], dim=1)
    np.testing.assert_allclose(taught[1][:5], by_readouts, atol=5e-3)  # stored in float16
    twice = taught_by([out, out], subjects, tmp_path)
    np.testing.assert_allclose(twice[0], taught[0])


def test_teachers_that_predict_rates_teach_rates(
    pair: list[Dataset], subjects: list[TuningSubject], tmp_path: Path
) -> None:
    """What is stored of their readouts lacks the last nonlinearity: it varies too much and falls below 0."""
    counts = [replace(d, responses=np.maximum(d.responses, 0)) for d in pair]
    made = tune_encoder(counts, SMALL.model_copy(update={"loss": "poisson"}), out=tmp_path / "rates")
    network = TuningNetwork(made.base, made.head, [3, 5], "poisson", 0)
    network.readouts = torch.nn.ModuleList(made.readouts)
    network.readout_of = tuple(made.readouts)
    pixels = torch.from_numpy(np.array(subjects[1].pixels[:6]))
    with torch.no_grad():
        rates = torch.cat([network.predict(pixels, which) for which in (0, 1)], dim=1).numpy()
    parts = SynBrain.from_pretrained(tmp_path / "rates" / "readouts").subjects.values()
    mean_rates = np.concatenate([part.response_mean for part in parts])
    # who is taught here is tuned by squared error: z-scores
    mean, sd = (np.concatenate([getattr(s, name) for s in subjects]) for name in ("mean", "sd"))
    expected = (rates * mean_rates - mean) / sd
    taught = taught_by([tmp_path / "rates"], subjects, tmp_path)[1][:6]
    np.testing.assert_allclose(taught, expected, atol=0.02)


def test_teachers_of_another_unit_are_refused(
    teacher: tuple[Path, Tuned], pair: list[Dataset], subjects: list[TuningSubject], tmp_path: Path
) -> None:
    out, _ = teacher
    info = pair[0].info.model_copy(update={"unit": "z-score"})
    now = [replace(subjects[0], dataset=replace(pair[0], info=info)), subjects[1]]
    with pytest.raises(SynBrainError, match=r"predicts 'a\.u\.' for a, whose recordings are in 'z-score'"):
        taught_by([out], now, tmp_path)


def test_who_is_taught_predicts_units_that_did_not_see_the_images_as_teachers_do(
    teacher: tuple[Path, Tuned], pair: list[Dataset], subjects: list[TuningSubject], tmp_path: Path
) -> None:
    """The control is taught with weight 0: its readouts of one subject know nothing of the other's images."""
    out, _ = teacher
    taught = taught_by([out], subjects, tmp_path)
    rows, distance = subjects[0].train, {}
    for weight in (1.0, 0.0):
        changed = {"teachers": [str(out)], "taught_weight": weight, "epochs": 12}
        made = tune_encoder(pair, SMALL.model_copy(update=changed), out=tmp_path / f"student{weight}")
        assert [teacher["name"] for teacher in made.config["teachers"]] == ["tuned-first"]
        assert str(tmp_path) not in str(made.config)
        # readouts of the second subject, for images that the first alone saw
        told = taught_by([tmp_path / f"student{weight}"], subjects, tmp_path)
        distance[weight] = float(np.square(told[0][rows, 3:] - taught[0][rows, 3:]).mean())
    assert distance[1.0] < 0.5 * distance[0.0]


def test_teachers_of_other_data_or_of_images_held_out_are_refused(
    teacher: tuple[Path, Tuned], pair: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = teacher
    with_teacher = SMALL.model_copy(update={"teachers": [str(out)]})
    with pytest.raises(SynBrainError, match="held out here"):
        tune_encoder(pair, with_teacher.model_copy(update={"seed": 3}), out=tmp_path / "other-seed")
    with pytest.raises(SynBrainError, match="not tuned on here"):
        tune_encoder(pair[:1], with_teacher, out=tmp_path / "fewer")
    tune_encoder(pair[:1], SMALL, out=tmp_path / "one")
    lacking = SMALL.model_copy(update={"teachers": [str(tmp_path / "one")]})
    monkeypatch.setattr("synbrain.tuning.tune.decode_pixels", None)  # told before pictures are decoded
    with pytest.raises(SynBrainError, match="was not tuned on b"):
        tune_encoder(pair, lacking, out=tmp_path / "lacking")
