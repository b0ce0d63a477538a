"""A tuned encoder is given by its folder or by a hub id, alone or joined with others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features import tuned_folder
from synbrain.features.joint import encoders_of
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens, open_untuned
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder

SMALL = TuneOptions(
    size=32, side=2, channels=6, epochs=1, batch_size=8, validation_fraction=0.3, layers=["block2", "block4"]
)


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset], tmp_path: Path) -> Dataset:
    """With tokens of an encoder that was tuned on it, at ``encoders/enc``, and of pixels."""
    made = make_dataset(tmp_path / "one", seed=1)
    tune_encoder([made], SMALL, out=tmp_path / "encoders" / "enc")
    make_tokens(made, FeatureOptions(encoder=str(tmp_path / "encoders" / "enc"), device="cpu"))
    make_tokens(made, FeatureOptions(encoder="pixels", device="cpu"))
    return made


@pytest.mark.filterwarnings("ignore:.*was tuned on")
def test_the_hub_is_asked_once(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []

    def snapshot(name: str) -> str:
        asked.append(name)
        if name != "lab/enc":
            raise OSError("offline")
        return str(tmp_path / "encoders" / "enc")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    tuned_folder._fetched.cache_clear()
    assert open_tokens(dataset, "lab/enc").encoder == "tuned-enc"
    open_untuned(dataset, "lab/enc")
    joint = open_tokens(dataset, "pixels+lab/enc", ["pixels:final", "tuned-enc:readout"])
    assert list(joint.layers) == ["pixels:final", "tuned-enc:readout"]
    assert asked == ["lab/enc"]
    for _ in range(2):  # what failed is asked again: a connection may come back
        with pytest.raises(SynBrainError, match="no encoder could be fetched from lab/other"):
            open_tokens(dataset, "lab/other")
    assert asked == ["lab/enc", "lab/other", "lab/other"]
    tuned_folder._fetched.cache_clear()


@pytest.mark.filterwarnings("ignore:.*was tuned on")
def test_a_relative_folder_is_joined_as_the_guide_says(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    joint = open_tokens(dataset, f"pixels+encoders{os.sep}enc")
    assert joint.encoder == "pixels+tuned-enc"
    os.rename("encoders/enc", "encoders/a+b")  # a folder's name may hold the sign
    assert encoders_of("encoders/a+b") == ["encoders/a+b"]
