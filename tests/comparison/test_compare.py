from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from synbrain.commands.parsing import prepare_call
from synbrain.commands.registry import COMMANDS
from synbrain.comparison.compare import compare
from synbrain.comparison.methods import METHODS, Method
from synbrain.comparison.options import CompareOptions
from synbrain.comparison.results import result_path
from synbrain.comparison.table import write_table
from synbrain.errors import SynBrainError
from synbrain.evaluation.scores import Scores
from synbrain.training.options import MapperOptions


def test_a_table_of_real_baselines(run, tmp_path):
    found = run("ridge", seeds=1)
    said = found.to_json()
    assert list(said["scores"]) == ["mean_map", "ridge", "ceiling"]
    scores = said["scores"]
    assert scores["mean_map"]["voxel_r"] == 0 < scores["ridge"]["voxel_r"] < scores["ceiling"]["voxel_r"]
    assert scores["ridge"]["crps"] > scores["ceiling"]["crps"]
    assert {"energy_score", "variance_ratio", "coverage_90", "response_retrieval"} <= set(scores["ridge"])
    low, high = said["intervals"]["ridge"]["voxel_r"]
    assert low < scores["ridge"]["voxel_r"] < high
    difference = said["differences"]["mean_map"]["mse"]
    assert difference["difference"] > 0
    assert 0 < difference["p"] <= difference["p_holm"] < 0.05
    assert (said["n_test_images"], said["target"], said["seeds"]) == (16, "trial", [0])
    assert said["failed"] == {}


def test_means_over_seeds_in_the_order_of_the_registry(run, fakes, tmp_path):
    found = run("good", "poor", seeds=3)
    assert list(found.scores.rows) == ["mean_map", "ridge", "good", "poor", "ceiling"]
    assert fakes["good"].seeds == [0, 1, 2]
    about = found.about
    assert about.seeds_of == {
        "mean_map": [0],
        "ridge": [0],
        "good": [0, 1, 2],
        "poor": [0, 1, 2],
        "ceiling": [0],
    }
    values = [
        json.loads(result_path(tmp_path / "out", "good", s).read_text())["values"]["mse"] for s in range(3)
    ]
    assert found.scores.value("good", "mse") == pytest.approx(np.mean(values))
    over = about.over_seeds["good"]["mse"]
    assert over["values"] == pytest.approx(values)
    assert over["sd"] == pytest.approx(np.std(values, ddof=1))
    assert found.scores.differences["poor"]["mse"]["difference"] > 0


def test_finished_fits_are_not_made_again(run, fakes):
    first = run()
    again = run(resume=True)
    assert fakes["good"].seeds == [0, 1]
    assert again.to_json() == first.to_json()
    more = run(resume=True, seeds=3)
    assert fakes["good"].seeds == [0, 1, 2]
    assert more.about.seeds == [0, 1, 2]


def test_what_changed_is_made_again(run, fakes, toy):
    run()
    fakes["good"].setting = "second"
    run(resume=True)
    assert (fakes["good"].seeds, fakes["poor"].seeds) == ([0, 1, 0, 1], [0, 1])
    run(resume=True, samples=21)
    assert fakes["poor"].seeds == [0, 1, 0, 1]
    toy.dataset.path.mkdir()
    (toy.dataset.path / "checksums.json").write_text('{"responses.npy": "new"}')
    run(resume=True, samples=21)
    assert fakes["poor"].seeds == [0, 1, 0, 1, 0, 1]


def test_a_failure_is_told_and_the_others_are_kept(run, fakes, tmp_path):
    fakes["poor"].raises = RuntimeError("out of\nluck")
    found = run()
    assert found.failed == {"poor": "seed 0: RuntimeError: out of luck; seed 1: RuntimeError: out of luck"}
    assert list(found.scores.rows) == ["mean_map", "ridge", "good", "ceiling"]
    trace = (tmp_path / "out/results/poor/seed1.error.txt").read_text()
    assert "Traceback" in trace
    words = write_table(found, tmp_path / "out")
    assert "out of luck" in words
    assert json.loads((tmp_path / "out/table.json").read_text())["failed"] == found.failed

    fakes["poor"].raises = None
    mended = run(resume=True)
    assert mended.failed == {}
    assert "poor" in mended.scores.rows
    assert fakes["good"].seeds == [0, 1]
    assert not (tmp_path / "out/results/poor/seed1.error.txt").exists()


