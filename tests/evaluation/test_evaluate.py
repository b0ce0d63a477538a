"""A run on a dataset, through the public function and the command."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synbrain.baselines.ridge import Ridge
from synbrain.cli import main
from synbrain.commands.evaluate import evaluate as command
from synbrain.data.dataset import write_tables
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.evaluation.evaluate import evaluate, evaluation_of
from synbrain.evaluation.latents import encode
from synbrain.evaluation.measured import measure
from synbrain.evaluation.options import EvaluateOptions
from synbrain.evaluation.oracle_row import oracle_row
from synbrain.evaluation.table import terminal
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.linear.path import LinearPath
from synbrain.metrics.retrieval import cosine_matrix, top1
from synbrain.metrics.voxel import voxel_r
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.subject import part_of
from synbrain.model.synbrain import SynBrain
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.simulate.experiment import simulate

VAE = BrainVAEConfig(
    tokens=2, dim=4, channels=4, multipliers=(1, 2), res_blocks=1, pooled_length=32, projector_width=8,
    norm_groups=2,
)  # fmt: skip


def linear_run(brain, *, vae: bool = False, unit: str = "percent", name: str = "s1") -> SynBrain:
    """A run whose linear path is least squares on the training images; the VAE is untrained."""
    train, _ = split_pairs(brain.dataset, brain.tokens)
    x = train.tokens.read("final").reshape(train.n_images, -1)
    y = train.repeat_means()
    weights = np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=None)[0].astype(np.float32)
    linear = LinearPath(
        projections={"final": np.eye(8, dtype=np.float16)},
        mixing=weights,
        intercept=(y.mean(0) - x.mean(0) @ weights).astype(np.float32),
        shapes={"final": (2, 4)},
        about={},
    )
    part = SubjectPart(
        name=name, space=brain.space, unit=unit, linear=linear, shrink=0.0,
        response_mean=y.mean(0), response_sd=y.std(0),
    )  # fmt: skip
    config = RunConfig(
        encoder="toy",
        encoder_digest="digest",
        linear_layers=("final",),
        mapper_layer="final" if vae else None,
    )
    torch.manual_seed(0)
    return SynBrain(config, {name: part}, BrainVAE(VAE) if vae else None)


def options(**given: Any) -> EvaluateOptions:
    return EvaluateOptions(**{"n_bootstrap": 50, **given})


def test_a_run_beside_its_controls(brain) -> None:
    scores = evaluate(linear_run(brain), brain.dataset, options(n_bootstrap=100), tokens=brain.tokens)
    assert list(scores.rows) == [
        "synbrain",
        "mean_map",
        "ridge",
        "ceiling",
    ]  # no oracle: nothing was simulated
    assert scores.value("synbrain", "voxel_r") == pytest.approx(scores.value("ridge", "voxel_r"), abs=0.03)
    assert scores.value("mean_map", "voxel_r") == 0
    assert scores.value("ridge", "voxel_r") <= scores.value("ceiling", "voxel_r") + 0.1  # 40 images
    assert scores.about.n_test_images == 40
    assert scores.about.target == "trial"
    assert set(scores.differences) == {"synbrain", "mean_map"}
    again = evaluate(linear_run(brain), brain.dataset, options(n_bootstrap=100), tokens=brain.tokens)
    assert again == scores
    json.dumps(scores.to_json(), allow_nan=False)


def test_controls_see_training_images_alone(brain) -> None:
    """Test responses decide no fit: with other ones the predictions stay."""
    train, test = split_pairs(brain.dataset, brain.tokens)
    before = Ridge().fit(train).predict(test.tokens)
    brain.dataset.responses[test.trials] = 1e3
    train, test = split_pairs(brain.dataset, brain.tokens)
    np.testing.assert_array_equal(Ridge().fit(train).predict(test.tokens), before)


def test_latent_retrieval_and_its_directions(brain, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear_run(brain, vae=True)
    alone = options(rows=[])
    scores = evaluate(model, brain.dataset, alone, tokens=brain.tokens)
    for name in ("raw_retrieval", "raw_retrieval_backward", "syn_retrieval", "syn_retrieval_backward"):
        assert 0 <= scores.value("synbrain", name) <= 1
    assert "circular" in scores["synbrain"]["syn_retrieval"].note
    _, test = split_pairs(brain.dataset, brain.tokens)
    latents = encode(model, "s1", test.repeat_means())
    assert latents.shape == (40, 2, 4)
    expected = top1(cosine_matrix(latents, test.tokens.read("final")))  # images ranked for each response
    assert scores.value("synbrain", "raw_retrieval") == pytest.approx(expected)
    monkeypatch.setattr("synbrain.evaluation.latents.LATENT_VALUES", 7 * 8)  # seven images at a time
    parts = evaluate(model, brain.dataset, alone, tokens=brain.tokens)
    for name in ("raw_retrieval", "syn_retrieval"):
        assert parts.value("synbrain", name) == pytest.approx(scores.value("synbrain", name))
    easier = evaluate(model, brain.dataset, options(rows=[], n_way=2), tokens=brain.tokens)
    assert easier.about.n_way == 2
    assert easier.value("synbrain", "raw_retrieval") > 0.3


def test_units_without_repeats_are_told_not_failed(make_brain) -> None:
    single = make_brain(repeats=(1, 1))
    scores = evaluate(linear_run(single), single.dataset, options(), tokens=single.tokens)
    assert scores.value("synbrain", "voxel_r") > 0.3
    assert scores.value("synbrain", "crps") is None
    assert scores.value("ceiling", "voxel_r") is None
    said = scores.to_json()
    assert "too few test images" in said["notes"]["synbrain"]["crps"]
    assert "unknown" in said["notes"]["ceiling"]["voxel_r"]


def test_bad_input(brain) -> None:
    model = linear_run(brain)
    with pytest.raises(SynBrainError, match="choose among"):
        evaluate(model, brain.dataset, options(rows=["gnet"]), tokens=brain.tokens)
    with pytest.raises(SynBrainError, match="synbrain features"):
        evaluate(model, brain.dataset)
    other = replace(brain.tokens, digest="another")
    with pytest.raises(SynBrainError, match="digest"):
        evaluate(model, brain.dataset, tokens=other)
    with pytest.raises(SynBrainError, match="predicts"):
        evaluate(linear_run(brain, unit="z-score"), brain.dataset, tokens=brain.tokens)
    brain.dataset.trials["split"] = "train"
    with pytest.raises(SynBrainError, match="no test images"):
        evaluate(model, brain.dataset, tokens=brain.tokens)


def test_subjects_of_a_run_by_name_or_alone(brain) -> None:
    renamed = linear_run(brain, name="somebody")
    scores = evaluate(renamed, brain.dataset, options(rows=[]), tokens=brain.tokens)
    assert scores.about.subject == "s1"
    with pytest.raises(SynBrainError, match="no subject"):
        evaluate(renamed, brain.dataset, options(rows=[], subject="s1"), tokens=brain.tokens)


def test_a_run_of_several_subjects_calls_them_as_their_datasets_are_called(brain) -> None:
    """As `train` names them, and as two datasets of one study are told apart."""
    part = linear_run(brain).subject()
    several = {name: replace(part, name=name) for name in ("another", brain.info.name)}
    run = SynBrain(linear_run(brain).config, several)
    assert part_of(run, brain.dataset).name == brain.info.name == "toy"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the run is of", SynBrainWarning)
        scores = evaluate(run, brain.dataset, options(rows=[]), tokens=brain.tokens)
    alone = evaluate(linear_run(brain), brain.dataset, options(rows=[]), tokens=brain.tokens)
    assert scores.value("synbrain", "voxel_r") == alone.value("synbrain", "voxel_r")


def test_recordings_of_another_subject_are_told_or_refused(brain) -> None:
    """As many voxels in the same unit are scored without a word otherwise, on a surface always."""
    renamed = linear_run(brain, name="somebody")
    with pytest.warns(SynBrainWarning, match="the run is of somebody, .* of s1"):
        evaluate(renamed, brain.dataset, options(rows=[]), tokens=brain.tokens)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the run is of", SynBrainWarning)  # the user says whose
        evaluate(renamed, brain.dataset, options(rows=[], subject="somebody"), tokens=brain.tokens)
    mask = np.ones((5, 5, 1), dtype=bool)
    elsewhere = mask.copy()
    mask[0, 0], elsewhere[4, 4] = False, False
    part = replace(linear_run(brain).subject(), space=VoxelSpace.from_mask(mask, np.eye(4)))
    run = SynBrain(linear_run(brain).config, {part.name: part})
    there, not_there = (
        replace(brain.dataset, space=VoxelSpace.from_mask(where, np.eye(4))) for where in (mask, elsewhere)
    )
    evaluate(run, there, options(rows=[]), tokens=brain.tokens)
    with pytest.raises(SynBrainError, match=r"voxels of .* lie at other places than those of s1"):
        evaluate(run, not_there, options(rows=[]), tokens=brain.tokens)


def test_vertices_of_another_mesh_of_as_many_are_refused(brain) -> None:
    """fsLR's mesh of 164k has as many vertices as fsaverage."""
    n = brain.dataset.n_voxels

    def on(mesh: str | None) -> VoxelSpace:
        return VoxelSpace(n, "surface", (163842, 163842), None, np.arange(n), mesh=mesh)

    part = replace(linear_run(brain).subject(), space=on("fsaverage"))
    run = SynBrain(linear_run(brain).config, {part.name: part})
    for mesh in ("fsaverage", None, "other"):  # what is not known is not refused
        evaluate(run, replace(brain.dataset, space=on(mesh)), options(rows=[]), tokens=brain.tokens)
    with pytest.raises(SynBrainError, match="are of fsLR, those of s1 of fsaverage"):
        evaluate(run, replace(brain.dataset, space=on("fsLR")), options(rows=[]), tokens=brain.tokens)


