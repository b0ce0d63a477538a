"""`synbrain info` says what is there and what a training will take."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from synbrain.check.report import check_dataset
from synbrain.cli import main
from synbrain.commands.describe import describe_dataset
from synbrain.commands.info import training_options
from synbrain.data.reliability import ncsnr_of
from synbrain.data.space import VoxelSpace
from synbrain.features.encoders import get_encoder
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens
from synbrain.files import write_json
from synbrain.linear.cost import linear_path_cost
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.networks.brainvae import BrainVAE, BrainVAEConfig
from synbrain.networks.mapper import Mapper, MapperConfig
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.simulate.example import toy_dataset
from synbrain.simulate.experiment import SimulationSize, simulate
from synbrain.training import cost as cost_of_training
from synbrain.training.cost import TrainingCost, matmul_rate, training_cost


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("info")
    simulate(root / "tree", size=SimulationSize(40, 10, 2, 60, (17, 11, 11), 9.0, 90, 32), seed=1)
    return prepare_nsd(root / "tree", root / "data", subject=1).path


def test_dataset(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(prepared)]) == 0
    printed = capsys.readouterr().out
    for text in (
        "120 trials x 90 voxels",
        "percent signal change",
        "30 images",
        "10 images",
        "prf-visualrois",
    ):
        assert text in printed
    assert "ncsnr" in printed
    assert "synbrain features" in printed


def test_too_few_repeats_are_no_ncsnr_and_told_everywhere() -> None:
    """Three of 60 images that were shown again gave voxels of pure noise an ncsnr, or passed for none."""
    whole = toy_dataset()
    again = whole.trials.duplicated("image")
    few = ~again | (again.cumsum() <= 3)
    for kept, told, checked in (
        (few, "3 trials show an image again, and it takes 8", "too few"),
        (~again, "no image was repeated", "no image was repeated"),
    ):
        trials = whole.trials[kept].reset_index(drop=True)
        info = whole.info.model_copy(update={"n_trials": len(trials)})
        responses = np.asarray(whole.responses)[kept.to_numpy()]
        space = dataclasses.replace(whole.space, ncsnr=ncsnr_of(responses, trials)[0])
        dataset = dataclasses.replace(whole, info=info, trials=trials, responses=responses, space=space)
        assert dataset.space.ncsnr is None
        assert f"ncsnr      not known: {told}" in describe_dataset(dataset)
        checks = {found.check: found.text for found in check_dataset(dataset).lines}
        assert checked in checks["repeats"]


def test_config_with_a_dataset(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("recipe: calibrated\npreset: tiny\nvae:\n  batch_size: 7\n  epochs: 2\n")
    options = training_options(path)
    config, encoder = options.config(), options.encoder
    assert (config.preset, config.vae.batch_size, encoder) == ("tiny", 7, "efficientnet-lite0")
    assert main(["info", str(prepared), "--config", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "90 trials x 90 voxels" in printed
    assert "7:" in printed
    assert "GFLOP a step of 7" in printed
    assert "scratch files" in printed  # of the linear path


@pytest.mark.parametrize(
    ("said", "layers"),
    [
        ("pixels", [["grid4", "final"]]),
        ("pixels+another", [["grid4", "final"], ["grid4", "final"]]),  # a path each, averaged
        ("pixels\nlayers: [final]", [["final"]]),
    ],
)
def test_the_linear_path_is_foretold_for_the_tokens_that_train_reads(
    said: str, layers: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = toy_dataset(tmp_path)
    make_tokens(dataset, FeatureOptions(encoder="pixels", layers=["final"]))
    stored = dataset.path / "tokens" / "pixels"
    shutil.copytree(stored, stored.with_name("another"))
    shapes = open_tokens(dataset, "pixels").shapes
    made: list[TrainingCost] = []
    keep = lambda *given, **named: made.append(training_cost(*given, **named)) or made[-1]  # noqa: E731
    monkeypatch.setattr(cost_of_training, "training_cost", keep)
    path = tmp_path / "c.yaml"
    path.write_text(f"encoder: {said}\n")
    assert main(["info", str(dataset.path), "--config", str(path)]) == 0
    config = training_options(path).config().linear
    each = [linear_path_cost(40, dataset.n_voxels, {k: shapes[k] for k in of}, config).total for of in layers]
    assert made[0].linear is not None
    assert made[0].linear.total == pytest.approx(sum(each), rel=1e-12)


def test_what_is_foretold_without_tokens_says_so(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("encoder: pixels\n")
    assert main(["info", str(prepared), "--config", str(path)]) == 0
    assert "no tokens of pixels there" in capsys.readouterr().out


def test_cost_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("recipe: reference\npreset: tiny\nvalidation_fraction: 0.1\n")
    config = training_options(path).config()
    cost = training_cost(config, n_voxels=100, n_trials=1000)
    assert cost.steps == {"vae": config.vae.epochs * np.ceil(900 / 24), "mapper": config.mapper.steps}
    assert cost.state_bytes["vae"] == 16 * cost.parameters["vae"]
    assert cost.state_bytes["mapper"] == 20 * cost.parameters["mapper"]  # with the average of the weights
    assert cost.memory("vae", 3) - cost.memory("vae", 2) == cost.activation["vae"] > 0
    assert cost.seconds("vae", 10.0) == pytest.approx(2 * cost.seconds("vae", 20.0))
    assert matmul_rate(size=64) > 0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two subjects of 5 and 7 voxels, both networks."""
    encoder = get_encoder("pixels")
    stage = encoder.default_layer
    n_tokens, dim = encoder.layers[stage]
    vae = BrainVAEConfig(
        tokens=8, dim=12, channels=4, multipliers=(1, 2), res_blocks=1, pooled_length=32, projector_width=8,
        norm_groups=2,
    )  # fmt: skip
    mapper = MapperConfig(tokens=8, dim=12, depth=1, heads=2, input_tokens=n_tokens, input_dim=dim)
    subjects = {
        name: SubjectPart(
            name,
            VoxelSpace(n_voxels=n),
            "percent signal change",
            np.zeros(n, np.float32),
            np.ones(n, np.float32),
        )
        for name, n in (("one", 5), ("two", 7))
    }
    config = RunConfig(
        recipe="reference", encoder="pixels", encoder_digest=encoder.digest, mapper_layer=stage,
        token_shapes={stage: (n_tokens, dim)},
    )  # fmt: skip
    return SynBrain(config, subjects, BrainVAE(vae), Mapper(mapper)).save_pretrained(tmp_path / "run")


