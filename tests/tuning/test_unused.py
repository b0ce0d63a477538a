"""Options that would do nothing are named, or refused before the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder
from synbrain.tuning.unused import note_unused, require_parts

SMALL = TuneOptions(
    size=32, side=2, channels=6, epochs=1, batch_size=8, validation_fraction=0.3, layers=["block2", "block4"]
)


def test_a_part_that_is_not_there_is_not_frozen(
    make_dataset: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "one", seed=1)
    monkeypatch.setattr("synbrain.tuning.tune.decode_pixels", None)  # told before pictures are decoded
    mistyped = SMALL.model_copy(update={"freeze": ["_conv_stem.", "blocks.0."]})
    with pytest.raises(SynBrainError, match=r"begins with 'blocks.0.'.*_conv_stem, _bn0, _blocks"):
        tune_encoder([dataset], mistyped, out=tmp_path / "enc")
    require_parts(["_blocks.0.", "_bn"], ["_bn0.weight", "_blocks.0.weight"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"taught_weight": 0.5}, "--taught-weight"), ({"freeze": ["a"], "lora_rank": 4}, "--freeze")],
)
def test_settings_without_effect_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.warns(SynBrainWarning, match=f"without effect: {named}"):
        note_unused(SMALL.model_copy(update=changes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_unused(SMALL.model_copy(update={"freeze": ["a"]}))
        note_unused(SMALL.model_copy(update={"taught_weight": 0.5, "teachers": ["first"]}))


def test_units_of_single_trials_have_no_ceiling_to_weigh_them_by(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    once = make_dataset(tmp_path / "once", seed=1, repeats=1)
    with pytest.warns(SynBrainWarning, match="--ceiling-weights for once"):
        tune_encoder([once], SMALL.model_copy(update={"ceiling_weights": True}), out=tmp_path / "enc")
