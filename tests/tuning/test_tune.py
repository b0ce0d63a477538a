"""An encoder is tuned, stored, opened and used like any other; interrupted or shared, it is the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from synbrain import SynBrain, adapt, train
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.encoding import encode_images
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens, tokens_folder
from synbrain.features.tuned import finest_side
from synbrain.networks.fit.metrics_log import read_log
from synbrain.training.options import AdaptOptions, TrainOptions
from synbrain.tuning import batches as in_batches
from synbrain.tuning.batches import varied
from synbrain.tuning.network import Readout
from synbrain.tuning.options import TuneOptions
from synbrain.tuning.tune import tune_encoder
from synbrain.tuning.write import Tuned

SMALL = TuneOptions(
    size=32, side=2, channels=6, epochs=3, batch_size=8, validation_fraction=0.3, layers=["block2", "block4"],
    freeze=["_conv_stem.", "_bn0.", "_blocks.0.", "_blocks.1.", "_blocks.2."],
)  # fmt: skip
LAYERS = ["block2", "block4", "readout"]


@pytest.fixture(scope="module")
def tuned(pair: list[Dataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    out = tmp_path_factory.mktemp("tuned") / "small"
    return out, tune_encoder(pair, SMALL, out=out)


def test_every_part_of_the_network_moves_but_what_is_frozen(tuned: tuple[Path, Tuned]) -> None:
    before = get_encoder("efficientnet-lite0", size=32)
    assert before.module is not None
    assert tuned[1].base.module is not None
    state = before.module.state_dict()
    moved = {k for k, v in tuned[1].base.module.state_dict().items() if not torch.equal(v, state[k])}
    assert any(name.startswith("_blocks.4.") for name in moved)
    assert not any(name.startswith(("_conv_stem", "_blocks.2.", "_blocks.5.")) for name in moved)
    assert not any("running" in name or "num_batches" in name for name in moved)  # statistics are frozen


def test_images_held_out_are_predicted_from_what_was_planted(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    """Responses follow the colour; none are planted in the control, and nothing may be learned there."""
    options = SMALL.model_copy(update={"epochs": 12, "lr_readout": 1e-2})
    scores = {}
    for share in (1.0, 0.0):
        planted = make_dataset(tmp_path / f"signal{share}", seed=5, n_train=64, signal=share)
        made = tune_encoder([planted], options, out=tmp_path / f"encoder{share}")
        scores[share] = made.config["datasets"][0]["held_out_r"]
        log = read_log(tmp_path / f"encoder{share}/training/log.jsonl")
        first, *_, last = [row["r/" + planted.info.name] for row in log if row["split"] == "validation"]
        if share:
            assert last > first + 0.1
    assert scores[1.0] > 0.7
    assert abs(scores[0.0]) < 0.4


def test_what_is_opened_gives_the_tokens_of_what_was_tuned(
    tuned: tuple[Path, Tuned], pair: list[Dataset]
) -> None:
    out, made = tuned
    opened = get_encoder(str(out))
    images = [pair[0].load_image(row) for row in range(3)]
    assert opened.digest == made.encoder.digest
    assert list(opened.layers) == LAYERS
    for layer in LAYERS:
        fresh, stored = (encode_images(e, images, [layer]).read(layer) for e in (made.encoder, opened))
        assert fresh.shape[1:] == opened.layers[layer]
        np.testing.assert_array_equal(fresh, stored)
    assert get_encoder("tuned-small", weights=str(out)).digest == opened.digest
    assert not (out / "training/pixels").exists()
    with pytest.raises(SynBrainError, match="give its folder: --encoder-weights"):
        get_encoder("tuned-small")


def test_weights_that_were_altered_are_refused(tuned: tuple[Path, Tuned], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tuned[0], tmp_path / "small")
    with (tmp_path / "small/base/model.safetensors").open("r+b") as handle:
        handle.seek(-4, os.SEEK_END)
        handle.write(b"abcd")
    with pytest.raises(SynBrainError, match=r"altered|checksum|differs"):
        get_encoder(str(tmp_path / "small"))


def test_a_kept_back_subject_is_fitted_and_adapted_with_it(
    tuned: tuple[Path, Tuned], make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    out, made = tuned
    new = make_dataset(tmp_path / "new", seed=9, n_units=4)
    make_tokens(new, FeatureOptions(encoder=str(out), layers=LAYERS, device="cpu"))
    assert tokens_folder(new, "tuned-small").is_dir()
    assert open_tokens(new, str(out)).digest == made.encoder.digest
    scratch = train([new], TrainOptions(encoder=str(out), vae={"epochs": 1}, mapper={"steps": 1}))  # type: ignore[arg-type]
    assert scratch.config.encoder == "tuned-small"
    base = SynBrain.from_pretrained(out / "readouts")
    adapted = adapt(base, new, AdaptOptions(budget="all", networks=False))
    linear = adapted.subject().linear
    assert linear is not None
    assert linear.about["base_subjects"] == 2
    assert linear.about["cross_validated_r"] > 0.5


def test_readouts_are_a_run_that_predicts_what_the_network_does(
    tuned: tuple[Path, Tuned], pair: list[Dataset]
) -> None:
    out, made = tuned
    run = SynBrain.from_pretrained(out / "readouts", encoder=made.encoder)
    images = [pair[1].load_image(row) for row in range(4)]
    features = torch.from_numpy(encode_images(made.encoder, images, ["readout"]).read("readout"))
    part = run.subject("b")
    expected = part.response_mean + part.response_sd * made.readouts[1](features).detach().numpy()
    np.testing.assert_allclose(run.predict(images, subject="b"), expected, atol=5e-3)


def test_an_interrupted_tuning_goes_on_exactly(
    tuned: tuple[Path, Tuned], pair: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    read, steps = in_batches.batch_rows, []

    def interrupting(*args: int) -> np.ndarray:
        steps.append(args)
        if len(steps) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(*args)

    monkeypatch.setattr(in_batches, "batch_rows", interrupting)
    with pytest.raises(KeyboardInterrupt):
        tune_encoder(pair, SMALL, out=out)
    monkeypatch.setattr(in_batches, "batch_rows", read)
    with pytest.raises(SynBrainError, match="interrupted"):
        tune_encoder(pair, SMALL, out=out)
    with pytest.raises(SynBrainError, match="channels"):
        tune_encoder(pair, SMALL.model_copy(update={"channels": 7}), out=out, resume=True)
    assert tune_encoder(pair, SMALL, out=out, resume=True).encoder.digest == tuned[1].encoder.digest


@pytest.mark.parametrize("name", ["clip", "dinov2", "siglip"])
@pytest.mark.parametrize("rank", [0, 2])
def test_vision_transformers_are_tuned_whole_or_by_low_rank_updates(
    name: str, rank: int, pair: list[Dataset], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    if rank:
        pytest.importorskip("peft")
    kind = {"clip": "CLIPVision", "dinov2": "Dinov2", "siglip": "SiglipVision"}[name]
    sizes = {"mlp_ratio": 2} if name == "dinov2" else {"intermediate_size": 32}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, **sizes
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path / "weights")
    options = SMALL.model_copy(
        update={
            "encoder": name, "weights": str(tmp_path / "weights"), "size": None, "epochs": 1,
            "layers": ["layer1", "layer2"], "lora_rank": rank, "lr": 1e-2, "freeze": [],
        }
    )  # fmt: skip
    made = tune_encoder(pair, options, out=tmp_path / "vit")
    opened = get_encoder(str(tmp_path / "vit"))
    image = [pair[0].load_image(0)]
    after, before = (
        encode_images(e, image, ["layer2"]).read("layer2")
        for e in (opened, get_encoder(name, weights=str(tmp_path / "weights")))
    )
    assert opened.digest == made.encoder.digest
    assert np.abs(after - before).max() > 1e-3
    assert not any("lora" in key for key in opened.describe)
    assert made.base.module is not None
    assert not any("lora" in key for key in made.base.module.state_dict())


def test_an_encoder_without_weights_is_refused(pair: list[Dataset], tmp_path: Path) -> None:
    with pytest.raises(SynBrainError, match="no network to tune"):
        tune_encoder(pair, TuneOptions(encoder="pixels"), out=tmp_path / "out")


def test_a_poisson_loss_and_weights_by_ceiling_are_trained(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    counts = make_dataset(tmp_path / "counts", seed=4)
    np.save(tmp_path / "counts/responses.npy", np.maximum(np.asarray(counts.responses), 0))
    counts = type(counts)(**{**vars(counts), "responses": np.maximum(np.asarray(counts.responses), 0)})
    options = SMALL.model_copy(
        update={"loss": "poisson", "ceiling_weights": True, "contrast": 0.1, "epochs": 6}
    )
    made = tune_encoder([counts], options, out=tmp_path / "out")
    losses = [row["loss"] for row in read_log(tmp_path / "out/training/log.jsonl") if row["split"] == "train"]
    assert losses[-1] < losses[0]
    assert np.isfinite(made.config["datasets"][0]["held_out_r"])


def test_augmentation_moves_nothing() -> None:
    pixels = torch.randint(60, 190, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    other = varied(pixels, 0.2, seed=5)
    assert not torch.allclose(other, pixels.float())
    for one, two in zip(pixels.float(), other, strict=True):
        assert np.corrcoef(one.flatten(), two.flatten())[0, 1] > 0.9999
    torch.testing.assert_close(other, varied(pixels, 0.2, seed=5))


def test_a_readout_is_linear_in_the_map() -> None:
    readout = Readout(4, 3, 5, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(readout.places)
    features = torch.randn(2, 4, 3)
    torch.testing.assert_close(readout(features), features.flatten(1) @ readout.as_matrix() + readout.bias)


def test_readouts_see_the_grid_of_the_finest_layer_unless_told(pair: list[Dataset], tmp_path: Path) -> None:
    options = SMALL.model_copy(update={"side": None, "epochs": 1})
    made = tune_encoder(pair, options, out=tmp_path / "fine")
    assert made.config["side"] == 8  # block2 has 8 x 8 places at 32 pixels, block4 has 4 x 4
    assert made.encoder.layers["readout"] == (64, 6)
    assert finest_side({"a": (37**2, 3), "b": (1, 3)}) == 16
