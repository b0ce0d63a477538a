from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.encoding import encode_images
from synbrain.features.images import check_images

PIXELS = get_encoder("pixels")
ARRAY = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)


def test_paths_pil_images_and_arrays_give_the_same_tokens(tmp_path: Path) -> None:
    paths = []
    for i, pixels in enumerate(ARRAY):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    by_array = encode_images(PIXELS, ARRAY, batch_size=2)
    expected = PIXELS.forward(torch.stack([PIXELS.preprocess(Image.fromarray(p)) for p in ARRAY]))["final"]
    assert by_array.shapes == {"final": (256, 3)}
    np.testing.assert_array_equal(by_array.read("final"), expected.numpy().astype(np.float16))
    for images in (paths, [str(path) for path in paths], [Image.open(path) for path in paths]):
        found = encode_images(PIXELS, images, threads=2)
        np.testing.assert_array_equal(found.read("final"), by_array.read("final"))
    assert (by_array.encoder, by_array.digest) == ("pixels", PIXELS.digest)


def test_an_image_given_twice_is_encoded_once() -> None:
    passed: list[int] = []

    def counting(batch: torch.Tensor, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        passed.append(len(batch))
        return dict(PIXELS.network(batch, layers))

    twice = ARRAY[[0, 1, 0, 2, 1, 0]]
    tokens = encode_images(replace(PIXELS, network=counting), twice)
    assert sum(passed) == 3
    assert len(tokens) == 6
    np.testing.assert_array_equal(
        tokens.read("final"), encode_images(PIXELS, ARRAY).read("final")[[0, 1, 0, 2, 1, 0]]
    )


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (ARRAY[0], r"shape \(24, 24, 3\).*images\[None\]"),
        (ARRAY[..., :2], r"shape \(5, 24, 24, 2\)"),
        (ARRAY.astype(np.float32), "dtype float32"),
        (ARRAY[:0], "no images"),
        ([], "no images"),
        ("one.png", r"\[image\]"),
        ([Image.new("RGB", (4, 4)), 3], "image 1 is a int"),
        (["nowhere/absent.png"], r"absent\.png is missing"),
    ],
)
def test_wrong_images_are_told(images: object, problem: str) -> None:
    with pytest.raises(SynBrainError, match=problem):
        encode_images(PIXELS, images)  # type: ignore[arg-type]


def test_the_mends_for_tensors_and_turned_arrays_can_be_run() -> None:
    """What vision code holds: (n, 3, h, w), of torch or numpy, in 0 to 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    with pytest.raises(SynBrainError, match=r"tensor of shape \(2, 3, 8, 9\)") as told:
        check_images(x)  # type: ignore[arg-type]
    assert np.array_equal(eval(str(told.value).split("0 to 1: ")[1], {"x": x}), pixels)
    images = x.numpy()
    with pytest.raises(SynBrainError, match="images have shape") as told:
        check_images(images)
    images = eval(str(told.value).split("uint8: ")[1], {"np": np, "images": images})
    with pytest.raises(SynBrainError, match="images have dtype float32") as told:
        check_images(images)
    assert np.array_equal(eval(str(told.value).split("0 to 1: ")[1], {"np": np, "images": images}), pixels)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(SynBrainError, match=r"broken\.jpg cannot be read"):
        encode_images(PIXELS, [tmp_path / "broken.jpg"])


@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
def test_tokens_that_float16_cannot_hold_are_refused(value: float) -> None:
    def huge(batch: torch.Tensor, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return {layer: torch.full((len(batch), *PIXELS.layers[layer]), value) for layer in layers}

    with pytest.raises(SynBrainError, match="layer final of pixels gives values up to"):
        encode_images(replace(PIXELS, network=huge), ARRAY)
