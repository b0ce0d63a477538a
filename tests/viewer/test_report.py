"""The report: one page with everything that the scores hold, readable on a phone."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.commands.parsing import prepare_call
from synbrain.commands.registry import COMMANDS
from synbrain.data.dataset import load_dataset
from synbrain.data.space import VoxelSpace
from synbrain.decoding.options import DecoderOptions
from synbrain.decoding.train import train_decoder
from synbrain.evaluation.about import About
from synbrain.evaluation.evaluate import evaluate
from synbrain.evaluation.options import EvaluateOptions
from synbrain.evaluation.scores import Score, Scores
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens
from synbrain.files import read_json, write_json
from synbrain.model.folder import demo_dataset
from synbrain.model.parts import SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.simulate.example import toy_dataset
from synbrain.training.options import TrainOptions
from synbrain.training.train import train
from synbrain.viewer.options import ReportOptions
from synbrain.viewer.report import _words
from synbrain.viewer.report import report as write_a_report
from synbrain.viewer.report_page import sentences


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(demo_dataset(), folder / "data")
    shutil.copytree(demo_dataset().with_name("run"), folder / "run")
    earlier = read_json(folder / "run" / "scores.json")
    write_json(folder / "run" / "scores.json", earlier | {"seed": 5})  # of an evaluation with another seed
    options = FeatureOptions(layers=["block5", "block11"])
    make_tokens(load_dataset(folder / "data"), options)
    data, decoder = str(folder / "data"), str(folder / "decoder")
    assert main(["decoder", "train", data, "--method", "ridge", "--out", decoder]) == 0
    words = ["report", str(folder / "run"), data, "--out", str(folder / "out"), "--decoder", decoder]
    assert main(words) == 0
    return folder / "out"


def test_it_says_first_what_was_found_and_leaves_nothing_out(report: Path) -> None:
    text = (report / "report.html").read_text()
    scores = Scores.load(report / "scores.json")
    body = text.partition("<main>")[2].partition('<script type="application/json"')[0]
    order = [
        "What was found",
        "Scores on test images",
        "The cortex",
        ">ROIs<",
        "Two uncertainties",
        "Calibration",
        "Decoded pictures",
        "Which part",
        "Provenance",
        "Glossary",
    ]
    places = [body.index(heading) for heading in order]
    assert places == sorted(places)
    assert body.index("<img") < body.index("correlate with the measured ones")
    ours = scores["synbrain"]["voxel_r"]
    assert ours.value is not None
    assert ours.interval is not None
    assert f"{ours.value:.3f}" in body
    assert "[{:.3f}, {:.3f}]".format(*ours.interval) in body
    paired = scores.differences["synbrain"]["voxel_r"]
    assert f"{paired['difference']:+.3f}" in body
    assert "The linear path makes every prediction" in body
    for fact in ("synbrain report", "digest", "seed", "0.1.0"):
        assert fact in body
    images = body.split("<img")[1:]
    assert all('alt="' in image and 'alt=""' not in image for image in images)


def test_it_scores_as_evaluate_does_and_keeps_scores_of_another_evaluation(report: Path) -> None:
    assert ReportOptions().samples == EvaluateOptions().samples
    made = Scores.load(report / "scores.json")
    assert made.about.n_samples == EvaluateOptions().samples
    kept = Scores.load(report.parent / "run" / "scores.json")
    assert kept.about.seed == 5
    again = evaluate(SynBrain.from_pretrained(report.parent / "run"), load_dataset(report.parent / "data"))
    assert made.to_json() == again.to_json()


def test_both_uncertainties_stand_in_it(report: Path) -> None:
    dataset = load_dataset(report.parent / "data")
    model = SynBrain.from_pretrained(report.parent / "run")
    pictures = [dataset.load_image(int(row)) for row in dataset.image_rows("test")]
    [(_, known)] = model.iter_predictive(pictures)
    low, high = model.interval(pictures, 0.9)
    trial = np.sqrt(known.trial.variance(known.mean)).mean()
    error = np.sqrt(known.error_variance).mean()
    text = (report / "report.html").read_text()
    section = text.partition('id="uncertainties"')[2].partition("</section>")[0]
    rows = dict(re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', section))
    shown = [float(cell) for cell in re.findall("<td>(.*?)</td>", rows.pop("all"))]
    np.testing.assert_allclose(shown, [trial, error, (high - low).mean()], atol=6e-3)
    assert rows  # ROIs too


def test_it_reads_on_a_phone_in_the_dark(watch: Callable[..., Any], report: Path) -> None:
    for width, scheme in ((1280, "light"), (390, "dark")):
        shown = watch((report / "report.html").as_uri(), width=width, scheme=scheme)
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
        table = shown.page.locator("#scores ~ .wide table").first
        assert table.evaluate("t => t.parentElement.scrollWidth - t.parentElement.clientWidth") <= 0
        assert shown.colours() > 100
        assert shown.errors == []
        assert shown.outside == []


@pytest.mark.parametrize("width", [390, 1280])
def test_every_figure_opens_in_its_full_size_by_key(
    watch: Callable[..., Any], report: Path, width: int
) -> None:
    shown = watch((report / "report.html").as_uri(), width=width)
    figures = shown.page.locator("main figure.plot")
    names = figures.evaluate_all("all => all.map(f => f.id)")
    assert set(names) == {path.stem for path in (report / "figures").glob("*.png")}
    ids = shown.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    for name in ("maps", "noise_correlations"):
        picture, whole = shown.page.locator(f"#{name} img"), Image.open(report / "figures" / f"{name}.png")
        assert picture.bounding_box()["width"] < whole.width or whole.width < width
        shown.page.locator(f'#{name} a[href="#{name}"]').focus()
        shown.page.keyboard.press("Enter")
        assert picture.bounding_box()["width"] == whole.width
        box = shown.page.locator(f"#{name}").bounding_box()
        assert (box["x"], box["y"], box["width"]) == (0, 0, width)
        shown.page.keyboard.press("Tab")
        assert shown.page.evaluate("document.activeElement.textContent") == "back to the page"
        shown.page.keyboard.press("Enter")
        assert picture.bounding_box()["width"] <= width
        assert picture.is_visible()
    assert shown.errors == []


def test_decoded_pictures_are_named_for_what_they_are(watch: Callable[..., Any], report: Path) -> None:
    text = (report / "report.html").read_text()
    section = text.partition('id="decoded"')[2].partition("</section>")[0]
    for words in ("small pixel decoder", "retrieved", "seen", "one measured trial", "expected response"):
        assert words in section
    assert section.count("<img") == 6 * (1 + 2 * 4)
    shown = watch((report / "report.html").as_uri(), width=390)
    table = shown.page.locator(".sv-decoded")
    assert table.locator("img").count() == 4  # two kinds, from the expected and the measured response
    before = table.locator("img").first.get_attribute("src")
    shown.page.get_by_label("next image").click()
    assert table.locator("img").first.get_attribute("src") != before
    box = shown.page.locator("table.decoded").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert shown.errors == []


def test_a_decoder_that_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = toy_dataset(tmp_path / "toy")
    options = DecoderOptions(method="ridge", encoder="pixels", grid=0, components=0)
    train_decoder([toy], options, out=tmp_path / "decoder")
    words = ["view", "demo", "--export", str(tmp_path / "page.html"), "--decoder", str(tmp_path / "decoder")]
    assert main(words) == 2
    assert "the decoder reads 12 voxels" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
    assert main([*words[:-1], str(tmp_path / "toy")]) == 2
    assert "toy is not a decoder" in capsys.readouterr().err
    assert main(["view", str(tmp_path), "--decoder", str(tmp_path / "decoder")]) == 2
    assert "--decoder shows training images" in capsys.readouterr().err


def test_a_page_says_of_no_run_that_it_never_saw_the_images_where_that_is_not_known() -> None:
    scores = Scores({"synbrain": {"voxel_r": Score(0.5)}}, about=About(n_test_images=3, n_voxels=2))
    flat = np.zeros(2, dtype=np.float32)
    part = SubjectPart("s", VoxelSpace(2), "percent", flat, flat)
    assert "3 test images that the model never saw," in sentences(scores, part, 0.0, is_unseen=True)[0]
    assert "never saw" not in sentences(scores, part, 0.0, is_unseen=False)[0]


def test_a_page_says_that_ridge_saw_more_images_and_that_nothing_was_repeated() -> None:
    paired = {
        "synbrain": {"voxel_r": {"difference": -0.2, "interval": (-0.3, -0.1), "p": 0.001, "p_holm": 0.001}}
    }
    row = {"voxel_r": Score(0.4), "coverage_90": Score(0.9), "variance_ratio": Score(1.8)}
    flat = np.zeros(2, dtype=np.float32)
    for n_fitted, source in ((30, "residuals"), (80, "repeats")):
        about = About(n_test_images=3, n_voxels=2, n_train_images=80, n_fitted_images=n_fitted)
        noise = SimpleNamespace(n_voxels=2, record=SimpleNamespace(source=source))
        part = SubjectPart("s", VoxelSpace(2), "percent", flat, flat, noise=noise)  # type: ignore[arg-type]
        _, second, third = sentences(Scores({"synbrain": row}, {}, about, paired), part, 0.0, is_unseen=True)
        assert ("The run was fitted on 30 of the 80 training images" in second) == (n_fitted == 30)
        assert ("no training image was repeated" in third) == (source == "residuals")


def test_the_command_of_a_page_says_every_option_that_it_depends_on() -> None:
    options = ReportOptions(samples=7, seed=3, mni=True, title="A brain & its twin")
    words = shlex.split(_words(options, Path("decoder")))
    call = prepare_call(COMMANDS["report"], "report", ["RUN", "DATA", "--out", "OUT", *words])
    assert call.typed["options"] == options
    assert call.typed["decoder"] == Path("decoder")


def test_a_second_process_is_refused_before_its_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def worked(*_: object, **__: object) -> None:
        raise AssertionError("it was scored first")

    monkeypatch.setattr("synbrain.viewer.report.evaluation_of", worked)
    with (tmp_path / ".report.lock").open("w") as lock:  # as another process would have it
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = str(demo_dataset().with_name("run"))
        assert main(["report", run, str(demo_dataset()), "--out", str(tmp_path / "report")]) == 2
    assert "another process is making" in capsys.readouterr().err


def test_one_voxel_is_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = tmp_path / "one"
    (source / "images").mkdir(parents=True)
    names = [f"{i}.png" for i in range(24)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(source / "images" / name)
    rows = [(name, k, "test" if i < 6 else "train") for i, name in enumerate(names) for k in range(3)]
    pd.DataFrame(rows, columns=["image", "repeat", "split"]).to_csv(source / "trials.csv", index=False)
    np.save(source / "responses.npy", rng.normal(size=(len(rows), 1)).astype(np.float32))
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    assert main(["prepare", "table", str(source), data]) == 0
    assert main(["features", data, "--encoder", "pixels"]) == 0
    small = ["--encoder", "pixels", "--vae.epochs", "1", "--mapper.steps", "5"]
    assert main(["train", data, "--out", run, *small]) == 0
    assert main(["report", run, data, "--out", str(tmp_path / "out"), "--samples", "20"]) == 0
    text = (tmp_path / "out" / "report.html").read_text()
    assert "What was found" in text
    assert "Noise correlations" not in text


@pytest.mark.parametrize("kind", ["none", "points"])
def test_the_words_are_those_of_the_data(kind: str, watch: Callable[..., Any], tmp_path: Path) -> None:
    toy = toy_dataset(tmp_path / "toy")
    if kind == "points":  # as a table of x, y, z in mm gives them
        rng = np.random.default_rng(0)
        space = VoxelSpace(toy.n_voxels, "points", positions=rng.normal(size=(toy.n_voxels, 3)) * 20)
        toy = replace(toy, space=space)
    options = TrainOptions(encoder="pixels", networks=False)
    train([toy], options, out=tmp_path / "run")
    write_a_report(tmp_path / "run", toy, out=tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    body = text.partition("<body")[2].partition('<script type="application/json"')[0]
    words, others = ("units", "voxels") if kind == "none" else ("voxels", "units")
    assert f"in the mean over {toy.n_voxels} {words}" in body
    assert f"The {words}, to turn and to touch" in body
    assert f"How trials vary: two {words}" in body
    assert f"The {words} above show both" in body
    assert (tmp_path / "out" / "figures" / "maps.png").exists() == (kind == "points")
    read = re.sub(r"<details.*?</details>|data:[^\"]*", "", body, flags=re.DOTALL)  # without the glossary
    for word in (others, "cortex", "ROI"):
        assert word not in read, word
    shown = watch((tmp_path / "out" / "report.html").as_uri(), width=390)
    assert shown.colours() > 50
    assert shown.errors == []
