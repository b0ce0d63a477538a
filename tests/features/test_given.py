"""Tokens of a file: each image gets its row, whatever the order; what does not fit is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synbrain.cli import main
from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.encoders import get_encoder
from synbrain.features.options import FeatureOptions
from synbrain.features.store import make_tokens, open_tokens, verify_tokens

N = 7  # images of the dataset


@pytest.fixture
def files(dataset: Dataset, tmp_path: Path) -> tuple[np.ndarray, Path, Path]:
    """Tokens (9, 4, 6) of the dataset's images and of two more, in an order of their own; where they lie."""
    rng = np.random.default_rng(0)
    names = [*dataset.images["name"], "other.png", "more.png"]
    order = rng.permutation(len(names))
    tokens = rng.normal(size=(len(names), 4, 6)).astype(np.float32)
    np.save(tmp_path / "clip.npy", tokens[order])
    (tmp_path / "names.txt").write_text("\n".join(names[i] for i in order) + "\n")
    return tokens[:N], tmp_path / "clip.npy", tmp_path / "names.txt"


def options(files: tuple[np.ndarray, Path, Path], **changes: object) -> FeatureOptions:
    given = {"encoder": "my-clip", "tokens": files[1], "names": files[2]} | changes
    return FeatureOptions.model_validate(given)


def test_rows_follow_the_names(
    dataset: Dataset, files: tuple[np.ndarray, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--encoder", "my-clip", "--tokens", str(files[1]), "--names", str(files[2])]
    assert main(["features", str(dataset.path), *words]) == 0
    assert "7 images" in capsys.readouterr().out
    stored = open_tokens(dataset, "my-clip")
    assert stored.shapes == {"final": (4, 6)}
    np.testing.assert_array_equal(stored.read("final"), files[0].astype(np.float16))
    verify_tokens(dataset, "my-clip")
    with pytest.raises(SynBrainError, match=r"no encoder 'my-clip'.*tokens of a file"):
        get_encoder("my-clip")


@pytest.mark.parametrize(("scale", "fits"), [(1e-3, True), (1e-6, False), (1e-9, False)])
def test_values_below_the_steps_of_float16_are_told(
    dataset: Dataset, files: tuple[np.ndarray, Path, Path], scale: float, fits: bool
) -> None:
    np.save(files[1], np.load(files[1]) * np.float32(scale))
    if fits:
        make_tokens(dataset, options(files))
        return
    with pytest.raises(SynBrainError, match=r"so small that float16 loses .*%.* multiply all by a power"):
        make_tokens(dataset, options(files))
    with pytest.raises(SynBrainError, match="no tokens of my-clip"):
        open_tokens(dataset, "my-clip")


def test_layers_are_added_one_by_one(dataset: Dataset, files: tuple[np.ndarray, Path, Path]) -> None:
    make_tokens(dataset, options(files))
    digest = open_tokens(dataset, "my-clip").digest
    with pytest.raises(SynBrainError, match=r"the layer final already: pass --overwrite.*--layers"):
        make_tokens(dataset, options(files))
    flat = np.load(files[1]).mean(axis=1)
    np.save(files[1], flat)
    make_tokens(dataset, options(files, layers=["pooled"]))
    both = open_tokens(dataset, "my-clip")
    assert both.shapes == {"final": (4, 6), "pooled": (1, 6)}
    assert both.digest == digest
    np.testing.assert_array_equal(both.read("final"), files[0].astype(np.float16))
    np.testing.assert_allclose(both.read("pooled")[:, 0], files[0].mean(axis=1), atol=2e-3)
    make_tokens(dataset, options(files), overwrite=True)
    assert open_tokens(dataset, "my-clip").shapes == {"final": (1, 6)}


def test_rows_of_a_stimulus_file_need_no_names(
    make_dataset: Callable[..., Dataset], brick: Path, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "of_brick", rows=[3, 11, 0, 7, 5, 9, 2], brick=brick)
    np.save(tmp_path / "all.npy", np.arange(12.0)[:, None])
    make_tokens(dataset, FeatureOptions(encoder="my-clip", tokens=tmp_path / "all.npy"))
    assert open_tokens(dataset, "my-clip").read("final").ravel().tolist() == [3, 11, 0, 7, 5, 9, 2]
    np.save(tmp_path / "few.npy", np.ones((11, 3)))
    with pytest.raises(SynBrainError, match="pass --names"):
        make_tokens(dataset, FeatureOptions(encoder="mine", tokens=tmp_path / "few.npy"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"names": None}, "pass --names with 9 lines"),
        ({"encoder": "clip"}, "cannot be called clip"),
        ({"encoder": "a+b"}, "stored apart"),
        ({"layers": ["a", "b"]}, "is one layer"),
        ("short", "8 lines for 9 rows"),
        ("twice", "names images twice"),
        ("unknown", "1 image of .* not in .*such as"),
        ("huge", "values up to 100000, which float16 cannot hold"),
        ("nan", "values up to nan"),
        ("4d", "save real numbers as"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_kept(
    change: object, told: str, dataset: Dataset, files: tuple[np.ndarray, Path, Path]
) -> None:
    lines, array = files[2].read_text().split(), np.load(files[1])
    if change == "short":
        lines = lines[1:]
    if change == "twice":
        lines[0] = lines[1]
    if change == "unknown":
        lines[lines.index(str(dataset.images["name"].iloc[0]))] = "typo.png"
    if change in ("huge", "nan"):
        array[lines.index(str(dataset.images["name"].iloc[0])), 0, 0] = 1e5 if change == "huge" else np.nan
    files[2].write_text("\n".join(lines))
    np.save(files[1], array[None] if change == "4d" else array)
    with pytest.raises(SynBrainError, match=told):
        make_tokens(dataset, options(files, **(change if isinstance(change, dict) else {})))
    assert [path for path in (dataset.path / "tokens").glob("*my-clip*") if path.suffix != ".lock"] == []


def test_a_table_of_features_is_told_how_to_become_an_array(
    dataset: Dataset, files: tuple[np.ndarray, Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "features.csv").write_text("0.1,0.2\n")
    with pytest.raises(SynBrainError, match=r"features.csv is no .npy file: save it with numpy"):
        make_tokens(dataset, options(files, tokens=tmp_path / "features.csv"))


def test_names_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="--tokens"):
        FeatureOptions(names=Path("names.txt"))
