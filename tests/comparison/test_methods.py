from __future__ import annotations

from pathlib import Path

import pytest

from synbrain.baselines.registry import BASELINES
from synbrain.comparison.methods import METHODS, chosen_methods
from synbrain.comparison.recipes import Networks, scaled_depth
from synbrain.comparison.task import Task, measured_of
from synbrain.errors import SynBrainError
from synbrain.evaluation.measured import measure
from synbrain.features.tokens import split_pairs
from synbrain.networks.presets import preset


def make_task(toy, preset_name: str = "tiny", **options) -> Task:
    train, test = split_pairs(toy.dataset, toy.tokens)
    measured = measure(test, train, toy.dataset.space, n_bootstrap=50)
    return Task(toy.dataset, toy.tokens, measured, preset_name, Path("unused"), **options)


def networks() -> list[str]:
    return [name for name, method in METHODS.items() if isinstance(method.maker, Networks)]


def test_every_baseline_is_a_method():
    assert set(BASELINES) <= set(METHODS)


@pytest.mark.parametrize("words", [["ridge,linear_reg"], ["ridge", "linear_reg"], ["ridge, ", "linear_reg"]])
def test_names_may_be_separated_by_commas_or_spaces(words):
    assert chosen_methods(words) == ["mean_map", "ridge", "linear_reg", "ceiling"]


def test_all_is_every_system_and_a_group_is_its_members():
    assert chosen_methods(["all"]) == [n for n, m in METHODS.items() if m.group != "ablations"]
    assert chosen_methods(["all,ablations"]) == list(METHODS)
    controls = chosen_methods(["controls"])
    assert {"mean_map", "shuffled", "nearest", "ridge", "ceiling"} == set(controls)


@pytest.mark.parametrize("words", [["ridge,rigde"], ["all", "nothing"], [], [" , "]])
def test_unknown_or_no_names_are_refused_with_the_list(words):
    with pytest.raises(SynBrainError, match="synbrain, no_sampling"):
        chosen_methods(words)


@pytest.mark.parametrize("name", networks())
def test_an_ablation_differs_from_its_base_in_what_it_says(toy, name):
    task, maker = make_task(toy, seed=4), METHODS[name].maker
    base = METHODS[maker.base].maker
    assert maker.config(task).seed == 4
    if maker == base:
        return
    changed = maker.config(task) != base.config(task)
    changed = changed or maker.without != base.without
    assert (changed or maker.other_encoder) == (maker.sizes(task)[1] is None)


def test_ablations_reach_the_configuration(toy):
    task = make_task(toy)
    assert not METHODS["no_sampling"].maker.config(task).vae.sampling
    assert METHODS["no_sampling"].maker.config(task).vae.loss.kl_weight == 0
    assert METHODS["no_contrastive"].maker.config(task).vae.loss.clip_weight == 0
    assert METHODS["synbrain_no_contrastive"].maker.config(task).mapper.contrastive_weight == 0
    assert not METHODS["synbrain_no_linear"].maker.config(task).linear_path
    assert preset(METHODS["latent_down3"].maker.config(task).preset).vae.down_blocks == 3


@pytest.mark.parametrize(("name", "depths"), [("tiny", (1, 2, 3)), ("paper-4096", (4, 8, 12))])
def test_mapper_depths_are_scaled_from_the_papers(toy, name, depths):
    task = make_task(toy, name)
    found = [preset(METHODS[f"mapper_depth{d}"].maker.config(task).preset).mapper.depth for d in (4, 8, 12)]
    assert tuple(found) == depths == tuple(scaled_depth(preset(name), d) for d in (4, 8, 12))


def test_a_size_that_is_the_presets_own_is_not_trained_again(toy):
    task = make_task(toy)
    assert "reference" in METHODS["mapper_depth8"].maker.why_not(task)
    assert METHODS["mapper_depth4"].maker.why_not(task) is None
    assert "one encoder" in METHODS["other_encoder"].maker.why_not(task)


def test_changes_for_all_networks_come_before_an_ablations_own(toy):
    task = make_task(toy, changes={"vae": {"epochs": 2, "sampling": True}, "mapper": {"steps": 7}})
    config = METHODS["no_sampling"].maker.config(task)
    assert (config.vae.epochs, config.mapper.steps, config.vae.sampling) == (2, 7, False)
    assert METHODS["no_mapper"].maker.config(task).mapper.steps == 1


def test_measured_with_other_tokens_draws_the_same_images(toy):
    task = make_task(toy)
    other = measured_of(toy.dataset, toy.tokens, task.measured)
    assert (other.weights == task.measured.weights).all()
