"""No test image is tuned on, and nothing is fitted or judged on images that were."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synbrain import train
from synbrain.baselines.gaussian import RidgeGaussian
from synbrain.commands.check import image_features
from synbrain.data.dataset import Dataset
from synbrain.data.marks import image_marks, unpacked
from synbrain.decoding.augment import augment
from synbrain.decoding.evaluate import evaluate_decoder
from synbrain.decoding.experiments.arms import Arms, Cell
from synbrain.decoding.options import AugmentOptions, DecoderOptions
from synbrain.decoding.subjects import decoding_data
from synbrain.decoding.train import train_decoder
from synbrain.errors import SynBrainError, SynBrainWarning
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens, open_untuned
from synbrain.features.tokens import Pairs, pairs_of
from synbrain.files import write_manifest
from synbrain.linear.config import LinearPathConfig
from synbrain.linear.fit import fit_linear_path
from synbrain.training.leakage import TrainingImages
from synbrain.training.options import TrainOptions
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.subjects import stand_ins
from synbrain.tuning.tune import tune_encoder

SMALL = TuneOptions(
    size=32, side=2, channels=6, epochs=1, batch_size=8, validation_fraction=0.3, layers=["block2", "block4"]
)


def test_test_images_of_any_dataset_are_not_tuned_on(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    one = make_dataset(tmp_path / "one", seed=1)
    # the same pictures, of which six that `one` trains on are test images
    other = make_dataset(tmp_path / "other", seed=2, pictures=1, n_train=18, n_test=10)
    with pytest.raises(SynBrainError, match="test images"):
        tune_encoder([one, other], SMALL, out=tmp_path / "refused")
    dropped = SMALL.model_copy(update={"shared_test_images": "drop"})
    both = tune_encoder([one, other], dropped, out=tmp_path / "dropped")
    kept = tune_encoder([one], SMALL, out=tmp_path / "kept", keep_out=[other])
    for made in (both, kept):
        tuned_on = unpacked(made.config["tuned_on"])
        assert len(tuned_on) > 5
        for dataset in (one, other):
            assert not tuned_on & set(image_marks(dataset, dataset.image_rows("test")))


def test_test_images_that_were_tuned_on_are_never_encoded(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    one = make_dataset(tmp_path / "one", seed=1)
    later = make_dataset(tmp_path / "later", seed=2, pictures=1, n_train=8, n_test=20)
    tune_encoder([one], SMALL, out=tmp_path / "enc")
    with pytest.raises(SynBrainError, match=r"was tuned on .* test images of .*keep-out"):
        make_tokens(later, FeatureOptions(encoder=str(tmp_path / "enc"), device="cpu"))


def test_an_image_is_held_out_for_every_subject_that_saw_it(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    pair = [make_dataset(tmp_path / "one", seed=1), make_dataset(tmp_path / "two", seed=2, pictures=1)]
    made = tune_encoder(pair, SMALL, out=tmp_path / "enc")
    counts = [d["images_tuned_on"] for d in made.config["datasets"]]
    assert counts[0] == counts[1] == len(unpacked(made.config["tuned_on"]))


def test_labels_are_not_checked_by_an_encoder_that_learned_them(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    one = make_dataset(tmp_path / "one", seed=1)
    tune_encoder([one], SMALL, out=tmp_path / "enc")
    make_tokens(one, FeatureOptions(encoder=str(tmp_path / "enc"), layers=["readout"], device="cpu"))
    features, what, _ = image_features(one, None)
    assert features is not None
    assert "plain statistics" in what
    with pytest.raises(SynBrainError, match="was tuned on one"):
        image_features(one, str(tmp_path / "enc"))
    make_tokens(one, FeatureOptions(encoder="efficientnet-lite0", layers=["block2"], device="cpu"))
    assert image_features(one, None)[1] == "efficientnet-lite0"


def test_what_is_fitted_on_a_tuned_subject_is_judged_by_images_held_out(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    """Responses without any signal: an encoder that learned them by heart must not look good."""
    planted = make_dataset(tmp_path / "planted", seed=3, n_train=64, n_units=2, signal=0.0)
    by_heart = SMALL.model_copy(
        update={"epochs": 40, "batch_size": 16, "lr": 2e-3, "lr_readout": 1e-2, "channels": 16, "side": 4}
    )
    tune_encoder([planted], by_heart, out=tmp_path / "enc")
    make_tokens(planted, FeatureOptions(encoder=str(tmp_path / "enc"), layers=["readout"], device="cpu"))
    tokens = open_tokens(planted, "tuned-enc")
    config = LinearPathConfig(windows=0, blur=0, share=False)

    naive = fit_linear_path(pairs_of(planted, replace(tokens, tuned=None), "train"), config)
    assert naive.path.about["cross_validated_r_of_single_voxels"] > 0.4  # the lie that is to be avoided

    with pytest.raises(SynBrainError, match="tuned on training images"):
        pairs_of(planted, tokens, "train")
    with pytest.warns(SynBrainWarning, match="models are fitted on the other"):
        honest, tokens = open_untuned(planted, "tuned-enc")
    pairs = pairs_of(honest, tokens, "train")
    assert len(pairs.tokens) < 30
    assert fit_linear_path(pairs, config).path.about["cross_validated_r_of_single_voxels"] < 0.2

    with pytest.warns(SynBrainWarning, match="models are fitted on the other"):
        model = train([planted], TrainOptions(encoder="tuned-enc", response_noise=False))
    assert model.subject().linear is not None
    # the run knows the responses to what its encoder was tuned on, although its path is not fitted on them
    trained = unpacked(model.config.trained_images)
    assert trained == set(image_marks(planted, planted.image_rows("train")))
    known = model.known_pictures.only(trained)
    assert set(known.marks) == trained
    assert np.isfinite(model.predict(open_tokens(planted, "tuned-enc").take(np.arange(3)))).all()


@pytest.mark.filterwarnings("ignore::synbrain.errors.SynBrainWarning")
def test_decoders_are_fitted_and_chosen_by_images_that_no_encoder_was_tuned_on(
    make_dataset: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path / "one", seed=1, n_train=60)
    tune_encoder([dataset], SMALL, out=tmp_path / "enc")
    make_tokens(dataset, FeatureOptions(encoder=str(tmp_path / "enc"), device="cpu"))
    make_tokens(dataset, FeatureOptions(encoder="pixels", device="cpu"))
    tokens = open_tokens(dataset, "tuned-enc")
    assert tokens.tuned is not None
    tuned = set(image_marks(dataset, tokens.tuned))
    free = set(image_marks(dataset, dataset.image_rows("train"))) - tuned
    assert min(len(tuned), len(free)) > 8

    of_tuned = DecoderOptions(method="ridge", encoder="tuned-enc", grid=0, components=2)
    decoder = train_decoder([dataset], of_tuned, out=tmp_path / "decoder")
    assert unpacked(decoder.config.trained_images) == free
    linear = {"n_folds": 3, "windows": 0, "blur": 0.0}
    run = train(
        [dataset], TrainOptions(encoder="tuned-enc", networks=False, linear=linear, leave_out=0.3),
        out=tmp_path / "run",
    )  # fmt: skip
    assert {"measured_mean", "synthetic_trial"} <= evaluate_decoder(decoder, dataset, run=run).rows.keys()

    # the run saw all but the few that were left out, not only those that its path was fitted on
    of_pixels = DecoderOptions(method="ridge", encoder="pixels", components=2, validation_fraction=0.05)
    data = decoding_data([dataset], of_pixels, run_images=run.config.trained_images)
    assert data.seen == ()
    assert data.validation_images <= free - unpacked(run.config.trained_images)
    # ridge, which the run's trials are compared with, is fitted on none of them either
    fitted: list[int] = []
    fit = RidgeGaussian.fit

    def counted(self: RidgeGaussian, pairs: Pairs, **how: Any) -> RidgeGaussian:
        fitted.append(pairs.n_images)
        return fit(self, pairs, **how)

    monkeypatch.setattr(RidgeGaussian, "fit", counted)
    Arms(run, dataset, dataset).trials(Cell("ridge_gaussian", 0.1, 0), data)
    assert fitted[0] <= len(free) < data.subjects[0].train.n_images
    # synthetic trials of a tuned image are no examples of what it looks like to this encoder
    arms = Arms(run, dataset, dataset)
    decoded = decoding_data([dataset], of_tuned, run_images=run.config.trained_images)
    pairs, _ = arms.trials(Cell("calibrated", 0.1, 0), decoded)
    made = augment(run, dataset, AugmentOptions(hours=0.1), out=tmp_path / "synthetic")
    augmented = decoding_data([dataset], of_tuned, made).subjects[0].synthetic
    assert augmented is not None
    for shown, of in ((pairs, dataset), (augmented, made)):
        assert not tuned & set(image_marks(of, shown.tokens.image_rows))


def test_tokens_of_another_encoder_of_the_name_are_refused(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    """Two encoders that were tuned into folders of one name keep their tokens in one place."""
    dataset = make_dataset(tmp_path / "one", seed=1)
    for where, seed in (("a", 0), ("b", 1)):
        tune_encoder([dataset], SMALL.model_copy(update={"seed": seed}), out=tmp_path / where / "enc")
    first, second = str(tmp_path / "a" / "enc"), str(tmp_path / "b" / "enc")
    make_tokens(dataset, FeatureOptions(encoder=first, device="cpu"))
    assert open_tokens(dataset, first).encoder == "tuned-enc"
    with pytest.raises(SynBrainError, match="of another encoder of that name"):
        open_tokens(dataset, second)
    config = json.loads((tmp_path / "b" / "enc" / "config.json").read_text())
    del config["digest"]  # as folders were written before
    (tmp_path / "b" / "enc" / "config.json").write_text(json.dumps(config))
    (tmp_path / "b" / "enc" / "checksums.json").unlink()
    write_manifest(tmp_path / "b" / "enc", ["config.json"])
    with pytest.raises(SynBrainError, match="of another encoder of that name"):
        open_tokens(dataset, second)
    make_tokens(dataset, FeatureOptions(encoder=second, device="cpu"), overwrite=True)
    assert open_tokens(dataset, second, ["readout"]).encoder == "tuned-enc"


def test_layers_of_encoders_that_are_given_by_folder(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "one", seed=1)
    tune_encoder([dataset], SMALL, out=tmp_path / "enc")
    make_tokens(dataset, FeatureOptions(encoder=str(tmp_path / "enc"), device="cpu"))
    make_tokens(dataset, FeatureOptions(encoder="pixels", device="cpu"))
    tokens = open_tokens(dataset, f"{tmp_path / 'enc'}+pixels", ["tuned-enc:readout", "pixels:final"])
    assert list(tokens.layers) == ["tuned-enc:readout", "pixels:final"]


def test_versions_of_a_picture_are_held_out_together() -> None:
    """Blurred or recompressed copies have marks of their own, but look alike; other pictures do not."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 200, (60, 3, 8, 8)).repeat(8, axis=2).repeat(8, axis=3)
    pixels = (coarse + rng.uniform(0, 40, coarse.shape)).astype(np.uint8)
    blurred = (coarse + 20).astype(np.uint8)[:12]
    marks = [bytes([i]) * 6 for i in range(72)]

    def part(first: int, last: int) -> TrainingImages:
        return TrainingImages(np.arange(last - first), tuple(marks[first:last]), ())

    # the copies are in a second dataset, which also shows the very file of picture 20
    second = TrainingImages(np.arange(13), (*marks[60:72], marks[20]), ())
    alike = stand_ins([part(0, 60), second], [pixels, np.concatenate([blurred, pixels[20:21]])])
    assert all(alike[marks[60 + i]] == alike[marks[i]] == marks[i] for i in range(12))
    assert len(set(alike.values())) == 60
