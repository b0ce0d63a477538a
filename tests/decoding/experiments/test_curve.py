"""The augmentation curve: decoders on disk, the choice of a share, and what is read off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.colours import linear_run, make_dataset
from synbrain import Dataset, SynBrain
from synbrain.data.marks import image_marks, packed
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.experiments.compare import compare_decoders
from synbrain.decoding.experiments.curve import (
    augmentation_curve,
    choose_shares,
    curve_points,
    curve_worth,
    further_hours,
)
from synbrain.decoding.options import CurveOptions, DecoderOptions
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError
from synbrain.figures.augmentation import augmentation_figure, worth_figure


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("curve"), "first", 30, 1)


@pytest.fixture(scope="module")
def run(first: Dataset) -> SynBrain:
    return linear_run(first)


CURVE = CurveOptions(
    method="ridge", encoder="pixels", components=8, budget="all", hours=[0, 0.1],
    arms=["calibrated", "expected", "isotropic", "ridge_gaussian", "repeated"], seeds=2,
)  # fmt: skip


def test_arms_and_resuming(first, run, tmp_path: Path) -> None:
    found = augmentation_curve(run, first, CURVE, out=tmp_path / "c")
    assert not found["failed"]
    assert {p["arm"] for p in found["points"]} == {"none", *CURVE.arms}
    assert all(p["seeds"] == [0, 1] for p in found["points"])
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "c" / "cells").glob("*.json")}
    assert len(stamps) == 2 + 2 * 5 * 3  # every share lies there
    (tmp_path / "c" / "curve.json").unlink()  # as if it had been interrupted before the end
    gone = next(iter(stamps))
    gone.unlink()
    again = augmentation_curve(run, first, CURVE, out=tmp_path / "c")
    assert again == found
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items() if p != gone)
    assert json.loads((tmp_path / "c" / "curve.json").read_text()) == found
    assert augmentation_figure(found).axes
    assert worth_figure(found) is None  # without real hours there is nothing to read it off
    # an arm that is added later stands beside the others
    fewer = CURVE.model_copy(update={"arms": ["expected"], "hours": [0.0, 0.2], "seeds": 1, "resume": True})
    more = augmentation_curve(run, first, fewer, out=tmp_path / "c")
    assert not more["failed"]
    known = {(p["arm"], p["hours"]) for p in more["points"]}
    assert known == {(p["arm"], p["hours"]) for p in found["points"]} | {("expected", 0.2)}
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items() if p != gone)
    # which share is chosen is read off finished decoders
    forced = augmentation_curve(run, first, fewer.model_copy(update={"weights": [0.5]}), out=tmp_path / "c")
    assert {w for p in forced["points"] if p["arm"] not in ("none", "real") for w in p["weights"]} == {0.5}
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items() if p != gone)
    assert augmentation_curve(run, first, fewer, out=tmp_path / "c") == more
    # other settings are refused, and the finished curve stays
    other = CURVE.model_copy(update={"components": 4, "resume": True})
    with pytest.raises(SynBrainError, match="other settings"):
        augmentation_curve(run, first, other, out=tmp_path / "c")
    assert json.loads((tmp_path / "c" / "curve.json").read_text()) == more


def test_decoders_of_another_run_are_refused_also_where_no_folder_tells_them_apart(
    first, run, tmp_path: Path
) -> None:
    options = CURVE.model_copy(update={"arms": ["expected"], "seeds": 1, "resume": True})
    found = augmentation_curve(run, first, options, out=tmp_path / "c")
    assert not run.digest
    part = run.subject()
    assert part.linear is not None
    linear = replace(part.linear, mixing=part.linear.mixing + 1)
    other = SynBrain(run.config, {part.name: replace(part, linear=linear)})
    with pytest.raises(SynBrainError, match="other settings or data"):
        augmentation_curve(other, first, options, out=tmp_path / "c")
    assert augmentation_curve(linear_run(first), first, options, out=tmp_path / "c") == found
    other.save_pretrained(tmp_path / "run")
    assert other.digest == SynBrain.from_pretrained(tmp_path / "run").digest != ""


def test_a_base_is_adapted_in_its_token_space_and_held_against_the_test_images(
    first, run, options, tmp_path: Path
) -> None:
    other = make_dataset(tmp_path, "other", 24, 2)
    small = options("mindeye2", encoder="pixels", components=8).mindeye2
    sizes = small.sizes.model_copy(update={"use_prior": False})  # a pixel token has 3 values
    small = small.model_copy(update={"sizes": sizes, "steps": 20, "round_steps": 10})
    base = train_decoder(
        [other], DecoderOptions(encoder="pixels", components=8, mindeye2=small), out=tmp_path / "base"
    )
    # no encoder is named: it is the base's, as in `decoder adapt`
    asked = CurveOptions(
        budget="all", hours=[0, 0.1], arms=["expected"], weights=[0.5], seeds=1, mindeye2=small
    )  # fmt: skip
    curve = augmentation_curve(run, first, asked, out=tmp_path / "c", base=tmp_path / "base")
    assert not curve["failed"]
    assert curve["about"]["adapted"]
    saw = packed(image_marks(first, first.image_rows("test")[:1]))
    nosy = replace(base, config=base.config.model_copy(update={"trained_images": saw}))
    nosy.save_pretrained(tmp_path / "nosy")
    with pytest.raises(SynBrainError, match="would be trained on 1 test image"):
        augmentation_curve(run, first, asked, out=tmp_path / "d", base=tmp_path / "nosy")
    assert not (tmp_path / "d" / "cells").exists()


def test_a_failure_loses_nothing(first, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Arms.trials

    def fail(self: Arms, cell: Cell, *given: Any) -> Any:
        if cell.arm == "isotropic":
            raise SynBrainError("no noise", "give some")
        return trials(self, cell, *given)

    monkeypatch.setattr(Arms, "trials", fail)
    options = CURVE.model_copy(update={"arms": ["expected", "isotropic"], "seeds": 1})
    found = augmentation_curve(run, first, options, out=tmp_path / "c")
    assert found["failed"]
    assert all(name.startswith("isotropic-0.1h-0") for name in found["failed"])
    assert {p["arm"] for p in found["points"]} == {"none", "expected"}
    assert all("no noise" in text for text in found["failed"].values())


@pytest.mark.parametrize(("budget", "hours"), [("all", 1.0), ("25", 1.0), ("1h", 0.5)])
def test_further_real_hours_are_refused_before_the_work(
    budget: str, hours: float, first, run, tmp_path: Path
) -> None:
    wanted = {"arms": ["expected", "real"], "budget": budget, "hours": [0.0, hours]}
    with pytest.raises(SynBrainError, match="give --budget in hours"):
        augmentation_curve(run, first, CURVE.model_copy(update=wanted), out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_several_processes_are_refused_before_the_work(
    first, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SynBrainError, match="augmentation-curve fits its decoders in one process"):
        augmentation_curve(run, first, CURVE, out=tmp_path / "c")
    with pytest.raises(SynBrainError, match="decoder compare fits its decoders in one process"):
        compare_decoders(tmp_path / "none", first, run=run, known_data=first, out=tmp_path / "t")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("budget", "hours"), [(25, 1.0), ("all", 1.0), ("2", 1.0), ("1h", 0.5)])
def test_real_hours_are_whole_and_added_to_hours(budget: int | str, hours: float) -> None:
    with pytest.raises(SynBrainError, match="budget in hours"):
        further_hours(budget, hours)


def test_bad_hours(first, run, tmp_path: Path) -> None:
    with pytest.raises(SynBrainError, match="give 0"):
        augmentation_curve(run, first, CURVE.model_copy(update={"hours": [1.0]}), out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_worth_is_read_off_the_real_curve() -> None:
    def result(value: float) -> dict:
        each = {m: [value, value] for m in ("images_ranked", "brains_ranked", "two_way")}
        return {"each": each, "weight": 0.5}

    values = {("none", 0): 0.2, ("real", 1): 0.4, ("real", 3): 0.6, ("calibrated", 1): 0.3,
              ("calibrated", 4): 0.5, ("calibrated", 8): 0.7}  # fmt: skip
    results = {Cell(arm, hours, 0): result(value) for (arm, hours), value in values.items()}
    points = curve_points(results)
    worth = curve_worth(results)["two_way"]
    assert worth["1"]["hours"] == pytest.approx(0.5)
    assert worth["4"]["hours"] == pytest.approx(2)
    assert worth["8"] == {"hours": None, "interval": [None, None]}
    figure = worth_figure({"points": points, "worth": curve_worth(results)})
    assert figure is not None
    shapes = [line.get_marker() for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert shapes == ["o", "o", "^"] * 3  # beyond the last real hour: a triangle
    gains = {(p["arm"], p["hours"]): p.get("two_way_gain") for p in points}
    assert gains["calibrated", 4] == pytest.approx(0.3)
    assert np.isclose(gains["real", 3], 0.4)


def test_a_share_is_chosen_where_validation_images_are_sure() -> None:
    def result(value: float, each: list[float]) -> dict:
        return {"each": {"two_way": [value]}, "validation_each": each}

    plain = [3.0, 3.0, 3.0, 3.0, 3.0]
    results = {
        Cell("none", 0, 0): result(0.1, plain),
        Cell("real", 1, 0): result(0.2, [9.0]),  # has other validation images; nothing is chosen
        Cell("calibrated", 1, 0, 0.25): result(0.3, [2.5, 2.0, 3.0, 2.5, 2.0]),
        Cell("calibrated", 1, 0, 0.5): result(0.4, [2.9] * 5),
        Cell("expected", 1, 0, 0.5): result(0.5, [1.0, 3.0, 3.0, 3.0, 3.5]),  # the better mean, by one image
        Cell("isotropic", 1, 1, 0.5): result(0.6, plain),  # of a seed whose decoder without failed
    }
    options = CurveOptions(weights=[0, 0.25, 0.5])
    chosen = choose_shares(results, options)
    weights = {place.arm: result["weight"] for place, result in chosen.items()}
    assert weights == {"none": 0, "real": 0, "calibrated": 0.25, "expected": 0}
    assert chosen[Cell("calibrated", 1, 0)]["tried"] == pytest.approx({"0": 3.0, "0.25": 2.4, "0.5": 2.9})
    assert chosen[Cell("expected", 1, 0)]["each"] == {"two_way": [0.1]}
    by_mean = choose_shares(results, options.model_copy(update={"rule": "mean"}))
    assert by_mean[Cell("expected", 1, 0)]["weight"] == 0.5
    forced = choose_shares(results, options.model_copy(update={"weights": [0.5]}))
    assert {p.arm for p, r in forced.items() if r["weight"]} == {"calibrated", "expected", "isotropic"}
