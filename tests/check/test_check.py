"""`check` finds what was planted, and nothing in clean data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synbrain.check.between import check_between
from synbrain.check.images import few_features, image_statistics, summarise_tokens
from synbrain.check.report import Line, check_dataset
from synbrain.check.sessions import compare_counts, moments_of, recognise_unit
from synbrain.cli import main
from synbrain.data.dataset import Dataset, NsdOrigin, load_dataset
from synbrain.prepare.nsd.options import NsdOptions
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.simulate.example import toy_dataset
from synbrain.simulate.experiment import SimulationSize, simulate

SIZE = SimulationSize(150, 40, 5, 90, (17, 11, 11), 9.0, 140, 48)
Responses = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "tree"
    simulate(out, subjects=2, size=SIZE, noise="medium", seed=3)
    return out


@pytest.fixture(scope="module")
def dataset(tree: Path) -> Dataset:
    return prepare_nsd(tree, tree.parent / "subject1", subject=1)


@pytest.fixture(scope="module")
def features(dataset: Dataset) -> np.ndarray[Any, Any]:
    return image_statistics(dataset)


def _sessions(dataset: Dataset) -> list[np.ndarray[Any, Any]]:
    session = dataset.trials["session"].to_numpy()
    return [np.flatnonzero(session == number) for number in np.unique(session)]


def _found(dataset: Dataset, features: Any, responses: Responses) -> dict[str, str]:
    report = check_dataset(replace(dataset, responses=responses), features)
    return {line.check.split(" (")[0]: line.text for line in report.faults if line.check != "files"}


@pytest.mark.parametrize(("noise", "seed"), [("low", 11), ("medium", 12), ("high", 13), ("medium", 14)])
def test_clean_subject_gives_no_finding(tmp_path: Path, noise: str, seed: int) -> None:
    simulate(tmp_path / "tree", size=SIZE, noise=noise, seed=seed)
    clean = prepare_nsd(tmp_path / "tree", tmp_path / "clean", subject=1)
    report = check_dataset(clean, image_statistics(clean), families=np.arange(clean.n_images), seed=seed)
    assert not report.faults, report.faults
    assert {line.status for line in report.lines} == {"ok"}
    assert not check_dataset(clean, None, seed=seed).faults


def test_ragged_subject_gives_no_finding(tmp_path: Path) -> None:
    simulate(tmp_path / "tree", subjects=2, size=SIZE, seed=5, sessions=[5, 3])
    ragged = prepare_nsd(
        tmp_path / "tree",
        tmp_path / "ragged",
        subject=2,
        options=NsdOptions(test_set="shared515", repeats="available"),
    )
    assert not check_dataset(ragged, image_statistics(ragged)).faults


@pytest.mark.parametrize("use_features", [True, False])
def test_swapped_sessions(dataset: Dataset, features: Any, use_features: bool) -> None:
    rows, swapped = _sessions(dataset), np.array(dataset.responses)
    swapped[rows[1]], swapped[rows[3]] = dataset.responses[rows[3]], dataset.responses[rows[1]]
    found = _found(dataset, features if use_features else None, swapped)
    assert "sessions 1 and 3 are swapped" in found["swapped sessions"]
    assert "shifted trials" not in found


@pytest.mark.parametrize("by", [1, -2])
def test_session_shifted_by_trials(dataset: Dataset, features: Any, by: int) -> None:
    rows, shifted = _sessions(dataset)[2], np.array(dataset.responses)
    shifted[rows] = np.roll(dataset.responses[rows], by, axis=0)
    found = _found(dataset, features, shifted)
    assert "session 2," in found["shifted trials"]
    direction = "earlier" if by > 0 else "later"
    assert f"{abs(by)} trial{'s' if abs(by) > 1 else ''} {direction}" in found["shifted trials"]
    assert "swapped sessions" not in found


def test_shift_from_a_lost_trial_on_says_where(dataset: Dataset, features: Any) -> None:
    rows, shifted = _sessions(dataset)[2], np.array(dataset.responses)
    shifted[rows[30:]] = np.roll(dataset.responses[rows[30:]], 1, axis=0)
    report = check_dataset(replace(dataset, responses=shifted), features)
    (line,) = [line for line in report.faults if line.check == "shifted trials"]
    (shift,) = line.numbers["shifts"]
    assert shift["session"] == 2
    assert abs(shift["first"] - 31) <= 8


def test_all_sessions_shifted_alike(dataset: Dataset, features: Any) -> None:
    shifted = np.array(dataset.responses)
    for rows in _sessions(dataset):
        shifted[rows] = np.roll(dataset.responses[rows], 1, axis=0)
    found = _found(dataset, features, shifted)
    assert "all sessions" in found["shifted trials"]
    assert "repeats" in found


def test_shuffled_session_and_shuffled_subject(dataset: Dataset, features: Any) -> None:
    rng, rows = np.random.default_rng(0), _sessions(dataset)[4]
    shuffled = np.array(dataset.responses)
    shuffled[rows] = dataset.responses[rng.permutation(rows)]
    assert "session 4" in _found(dataset, features, shuffled)["repeats"]
    everything = _found(dataset, features, np.array(dataset.responses)[rng.permutation(dataset.n_trials)])
    assert {"repeats", "images"} <= set(everything)


def test_responses_of_another_subject_fit_only_the_shared_images(tree: Path, dataset: Dataset) -> None:
    """Repeats sit at the same trials in all subjects: only the images tell."""
    other = prepare_nsd(tree, tree.parent / "other", subject=2)
    mixed = replace(other, responses=dataset.responses, info=dataset.info, space=dataset.space)
    found = check_dataset(mixed, image_statistics(other)).faults
    assert "images" in [line.check.split(" (")[0] for line in found]


@pytest.mark.parametrize(
    ("change", "check", "text"),
    [
        (lambda y, rows: y * 300, "unit", "not divided by 300"),
        (lambda y, rows: y * 299.5, "unit", "x 300"),
        (lambda y, rows: y * np.float32(0.15), "unit", "int16 / 2000"),
        (lambda y, rows: _put(y, rows[1], y[rows[1]] * 300), "mean and variance", "session 1"),
        (lambda y, rows: _put(y, rows[1], y[rows[1]] + 10), "mean and variance", "session 1"),
        (lambda y, rows: _put(y, rows[1], 0.5), "mean and variance", "constant"),
        (lambda y, rows: _put(y, rows[1][:1], np.nan), "mean and variance", "not finite"),
        (lambda y, rows: _put(y, rows[1], y[rows[0]] * 2), "duplicate sessions", "session 0 and session 1"),
        (lambda y, rows: _put(y, rows[1][:1], y[rows[1][5:6]]), "duplicate sessions", "1 pair of trials"),
        # a part of a session that stands in another, too: it was said that no trial occurs twice
        (lambda y, rows: _put(y, rows[2][:20], y[rows[0][5:25]]), "duplicate sessions", "20 pairs of trials"),
    ],
)
def test_broken_numbers(
    dataset: Dataset, change: Callable[[Responses, list[Any]], Responses], check: str, text: str
) -> None:
    broken = change(np.array(dataset.responses), _sessions(dataset)).astype(np.float32)
    assert text in _found(dataset, None, broken)[check]


def _put(values: Responses, rows: Any, new: Any) -> Responses:
    values = values.copy()
    values[rows] = new
    return values


@pytest.mark.parametrize(
    ("scaling", "looks"), [("percent", "percent"), ("session-zscore", "z-scored"), ("reference", "reference")]
)
def test_units_are_recognised(tree: Path, tmp_path: Path, scaling: Any, looks: str) -> None:
    made = prepare_nsd(tree, tmp_path / "d", subject=1, options=NsdOptions(scaling=scaling))
    guess = recognise_unit(made, moments_of(made))
    assert guess.looks == looks
    assert not guess.wrong
    stated = {"percent": "z-score within session", "session-zscore": "percent signal change"}
    if scaling in stated:
        lying = replace(made, info=made.info.model_copy(update={"unit": stated[scaling]}))
        assert recognise_unit(lying, moments_of(lying)).wrong


def test_duplicated_subject_under_another_name_unit_and_voxel_order(tree: Path, dataset: Dataset) -> None:
    other = prepare_nsd(tree, tree.parent / "subject2", subject=2)
    copy = replace(dataset, responses=np.array(dataset.responses)[:, ::-1] * np.float32(0.15) + 1)
    assert not check_between([dataset, other]).faults
    (fault,) = check_between([dataset, other, copy]).faults
    assert "same recording" in fault.text


def test_counts_are_compared_for_nsd_itself(dataset: Dataset) -> None:
    assert compare_counts(dataset) is None
    fields = {
        "nsd": NsdOrigin(subject=1, n_sessions=2),
        "provenance": {"notes": ["nsdgeneral has 5 voxels, 15724 are published"]},
    }
    nsd = replace(dataset, info=dataset.info.model_copy(update=fields))
    odd = compare_counts(nsd)
    assert odd is not None
    assert any("15724" in text for text in odd)
    assert any("750" in text for text in odd)


def test_command_prints_findings_and_exits_with_1(
    tree: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    assert main(["check", str(dataset.path), "--out", str(out)]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert json.loads(out.read_text())["faults"] == 0
    assert main(["check", str(dataset.path), "--out", str(out)]) == 2  # stands there already

    # betas of two sessions swapped on disk, in the tree: what a mistaken copy does
    broken = tmp_path / "broken"
    shutil.copytree(tree, broken)
    (folder,) = {
        path.parent for path in broken.glob("nsddata_betas/ppdata/subj01/func1pt8mm/*/betas_session*")
    }
    first, second = sorted(folder.glob("betas_session*"))[:2]
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    swapped = prepare_nsd(broken, tmp_path / "swapped", subject=1)
    words = ["check", str(swapped.path), str(dataset.path), "--out", str(out), "--overwrite"]
    assert main(words) == 1
    printed = capsys.readouterr().out
    assert "sessions 0 and 1 are swapped" in printed
    assert len(printed.splitlines()) < 30
    report = json.loads(out.read_text())
    assert report["datasets"][0]["faults"] == 1
    assert report["datasets"][1]["faults"] == 0


def test_altered_file_is_a_finding(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataset.path, tmp_path / "copy")
    values = np.load(tmp_path / "copy/responses.npy", mmap_mode="r+")
    values[0, 0] += 1
    values.flush()
    assert main(["check", str(tmp_path / "copy")]) == 1
    assert "altered" in capsys.readouterr().out


def test_one_session_is_checked_by_its_repeats_and_images(dataset: Dataset, features: Any) -> None:
    one = replace(dataset, trials=dataset.trials.assign(session=0))
    report = {line.check.split(" (")[0]: line for line in check_dataset(one, features).lines}
    assert report["repeats"].status == report["images"].status == "ok"
    for order in ("shifted trials", "swapped sessions"):
        assert report[order].status == "not tested"
        assert "all trials are one session" in report[order].text
    shuffled = replace(one, responses=np.random.default_rng(0).permutation(np.array(one.responses)))
    assert {"repeats", "images"} <= {x.check.split(" (")[0] for x in check_dataset(shuffled, features).faults}


def test_same_seed_same_report(dataset: Dataset, features: Any) -> None:
    first = check_dataset(dataset, features, seed=4).as_json()
    assert first == check_dataset(dataset, features, seed=4).as_json()
    json.dumps(first, allow_nan=False)


def test_tokens_become_few_features_that_keep_the_images_apart() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((60, 16, 200)).astype(np.float16)
    rows = rng.permutation(60)
    small = summarise_tokens(tokens, rows)
    assert small.shape == (60, 12)
    assert np.linalg.matrix_rank(small) == 12
    distances = np.linalg.norm(small[:, None] - small[None], axis=2)[
        np.ix_(np.argsort(rows), np.argsort(rows))
    ]
    again = summarise_tokens(tokens, np.arange(60))
    np.testing.assert_allclose(
        distances, np.linalg.norm(again[:, None] - again[None], axis=2), rtol=1e-3, atol=1e-3
    )
    assert few_features(rng.standard_normal((500, 7))).shape == (500, 7)


def test_dataset_with_tokens_of_another_encoder_is_refused(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_dataset(dataset.path).n_trials == dataset.n_trials
    assert main(["check", str(dataset.path), "--encoder", "efficientnet-lite0"]) == 2
    assert "synbrain features" in capsys.readouterr().err


def test_look_alikes_are_counted(dataset: Dataset, features: Any) -> None:
    def line(families: Any) -> Any:
        lines = check_dataset(dataset, features, families=families).lines
        return next(line for line in lines if line.check == "look-alikes")

    every = np.arange(dataset.n_images)
    train, test = dataset.image_rows("train"), dataset.image_rows("test")
    assert line(None).status == "not tested"
    assert line(every).text == "no image looks like another"
    families = every.copy()
    families[train[1:3]] = train[0]
    families[test[:2]] = train[0]
    found = line(families)
    assert found.status == "ok"
    assert found.numbers == {"training_images": 3, "families": 1, "test_images": 2}
    assert "2 of" in found.text


def test_a_test_image_that_another_dataset_trains_on_in_another_file_is_found(tmp_path: Path) -> None:
    first, second = toy_dataset(tmp_path / "a"), toy_dataset(tmp_path / "b", seed=1)
    assert not _of("shared pictures", [first, second])
    turned = second.trials["split"].map({"train": "test", "test": "train"})
    second = replace(second, trials=second.trials.assign(split=turned))
    assert not _of("shared pictures", [first, second])  # the same files: `train` refuses them
    for row in first.image_rows("test")[:3]:
        name = str(first.images["name"].iloc[row])
        picture = Image.open(first.stimulus_path() / name).convert("RGB").resize((50, 50))
        picture.save(second.stimulus_path() / name, quality=85)
    (fault,) = _of("shared pictures", [first, second])
    assert "3 training images of" in fault.text
    assert "in other files" in fault.text
    shutil.rmtree(second.stimulus_path())
    assert check_between([first, second]).lines[-1].status == "not tested"


def _of(name: str, datasets: list[Dataset]) -> list[Line]:
    return [line for line in check_between(datasets).faults if line.check == name]
