"""What every decoder must do, whatever its method; runs over the whole registry."""

from __future__ import annotations

import numpy as np
import pytest

from synbrain import Decoder
from synbrain.decoding.decoder import DecoderConfig, DecoderSubject
from synbrain.decoding.registry import METHODS, fit_method
from synbrain.errors import SynBrainError
from synbrain.metrics.image import two_way_identification


@pytest.fixture(params=sorted(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def decoder(name, subject, options, workspace) -> Decoder:
    data, targets = subject()
    method = fit_method([data], options(name), workspace)
    part = DecoderSubject("s", "z", data.mean, data.sd)
    return Decoder(DecoderConfig(kind=name), method, targets, {"s": part}, "s")


@pytest.fixture
def responses(held_out):
    """Of images that nothing was fitted on."""
    return held_out.repeat_means()


def test_shapes_and_determinism(decoder, responses) -> None:
    n, shape = len(responses), (decoder.space.n_tokens, decoder.space.dim)
    assert shape == (9, 8)
    given = responses.copy()
    for output in (decoder.backbone, decoder.embed):
        assert output(responses).shape == (n, *shape)
        assert output(responses).dtype == np.float32
        assert np.isfinite(output(responses)).all()
        np.testing.assert_allclose(output(responses)[3:5], output(responses[3:5]), atol=1e-4)
    samples = decoder.predict_tokens(responses, 2, seed=4)
    assert samples.shape == (2, n, *shape)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, decoder.predict_tokens(responses, 2, seed=4))
    # a row depends on its place and the seed, not on the size of the batch
    np.testing.assert_allclose(decoder.predict_tokens(responses[:3], 2, seed=4), samples[:, :3], atol=1e-3)
    np.testing.assert_array_equal(responses, given)
    assert decoder.embed(responses[:0]).shape == (0, *shape)


def test_repeats_are_averaged_as_said(decoder, responses) -> None:
    repeats = np.stack([responses, responses[::-1]], axis=1)
    outputs = decoder.backbone(repeats)
    each = decoder.backbone(responses)
    np.testing.assert_allclose(outputs, (each + each[::-1]) / 2, atol=1e-4)
    mean = decoder.backbone(repeats, repeats="responses")
    np.testing.assert_allclose(mean, decoder.backbone(repeats.mean(axis=1)), atol=1e-4)


def test_better_than_chance(name, decoder, held_out, responses) -> None:
    seen, decoded = decoder.image_tokens(held_out.tokens), decoder.embed(responses)
    flat = [a.reshape(len(a), -1) for a in (decoded, seen)]
    if name == "mean":
        assert np.ptp(decoded, axis=0).max() == 0
        return
    share = two_way_identification(*flat)
    assert 0.35 < share < 0.65 if name == "shuffled" else share > 0.6  # chance is .5


def test_folder_loads_alone(decoder, responses, tmp_path) -> None:
    decoder.save_pretrained(tmp_path / "d")
    again = Decoder.from_pretrained(tmp_path / "d")
    assert again.space == decoder.space
    assert again.config == decoder.config
    assert (again.n_voxels, again.unit) == (decoder.n_voxels, "z")
    np.testing.assert_array_equal(again.embed(responses), decoder.embed(responses))
    np.testing.assert_array_equal(again.predict_tokens(responses, 2), decoder.predict_tokens(responses, 2))
    with pytest.raises(SynBrainError, match="exists already"):
        decoder.save_pretrained(tmp_path / "d")
    with (tmp_path / "d" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    with pytest.raises(SynBrainError, match="altered"):
        Decoder.from_pretrained(tmp_path / "d")


def test_bad_input(decoder, responses, held_out) -> None:
    with pytest.raises(SynBrainError, match="20 voxels"):
        decoder.embed(responses[:, :-1])
    broken = responses.copy()
    broken[2, 3] = np.nan
    with pytest.raises(SynBrainError, match="not finite"):
        decoder.backbone(broken)
    with pytest.raises(SynBrainError, match="no subject"):
        decoder.for_subject("t")
    with pytest.raises(SynBrainError, match="'z'"):
        decoder.require_unit("percent signal change")
    with pytest.raises(SynBrainError, match="samples"):
        decoder.predict_tokens(responses, 0)
    tokens = held_out.tokens
    with pytest.raises(SynBrainError, match="pictures 'shifted' instead of 'plain'"):
        decoder.image_tokens(tokens, "shifted")
    assert decoder.image_tokens(tokens).shape == (len(responses), 9, 8)


def test_unknown_method(subject, options, workspace) -> None:
    with pytest.raises(SynBrainError, match="no decoding method"):
        fit_method([subject()[0]], options("guess"), workspace)
