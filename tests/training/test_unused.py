"""Settings of a part that is not fitted are named."""

from __future__ import annotations

import warnings

import pytest

from synbrain import AdaptOptions, TrainOptions, adapt, train
from synbrain.errors import SynBrainWarning
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


def test_settings_of_parts_that_the_recipe_leaves_out() -> None:
    options = TrainOptions(recipe="reference", linear={"side": 3}, noise={"shaped": False})
    with pytest.warns(SynBrainWarning) as told:
        note_unused(options, recipe("reference"), networks=True)
    notes = [str(note.message) for note in told]
    assert notes[0].startswith("without effect: --linear.side; no linear path is fitted")
    assert notes[1].startswith("without effect: --noise.shaped; no trial noise is fitted")