def test_oracle_on_a_simulated_subject(tmp_path: Path) -> None:
    simulate(tmp_path / "tree", size="tiny")
    dataset = prepare_nsd(tmp_path / "tree", tmp_path / "data", subject=1)
    rng = np.random.default_rng(0)
    tokens = {"final": rng.normal(size=(dataset.n_images, 1, 3)).astype(np.float32)}
    train, test = split_pairs(dataset, TokenSet("t", "d", tokens, np.arange(dataset.n_images)))
    measured = measure(test, train, dataset.space, n_bootstrap=50)
    oracle = oracle_row(dataset, measured, n_samples=40, seed=0)
    assert oracle is not None
    assert oracle["variance_ratio"] == pytest.approx(1, abs=0.25)
    assert oracle["coverage_90"] == pytest.approx(0.9, abs=0.05)
    assert oracle["voxel_r"] > 0.3
    assert oracle["response_retrieval"] > 4 / test.n_images
    scaled = replace(dataset, info=dataset.info.model_copy(update={"scaling": {"kind": "session-zscore"}}))
    row = oracle_row(scaled, measured, n_samples=20, seed=0)
    assert row is not None
    assert row["voxel_r"] is None
    assert row.notes["voxel_r"]


def test_the_command_writes_and_prints(
    brain, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    np.save(folder / "responses.npy", brain.dataset.responses)
    write_tables(folder, brain.info, brain.dataset.trials, brain.dataset.images, brain.space)
    run = linear_run(brain).save_pretrained(tmp_path / "run")
    monkeypatch.setattr(
        "synbrain.evaluation.evaluate.open_untuned", lambda dataset, encoder, layers: (dataset, brain.tokens)
    )
    out = tmp_path / "scores.json"
    words = [
        "evaluate",
        str(run),
        str(folder),
        "--out",
        str(out),
        "--samples",
        "20",
        "--rows",
        "mean_map",
        "ceiling",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    said = json.loads(out.read_text())
    assert list(said["scores"]) == ["synbrain", "mean_map", "ceiling"]
    assert said["n_samples"] == 20
    assert f"{said['scores']['synbrain']['voxel_r']:.3f}" in printed
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert main(["evaluate", str(run), str(folder), "--samples", "1"]) == 2

    def gone(*_: object) -> None:
        raise BrokenPipeError

    out.unlink()
    monkeypatch.setattr("builtins.print", gone)  # as by synbrain evaluate ... | head
    with pytest.raises(BrokenPipeError):
        command(SynBrain.from_pretrained(run), brain.dataset, options(samples=20, rows=["ceiling"]), out=out)
    assert list(json.loads(out.read_text())["scores"]) == ["synbrain", "ceiling"]
    assert list(json.loads((run / "scores.json").read_text())["scores"]) == ["synbrain", "ceiling"]


def test_a_run_of_fewer_images_than_the_rows_beside_it_is_told(brain) -> None:
    run = linear_run(brain)
    (part,) = run.subjects.values()
    for n, note in ((30, "the run was fitted on 30 of the 90 training images"), (90, "fitted on")):
        fitted = replace(part, linear=replace(part.linear, about={"n_images": n}))
        scores = evaluate(SynBrain(run.config, {"s1": fitted}), brain.dataset, options(), tokens=brain.tokens)
        assert scores.about.n_fitted_images == n
        assert (note in terminal(scores)) == (n < 90)


def test_predictions_are_given_as_they_were_scored(brain) -> None:
    model = linear_run(brain)
    evaluation = evaluation_of(model, brain.dataset, options(), tokens=brain.tokens)
    assert set(evaluation.predictions) == {"synbrain", "mean_map", "ridge"}
    train, test = split_pairs(brain.dataset, brain.tokens)
    means = {"synbrain": model.predict(test.tokens), "ridge": Ridge().fit(train).predict(test.tokens)}
    for name, mean in means.items():
        np.testing.assert_array_equal(evaluation.predictions[name], mean)
        r = voxel_r(mean, test.repeat_means()).mean()
        assert evaluation.scores[name]["voxel_r"].value == pytest.approx(r)
    assert evaluate(model, brain.dataset, options(), tokens=brain.tokens) == evaluation.scores


def test_of_a_run_that_says_nothing_of_its_images_it_is_not_known_that_it_saw_none(brain) -> None:
    """The page of an imported run said that it never saw the test images."""
    options = EvaluateOptions(rows=["mean_map"], samples=2, n_bootstrap=2)
    with pytest.warns(SynBrainWarning, match="it does not say which images it saw"):
        found = evaluation_of(linear_run(brain), brain.dataset, options, tokens=brain.tokens)
    assert not found.is_unseen
