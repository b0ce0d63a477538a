"""A test image of one dataset that another one stores in another file is not trained on.

Marks are of the bytes of files. A picture saved as JPEG, or in another size, has another mark: what was
fitted on it would be judged by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from synbrain import adapt, evaluate, train
from synbrain.data import known_pictures
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.data.known_pictures import KEPT, METHOD_KEY, KnownPictures
from synbrain.data.marks import image_marks, unpacked
from synbrain.decoding.adapt import adaptation_data
from synbrain.decoding.augment import usable_images
from synbrain.decoding.decoder import Decoder
from synbrain.decoding.options import DecoderAdaptOptions, DecoderOptions
from synbrain.decoding.subjects import require_untrained
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.evaluation.options import EvaluateOptions
from synbrain.features.encoders import get_encoder
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens, write_tokens
from synbrain.model.synbrain import SynBrain
from synbrain.prepare.table import prepare_table
from synbrain.training.leakage import training_images
from synbrain.training.networks import split_subjects
from synbrain.training.options import AdaptOptions, TrainOptions
from synbrain.training.subjects import training_subjects
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder

LINEAR: dict[str, Any] = {"networks": False, "linear": {"n_folds": 3, "windows": 0, "blur": 0.0}}
TUNING = TuneOptions(
    size=32, side=2, channels=6, epochs=1, batch_size=8, validation_fraction=0.3, layers=["block2", "block4"]
)


def recorded(folder: Path, pictures: Mapping[int, str], again: frozenset[int] = frozenset()) -> Dataset:
    """Two trials of each picture.

    Args:
        folder: of source and dataset.
        pictures: seed of each picture -> its split.
        again: pictures that are stored as smaller JPEG files; the others are PNG.
    """
    (folder / "images").mkdir(parents=True)
    lines, responses = ["image,repeat,split"], []
    rng = np.random.default_rng(len(pictures))
    for picture, split in pictures.items():
        colours = np.random.default_rng(picture).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        shown, name = Image.fromarray(colours).resize((64, 64), Image.Resampling.BICUBIC), f"{picture}.png"
        if picture in again:
            shown, name = shown.resize((50, 50)), f"{picture}.jpg"
        shown.save(folder / "images" / name, quality=80)
        for repeat in range(2):
            lines.append(f"{name},{repeat},{split}")
            responses.append(colours.reshape(-1)[:5] / 100 + rng.standard_normal(5) / 2)
    (folder / "trials.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "responses.npy", np.array(responses, dtype=np.float32))
    prepare_table(folder, folder / "dataset")
    return load_dataset(folder / "dataset")


def split(first: int, test: int, end: int) -> dict[int, str]:
    return {picture: "test" if picture >= test else "train" for picture in range(first, end)}


def test_a_copy_of_a_test_image_is_left_out_and_the_file_itself_refused(tmp_path: Path) -> None:
    first = recorded(tmp_path / "a", split(0, 8, 12))  # tests on 8 to 11
    second = recorded(tmp_path / "b", split(9, 16, 20), again=frozenset({9, 10}))  # trains on 9, 10 and 11
    with pytest.raises(SynBrainError, match=r"1 training image of .*b"):
        training_images([first, second])  # 11 is there in the same file
    no_11 = recorded(tmp_path / "c", split(9, 16, 20) | {11: "test"}, again=frozenset({9, 10}))
    with pytest.warns(SynBrainWarning, match=r"2 training images of .*c.* look like .*\(10.jpg, 9.jpg\)"):
        left = training_images([first, no_11])
    assert [len(images.rows) for images in left] == [8, 6 - 2]
    dropped = training_images([first, second], "drop")
    assert [len(images.rows) for images in dropped] == [8, 7 - 3]
    (kept,) = training_images([second], keep_out=[first])
    assert kept.rows.tolist() == dropped[1].rows.tolist()
    assert [len(images.rows) for images in training_images([second])] == [7]


def test_pictures_that_look_alike_in_one_dataset_are_told_apart_by_its_split(tmp_path: Path) -> None:
    pictures = split(0, 8, 12)
    source = tmp_path / "a"
    recorded(source, pictures)
    Image.open(source / "images" / "10.png").save(source / "images" / "3.png", compress_level=0)
    Image.open(source / "images" / "10.png").convert("L").convert("RGB").save(source / "images" / "3.png")
    prepare_table(source, tmp_path / "versions")
    prepare_table(source, tmp_path / "again")
    both = [load_dataset(tmp_path / name) for name in ("versions", "again")]
    assert [len(images.rows) for images in training_images(both)] == [8, 8]


@pytest.fixture(scope="module")
def base_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    dataset = recorded(tmp_path_factory.mktemp("base"), split(0, 20, 26))
    write_tokens(dataset, get_encoder("pixels"), ["grid4"])
    return dataset


@pytest.fixture(scope="module")
def base(base_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> SynBrain:
    """A run of another subject, opened from its folder without its data."""
    out = tmp_path_factory.mktemp("base") / "run"
    train([base_dataset], TrainOptions.model_validate({"encoder": "pixels", **LINEAR}), out=out)
    return SynBrain.from_pretrained(out)


def new_dataset(folder: Path, pictures: Mapping[int, str], again: frozenset[int]) -> Dataset:
    dataset = recorded(folder, pictures, again)
    write_tokens(dataset, get_encoder("pixels"), ["grid4"])
    return dataset


def adapted(base: SynBrain, dataset: Dataset, **given: Any) -> SynBrain:
    return adapt(base, dataset, AdaptOptions.model_validate({"budget": "all", **LINEAR, **given}))


def test_no_base_is_adapted_that_saw_a_test_image_in_another_file(base: SynBrain, tmp_path: Path) -> None:
    pictures = {**split(100, 118, 118), 3: "test", 4: "test", 118: "test"}
    dataset = new_dataset(tmp_path / "new", pictures, frozenset({3, 4}))
    with pytest.raises(SynBrainError, match=r"trained on 2 test images .*\(3.jpg, 4.jpg\).*--keep-out"):
        adapted(base, dataset)
    kept = training_images([recorded(tmp_path / "b", split(0, 20, 26))], keep_out=[dataset])
    assert len(kept[0].rows) == 18


def test_copies_of_the_bases_test_images_are_left_out(base: SynBrain, tmp_path: Path) -> None:
    pictures = {**split(100, 118, 121), 21: "train", 22: "train"}
    dataset = new_dataset(tmp_path / "new", pictures, frozenset({21, 22}))
    with pytest.warns(SynBrainWarning, match=r"2 training images .*look like a test image of the base"):
        done = adapted(base, dataset)
    assert done.config.adaptation is not None
    assert done.config.adaptation.n_images == 18
    # what it knows is what its base and its own dataset showed it
    assert set(done.known_pictures.marks) >= set(base.known_pictures.marks)
    assert set(done.known_pictures.marks) == unpacked(done.config.trained_images) | unpacked(
        done.config.test_images
    )


def test_no_run_is_scored_on_copies_of_its_training_images(
    base: SynBrain, base_dataset: Dataset, tmp_path: Path
) -> None:
    options = EvaluateOptions(samples=2, rows=["mean_map"])
    evaluate(base, base_dataset, options)
    pictures = {**split(0, 20, 26), 3: "test"}
    dataset = new_dataset(tmp_path / "new", pictures, frozenset({3, *range(20, 26)}))
    with pytest.raises(SynBrainError, match="trained on 1 of 7 test images"):
        evaluate(base, dataset, options)


def test_a_few_test_images_may_look_like_ones_trained_on(base: SynBrain, tmp_path: Path) -> None:
    """One in twenty at most: two photographs of one scene are not a data set in other files."""
    pictures = {**split(100, 118, 138), 3: "test"}
    dataset = new_dataset(tmp_path / "new", pictures, frozenset({3}))
    said = r"1 test image of .*new.* looks like images in other files that the run .*\(3.jpg\)"
    with pytest.warns(SynBrainWarning, match=said):
        run = adapted(base, dataset)
    with pytest.warns(SynBrainWarning, match=said):
        evaluate(run, dataset, EvaluateOptions(samples=2, rows=["mean_map"]))


def test_no_encoder_is_tuned_on_copies_of_test_images_nor_read_for_them(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", split(0, 24, 28))
    other = recorded(tmp_path / "other", split(25, 49, 52), frozenset({25, 26, 27}))
    with pytest.warns(SynBrainWarning, match=r"3 training images of .*other.*look like a test image"):
        both = tune_encoder([one, other], TUNING, out=tmp_path / "both")
    marks = dict(zip(other.images["name"], image_marks(other, np.arange(other.n_images)), strict=True))
    assert len(unpacked(both.config["tuned_on"]) & {marks[f"{i}.jpg"] for i in (25, 26, 27)}) == 0
    assert len(unpacked(both.config["tuned_on"]) & set(marks.values())) > 10
    tune_encoder([one], TUNING, out=tmp_path / "enc")
    encoder = str(tmp_path / "enc")
    tuned = unpacked(get_encoder(encoder).describe["tuned_on"])
    names = [name for name, mark in zip(one.images["name"], image_marks(one, np.arange(28)), strict=True)
             if mark in tuned]  # fmt: skip
    seen = [int(name.removesuffix(".png")) for name in names]
    options = FeatureOptions(encoder=encoder, layers=["readout"], device="cpu")

    tests = recorded(tmp_path / "tests", {**split(200, 210, 210), seen[0]: "test"}, frozenset(seen))
    with pytest.raises(SynBrainError, match="was tuned on 1 test image"):
        make_tokens(tests, options)
    few = recorded(tmp_path / "few", {**split(200, 204, 230), seen[0]: "test"}, frozenset(seen))
    with pytest.warns(SynBrainWarning, match=rf"1 test image of .*few.* the encoder .*\({seen[0]}.jpg\)"):
        make_tokens(few, options)
    opened = open_tokens(few, "tuned-enc").tuned
    assert opened is None or len(opened) == 0
    trains = recorded(tmp_path / "trains", {seen[1]: "train", **split(200, 210, 213)}, frozenset(seen))
    make_tokens(trains, options)
    tokens = open_tokens(trains, "tuned-enc")
    assert tokens.tuned is not None
    row = trains.images["name"].tolist().index(f"{seen[1]}.jpg")
    assert tokens.tuned.tolist() == [row]


def test_no_decoder_learns_from_copies_of_test_images(base_dataset: Dataset, tmp_path: Path) -> None:
    options = DecoderOptions(method="ridge", encoder="pixels", layer="grid4", budget="all", components=4)
    train_decoder([base_dataset], options, out=tmp_path / "decoder")
    decoder = Decoder.from_pretrained(tmp_path / "decoder")
    new = new_dataset(tmp_path / "new", {**split(100, 118, 121), 3: "test"}, frozenset({3}))
    with pytest.raises(SynBrainError, match="trained on 1 test images of"):
        require_untrained(decoder, new)
    settings = DecoderAdaptOptions.model_validate(options.model_dump())
    with pytest.raises(SynBrainError, match=r"trained on 1 test images of .*new"):
        adaptation_data(decoder, new, settings)
    other = new_dataset(tmp_path / "other", {**split(100, 118, 121), 21: "train"}, frozenset({21}))
    with pytest.warns(SynBrainWarning, match=r"looks like a test image of the base.*\(21.jpg\): left out"):
        assert adaptation_data(decoder, other, settings).record["n_images"] == 18


def test_no_synthetic_trial_shows_a_copy_of_a_test_image(base: SynBrain, tmp_path: Path) -> None:
    pictures = dict.fromkeys([*range(15, 26), 100, 101], "train") | {102: "test"}  # the run tests on 20 to 25
    shown = new_dataset(tmp_path / "shown", pictures, frozenset(range(15, 26)))
    kept_out = recorded(tmp_path / "kept", split(16, 17, 18) | {100: "test"}, frozenset({100}))
    rows = usable_images(base, shown, [kept_out])
    names = [int(Path(name).stem) for name in shown.images["name"].iloc[rows]]
    assert sorted(names) == [15, 16, 18, 19, 101]


def test_pictures_are_looked_at_once_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = recorded(tmp_path / "a", split(0, 8, 12))
    every, looked = np.arange(12), []
    thumbnail = known_pictures.thumbnail
    monkeypatch.setattr(known_pictures, "thumbnail", lambda p: looked.append(p) or thumbnail(p))
    first = KnownPictures.of(dataset, every)
    assert len(looked) == 12
    KnownPictures.of(dataset, every[:5])
    assert len(looked) == 12
    changed = dataset.stimulus_path() / "3.png"
    Image.open(changed).rotate(90).save(changed)
    again = KnownPictures.of(dataset, every)
    assert len(looked) == 13
    assert len(set(first.marks) - set(again.marks)) == 1
    (dataset.path / KEPT).write_bytes(b"damaged")
    assert KnownPictures.of(dataset, every).marks == again.marks
    assert len(looked) == 13 + 12
    # thumbnails of an earlier method, whose files do not say it, or say another
    older = {"marks": np.frombuffer(b"".join(again.marks), np.uint8).reshape(12, -1)}
    older["thumbnails"] = np.zeros_like(again.thumbnails)
    for looks, method in enumerate((None, {METHOD_KEY: "1"}), start=3):
        save_file(older, dataset.path / KEPT, metadata=method)
        assert np.array_equal(KnownPictures.of(dataset, every).thumbnails, again.thumbnails)
        assert len(looked) == 1 + 12 * looks


def test_a_copy_of_a_training_image_is_judged_by_what_the_base_predicts_without_it(tmp_path: Path) -> None:
    """What the base knows of it is no forecast of new pictures, in whatever file it is shown."""
    first = recorded(tmp_path / "a", split(0, 20, 24))
    again = frozenset({0, 1, 2, 3})
    second = recorded(tmp_path / "b", dict.fromkeys(range(8), "train") | {30: "test", 31: "test"}, again)
    for dataset in (first, second):
        make_tokens(dataset, FeatureOptions(encoder="pixels"))
    base = train([first], TrainOptions(encoder="pixels", **LINEAR))
    adapted = adapt(base, second, AdaptOptions(budget="all", **LINEAR))
    path = adapted.subject().linear
    assert path is not None
    assert path.about["images_shared_with_base"] == 8  # 4 to 7 are there in the same file
    trained = base.known_pictures.only(unpacked(base.config.trained_images))
    shown = trained.shown_in(second, second.image_rows("train"))
    theirs, ours = (
        dict(zip(image_marks(of, np.arange(of.n_images)), of.images["name"], strict=True))
        for of in (second, first)
    )
    pairs = {theirs[mark]: [ours[m] for m in marks] for mark, marks in shown.items()}
    assert pairs == {f"{i}.jpg": [f"{i}.png"] for i in again}


def test_a_picture_that_judges_one_subject_is_not_trained_on_with_another(tmp_path: Path) -> None:
    """Networks are shared: their part of the mean was weighed by pictures that they knew from the other."""
    pictures, others = (dict.fromkeys(range(at, at + 20), "train") | {30: "test"} for at in (0, 4))
    first = recorded(tmp_path / "a", pictures)
    second = recorded(tmp_path / "b", others, frozenset(range(0, 20, 2)))
    for dataset in (first, second):
        make_tokens(dataset, FeatureOptions(encoder="pixels"))
    tokens = [open_tokens(dataset, "pixels") for dataset in (first, second)]
    config = TrainOptions(encoder="pixels", validation_fraction=0.25, **LINEAR).config()
    subjects = training_subjects([first, second], training_images([first, second]), tokens)
    data = split_subjects(subjects, [None, None], config)
    shown = [
        [{int(name.partition(".")[0]) for name in of.images["name"].iloc[part.tokens.image_rows]}
         for part in (one.train, one.validation)]
        for of, one in zip((first, second), data, strict=True)
    ]  # fmt: skip
    (a_trains, a_judges), (b_trains, b_judges) = shown
    assert len(a_judges) == len(b_judges) == 5
    assert a_judges != b_judges
    assert a_trains == set(range(20)) - a_judges - b_judges
    assert b_trains == set(range(4, 24)) - a_judges - b_judges
