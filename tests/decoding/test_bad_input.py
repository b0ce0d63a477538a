"""What the commands of decoding refuse: one line that says the mend, and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fixtures.colours import linear_run, make_dataset
from fixtures.mindeye2 import checkpoint_state
from synbrain import Decoder
from synbrain.cli import main
from synbrain.data.known_pictures import KEPT
from synbrain.decoding.augment import augment
from synbrain.decoding.options import AugmentOptions, DecoderOptions, MindEye2Options, MindEye2Sizes
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.files import write_manifest

RIDGE = ["--method", "ridge", "--encoder", "pixels", "--components", "8"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects, a run and a decoder of the first, synthetic trials, and things that are not in order."""
    here = tmp_path_factory.mktemp("world")
    first, _ = make_dataset(here, "first", 30, 1), make_dataset(here, "second", 24, 2)
    run = linear_run(first)
    run.save_pretrained(here / "run")
    train_decoder(
        [first], DecoderOptions(method="ridge", encoder="pixels", components=8), out=here / "decoder"
    )
    augment(run, first, AugmentOptions(hours=0.1), out=here / "synthetic")
    changed(here, "percent", unit="percent signal change")
    # pictures that are test images of the first subject, as training images of somebody else
    changed(here, "leaky", name="leaky", subject="leaky")
    for table in ("images", "trials"):
        path = here / "leaky" / f"{table}.parquet"
        pd.read_parquet(path).assign(
            split=lambda t: np.where(t["split"] == "test", "train", "test")
        ).to_parquet(path)
    in_order(here / "leaky")
    for name, value in (("shifted", {"pictures": "shifted"}), ("digest", {"digest": "ab12"})):
        shutil.copytree(here / "decoder", here / name)
        config = json.loads((here / name / "config.json").read_text())
        config["targets"]["source"] |= value
        (here / name / "config.json").write_text(json.dumps(config))
        in_order(here / name)
    tiny = MindEye2Options(sizes=MindEye2Sizes(hidden=8, blocks=0, use_prior=False), steps=1, round_steps=1)
    train_decoder([first], DecoderOptions(encoder="pixels", components=8, mindeye2=tiny), out=here / "base")
    odd = "backbone.clip_proj.2.weight"
    whole = checkpoint_state()
    for kind, state in {
        "missing": {name: value for name, value in whole.items() if name != odd},
        "extra": whole | {"backbone.surplus.weight": torch.zeros(2)},
        "misshapen": whole | {odd: torch.zeros(3, 3)},
    }.items():
        torch.save({"model_state_dict": state}, here / f"{kind}.pth")
    return here


def changed(here: Path, folder: str, **values: str) -> None:
    """A copy of the first subject's dataset whose description says something else."""
    shutil.copytree(here / "first", here / folder)
    path = here / folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    in_order(here / folder)


def in_order(folder: Path) -> None:
    """Checksums of what stands in the folder now."""
    write_manifest(folder, list(json.loads((folder / "checksums.json").read_text())))


