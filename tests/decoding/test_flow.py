"""From a dataset to a decoder, to scores, to synthetic trials and back: the library functions of commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fixtures.colours import N_IMAGES, N_TEST, linear_run, make_dataset
from fixtures.noise import plain_noise
from synbrain import Dataset, Decoder, SynBrain
from synbrain.cli import main
from synbrain.data.marks import image_marks, packed, unpacked
from synbrain.decoding.adapt import adapt_decoder, adaptation_data
from synbrain.decoding.alignment import make_alignment, read_labels
from synbrain.decoding.augment import augment, trials_of
from synbrain.decoding.evaluate import evaluate_decoder, reads_tokens_of
from synbrain.decoding.flattery import evaluate_semantics, flattery
from synbrain.decoding.options import AugmentOptions, DecoderAdaptOptions, DecoderEvaluation, DecoderOptions
from synbrain.decoding.scores import DecoderScores, Draws, ScoredOn, token_scores
from synbrain.decoding.subjects import require_untrained
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError
from synbrain.files import write_manifest


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoding")


@pytest.fixture(scope="module")
def first(here: Path) -> Dataset:
    return make_dataset(here, "first", 30, 1)


@pytest.fixture(scope="module")
def second(here: Path) -> Dataset:
    return make_dataset(here, "second", 24, 2)


@pytest.fixture(scope="module")
def ridge(here: Path, first: Dataset) -> Path:
    options = DecoderOptions(method="ridge", encoder="pixels", components=8)
    train_decoder([first], options, out=here / "ridge")
    return here / "ridge"


@pytest.fixture
def settings(options) -> DecoderOptions:
    small = options("mindeye2", encoder="pixels", components=8)
    sizes = small.mindeye2.sizes.model_copy(update={"use_prior": False})  # a pixel token has 3 values
    return small.model_copy(update={"mindeye2": small.mindeye2.model_copy(update={"sizes": sizes})})


def test_a_decoder_tells_what_it_is(ridge: Path) -> None:
    decoder = Decoder.from_pretrained(ridge)
    text, table = repr(decoder), decoder._repr_html_()
    for fact in ("ridge", "first (30 voxels", "pixels", f"{N_IMAGES - N_TEST} images", "(measured)"):
        assert fact in text, text
        assert fact in table
    assert "array" not in text
    assert table.startswith("<table>")


@pytest.fixture(scope="module")
def run(first: Dataset) -> SynBrain:
    return linear_run(first)


def test_trained_and_evaluated(ridge: Path, first: Dataset, run: SynBrain, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    scores = evaluate_decoder(ridge, first, run=run, out=out)
    rows = scores.rows
    assert {
        "measured_mean",
        "measured_trial",
        "mean_map",
        "shuffled",
        "synthetic_trial",
        "synthetic_mean",
    } <= set(rows)
    assert rows["measured_mean"]["images_ranked"]["value"] > 0.8
    assert rows["measured_mean"]["two_way"]["value"] > 0.9
    for control in ("mean_map", "shuffled"):
        assert abs(rows[control]["two_way"]["value"] - 0.5) < 0.25
        assert rows[control]["images_ranked"]["value"] < 0.4  # chance is 1 / 12
    written = json.loads(out.read_text())
    assert written["about"]["n_way"] == N_TEST
    low, high = written["rows"]["measured_trial"]["two_way"]["interval"]
    assert low <= rows["measured_trial"]["two_way"]["value"] <= high
    with pytest.raises(SynBrainError, match="exists already"):
        evaluate_decoder(ridge, first, out=out)


def test_pictures_are_scored(ridge: Path, first: Dataset, run: SynBrain) -> None:
    options = DecoderEvaluation(renderer="pixels", networks=[])
    scores = evaluate_decoder(ridge, first, options, run=run)
    measured, shuffled = scores.rows["measured_mean"], scores.rows["shuffled"]
    assert measured["pixcorr"]["value"] > shuffled["pixcorr"]["value"] + 0.2
    assert {"pixcorr", "ssim"} < set(scores.each["synthetic_mean"])
    with pytest.raises(SynBrainError, match="no renderer"):
        evaluate_decoder(ridge, first, DecoderEvaluation(renderer="brush", networks=[]))
    with pytest.raises(SynBrainError, match="no feature network"):
        evaluate_decoder(ridge, first, DecoderEvaluation(renderer="pixels", networks=["eyes"]))


def test_semantic_scores(ridge: Path, first: Dataset, run: SynBrain) -> None:
    alone = evaluate_semantics(run, first, ridge)
    assert alone.first.about.reads_the_runs_tokens
    assert not alone.flattery
    about, head, *rows = alone.table().splitlines()
    assert "12-way, 1 draw" in about
    assert {len(row) for row in rows} == {len(head)}  # columns as wide as their names
    assert head.split() == list(alone.first.rows["measured_mean"])
    with pytest.raises(SynBrainError, match="both decoders read tokens of pixels"):
        evaluate_semantics(run, first, ridge, second=ridge)


def test_the_second_decoder_is_outside_the_circle(
    ridge: Path, first: Dataset, run: SynBrain, tmp_path: Path
) -> None:
    """In the other order the flattery had the other sign, and was called the flattery all the same."""
    opened = Decoder.from_pretrained(ridge)
    source = opened.targets.source.model_copy(update={"encoder": "mosaic", "digest": "m"})
    outside = replace(opened, targets=replace(opened.targets, source=source))
    outside.save_pretrained(tmp_path / "outside")
    with pytest.raises(SynBrainError, match="second decoder reads tokens of pixels, as the run does"):
        evaluate_semantics(run, first, tmp_path / "outside", second=ridge)
    both = SynBrain(run.config.model_copy(update={"encoder": "mosaic+pixels"}), run.subjects)
    assert reads_tokens_of(opened, both)
    assert not reads_tokens_of(outside, run)


def test_evaluate_with_a_decoder(
    ridge: Path, first: Dataset, run: SynBrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.save_pretrained(tmp_path / "run")
    base = ["evaluate", str(tmp_path / "run"), str(first.path), "--out", str(tmp_path / "s.json")]
    base += ["--samples", "2", "--rows", "mean_map", "--n-bootstrap", "20"]
    assert main([*base, "--second-decoder", str(ridge)]) == 2
    assert not (tmp_path / "s.json").exists()
    assert main([*base, "--decoder", str(ridge)]) == 0
    assert "synthetic_trial" in capsys.readouterr().out
    kept = json.loads((tmp_path / "s-decoding.json").read_text())
    assert kept["about"]["reads_the_runs_tokens"]


def test_flattery_is_what_the_second_decoder_does_not_see() -> None:
    def scores(synthetic: float, measured: float) -> DecoderScores:
        values = {"two_way": np.full(8, measured)}, {"two_way": np.full(8, synthetic)}
        rows = ("measured_trial", "measured_mean"), ("synthetic_trial", "synthetic_mean")
        each = {row: of for names, of in zip(rows, values, strict=True) for row in names}
        return DecoderScores({}, ScoredOn.model_construct(), each)

    entry = flattery(scores(0.9, 0.6), scores(0.7, 0.65))["synthetic_trial"]["two_way"]
    assert entry["advantage"] == pytest.approx(0.3)
    assert entry["advantage_by_second"] == pytest.approx(0.05)
    assert entry["flattery"] == pytest.approx(0.25)
    assert entry["interval"] == pytest.approx([0.25, 0.25])


def test_given_responses_are_checked(ridge: Path, first: Dataset, second: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, first.n_voxels), np.float32))
    with pytest.raises(SynBrainError, match="one response to each test image"):
        evaluate_decoder(ridge, first, responses=tmp_path / "x.npy")
    with pytest.raises(SynBrainError, match="24"):
        evaluate_decoder(ridge, second)


def test_no_test_image_is_trained_on(ridge: Path, first: Dataset) -> None:
    decoder = Decoder.from_pretrained(ridge)
    require_untrained(decoder, first)
    marks = packed(image_marks(first, first.image_rows("test")[:2]))
    tested = replace(decoder, config=decoder.config.model_copy(update={"trained_images": marks}))
    with pytest.raises(SynBrainError, match="trained on 2 test images"):
        require_untrained(tested, first)


def test_augmentation(
    first: Dataset, run: SynBrain, settings: DecoderOptions, tmp_path: Path, capsys
) -> None:
    options = AugmentOptions(hours=0.2, per_image=2, seed=3)
    made = augment(run, first, options, out=tmp_path / "synthetic")
    assert (made.n_trials, made.info.unit) == (150, first.info.unit)
    assert made.info.synthetic is not None
    assert made.info.synthetic.seed == 3
    lineage = f"trial, made by run {run.digest[:10]} ({run.config.recipe}), seed 3, of 48 images of first"
    assert main(["info", str(made.path)]) == 0
    assert f"synthetic  {lineage}" in capsys.readouterr().out
    assert lineage in repr(made)
    test = set(image_marks(first, first.image_rows("test")))
    assert not test & set(image_marks(made, np.arange(made.n_images)))
    again = augment(run, first, options, out=tmp_path / "again")
    np.testing.assert_array_equal(made.responses, again.responses)
    decoder = train_decoder([first], settings, out=tmp_path / "d", augment=made)
    assert decoder.config.synthetic is not None
    assert decoder.config.synthetic["weight"] == 0.5
    scores = evaluate_decoder(decoder, first)
    assert scores.about.trained_on_synthetic_trials
    with pytest.raises(SynBrainError, match="no synthetic trials"):
        train_decoder([first], settings, out=tmp_path / "e", augment=first)
    assert not (tmp_path / "e").exists()
    assert not (tmp_path / ".d.training").exists()


def test_isotropic_noise_is_of_one_size(first: Dataset) -> None:
    """However many trials are made at once, as `augment` makes them block by block and the curve all."""
    part = linear_run(first).subject()
    noise = plain_noise(np.zeros((30, 0)), noise_variance=4.0)
    grows = replace(noise.trial, slope=noise.trial.slope + 0.5)  # with the mean
    part = replace(part, noise=replace(noise, trial=grows))
    expected = np.random.default_rng(0).normal(5, 3, (20, 30)).astype(np.float32)
    options = AugmentOptions(kind="isotropic", seed=2)
    whole = trials_of(part, expected, options)
    apart = [trials_of(part, expected[i : i + 5], options, i) for i in range(0, 20, 5)]
    np.testing.assert_array_equal(np.concatenate(apart), whole)
    assert np.mean((whole - expected) ** 2) == pytest.approx(4, rel=0.2)


def test_scores_on_synthetic_data_say_so(
    ridge: Path,
    first: Dataset,
    second: Dataset,
    run: SynBrain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = augment(run, second, AugmentOptions(hours=0.1), out=tmp_path / "synthetic").path
    images, trials = (pd.read_parquet(made / f"{table}.parquet") for table in ("images", "trials"))
    for table, number in ((images, np.arange(len(images))), (trials, trials["image"])):
        table["split"] = np.where(number < 20, "test", "train")
    images.to_parquet(made / "images.parquet")
    trials.to_parquet(made / "trials.parquet")
    write_manifest(made, list(json.loads((made / "checksums.json").read_text())))
    words = ["decoder", "evaluate", str(ridge)]
    assert main([*words, str(made), "--out", str(tmp_path / "made.json")]) == 0
    assert "synthetic trials: second-synthetic was made by a model" in capsys.readouterr().out
    assert json.loads((tmp_path / "made.json").read_text())["about"]["is_synthetic_data"]
    assert main([*words, str(first.path), "--out", str(tmp_path / "measured.json")]) == 0
    assert "synthetic" not in capsys.readouterr().out


def test_synthetic_trials_of_test_images_are_refused(
    first: Dataset, run: SynBrain, settings: DecoderOptions, tmp_path: Path
) -> None:
    made = augment(run, first, AugmentOptions(hours=0.1), out=tmp_path / "synthetic")
    # the same pictures under other names, now as somebody's test images
    table = made.images.assign(split="test")
    trials = made.trials.assign(split="test")
    as_test = Dataset(made.path, made.info, trials, table, made.responses, made.space)
    with pytest.raises(SynBrainError, match="is a test image"):
        augment(run, first, AugmentOptions(hours=0.1), out=tmp_path / "other", keep_out=[
            Dataset(first.path, first.info, first.trials.assign(split="test"),
                    first.images.assign(split="test"), first.responses, first.space)])  # fmt: skip
    assert len(as_test.image_rows("test")) == made.n_images
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("adaptation", ["finetune", "mindaligner"])
def test_adaptation(
    adaptation: str, first: Dataset, second: Dataset, settings: DecoderOptions, tmp_path: Path
) -> None:
    base = train_decoder([first], settings, out=tmp_path / "base")
    options = DecoderAdaptOptions.model_validate(
        settings.model_dump() | {"adaptation": adaptation, "latent": 16}
    )
    adapted = adapt_decoder(tmp_path / "base", second, options, out=tmp_path / "adapted")
    again = Decoder.from_pretrained(tmp_path / "adapted")
    assert again.n_voxels == second.n_voxels
    assert again.space == base.space
    assert again.config.adapted_from
    x = second.responses[:5]
    np.testing.assert_allclose(again.embed(x), adapted.embed(x), atol=1e-5)
    # tokens of three values are too small a world to decode well in a test: that weights moved, and which
    scores = evaluate_decoder(again, second)
    assert set(scores.rows) == {"measured_mean", "measured_trial", "mean_map", "shuffled"}
    assert again.config.training["adaptation"] == adaptation
    assert not np.allclose(again.embed(x), again.embed(x[::-1]))
    if adaptation == "mindaligner":  # the known subject's decoder is frozen
        name = first.info.subject
        known = first.responses[:5]
        np.testing.assert_allclose(again.for_subject(name).embed(known), base.embed(known), atol=1e-5)


@pytest.fixture(scope="module")
def labels(here: Path, first: Dataset, second: Dataset) -> Path:
    """Every image of either subject is of one of three kinds."""
    names = [*first.images["name"], *second.images["name"]]
    table = pd.DataFrame({"image": names, "label": [f"kind {i % 3}" for i in range(len(names))]})
    table.to_csv(here / "labels.csv", index=False)
    return here / "labels.csv"


@pytest.mark.parametrize("by", ["labels", "tokens"])
def test_aligned_adaptation(
    by: str, first: Dataset, second: Dataset, labels: Path, settings: DecoderOptions, tmp_path: Path
) -> None:
    base = train_decoder([first], settings, out=tmp_path / "base")
    more = {"adaptation": "mindaligner", "latent": 16, "neighbours": 3}
    more |= {"labels": labels} if by == "labels" else {}
    options = DecoderAdaptOptions.model_validate(settings.model_dump() | more)
    data = adaptation_data(base, second, options)
    alignment = make_alignment(base, data, second, first, options)
    known = read_labels(labels)
    for row, partners in zip(data.subjects[0].train.tokens.rows, alignment.partners, strict=True):
        shown = first.images["name"].iloc[alignment.known.tokens.rows[partners]]
        if by == "labels":
            assert {known[name] for name in shown} == {known[second.images["name"].iloc[row]]}
        else:
            assert len(partners) == 3
    assert not set(alignment.known.tokens.rows) & set(first.image_rows("test"))
    pairs = alignment.batch(16, 3, 0)
    assert pairs["known"].shape == (16, first.n_voxels)
    assert pairs["novel"].shape == (16, second.n_voxels)
    np.testing.assert_array_equal(pairs["known"], alignment.batch(16, 3, 0)["known"])
    plain = adapt_decoder(tmp_path / "base", second, options, out=tmp_path / "plain")
    adapted = adapt_decoder(tmp_path / "base", second, options, out=tmp_path / "d", known_data=first)
    assert adapted.config.training["images_with_partners"] == data.subjects[0].train.n_images
    x = first.responses[:5]  # the known subject's decoder is frozen
    name = first.info.subject
    np.testing.assert_allclose(adapted.for_subject(name).embed(x), base.embed(x), atol=1e-5)
    assert not np.allclose(adapted.embed(second.responses[:5]), plain.embed(second.responses[:5]))


def test_alignment_that_cannot_be(
    first: Dataset, second: Dataset, settings: DecoderOptions, tmp_path: Path
) -> None:
    base = train_decoder([first], settings, out=tmp_path / "base")
    options = DecoderAdaptOptions.model_validate(settings.model_dump())
    data = adaptation_data(base, second, options)
    with pytest.raises(SynBrainError, match="fine-tuning"):
        make_alignment(base, data, second, first, options)
    aligning = options.model_copy(update={"adaptation": "mindaligner"})
    with pytest.raises(SynBrainError, match="24 voxels"):
        make_alignment(base, data, second, second, aligning)
    (tmp_path / "labels.csv").write_text("image,label\nunknown,animal\n")
    named = aligning.model_copy(update={"labels": tmp_path / "labels.csv"})
    with pytest.raises(SynBrainError, match="name no image"):
        make_alignment(base, data, second, first, named)
    (tmp_path / "labels.csv").write_text("image\nunknown\n")
    with pytest.raises(SynBrainError, match="holds no labels"):
        make_alignment(base, data, second, first, named)


def test_adapting_what_cannot_be(ridge: Path, second: Dataset, tmp_path: Path) -> None:
    options = DecoderAdaptOptions(encoder="pixels", components=8)
    with pytest.raises(SynBrainError, match="nothing to adapt"):
        adapt_decoder(ridge, second, options, out=tmp_path / "d")


def test_test_images_of_the_base_are_refused_or_dropped(ridge: Path, second: Dataset) -> None:
    base = Decoder.from_pretrained(ridge)
    shared = image_marks(second, second.image_rows("train")[:7])
    base = replace(base, config=base.config.model_copy(update={"test_images": packed(shared)}))
    options = DecoderAdaptOptions(encoder="pixels", budget="all")
    with pytest.raises(SynBrainError, match=r"trained on 7 test images of the base.*shared-test-images drop"):
        adaptation_data(base, second, options)
    data = adaptation_data(base, second, options.model_copy(update={"shared_test_images": "drop"}))
    assert data.record["n_images"] == N_IMAGES - N_TEST - 7
    assert not unpacked(data.trained_images) & set(shared)


def test_chance_and_ties() -> None:
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((20, 3, 4)).astype(np.float32)
    constant = np.repeat(seen[:1], 20, axis=0)
    scores, _ = token_scores(constant, constant, seen, Draws(300, 30))
    assert scores["brains_ranked"]["value"] == pytest.approx(1 / 20)  # all brains tie for each image
    assert scores["two_way"]["value"] == pytest.approx(0.5, abs=0.01)
