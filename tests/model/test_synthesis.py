"""Synthesis to a file: the same bytes whatever happens on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fixtures.noise import plain_noise
from synbrain.data.space import Atlas, VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.files import read_json
from synbrain.linear.path import LinearPath
from synbrain.model.image_list import list_images
from synbrain.model.options import SynthesizeOptions
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.model.synthesis import synthesize

N_IMAGES = 5


@pytest.fixture
def model() -> SynBrain:
    space = VoxelSpace.from_mask(np.arange(24).reshape(2, 3, 4) % 3 == 0, np.diag([2.0, 2, 2, 1]))
    n = space.n_voxels
    encoder = get_encoder("pixels")
    layer = encoder.default_layer
    shape = encoder.layers[layer]
    rng = np.random.default_rng(0)
    ones = np.ones(n, dtype=np.float32)
    linear = LinearPath(
        {layer: rng.normal(size=(shape[0] * shape[1], n)).astype(np.float32)}, np.eye(n, dtype=np.float32),
        0 * ones, {layer: shape}, {},
    )  # fmt: skip
    noise = plain_noise(np.zeros((n, 0)))
    part = SubjectPart("s1", space, "percent", 0 * ones, ones, linear=linear, noise=noise)
    config = RunConfig(encoder="pixels", encoder_digest=encoder.digest, linear_layers=(layer,))
    return SynBrain(config, {"s1": part})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "images"
    where.mkdir()
    rng = np.random.default_rng(1)
    for i in range(N_IMAGES):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(where / f"{i}.png")
    (where / "notes.txt").write_text("not an image")
    return where


@pytest.mark.parametrize(("samples", "asked", "at_once"), [(1, None, 256), (40, None, 32), (1, 5, 5)])
def test_runs_without_networks_take_more_images_at_a_time(
    samples: int, asked: int | None, at_once: int, model: SynBrain, folder: Path, tmp_path: Path
) -> None:
    images, options = list_images(folder), SynthesizeOptions(samples=samples, batch_size=asked)
    whole = synthesize(model, images, options, out=tmp_path / "y.npy")
    assert read_json(whole[-1])["batch_size"] == at_once
    tokens = model.tokens(images)
    given = model.predict(tokens, batch_size=2)  # a batch of all: the linear path alone answers
    np.testing.assert_allclose(given, model.predict(images, batch_size=2), rtol=1e-5, atol=1e-5)


def test_the_file_holds_what_sample_gives(model: SynBrain, folder: Path, tmp_path: Path) -> None:
    images = list_images(folder)
    model.digest = "abc"
    out = tmp_path / "y.npy"
    paths = synthesize(model, images, SynthesizeOptions(samples=3, seed=7, batch_size=2), out=out)
    assert paths == [out, tmp_path / "y.json"]
    written = np.load(out, mmap_mode="r")
    np.testing.assert_array_equal(written, model.sample(images, 3, 7, batch_size=2))
    about = read_json(tmp_path / "y.json")
    assert about["images"] == [str(path) for path in images]
    assert (about["seed"], about["unit"], about["run"], about["subject"]) == (7, "percent", "abc", "s1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "y.json", "y.npy"]


def test_an_interrupted_synthesis_ends_in_the_same_bytes(
    model: SynBrain, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list_images(folder)
    two = SynthesizeOptions(samples=2, batch_size=2)
    whole = synthesize(model, images, two, out=tmp_path / "whole.npy")[0]
    good = images[3].read_bytes()
    images[3].write_bytes(b"broken")
    with pytest.raises(SynBrainError, match=r"3\.png cannot be read"):
        synthesize(model, images, two, out=tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()
    images[3].write_bytes(good)
    seen: list[int] = []
    encode = SynBrain.iter_samples

    def spied(self: SynBrain, *args: object, start: int = 0, **rest: object) -> object:
        seen.append(start)
        return encode(self, *args, start=start, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SynBrain, "iter_samples", spied)
    out = synthesize(model, images, two, out=tmp_path / "y.npy")[0]
    assert seen == [0, 2]  # an image tells the model apart; the first batch was not done again
    assert out.read_bytes() == whole.read_bytes()


def test_another_seed_does_not_continue_an_old_file(model: SynBrain, folder: Path, tmp_path: Path) -> None:
    images = list_images(folder)
    good = images[4].read_bytes()
    images[4].write_bytes(b"broken")
    with pytest.raises(SynBrainError):
        synthesize(model, images, SynthesizeOptions(samples=2, seed=1, batch_size=2), out=tmp_path / "y.npy")
    images[4].write_bytes(good)
    options = SynthesizeOptions(samples=2, seed=2, batch_size=2)
    out = synthesize(model, images, options, out=tmp_path / "y.npy")[0]
    np.testing.assert_array_equal(np.load(out), model.sample(images, 2, 2, batch_size=2))


def test_another_model_does_not_continue_an_old_file(model: SynBrain, folder: Path, tmp_path: Path) -> None:
    """Models at hand, of no folder, have no digest to tell them apart."""
    images, one = list_images(folder), SynthesizeOptions(samples=2, batch_size=1)
    good = images[3].read_bytes()
    images[3].write_bytes(b"broken")
    with pytest.raises(SynBrainError):
        synthesize(model, images, one, out=tmp_path / "y.npy")
    images[3].write_bytes(good)
    (name, part), *_ = model.subjects.items()
    assert part.noise is not None
    louder = replace(part.noise, trial=replace(part.noise.trial, base=part.noise.trial.base * 4))
    other = SynBrain(model.config, {name: replace(part, noise=louder)}, model.vae, model.mapper)
    out = synthesize(other, images, one, out=tmp_path / "y.npy")[0]
    np.testing.assert_array_equal(np.load(out), other.sample(images, 2, batch_size=1))


def test_nothing_is_continued_in_a_file_that_another_call_began(
    model: SynBrain, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call is killed when its file is there, and not yet what says how far it came."""
    images, out = list_images(folder), tmp_path / "y.npy"
    options = SynthesizeOptions(samples=2, seed=1, batch_size=1)
    good = images[3].read_bytes()
    images[3].write_bytes(b"broken")
    with pytest.raises(SynBrainError):
        synthesize(model, images, options, out=out)
    images[3].write_bytes(good)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("synbrain.model.synthesis.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            synthesize(model, images, SynthesizeOptions(samples=2, seed=2, batch_size=1), out=out)
    synthesize(model, images, options, out=out)
    np.testing.assert_array_equal(np.load(out), model.sample(images, 2, 1, batch_size=1))


def test_trials_are_not_drawn_again_where_the_volumes_found_no_space(
    model: SynBrain, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All were, from the first image on."""
    import nibabel as nib

    model.digest = "abc"
    options, out = SynthesizeOptions(samples=2, batch_size=2), tmp_path / "y.nii.gz"

    def full(*_: object) -> None:
        raise SynBrainError("too little space", "free some")

    with monkeypatch.context() as patched:
        patched.setattr("synbrain.model.outputs.require_space", full)
        with pytest.raises(SynBrainError, match="too little space"):
            synthesize(model, [folder], options, out=out)
    starts: list[int] = []
    draw = SynBrain.iter_samples

    def spied(self: SynBrain, *args: object, start: int = 0, **rest: object) -> object:
        starts.append(start)
        return draw(self, *args, start=start, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SynBrain, "iter_samples", spied)
    synthesize(model, [folder], options, out=out)
    assert starts == [N_IMAGES]
    monkeypatch.undo()
    whole = synthesize(model, [folder], options, out=tmp_path / "whole.nii.gz")[0]
    np.testing.assert_array_equal(nib.load(out).get_fdata(), nib.load(whole).get_fdata())
    names = ["images", "whole.json", "whole.nii.gz", "y.json", "y.nii.gz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_more_volumes_than_nifti_holds_are_refused_before_the_work(
    model: SynBrain, folder: Path, tmp_path: Path
) -> None:
    """nibabel refused them when all trials were drawn."""
    options = SynthesizeOptions(samples=7000)
    with pytest.raises(SynBrainError, match="35000 volumes in one NIfTI file, which holds 32767"):
        synthesize(model, [folder], options, out=tmp_path / "y.nii.gz")
    assert not list(tmp_path.glob("*y*"))


def test_an_existing_output_is_kept(model: SynBrain, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "y.npy").write_text("precious")
    with pytest.raises(SynBrainError, match="--overwrite"):
        synthesize(model, list_images(folder), SynthesizeOptions(samples=1), out=tmp_path / "y.npy")
    assert (tmp_path / "y.npy").read_text() == "precious"


def test_transparent_and_turned_pictures_follow_the_options(
    model: SynBrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from synbrain.cli import main

    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (12, 12, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(np.arange(12)[:, None] < 5, 0, 255)
    clear = tmp_path / "clear.png"
    Image.fromarray(pixels).save(clear)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    Image.fromarray(pixels[..., :3]).save(turned, exif=exif)
    run = model.save_pretrained(tmp_path / "run")
    for command in ("predict", "synthesize"):
        words = [command, str(run), str(clear), "--out", str(tmp_path / f"{command}.npy")]
        assert main(words) == 2
        assert "--background" in capsys.readouterr().err
        assert not list(tmp_path.glob(f"*{command}*.npy"))
        assert main([*words, "--overwrite", "--background", "grey"]) == 0
    below = Image.new("RGBA", (12, 12), (128, 128, 128, 255))
    flat = Image.alpha_composite(below, Image.fromarray(pixels)).convert("RGB")
    np.testing.assert_array_equal(np.load(tmp_path / "predict.npy")[0], model.predict([flat]))
    assert read_json(tmp_path / "predict.json")["background"] == "#808080"
    trials = np.load(tmp_path / "synthesize.npy")
    np.testing.assert_array_equal(trials, model.sample([flat], len(trials), batch_size=32))
    for orientation, picture in (
        ("stored", Image.fromarray(pixels[..., :3])),
        ("upright", Image.fromarray(pixels[..., :3]).transpose(Image.Transpose.ROTATE_270)),
    ):
        out = tmp_path / f"{orientation}.npy"
        assert main(["predict", str(run), str(turned), "--out", str(out), "--orientation", orientation]) == 0
        np.testing.assert_array_equal(np.load(out)[0], model.predict([picture]))


def test_depth_does_not_change_a_prediction(model: SynBrain) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(model.predict([deep]), model.predict([Image.fromarray(grey)]))
    with pytest.raises(SynBrainError, match="image 0 holds floating-point numbers"):
        model.predict([Image.fromarray(grey.astype(np.float32) / 255)])


def test_a_second_process_is_told(model: SynBrain, folder: Path, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".y.npy.lock").open("w") as lock:  # as another process would have it
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SynBrainError, match="another process is making"):
            synthesize(model, [folder], out=tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()


def test_nifti_volumes_hold_the_trials(model: SynBrain, folder: Path, tmp_path: Path) -> None:
    import nibabel as nib

    out = tmp_path / "y.nii.gz"
    written = synthesize(model, [folder], SynthesizeOptions(samples=3, batch_size=2), out=out)
    assert written == [out, tmp_path / "y.json"]
    image = nib.load(out)
    volumes = image.get_fdata()
    assert volumes.shape == (2, 3, 4, N_IMAGES * 3)
    assert b"trial_0..trial_2 (percent)" in bytes(image.header["descrip"])
    index = model.subject().space.index
    trials = model.sample(list_images(folder), 3, 0, batch_size=2)
    np.testing.assert_allclose(volumes.reshape(24, -1)[index, 4 * 3 + 1], trials[1, 4], rtol=1e-6)
    outside = np.setdiff1d(np.arange(24), index)
    assert not volumes.reshape(24, -1)[outside].any()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "y.json", "y.nii.gz"]


def test_roi_trials_are_means_of_voxels(model: SynBrain, folder: Path, tmp_path: Path) -> None:
    part = model.subject()
    atlas = Atlas((np.arange(8) % 2 + 1).astype(np.int32), {1: "V1", 2: "V2"}, "made up")
    part = replace(part, space=replace(part.space, atlases={"prf": atlas}))
    model = SynBrain(model.config, {"s1": part})
    options = SynthesizeOptions(samples=2, by="roi", batch_size=2)
    synthesize(model, [folder], options, out=tmp_path / "y.csv")
    table = pd.read_csv(tmp_path / "y.csv")
    assert list(table) == ["image", "roi", "trial_0", "trial_1"]
    trials = model.sample(list_images(folder), 2, 0, batch_size=2)
    mine = table[table["roi"] == "prf/V2"]
    np.testing.assert_allclose(mine["trial_1"], trials[1][:, 1::2].mean(axis=1), rtol=1e-5)


def test_images_come_from_a_folder_a_file_or_a_list(folder: Path, tmp_path: Path) -> None:
    assert [path.name for path in list_images(folder)] == [f"{i}.png" for i in range(N_IMAGES)]
    assert list_images(folder / "2.png") == [folder / "2.png"]
    listed = tmp_path / "list.txt"
    listed.write_text("# two of them\nimages/4.png\n\nimages/0.png\n")
    assert [path.name for path in list_images(listed)] == ["4.png", "0.png"]
    listed.write_text("images/4.png\nimages/9.png\n")
    with pytest.raises(SynBrainError, match=r"1 of 2 images .* missing"):
        list_images(listed)
    (folder / ".hidden.png").write_bytes(b"x")
    several = list_images([folder / "1.png", folder / "[34].png", folder])
    assert [path.name for path in several] == ["1.png", "3.png", "4.png", *(f"{i}.png" for i in range(5))]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SynBrainError, match="holds no images"):
        list_images(tmp_path / "empty")


def test_the_command_writes_and_refuses(
    model: SynBrain, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from synbrain.cli import main

    run = model.save_pretrained(tmp_path / "run")
    words = [
        "synthesize",
        str(run),
        str(folder),
        "--samples",
        "2",
        "--out",
        str(tmp_path / "y.npy"),
        "--seed",
        "3",
    ]
    assert main(words) == 0
    assert np.load(tmp_path / "y.npy").shape == (2, N_IMAGES, 8)
    assert len(read_json(tmp_path / "y.json")["run"]) == 64
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    nifti = [*words[:-4], "--out", str(tmp_path / "z.nii.gz"), "--format", "nifti"]
    assert main(nifti) == 0
    assert (tmp_path / "z.json").exists()
    assert not list(tmp_path.glob(".z*"))
    capsys.readouterr()
    assert main([*words[:-4], "--out", str(tmp_path / "w.npy"), "--format", "nifti"]) == 2
    assert "--format nifti contradicts the name w.npy" in capsys.readouterr().err
    assert not list(tmp_path.glob("*w.*"))