def test_one_seed_that_fails_leaves_the_others_in_the_table(run, registry, fakes):
    class Sometimes(type(fakes["good"])):
        def score(self, job):
            self.raises = ValueError("only here") if job.seed == 1 else None
            return super().score(job)

    registry["good"] = Method(Sometimes(fakes["good"].truth, 0.1), "sometimes", "networks")
    found = run(seeds=3)
    assert found.failed == {"good": "seed 1: ValueError: only here"}
    assert found.about.seeds_of["good"] == [0, 2]


def test_an_interrupted_comparison_keeps_what_is_finished(run, fakes):
    fakes["poor"].raises = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run()
    fakes["poor"].raises = None
    run(resume=True)
    assert fakes["good"].seeds == [0, 1]


def test_what_does_not_apply_is_left_out_with_the_reason(run, fakes, registry):
    fakes["good"].reason = "not on this data"
    registry["oracle"] = METHODS["oracle"]
    found = run()
    assert found.about.skipped["good"] == "not on this data"
    assert "good" not in found.scores.rows
    assert found.failed == {}
    assert fakes["good"].seeds == []


def test_a_taken_folder_needs_resume_or_overwrite(run, fakes):
    run()
    with pytest.raises(SynBrainError, match="--overwrite"):
        run()
    run(overwrite=True)
    assert fakes["good"].seeds == [0, 1, 0, 1]
    with pytest.raises(SynBrainError, match="contradict"):
        run(overwrite=True, resume=True)


def test_two_processes_do_not_make_one_comparison(run, fakes, tmp_path):
    """The one that ended first would remove what the other one's fits go on with."""
    import fcntl

    run()
    with (tmp_path / ".out.lock").open("w") as lock:  # as another process would have it
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SynBrainError, match="another process is making"):
            run(resume=True)
    run(resume=True)


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"samples": 1}, {"preset": "huge"}])
def test_wrong_settings_are_refused_before_anything_is_fitted(run, fakes, wrong, tmp_path):
    with pytest.raises((SynBrainError, ValidationError)):
        run(**wrong)
    assert fakes["good"].seeds == []
    assert not (tmp_path / "out").exists()


def test_table_json_is_read_as_scores(run, tmp_path):
    found = run("good")
    write_table(found, tmp_path / "out")
    back = Scores.load(tmp_path / "out" / "table.json")
    assert back.rows == found.scores.rows
    assert back.differences == found.scores.differences


def test_against_gaussian_residuals_only_where_they_are_a_row(run, registry, toy, tmp_path):
    assert run("good").about.differences_from_ridge_gaussian == {}
    with_it = {"ridge_gaussian": METHODS["ridge_gaussian"], **registry}
    options = CompareOptions(methods=["all"], seeds=1, n_bootstrap=100)
    found = compare(toy.dataset, options, out=tmp_path / "other", tokens=toy.tokens, registry=with_it)
    said = found.about.differences_from_ridge_gaussian
    assert set(said["ridge"]) == {"crps", "energy_score"}
    assert said["ridge"]["crps"]["difference"] > 0


def test_ablations_are_held_against_the_row_that_they_change(run, registry, toy, tmp_path):
    assert run("good").about.differences_from_base == {}
    changed = dict(registry)
    changed["poor"] = Method(registry["poor"].maker, "worse", "ablations", base="good")
    found = run("good", "poor", registry=changed, out=tmp_path / "other", seeds=1)
    said = found.about.differences_from_base
    assert list(said) == ["poor"]
    scores = found.scores
    apart = scores.value("poor", "voxel_r") - scores.value("good", "voxel_r")
    assert said["poor"]["voxel_r"]["difference"] == pytest.approx(apart)
    assert said["poor"]["mse"]["p_holm"] < 0.05
    words = write_table(found, tmp_path / "other")
    assert "## What each ablation changes" in words
    assert f"| poor | **{apart:+.4f}** [" in words


def test_every_ablation_names_a_row_that_is_there():
    ablations = {name: method for name, method in METHODS.items() if method.group == "ablations"}
    assert {method.base for method in ablations.values()} == {"reference", "synbrain"}
    assert not any(method.base for name, method in METHODS.items() if name not in ablations)


def test_the_command_of_a_table_says_every_option(run, toy):
    given = {
        "seeds": 1, "n_bootstrap": 30, "n_way": 5, "n_subsets": 2, "samples": 3, "layers": ["final"],
        "mapper": MapperOptions(steps=3, clip_grad=0.5), "encoder": toy.tokens.encoder,
    }  # fmt: skip
    words = run("good", **given).about.command.split()
    assert words[:2] == ["synbrain", "compare"]
    call = prepare_call(COMMANDS["compare"], "compare", [*words[2:], "--out", "-"])
    assert call.typed["options"] == CompareOptions(methods=["good"], **given)
