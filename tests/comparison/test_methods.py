from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from synbrain.baselines.registry import BASELINES
from synbrain.comparison.job import Job, measured_of
from synbrain.comparison.methods import METHODS, chosen_methods
from synbrain.comparison.options import CompareOptions
from synbrain.comparison.recipes import Networks, scaled_depth
from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks, packed
from synbrain.errors import SynBrainError
from synbrain.evaluation.measured import measure
from synbrain.features.store import open_tokens
from synbrain.features.tokens import TokenSet, split_pairs
from synbrain.files import read_json, write_json
from synbrain.networks.presets import preset
from synbrain.simulate.example import toy_dataset


class Toy(NamedTuple):
    dataset: Dataset
    tokens: TokenSet


def make_job(toy, preset_name: str = "tiny", *, seed: int = 0, **given) -> Job:
    train, test = split_pairs(toy.dataset, toy.tokens)
    measured = measure(test, train, toy.dataset.space, n_bootstrap=50)
    options = CompareOptions.model_validate({"preset": preset_name, **given})
    return Job(toy.dataset, toy.tokens, measured, options, Path("unused"), seed=seed)


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
    job, maker = make_job(toy, seed=4), METHODS[name].maker
    base = METHODS[maker.base].maker
    assert maker.config(job).seed == 4
    if maker == base:
        return
    changed = maker.config(job) != base.config(job)
    changed = changed or maker.without != base.without
    assert (changed or maker.other_encoder) == (maker.sizes(job)[1] is None)


def test_ablations_reach_the_configuration(toy):
    job = make_job(toy)
    assert not METHODS["no_sampling"].maker.config(job).vae.sampling
    assert METHODS["no_sampling"].maker.config(job).vae.loss.kl_weight == 0
    assert METHODS["no_contrastive"].maker.config(job).vae.loss.clip_weight == 0
    assert METHODS["synbrain_no_contrastive"].maker.config(job).mapper.contrastive_weight == 0
    assert not METHODS["synbrain_no_linear"].maker.config(job).linear_path
    assert preset(METHODS["latent_down3"].maker.config(job).preset).vae.down_blocks == 3


@pytest.mark.parametrize(("name", "depths"), [("tiny", (1, 2, 3)), ("paper-4096", (4, 8, 12))])
def test_mapper_depths_are_scaled_from_the_papers(toy, name, depths):
    job = make_job(toy, name)
    found = [preset(METHODS[f"mapper_depth{d}"].maker.config(job).preset).mapper.depth for d in (4, 8, 12)]
    assert tuple(found) == depths == tuple(scaled_depth(preset(name), d) for d in (4, 8, 12))


def test_a_size_that_is_the_presets_own_is_not_trained_again(toy):
    job = make_job(toy)
    assert "reference" in METHODS["mapper_depth8"].maker.why_not(job)
    assert METHODS["mapper_depth4"].maker.why_not(job) is None
    assert "one encoder" in METHODS["other_encoder"].maker.why_not(job)


def test_a_tuned_encoder_is_no_other_encoder(tmp_path):
    """It was tuned on training images of the dataset, which ended the whole comparison."""
    dataset = toy_dataset(tmp_path)
    stored = dataset.path / "tokens" / "pixels"
    for name in ("tuned-v4", "another"):
        shutil.copytree(stored, stored.with_name(name))
    facts = read_json(stored / "tokens.json")
    facts["describe"]["tuned_on"] = packed(image_marks(dataset, dataset.image_rows("train")[:9]))
    write_json(stored.with_name("tuned-v4") / "tokens.json", facts)
    job = make_job(Toy(dataset, open_tokens(dataset, "pixels")))
    other = job.with_other_tokens()
    assert other is not None
    assert other.tokens.encoder == "another"
    shutil.rmtree(stored.with_name("another"))
    assert job.with_other_tokens() is None


def test_changes_for_all_networks_come_before_an_ablations_own(toy):
    job = make_job(toy, vae={"epochs": 2, "sampling": True}, mapper={"steps": 7})
    config = METHODS["no_sampling"].maker.config(job)
    assert (config.vae.epochs, config.mapper.steps, config.vae.sampling) == (2, 7, False)
    assert METHODS["no_mapper"].maker.config(job).mapper.steps == 1


def test_measured_with_other_tokens_draws_the_same_images(toy):
    job = make_job(toy)
    other = measured_of(toy.dataset, toy.tokens, job.measured)
    assert (other.weights == job.measured.weights).all()
