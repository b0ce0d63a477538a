"""Settings of a part that is not fitted are named."""

from __future__ import annotations

import warnings

import pytest

from synbrain import AdaptOptions, TrainOptions, adapt, train
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.simulate.example import toy_dataset
from synbrain.training.recipes import recipe
from synbrain.training.unused import note_unused


def test_settings_of_networks_without_networks() -> None:
    asked = {"preset": "small", "shrink": "voxel", "vae": {"lr": 0.5}, "mapper": {"steps": 3}}
    options = TrainOptions.model_validate({"encoder": "pixels", "networks": False} | asked)
    with pytest.warns(SynBrainWarning, match="--preset, --shrink, --vae.lr, --mapper.steps; no networks"):
        model = train([toy_dataset()], options)
    few = {"budget": 20, "by": "images"}
    # a base without networks has none to train further
    with pytest.warns(SynBrainWarning, match="--vae.epochs, --update; no networks are trained"):
        adapt(model, toy_dataset(seed=1), AdaptOptions(**few, update="all", vae={"epochs": 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SynBrainWarning)
        adapt(model, toy_dataset(seed=1), AdaptOptions(**few))


@pytest.mark.parametrize(
    ("mapper", "told"),
    [
        ({"response_weight": 0}, r"^--mapper: decoder='finetune' needs a response_weight above 0"),
        (
            {"response_weight": 0, "latent_weight": 0, "contrastive_weight": 0, "decoder": "frozen"},
            r"^--mapper: latent_weight, response_weight and contrastive_weight are all 0",
        ),
        ({"lr": -1}, r"^--mapper.lr cannot be -1"),
    ],
)
def test_a_mapper_without_anything_to_learn_from_is_refused(mapper: dict[str, object], told: str) -> None:
    """Parameters without gradients would end a training: a decoder without responses, or no loss at all."""
    with pytest.raises(SynBrainError, match=told):
        TrainOptions(recipe="calibrated", mapper=mapper).config()


def test_settings_of_parts_that_the_recipe_leaves_out() -> None:
    options = TrainOptions(recipe="reference", linear={"side": 3}, noise={"shaped": False})
    with pytest.warns(SynBrainWarning) as told:
        note_unused(options, recipe("reference"), networks=True)
    notes = [str(note.message) for note in told]
    assert notes[0].startswith("without effect: --linear.side; no linear path is fitted")
    assert notes[1].startswith("without effect: --noise.shaped; no trial noise is fitted")