OTHER_VOXELS = (
    "the decoder reads 30 voxels of first, second has 24 of second: give a decoder of this subject, or "
    "`synbrain decoder adapt` it"
)
CASES = {
    "voxels of another subject": (["decoder", "evaluate", "decoder", "second"], OTHER_VOXELS),
    "pictures from voxels of another subject": (
        ["decoder", "reconstruct", "decoder", "second"],
        OTHER_VOXELS,
    ),
    "another unit": (
        ["decoder", "evaluate", "decoder", "percent"],
        "the decoder reads 'as recorded', the responses are in 'percent signal change': prepare the dataset "
        "with the scaling that the decoder was trained on",
    ),
    "synthetic trials of another subject": (
        ["decoder", "train", "second", "--augment", "synthetic", *RIDGE],
        "synthetic has 30 voxels in 'as recorded', second 24 in 'as recorded': make synthetic trials with a "
        "run of this subject",
    ),
    "synthetic trials in another unit": (
        ["decoder", "train", "percent", "--augment", "synthetic", *RIDGE],
        "synthetic has 30 voxels in 'as recorded', percent 30 in 'percent signal change': make synthetic "
        "trials with a run of this subject",
    ),
    "measured trials as synthetic ones": (
        ["decoder", "train", "first", "--augment", "second", *RIDGE],
        "second holds no synthetic trials: pass what `synbrain augment` wrote to --augment",
    ),
    "test images among synthetic trials": (
        ["decoder", "train", "leaky", "--augment", "synthetic", *RIDGE],
        "48 images of synthetic are test images: synthesize responses to other images",
    ),
    "only test images to synthesize": (
        ["augment", "run", "leaky", "--keep-out", "first"],
        "every image of leaky is a test image: give a dataset with other images",
    ),
    "test images of one among training images of another": (
        ["decoder", "train", "first", "leaky", *RIDGE],
        "48 training images of first are test images of it or of another dataset: pass --shared-test-images "
        "drop to leave them out, or make one split for all datasets",
    ),
    "trained on test images": (
        ["decoder", "evaluate", "decoder", "leaky"],
        "the decoder was trained on 48 test images of leaky: train it without them, or evaluate on another "
        "dataset",
    ),
    "adapted to images that the base was tested on": (
        ["decoder", "adapt", "decoder", "leaky"],
        "base and adaptation together would be trained on 48 test images of leaky: make one split for all "
        "subjects",
    ),
    "tokens of another convention": (
        ["decoder", "evaluate", "shifted", "first"],
        "tokens of another space: pictures 'plain' instead of 'shifted': encode the images with the "
        "decoder's encoder, layer and picture convention",
    ),
    "tokens of an encoder that was changed": (
        ["decoder", "evaluate", "digest", "first"],
        "tokens of another space: digest {digest!r} instead of 'ab12': encode the images with the decoder's "
        "encoder, layer and picture convention",
    ),
    "no tokens of the encoder": (
        ["decoder", "train", "first", "--encoder", "efficientnet-lite0"],
        "first has no tokens of efficientnet-lite0: run `synbrain features first --encoder "
        "efficientnet-lite0`, or name what it has tokens of: --encoder pixels",
    ),
    "no tokens of the layer": (
        ["decoder", "train", "first", "--encoder", "pixels", "--layer", "early"],
        "tokens of pixels have layers final, not early: choose among them, or run `synbrain features first "
        "--encoder pixels --layers early`",
    ),
    "no synthetic hours": (
        ["augment", "run", "first", "--hours", "0"],
        "--hours cannot be 0.0 (Input should be greater than 0): give another value; --help says what each "
        "option takes",
    ),
    "less than no synthetic hours": (
        ["augmentation-curve", "run", "first", "--hours", "0", "-1", *RIDGE],
        "hours [0.0, -1.0]: give 0, the decoder without, and positive numbers",
    ),
    "too few images for retrieval": (
        ["decoder", "evaluate", "decoder", "first", "--n-way", "13"],
        "first has 12 test images, too few for 13-way retrieval: give more test images, or a smaller --n-way",
    ),
    "too few images to train on": (
        ["decoder", "train", "first", "--budget", "3", "--by", "images", *RIDGE],
        "3 training images within the budget 3: choose a larger budget",
    ),
    "a subject that the base does not know": (
        ["decoder", "adapt", "base", "second", "--adaptation", "mindaligner", "--known", "third"],
        "the decoder has no subject 'third' with a layer of its own: choose among first",
    ),
    "a checkpoint without a tensor": (
        ["import-mindeye2", "missing.pth"],
        "missing.pth does not fit MindEye2's architecture; missing: backbone.clip_proj.2.weight: pass a "
        "checkpoint written by MindEye2's trainer",
    ),
    "a checkpoint with a tensor too many": (
        ["import-mindeye2", "extra.pth"],
        "extra.pth does not fit MindEye2's architecture; extra: backbone.surplus.weight: pass a "
        "checkpoint written by MindEye2's trainer",
    ),
    "a checkpoint with a misshapen tensor": (
        ["import-mindeye2", "misshapen.pth"],
        "misshapen.pth does not fit MindEye2's architecture; misshapen: backbone.clip_proj.2.weight (3, 3) "
        "instead of (8, 8): pass a checkpoint written by MindEye2's trainer",
    ),
}


def _files(world: Path) -> list[Path]:
    """All but what is known of pictures once they were looked at, whatever for."""
    return sorted(path for path in world.rglob("*") if path.name != KEPT)


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(
    case: str, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    words, expected = CASES[case]
    before = _files(world)
    capsys.readouterr()
    assert main([*words, "--out", "made"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("synbrain ")]
    assert len(lines) == 1
    assert lines[0].split(": ", 1)[1] == expected.format(digest=get_encoder("pixels").digest)
    assert _files(world) == before


def test_a_decoder_of_no_such_subject(world: Path) -> None:
    with pytest.raises(SynBrainError, match="no subject 'third': choose among first"):
        Decoder.from_pretrained(world / "decoder", subject="third")
