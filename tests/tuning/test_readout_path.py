"""Readouts of thousands of units are kept in patterns of their predictions, and predict what they did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synbrain import SynBrain, adapt
from synbrain.data.dataset import Dataset
from synbrain.features.encoding import encode_images
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens
from synbrain.features.tokens import TokenSet
from synbrain.training.options import AdaptOptions
from synbrain.tuning import network, tune
from synbrain.tuning.network import Readout
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.readout_path import ReadoutPatterns, readout_path
from synbrain.tuning.tune import tune_encoder

SMALL = TuneOptions(
    size=32, side=2, channels=6, epochs=3, batch_size=8, validation_fraction=0.3, layers=["block2", "block4"],
)  # fmt: skip


def made(n_units: int, seed: int = 0) -> Readout:
    readout = Readout(4, 3, n_units, torch.Generator().manual_seed(seed))
    torch.nn.init.normal_(readout.places)
    torch.nn.init.normal_(readout.bias)
    return readout.requires_grad_(False)


@given(n_units=st.integers(1, 9), r=st.integers(1, 4), at_a_time=st.integers(1, 10))
def test_weights_on_patterns_do_not_depend_on_how_many_units_are_written_out(
    n_units: int, r: int, at_a_time: int
) -> None:
    readout, patterns = made(n_units), torch.randn(n_units, r, generator=torch.Generator().manual_seed(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "UNITS", at_a_time)
        torch.testing.assert_close(readout.through(patterns), readout.as_matrix() @ patterns)


@pytest.mark.parametrize("rank", [40, 12, 3])
def test_a_path_in_patterns_predicts_what_the_readout_does(rank: int) -> None:
    """Twelve features span twelve dimensions: so many patterns lose nothing; three keep what they say."""
    readout, rng = made(60), np.random.default_rng(2)
    tokens = rng.normal(2, 1, (30, 4, 3)).astype(np.float32)  # far from 0: means matter
    offset, scale = rng.normal(size=60).astype(np.float32), rng.uniform(0.5, 2, 60).astype(np.float32)
    read = readout(torch.from_numpy(tokens)).numpy()
    patterns = ReadoutPatterns.of(read, rank)
    path = readout_path(readout, "map", (4, 3), offset, scale, patterns)
    assert len(path.mixing) == min(rank, 12)
    predicted = path.predict(TokenSet("e", "d", {"map": tokens}, np.arange(30)))
    expected = offset + scale * read
    np.testing.assert_allclose(predicted.mean(axis=0), expected.mean(axis=0), atol=5e-3)
    lost = np.square((predicted - expected) / scale).sum()
    whole = np.square(read - read.mean(axis=0)).sum()
    assert lost / whole == pytest.approx(1 - patterns.kept, abs=1e-4)
    assert (patterns.kept > 0.9999) == (rank >= 12)


def test_constant_predictions_have_a_path() -> None:
    patterns = ReadoutPatterns.of(np.ones((5, 7), dtype=np.float32))
    assert patterns.kept == 1
    readout = made(7)
    path = readout_path(readout, "map", (4, 3), np.zeros(7, np.float32), np.ones(7, np.float32), patterns)
    tokens = TokenSet("e", "d", {"map": np.ones((2, 4, 3), np.float32)}, np.arange(2))
    assert np.isfinite(path.predict(tokens)).all()


def test_many_units_are_tuned_stored_and_adapted_from(
    make_dataset: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "EXACT_UNITS", 20)
    many = make_dataset(tmp_path / "many", seed=1, n_units=40, n_train=40)
    few = make_dataset(tmp_path / "few", seed=2, n_units=5)
    out = tmp_path / "out"
    tuned = tune_encoder([many, few], SMALL, out=out)
    base = SynBrain.from_pretrained(out / "readouts", encoder=tuned.encoder)
    of_many, of_few = base.subject("many").linear, base.subject("few").linear
    assert of_many is not None
    assert of_few is not None
    assert len(of_few.mixing) == 5
    assert len(of_many.mixing) == of_many.about["patterns"] < 40  # as there are fewer features and images
    assert of_many.about["variance_in_patterns"] > 0.999
    images = [many.load_image(row) for row in range(4)]
    features = torch.from_numpy(encode_images(tuned.encoder, images, ["readout"]).read("readout"))
    part = base.subject("many")
    expected = part.response_mean + part.response_sd * tuned.readouts[0](features).detach().numpy()
    np.testing.assert_allclose(base.predict(images, subject="many"), expected, atol=2e-2)
    new = make_dataset(tmp_path / "new", seed=9, n_units=4)
    make_tokens(new, FeatureOptions(encoder=str(out), layers=["block2", "block4", "readout"], device="cpu"))
    linear = adapt(base, new, AdaptOptions(budget="all", networks=False)).subject().linear
    assert linear is not None
    assert linear.about["base_dimensions"] == len(of_many.mixing) + 5
    assert linear.about["cross_validated_r"] > 0.5
