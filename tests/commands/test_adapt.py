"""``synbrain adapt`` and its curve: files, printed counts, baselines in every point, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures.training import MICRO
from synbrain import TrainOptions, train
from synbrain.cli import main
from synbrain.comparison import adaptation_curve as curve_module
from synbrain.comparison.options import AdaptationCurveOptions
from synbrain.data.dataset import load_dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.tokens import split_pairs
from synbrain.linear import prior
from synbrain.linear.fit import LinearFit, fit_linear_path
from synbrain.metrics.voxel import voxel_r
from synbrain.model.synbrain import SynBrain
from synbrain.networks.presets import PRESETS
from synbrain.prepare.table import prepare_table
from synbrain.training import fit as fit_module
from synbrain.training.adapt import adapt_to, adaptation_config, new_subject
from synbrain.training.options import AdaptOptions

SHORT = [
    "--vae.epochs=1", "--vae.batch-size=8", "--mapper.steps=4", "--mapper.round-steps=2",
    "--mapper.batch-size=8", "--linear.n-folds=3", "--linear.windows=0", "--linear.blur=0",
]  # fmt: skip


def recorded(folder: Path, n_voxels: int, first: int) -> Path:
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(n_voxels)
    lines, responses = ["image,repeat,split"], []
    for place in range(24):
        colours = np.random.default_rng(first + place).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32)).save(folder / "images" / f"{place}.png")
        for repeat in range(2):
            lines.append(f"{place}.png,{repeat},{'test' if place >= 18 else 'train'}")
            responses.append(colours.reshape(-1)[:n_voxels] / 100 + rng.standard_normal(n_voxels) / 2)
    (folder / "trials.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "responses.npy", np.array(responses, dtype=np.float32))
    prepare_table(folder, folder / "dataset")
    assert main(["features", str(folder / "dataset"), "--encoder", "pixels", "--layers", "grid4"]) == 0
    return folder / "dataset"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of two subjects with 5 and 6 voxels."""
    folder = tmp_path_factory.mktemp("base")
    datasets = [recorded(folder / "a", 5, 0), recorded(folder / "b", 6, 100)]
    words = ["train", *map(str, datasets), "--out", str(folder / "run"), "--encoder=pixels", "--preset=micro"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PRESETS, "micro", MICRO)
        assert main([*words, *SHORT]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("new"), 5, 200)


