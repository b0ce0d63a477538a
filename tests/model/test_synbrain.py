"""SynBrain: predicting, sampling, saving and loading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fixtures.noise import plain_noise
from synbrain.data.space import VoxelSpace
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.encoding import encode_images
from synbrain.files import MANIFEST, read_json, write_json, write_manifest
from synbrain.linear.path import LinearPath
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.noise.response_noise import ResponseNoise

N_VOXELS = 37
VAE = BrainVAEConfig(
    tokens=8, dim=12, channels=4, multipliers=(1, 2), res_blocks=1, pooled_length=32, projector_width=8,
    norm_groups=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def noise_part(n_voxels: int = N_VOXELS) -> ResponseNoise:
    loadings = np.random.default_rng(1).normal(0, 0.3, (n_voxels, 2))
    return plain_noise(loadings, error_variance=0.5, noise_variance=3)


def make_model(recipe: str, *, names: tuple[str, ...] = ("s1",), n_voxels: int = N_VOXELS) -> SynBrain:
    torch.manual_seed(0)
    encoder = get_encoder("pixels")
    layer = encoder.default_layer
    n_tokens, dim = encoder.layers[layer]
    rng = np.random.default_rng(2)
    subjects = {}
    for name in names:
        linear = LinearPath(
            projections={layer: rng.normal(size=(n_tokens * dim, 3)).astype(np.float16)},
            mixing=rng.normal(size=(3, n_voxels)).astype(np.float32),
            intercept=rng.normal(size=n_voxels).astype(np.float32),
            shapes={layer: (n_tokens, dim)},
            about={"n_images": 10},
        )
        calibrated = recipe == "calibrated"
        subjects[name] = SubjectPart(
            name=name,
            space=VoxelSpace(n_voxels=n_voxels),
            unit="percent signal change",
            response_mean=np.zeros(n_voxels, dtype=np.float32),
            response_sd=np.full(n_voxels, 2, dtype=np.float32),
            linear=linear if calibrated else None,
            noise=noise_part(n_voxels) if calibrated else None,
            shrink=0.5,
        )
    config = RunConfig(
        recipe=recipe, encoder=encoder.name, encoder_digest=encoder.digest, mapper_layer=layer,
        linear_layers=(layer,) if recipe == "calibrated" else (), token_shapes={layer: (n_tokens, dim)},
    )  # fmt: skip
    sizes = MapperConfig(tokens=8, dim=12, depth=1, heads=2, input_tokens=n_tokens, input_dim=dim)
    return SynBrain(config, subjects, BrainVAE(VAE), Mapper(sizes))


@pytest.mark.parametrize("recipe", ["reference", "calibrated"])
def test_a_saved_run_predicts_the_same(recipe: str, pictures: np.ndarray, tmp_path: Path) -> None:
    model = make_model(recipe)
    model.save_pretrained(tmp_path / "run")
    loaded = SynBrain.from_pretrained(tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict(pictures), model.predict(pictures))
    np.testing.assert_array_equal(loaded.sample(pictures, 3, 5), model.sample(pictures, 3, 5))
    assert loaded.config == model.config
    assert loaded.predict(pictures).shape == (5, N_VOXELS)
    assert loaded.predict(pictures).dtype == np.float32
    written = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert written == {".json", ".safetensors", ".npz", ".md"}


@pytest.mark.parametrize("recipe", ["reference", "calibrated"])
def test_folding_predicts_the_same_in_less_memory(recipe: str, pictures: np.ndarray, tmp_path: Path) -> None:
    model = make_model(recipe)
    with torch.no_grad():
        for parameter in model.mapper.parameters():  # it starts at zero output
            parameter.normal_(std=0.2)
    model.save_pretrained(tmp_path / "run")
    folded = SynBrain.from_pretrained(tmp_path / "run", fold=True)
    np.testing.assert_array_equal(folded.predict(pictures), model.predict(pictures))
    np.testing.assert_array_equal(folded.sample(pictures, 3, 5), model.sample(pictures, 3, 5))
    folded.save_pretrained(tmp_path / "for inference")
    again = SynBrain.from_pretrained(tmp_path / "for inference")
    np.testing.assert_array_equal(again.predict(pictures), model.predict(pictures))
    files = [tmp_path / name / "mapper" / "model.safetensors" for name in ("run", "for inference")]
    held = [sum(p.nbytes for p in m.mapper.parameters()) for m in (model, folded, again)]
    assert held[1] == held[2] < 0.8 * held[0]
    assert files[1].stat().st_size < 0.8 * files[0].stat().st_size
    for copy in (folded, again):
        with pytest.raises(SynBrainError, match="folded for inference and cannot be trained"):
            copy.mapper.require_trainable()


def test_paths_pictures_arrays_and_tokens_agree(pictures: np.ndarray, tmp_path: Path) -> None:
    model = make_model("calibrated")
    expected = model.predict(pictures)
    paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    tokens = encode_images(get_encoder("pixels"), pictures)
    for images in (paths, [str(p) for p in paths], [Image.fromarray(p) for p in pictures], tokens):
        np.testing.assert_allclose(model.predict(images), expected, rtol=1e-5, atol=1e-5)


def test_images_are_taken_in_the_order_in_which_they_come(pictures: np.ndarray, tmp_path: Path) -> None:
    """A pandas column looks values up by label: a sorted table would give the responses of other rows."""
    model = make_model("calibrated")
    names = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(name)
    order = np.array([3, 0, 4, 2, 1])
    table = pd.DataFrame({"path": [str(name) for name in names]}).iloc[order]
    expected = model.predict([names[i] for i in order])
    for given in (table["path"], iter(table["path"]), table["path"].to_numpy()):
        np.testing.assert_array_equal(model.predict(given), expected)  # type: ignore[arg-type]
    rising = table[table["path"] > str(names[1])]["path"]
    np.testing.assert_array_equal(model.predict(rising), expected[[0, 2, 3]])
    np.testing.assert_array_equal(
        model.log_prob(table["path"], expected), model.log_prob([names[i] for i in order], expected)
    )
    with pytest.raises(SynBrainError, match="a set was given where images in order are expected"):
        model.predict(set(names))  # type: ignore[arg-type]
    for size in (0, -1):
        with pytest.raises(SynBrainError, match="give at least 1"):
            model.predict(names, batch_size=size)


def test_the_mean_is_linear_plus_shrunk_networks(pictures: np.ndarray) -> None:
    model = make_model("calibrated")
    part = model.subject()
    tokens = model.tokens(pictures)
    x = torch.from_numpy(tokens.read(model.config.layers[0]))
    with torch.no_grad():
        decoded = model.vae.decode(model.mapper(x), N_VOXELS).numpy()
    np.testing.assert_allclose(
        model.predict(pictures), part.linear.predict(tokens) + 0.5 * 2 * decoded, rtol=1e-4, atol=1e-4
    )


def test_samples_do_not_depend_on_batches_and_average_to_the_mean(pictures: np.ndarray) -> None:
    model = make_model("calibrated")
    whole = model.sample(pictures, n_samples=4000, seed=3)
    assert whole.shape == (4000, 5, N_VOXELS)
    np.testing.assert_allclose(
        model.sample(pictures, 4, seed=3, batch_size=2), whole[:4], rtol=1e-4, atol=1e-4
    )
    assert not np.allclose(model.sample(pictures, 4, seed=4), whole[:4])
    np.testing.assert_allclose(whole.mean(0), model.predict(pictures), atol=5 / np.sqrt(4000))


def test_reference_is_deterministic_unless_noise_is_asked_for(pictures: np.ndarray) -> None:
    model = make_model("reference")
    mean = model.predict(pictures)
    np.testing.assert_array_equal(model.sample(pictures, 2), np.stack([mean, mean]))
    noisy = model.sample(pictures, 3, seed=1, noise_factor=1.0)
    assert noisy.std(axis=0).min() > 0
    np.testing.assert_array_equal(noisy, model.sample(pictures, 3, seed=1, noise_factor=1.0))
    np.testing.assert_allclose(model.sample(pictures, 2, noise_factor=0.0)[1], mean, rtol=1e-5, atol=1e-5)
    with pytest.raises(SynBrainError, match="no density"):
        model.log_prob(pictures, mean)


def test_tokens_of_another_encoder_are_refused(pictures: np.ndarray) -> None:
    import dataclasses

    model = make_model("calibrated")
    tokens = model.tokens(pictures)
    with pytest.raises(SynBrainError, match="synbrain features DATASET --encoder pixels"):
        model.predict(dataclasses.replace(tokens, digest="0" * 64))


def test_several_subjects_need_a_name(pictures: np.ndarray, tmp_path: Path) -> None:
    make_model("calibrated", names=("a", "b")).save_pretrained(tmp_path / "run")
    model = SynBrain.from_pretrained(tmp_path / "run")
    with pytest.raises(SynBrainError, match="choose one of a, b"):
        model.predict(pictures)
    assert not np.allclose(model.predict(pictures, subject="a"), model.predict(pictures, subject="b"))


@pytest.mark.parametrize("kind", [{}, {"predictive": True}, {"noise_factor": 1.0}])
def test_two_subjects_do_not_share_their_noise(pictures: np.ndarray, kind: dict[str, Any]) -> None:
    """Two people, the same tuning and noise, one seed: what is left in common would look like synchrony."""
    model = make_model("calibrated", names=("a", "b"))
    twin = replace(model.subject("a"), name="b")
    both = SynBrain(model.config, {"a": model.subject("a"), "b": twin}, model.vae, model.mapper)
    a, b = (both.sample(pictures, 100, 3, subject=name, **kind) for name in "ab")
    residuals = [(trials - trials.mean(axis=0)).ravel() for trials in (a, b)]
    assert abs(np.corrcoef(*residuals)[0, 1]) < 0.2
    alone = SynBrain(model.config, {"b": twin}, model.vae, model.mapper)  # as adapted on its own
    np.testing.assert_array_equal(alone.sample(pictures, 100, 3, **kind), b)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "subjects/s1/linear/model.safetensors",
        "vae/config.json",
        "subjects/s1/space/voxels.npz",
    ],
)
def test_tampering_is_told(name: str, tmp_path: Path) -> None:
    make_model("calibrated").save_pretrained(tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(SynBrainError, match=f"{Path(name).name} was altered"):
        SynBrain.from_pretrained(tmp_path / "run")


def test_an_existing_run_is_kept_unless_asked(tmp_path: Path, pictures: np.ndarray) -> None:
    folder = tmp_path / "run"
    (folder / "training").mkdir(parents=True)
    (folder / "training" / "log.jsonl").write_text("{}")
    make_model("reference").save_pretrained(folder)
    with pytest.raises(SynBrainError, match="--overwrite"):
        make_model("calibrated").save_pretrained(folder)
    assert SynBrain.from_pretrained(folder).config.recipe == "reference"
    make_model("calibrated").save_pretrained(folder, overwrite=True)
    assert SynBrain.from_pretrained(folder).config.recipe == "calibrated"
    assert (folder / "training" / "log.jsonl").exists()
    assert not list(tmp_path.glob(".*partial"))


def test_a_typo_in_the_config_is_named(tmp_path: Path) -> None:
    from synbrain.files import MANIFEST, digest, read_json, write_json

    make_model("reference").save_pretrained(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    write_json(path, read_json(path) | {"receipe": "x"})
    manifest = read_json(tmp_path / "run" / MANIFEST) | {"config.json": digest(path)}
    write_json(tmp_path / "run" / MANIFEST, manifest)
    with pytest.raises(SynBrainError, match="receipe"):
        SynBrain.from_pretrained(tmp_path / "run")


def test_a_run_of_the_old_format_names_the_command_that_makes_it_again(tmp_path: Path) -> None:
    from synbrain.files import MANIFEST, digest, read_json, write_json

    make_model("reference").save_pretrained(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    write_json(path, read_json(path) | {"format": 1})
    write_json(
        tmp_path / "run" / MANIFEST, read_json(tmp_path / "run" / MANIFEST) | {"config.json": digest(path)}
    )
    with pytest.raises(SynBrainError, match="synbrain train DATASET --out"):
        SynBrain.from_pretrained(tmp_path / "run")


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(SynBrainError, match="not a finished run"):
        SynBrain.from_pretrained(tmp_path)


def test_config_and_card_name_no_path(tmp_path: Path) -> None:
    folder = make_model("calibrated").save_pretrained(
        tmp_path / "run",
        scores={"n_test_images": 4, "target": "repeat_mean", "scores": {"synbrain": {"r": 0.5}}},
    )
    config = json.loads((folder / "config.json").read_text())
    card = (folder / "README.md").read_text()
    assert str(tmp_path) not in json.dumps(config) + card
    assert config["subjects"] == ["s1"]
    for expected in ("percent signal change", "| synbrain | 0.5 |", "pixels", "37 (no positions)"):
        assert expected in card


def test_a_card_says_of_every_score_what_it_was_measured_against(tmp_path: Path) -> None:
    """It said "target: trial" of all, voxel r against repeat means among them."""
    targets = {"mse": "trial", "voxel_r": "repeat_mean"}
    scores = {"target": "trial", "targets": targets, "scores": {"synbrain": {"mse": 1.0, "voxel_r": 0.5}}}
    folder = make_model("calibrated").save_pretrained(tmp_path / "run", scores=scores)
    words = "Measured against single trials; voxel_r against the mean of an image's trials."
    assert words in (folder / "README.md").read_text()


def test_noise_ceiling_from_repeats_or_ncsnr() -> None:
    model = make_model("calibrated")
    np.testing.assert_allclose(model.noise_ceiling(), 1 / (1 + 3), rtol=1e-6)
    np.testing.assert_allclose(model.noise_ceiling(3), 1 / (1 + 1), rtol=1e-6)
    with pytest.raises(SynBrainError, match="ncsnr"):
        make_model("reference").noise_ceiling()
    part = make_model("reference").subject()
    snr = np.full(part.n_voxels, np.inf, dtype=np.float32)  # repeats that do not differ
    snr[0] = 0
    known = replace(part, space=replace(part.space, ncsnr=snr)).noise_ceiling(2)
    assert (known[0], known[1]) == (0, 1)


def test_no_ceiling_of_no_trials() -> None:
    with pytest.raises(SynBrainError, match="give at least 1"):
        make_model("calibrated").noise_ceiling(0)


def test_a_hub_id_is_fetched_and_a_wrong_one_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    folder = make_model("reference").save_pretrained(tmp_path / "run")
    asked: list[str] = []

    def snapshot(name: str, **_: Any) -> str:
        asked.append(name)
        if name == "lab/run":
            return str(folder)
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert SynBrain.from_pretrained("lab/run").config.recipe == "reference"
    with pytest.raises(SynBrainError, match="neither a folder here nor a run"):
        SynBrain.from_pretrained("lab/other")
    assert asked == ["lab/run", "lab/other"]


def test_log_prob_prefers_the_models_own_trials(pictures: np.ndarray) -> None:
    model = make_model("calibrated")
    own = model.sample(pictures, 1, seed=3)[0]
    assert (model.log_prob(pictures, own) > model.log_prob(pictures, own + 3)).all()
    with pytest.raises(SynBrainError, match="one trial per image"):
        model.log_prob(pictures, own[:2])


def test_predictive_draws_and_intervals_hold_the_error_of_the_mean(pictures: np.ndarray) -> None:
    model = make_model("calibrated")
    mean, trials = model.predict(pictures), model.sample(pictures, 4000, seed=3)
    draws = model.sample(pictures, 4000, seed=3, predictive=True)
    np.testing.assert_allclose(trials.var(axis=0), 1, rtol=0.12)
    np.testing.assert_allclose(draws.var(axis=0), 1.5, rtol=0.12)
    few = model.sample(pictures, 2, 3, predictive=True, batch_size=2)
    np.testing.assert_allclose(draws[:2], few, rtol=1e-4, atol=1e-4)
    low, high = model.interval(pictures, 0.9)
    np.testing.assert_allclose(high - mean, 1.645 * np.sqrt(1.5), rtol=1e-3)
    np.testing.assert_allclose(low - mean, -1.645 * np.sqrt(1.5), rtol=1e-3)
    with pytest.raises(SynBrainError, match="between 0 and 1"):
        model.interval(pictures, 90)
    with pytest.raises(SynBrainError, match="not both"):
        model.sample(pictures, noise_factor=1.0, predictive=True)
    point = make_model("reference")
    np.testing.assert_array_equal(point.sample(pictures, 1, predictive=True)[0], point.predict(pictures))
    with pytest.raises(SynBrainError, match="no interval"):
        point.interval(pictures)


def test_a_run_of_an_older_format_is_told_with_the_mend(tmp_path: Path) -> None:
    folder = make_model("calibrated").save_pretrained(tmp_path / "run")
    config = read_json(folder / "config.json")
    assert config["format"] == 4
    write_json(folder / "config.json", config | {"format": 3})
    files = (str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in (".json", ".safetensors"))
    write_manifest(folder, sorted(name for name in files if name != MANIFEST))
    with pytest.raises(SynBrainError, match="has format 3, this version reads 4") as error:
        SynBrain.from_pretrained(folder)
    assert "synbrain train" in error.value.mend
