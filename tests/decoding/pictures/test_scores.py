from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synbrain.decoding.pictures import feature_networks
from synbrain.decoding.pictures import scores as picture_scores_module
from synbrain.decoding.pictures.feature_networks import (
    FEATURE_NETWORKS,
    PUBLISHED,
    load_feature_network,
    picture_features,
)
from synbrain.decoding.pictures.scores import SeenPictures, picture_scores
from synbrain.errors import SynBrainError


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    """Eight pictures of blobs, 48 x 40 pixels."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 5, 5, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(c).resize((40, 48), Image.Resampling.BICUBIC)) for c in coarse]
    )


@pytest.fixture(autouse=True)
def fresh_networks() -> Any:
    load_feature_network.cache_clear()
    yield
    load_feature_network.cache_clear()


def test_scores_tell_the_right_pictures_from_wrong_ones(seen: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(seen / 255 + rng.normal(0, 0.1, seen.shape), 0, 1)
    good = picture_scores(noisy, seen)
    wrong = picture_scores(noisy[[1, 2, 3, 4, 5, 6, 7, 0]], seen)
    assert set(good) == {"pixcorr", "ssim", "lite2_early", "lite2_middle", "lite2", "lite2_distance"}
    for column, score in good.items():
        assert score.each.shape == (8,)
        better = score.value - wrong[column].value
        assert (better if score.better == "larger" else -better) > 0, column
    grey = picture_scores(np.full_like(seen, 128), seen)
    assert grey["lite2"].value == pytest.approx(0.5, abs=0.15), "one picture for all is at chance"
    assert grey["pixcorr"].value == 0


def test_seen_pictures_are_looked_at_once(seen: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    features = picture_scores_module.picture_features

    def counted(name: str, pictures: np.ndarray, *, device: str) -> dict[str, np.ndarray]:
        looked.append(id(pictures))
        return features(name, pictures, device=device)

    monkeypatch.setattr(picture_scores_module, "picture_features", counted)
    judged, decoded = SeenPictures(seen), np.full_like(seen, 128)
    rows = [judged.scores(decoded), judged.scores(seen)]
    assert looked.count(id(judged.pictures)) == 2  # once as what was seen, once as what was decoded
    assert rows[1]["lite2"].value == 1 > rows[0]["lite2"].value


def test_bytes_and_floats_are_one_picture(seen: np.ndarray) -> None:
    a, b = picture_features("lite2", seen[:2]), picture_features("lite2", seen[:2] / 255)
    np.testing.assert_allclose(a["head"], b["head"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("decoded", "problem"),
    [
        (np.zeros((3, 8, 8, 3), np.uint8), "3 decoded pictures for 8"),
        (np.full((8, 48, 40, 3), 200.0), r"neither uint8 nor floats in \[0, 1\]"),
        (np.zeros((8, 48, 40), np.uint8), "shape"),
        (np.full((8, 48, 40, 3), np.nan), "neither uint8 nor floats"),
    ],
)
def test_pictures_that_cannot_be_scored(seen: np.ndarray, decoded: np.ndarray, problem: str) -> None:
    with pytest.raises(SynBrainError, match=problem):
        picture_scores(decoded, seen)


def test_missing_packages_and_weights_name_the_download(
    seen: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for name in ("alexnet", "inception", "efficientnet-b1", "swav"):
        with pytest.raises(SynBrainError, match=r"need torchvision: .*lite2"):
            picture_scores(seen, seen, networks=[name])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SynBrainError, match="hf download openai/clip-vit-large-patch14"):
        picture_scores(seen, seen, networks=["clip"])
    with pytest.raises(SynBrainError, match="no feature network 'vgg': choose from alexnet"):
        picture_scores(seen, seen, networks=["vgg"])
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(SynBrainError, match=r"download swav_800ep_pretrain\.pth\.tar"):
        picture_scores(seen, seen, networks=["swav"])


def test_a_download_that_fails_says_which_file(monkeypatch: pytest.MonkeyPatch, seen: np.ndarray) -> None:
    def fails(name: str, weights: str) -> Any:
        raise OSError("no route to host")

    fake: Any = types.ModuleType("torchvision")
    fake.models = types.SimpleNamespace(get_model=fails)
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    with pytest.raises(SynBrainError, match=r"IMAGENET1K_V1 of inception_v3.*no route.*checkpoints"):
        picture_scores(seen, seen, networks=["inception"])


def test_pictures_reach_a_network_at_its_size_and_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that hands its input through; sizes and norms are those of the published evaluation."""
    sizes = {"alexnet": 256, "inception": 342, "clip": 224, "efficientnet-b1": 255, "swav": 224}
    assert set(sizes) == set(PUBLISHED)
    half = np.full((2, 30, 50, 3), 0.5)
    for name, size in sizes.items():
        about = FEATURE_NETWORKS[name]
        shapes: list[tuple[int, ...]] = []

        def through(batch: torch.Tensor, shapes: Any = shapes, about: Any = about) -> dict[str, torch.Tensor]:
            shapes.append(tuple(batch.shape))
            return {layer: batch for layer, _ in about.columns.values()}

        monkeypatch.setattr(feature_networks, "load_feature_network", lambda *given, net=through: net)
        features = picture_features(name, half)
        assert shapes == [(2, 3, size, size)]
        value = next(iter(features.values())).reshape(2, 3, size, size)[0, :, 0, 0]
        np.testing.assert_allclose(value, (0.5 - np.array(about.mean)) / np.array(about.sd), rtol=1e-5)


def test_published_layers_with_torchvision(seen: np.ndarray) -> None:
    pytest.importorskip("torchvision", reason="torchvision has no build for this torch here")
    try:
        scores = picture_scores(seen, seen, networks=["alexnet"])
    except SynBrainError as error:
        pytest.skip(str(error))
    assert scores["alex2"].value == scores["alex5"].value == 1