def test_a_run_for_a_new_subject_loads_alone_and_the_base_stays(
    run: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = ["adapt", str(run), str(new), "--out", str(tmp_path / "run2"), "--budget=12", "--by=images"]
    assert main([*words, *SHORT]) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    model = SynBrain.from_pretrained(tmp_path / "run2")
    assert model.mapper is not None
    mlps = sum(p.numel() for n, p in model.mapper.named_parameters() if ".fc1." in n or ".fc2." in n)
    mlps -= sum(p.numel() for n, p in model.mapper.named_parameters() if n.startswith("timestep."))
    assert f"mapper {mlps:,}" in capsys.readouterr().out
    assert model.config.base_digest
    assert model.config.adaptation is not None
    assert model.config.adaptation.n_images == 12
    assert main([*words, *SHORT]) == 2, "it is not overwritten unasked"
    assert "--overwrite" in capsys.readouterr().err


def test_a_budget_that_is_too_large_is_told(
    run: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adapt", str(run), str(new), "--out", str(tmp_path / "run2")]) == 2
    assert "too few for 1 hour:" in capsys.readouterr().err
    assert not (tmp_path / "run2").exists()


def test_the_curve_has_every_baseline_and_paired_intervals(run: Path, new: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve"
    words = ["adaptation-curve", str(run), str(new), "--out", str(out), "--draws=2"]
    words += ["--budgets", "6", "12", "all"]
    assert main([*words, "--networks=false", *SHORT]) == 0
    found = json.loads((out / "curve.json").read_text())
    points = {point["budget"]: point for point in found["curve"]}
    assert list(points) == [6, 12, "all"]
    for point in points.values():
        assert {"adapted", "ridge", "scratch", "base", "mean_map", "full"} <= set(point)
        draws = point["draws"]
        assert point["ridge"] == pytest.approx(np.mean([draw["ridge"] for draw in draws]))
        apart = point["differences"]["adapted - ridge"]
        assert apart["difference"] == pytest.approx(point["adapted"] - point["ridge"])
        low, high = apart["images"]
        assert low <= high
    assert points[6]["base"] is not None, "one of the base subjects has 5 voxels as well"
    assert points["all"]["scratch"] == pytest.approx(points["all"]["full"])
    assert len(points[6]["draws"]) == 2
    assert points[6]["draws"][0] != points[6]["draws"][1]
    assert points["all"]["intervals"]["adapted"]["draws"] is None
    assert (out / "curve.png").stat().st_size > 1000
    assert "adapted - scratch" in (out / "table.md").read_text()


def test_a_number_of_all_images_is_drawn_once(run: Path, new: Path) -> None:
    """Its draws were the same images, and the interval over them that of nothing but folds."""
    base, dataset = SynBrain.from_pretrained(run), load_dataset(new)
    n_all = str(len(dataset.image_rows("train")))
    asked = AdaptationCurveOptions(budgets=["6", n_all], draws=2, networks=False, n_bootstrap=5)
    few, every = curve_module.adaptation_curve(base, dataset, asked)["curve"]
    assert len(few["draws"]) == 2
    assert every["n_images"] == int(n_all)
    assert len(every["draws"]) == 1
    assert every["intervals"]["adapted"]["draws"] is None


@pytest.mark.parametrize(
    ("budget", "problem"), [("5000", "the budget asks for 5000"), ("2", "2 images to train")]
)
def test_a_budget_of_the_curve_that_cannot_be_had_is_told_before_the_first_fit(
    run: Path, new: Path, monkeypatch: pytest.MonkeyPatch, budget: str, problem: str
) -> None:
    """The smaller budgets were fitted first, and lost."""

    def fit(*given: Any, **options: Any) -> LinearFit:
        raise AssertionError("a fit was begun")

    monkeypatch.setattr(curve_module, "fit_linear_path", fit)
    asked = AdaptationCurveOptions(budgets=["9", budget], draws=1, networks=False)
    with pytest.raises(SynBrainError, match=problem):
        curve_module.adaptation_curve(SynBrain.from_pretrained(run), load_dataset(new), asked)


def test_a_curve_on_one_test_image_is_refused_before_the_first_fit(run: Path, new: Path) -> None:
    """It ended after all fits, in scores that are no numbers."""
    base, dataset = SynBrain.from_pretrained(run), load_dataset(new)
    test = dataset.trials["split"] == "test"
    first = dataset.trials.loc[test, "image"].iloc[0]
    split = dataset.trials["split"].where(~test | (dataset.trials["image"] == first), "train")
    one = replace(dataset, trials=dataset.trials.assign(split=split))
    asked = AdaptationCurveOptions(budgets=["6"], draws=1, networks=False, n_bootstrap=5)
    with pytest.raises(SynBrainError, match="one test image"):
        curve_module.adaptation_curve(base, one, asked)


def test_the_path_from_scratch_is_fitted_once_for_the_curve_and_the_prior(
    run: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, dataset = SynBrain.from_pretrained(run), load_dataset(new)
    linear = {"n_folds": 3, "windows": 0, "blur": 0.0}
    fits: list[LinearFit] = []

    def counted(*given: Any, **options: Any) -> LinearFit:
        fits.append(fit_linear_path(*given, **options))
        return fits[-1]

    for module in (curve_module, prior, fit_module):
        monkeypatch.setattr(module, "fit_linear_path", counted)
    given = {"networks": False, "linear": linear, "seed": 4}
    asked = AdaptationCurveOptions.model_validate(given | {"budgets": ["9"], "draws": 1})
    found = curve_module.adaptation_curve(base, dataset, asked)
    options = AdaptOptions.model_validate(given)
    assert len(fits) == 4, "full, scratch, through the base's responses, and from both"
    tokens = open_tokens(dataset, base.config.encoder, base.config.layers)
    options = options.model_copy(update={"budget": 9, "by": "images", "budget_seed": 4})
    subject = new_subject(base, dataset, tokens, options)
    fit = fit_linear_path(subject.pairs, adaptation_config(base, options).linear, seed=4)
    _, test = split_pairs(dataset, tokens)
    direct = voxel_r(fit.path.predict(test.tokens), test.repeat_means()).mean()
    assert found["curve"][0]["scratch"] == pytest.approx(direct, abs=1e-12)
    alone = adapt_to(base, subject, options)
    given = adapt_to(base, replace(subject, linear_fit=fit), options)
    np.testing.assert_array_equal(alone.predict(test.tokens), given.predict(test.tokens))


def test_the_curve_takes_no_full_run_that_saw_its_test_images(run: Path, new: Path) -> None:
    """A dataset that was split anew: the row `full` would be scored on its own training images."""
    base, dataset = SynBrain.from_pretrained(run), load_dataset(new)
    options = TrainOptions(encoder="pixels", networks=False)
    turned = dataset.trials["split"].map({"train": "test", "test": "train"})
    full = train([replace(dataset, trials=dataset.trials.assign(split=turned))], options)
    asked = AdaptationCurveOptions(budgets=["10"], draws=1, networks=False)
    with pytest.raises(SynBrainError, match="was trained on 6 of 6 test images"):
        curve_module.adaptation_curve(base, dataset, asked, full_run=full)