def test_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = SynBrain.from_pretrained(run)
    (stage,), ((n_tokens, dim),) = model.config.token_shapes.keys(), model.config.token_shapes.values()
    assert main(["info", str(run)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"run {run}, recipe reference" in lines
    assert f"encoder pixels ({stage} {n_tokens} x {dim})" in lines
    for name in ("vae", "mapper"):
        count = sum(p.numel() for p in getattr(model, name).parameters())
        assert f"{name} {count / 1e6:.2f} M parameters" in lines
        size = sum(file.stat().st_size for file in (run / name).iterdir())
        assert f"part {name}: {size / 1e3:.2f} kB" in lines
    assert "subject one: 5 units, percent signal change" in lines
    assert "subject two: 7 units, percent signal change" in lines
    assert f"score none: run `synbrain evaluate {run} DATASET`" in lines


def test_run_with_scores(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"synbrain": {"voxel_r": 0.25, "pearson": None, "mse": 1.5}, "mean_map": {"voxel_r": 0.0}}
    write_json(run / "scores.json", {"n_test_images": 3, "scores": scores})
    assert main(["info", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "synbrain: voxel_r 0.250, mse 1.500" in printed
    assert "mean_map: voxel_r 0.000" in printed
    assert "score      none" not in printed


def test_files_of_responses_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = {"axes": ["sample", "image", "voxel"], "images": ["a"], "unit": "percent", "seed": 3}
    newer = {"axes": ["map", "image", "voxel"], "images": ["a"], "kind": "prediction", "shape": [1, 1, 5]}
    write_json(tmp_path / "drawn.json", older)  # before sidecars named their files
    write_json(tmp_path / "mean.v2.json", newer | {"files": ["mean.v2.csv"]})
    write_json(tmp_path / "other.json", {})
    for name in ("drawn.npy", "mean.v2.csv", "other.npy"):
        (tmp_path / name).write_text("")
    assert main(["info", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"synthetic  {tmp_path / 'drawn.npy'}: unit percent, seed 3\n" in printed
    assert f"expected   {tmp_path / 'mean.v2.csv'}: shape [1, 1, 5]\n" in printed
    assert "other" not in printed


def test_unfinished_and_altered_runs_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.json").write_text("{}")
    assert main(["info", str(run)]) == 2
    assert "config.json was altered" in capsys.readouterr().err
    (run / "checksums.json").unlink()
    assert main(["info", str(run)]) == 2
    assert "not a finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such-folder"], "neither a dataset nor a run"),
        ([], "nothing to look at"),
        (["--config", "no.yaml"], "no.yaml is missing"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", *words]) == 2
    assert message in capsys.readouterr().err


def test_config_with_a_typo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("vae:\n  batchsize: 7\n")
    with pytest.raises(SystemExit) as stopped:
        main(["info", "--config", str(path)])
    assert stopped.value.code == 2
    assert "batchsize" in capsys.readouterr().err


def test_recordings_are_told_how_they_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed can be run: it names the reader."""
    for name, file, words in (
        ("nsd", "nsddata/ppdata/subj02/behav/responses.tsv", "prepare nsd {} OUT --subject 2"),
        ("table", "trials.csv", "prepare table {} OUT"),
        ("bids", "sub-01/func/sub-01_task-x_betas.nii.gz", "prepare bids {} OUT --images FOLDER"),
        ("glmsingle", "TYPED_FITHRF_GLMDENOISE_RR.npy", "prepare bids {} OUT --images FOLDER"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).touch()
        assert main(["info", str(tmp_path / name)]) == 0
        assert f"synbrain {words.format(tmp_path / name)}\n" in capsys.readouterr().out
    (tmp_path / "else").mkdir()
    assert main(["info", str(tmp_path / "else")]) == 2
