"""prepare bids: betas, events and mask joined by entities; what does not fit is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.data.scaling import invert
from synbrain.prepare import sessions
from synbrain.prepare.bids import prepare_bids
from synbrain.prepare.entities import entities
from synbrain.prepare.options import BidsOptions

GRID = (4, 5, 3)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, AFFINE), path)


def stem(session: int, run: int | None = None) -> str:
    return f"sub-01_ses-{session:02d}_task-see" + ("" if run is None else f"_run-{run}")


@pytest.fixture
def src(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two sessions of runs 1, 2 and 10, one file of betas a session; each image twice. And all volumes."""
    root, rng = tmp_path / "study", np.random.default_rng(0)
    (root / "stimuli").mkdir(parents=True)
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(root / "stimuli" / f"s{i}.png")
    volumes = rng.normal(size=(18, *GRID)).astype(np.float32)
    order = np.concatenate([rng.permutation(9), rng.permutation(9)])
    for session in (1, 2):
        folder = root / "sub-01" / f"ses-{session:02d}" / "func"
        rows = slice((session - 1) * 9, session * 9)
        save(folder / f"{stem(session)}_betas.nii.gz", volumes[rows].transpose(1, 2, 3, 0))
        for k, run in enumerate((1, 2, 10)):
            shown = [f"s{i}.png" for i in order[rows][k * 3 : k * 3 + 3]]
            shown.insert(1, "n/a")  # a blank
            events = pd.DataFrame({"onset": np.arange(4.0), "duration": 1.0, "stim_file": shown})
            events.to_csv(folder / f"{stem(session, run)}_events.tsv", sep="\t", index=False)
    save(root / "sub-01" / "sub-01_mask.nii.gz", (np.arange(60).reshape(GRID) % 4 == 0).astype(np.uint8))
    labels = root / "atlas" / "atlas-mine_dseg.nii.gz"
    save(labels, (np.arange(60).reshape(GRID) % 3).astype(np.int16))
    labels.with_name("atlas-mine_dseg.tsv").write_text("index\tname\n1\tfront\n2\tback\n")
    return root, volumes


def shown(root: Path) -> list[str]:
    found: list[str] = []
    for session in (1, 2):
        for run in (1, 2, 10):
            path = root / "sub-01" / f"ses-{session:02d}" / "func" / f"{stem(session, run)}_events.tsv"
            found += pd.read_csv(path, sep="\t")["stim_file"].dropna().tolist()
    return found


def test_trials_follow_the_runs_and_volumes(src: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, volumes = src
    made = prepare_bids(
        root, tmp_path / "out", options=BidsOptions(atlases=[root / "atlas" / "atlas-mine_dseg.nii.gz"])
    )
    mask = np.arange(60).reshape(GRID) % 4 == 0
    assert np.array_equal(made.responses, volumes[:, mask])
    assert made.images["name"][made.trials["image"]].tolist() == shown(root)
    assert made.trials["session"].tolist() == [0] * 9 + [1] * 9
    assert made.trials["run"].tolist() == [0] * 3 + [1] * 3 + [9] * 3 + [0] * 3 + [1] * 3 + [9] * 3
    assert made.trials["repeat"].tolist() == [0] * 9 + [1] * 9
    assert len(made.image_rows("test")) == 2
    assert "2 of 9 images were drawn as test" in made.info.provenance["notes"][0]
    values = np.arange(60).reshape(GRID)[mask] % 3
    assert np.array_equal(made.space.roi_masks()["mine/back"], values == 2)
    assert np.array_equal(made.space.affine, AFFINE)  # type: ignore[arg-type]
    assert made.space.ncsnr is None  # of seven repeated training images it is not known
    assert made.load_image(0).size == (6, 6)


def test_one_file_per_run_gives_the_same(src: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, volumes = src
    expected = np.array(prepare_bids(root, tmp_path / "sessions").responses)
    for session in (1, 2):
        folder = root / "sub-01" / f"ses-{session:02d}" / "func"
        (folder / f"{stem(session)}_betas.nii.gz").unlink()
        for k, run in enumerate((1, 2, 10)):
            first = (session - 1) * 9 + k * 3
            save(
                folder / f"{stem(session, run)}_betas.nii.gz",
                volumes[first : first + 3].transpose(1, 2, 3, 0),
            )
    made = prepare_bids(root, tmp_path / "runs", workers=2)
    assert np.array_equal(made.responses, expected)
    assert made.images["name"][made.trials["image"]].tolist() == shown(root)
    z = prepare_bids(root, tmp_path / "z", options=BidsOptions(scaling="session-zscore"))
    train = (z.trials["split"] == "train").to_numpy()
    for session in (0, 1):  # over the training trials of all runs of the session together
        rows = (z.trials["session"] == session).to_numpy()
        fit = expected[rows & train].astype(np.float64)
        assert np.allclose(z.responses[rows], (expected[rows] - fit.mean(0)) / fit.std(0), atol=1e-4)


def test_zscore_and_its_inverse(src: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, volumes = src
    made = prepare_bids(root, tmp_path / "out", options=BidsOptions(scaling="session-zscore"))
    rows = made.trial_rows("train")[:1]
    train = (made.trials["split"] == "train").to_numpy() & (made.trials["session"] == 0).to_numpy()
    assert np.allclose(made.responses[train].mean(axis=0), 0, atol=1e-5)
    assert len(rows) == 1
    back = invert(made, made.responses, made.trials["session"].to_numpy())
    assert np.allclose(back, volumes[:, np.arange(60).reshape(GRID) % 4 == 0], atol=1e-5)


def test_split_by_list_and_by_column(src: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, _ = src
    (tmp_path / "test.txt").write_text("s3.png\ns5.png\n")
    made = prepare_bids(root, tmp_path / "list", options=BidsOptions(test_images=tmp_path / "test.txt"))
    assert made.images.loc[made.images["split"] == "test", "name"].tolist() == ["s3.png", "s5.png"]
    assert made.info.provenance["notes"] == []
    for path in root.rglob("*_events.tsv"):
        table = pd.read_csv(path, sep="\t")
        table["split"] = np.where(table["stim_file"] == "s1.png", "test", "train")
        table.to_csv(path, sep="\t", index=False)
    made = prepare_bids(root, tmp_path / "column")
    assert made.images.loc[made.images["split"] == "test", "name"].tolist() == ["s1.png"]


def test_entities() -> None:
    found = entities(Path("sub-01_ses-02_task-see_run-3_space-T1w_desc-betas_bold.nii.gz"))
    assert found == {"sub": "01", "ses": "02", "task": "see", "run": "3", "space": "T1w", "desc": "betas"}


FUNC = Path("sub-01/ses-02/func")


def _drop_event(root: Path) -> None:
    path = root / FUNC / f"{stem(2, 2)}_events.tsv"
    pd.read_csv(path, sep="\t")[:-1].to_csv(path, sep="\t", index=False)


def _cut_betas(root: Path) -> None:
    path = root / FUNC / f"{stem(2)}_betas.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])


def _second_space(root: Path) -> None:
    path = root / FUNC / f"{stem(2)}_betas.nii.gz"
    path.with_name(f"{stem(2)}_space-T1w_betas.nii.gz").write_bytes(path.read_bytes())


def _second_subject(root: Path) -> None:
    path = root / FUNC / f"{stem(2)}_betas.nii.gz"
    path.with_name(path.name.replace("sub-01", "sub-02")).write_bytes(path.read_bytes())


def _empty_mask(root: Path) -> None:
    save(root / "sub-01" / "sub-01_mask.nii.gz", np.zeros(GRID, np.uint8))


def _other_mask(root: Path) -> None:
    save(root / "sub-01" / "sub-01_mask.nii.gz", np.ones((4, 5, 4), np.uint8))


def _no_events(root: Path) -> None:
    for path in (root / FUNC).glob("*_events.tsv"):
        path.unlink()


def _no_image_column(root: Path) -> None:
    path = root / FUNC / f"{stem(2, 2)}_events.tsv"
    pd.read_csv(path, sep="\t").rename(columns={"stim_file": "what"}).to_csv(path, sep="\t", index=False)


def _other_grid(root: Path) -> None:
    save(root / FUNC / f"{stem(2)}_betas.nii.gz", np.zeros((4, 5, 4, 9), np.float32))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an event lacks": (_drop_event, "has 9 volumes for 8 trials in"),
    "betas cut short": (_cut_betas, "betas.nii.gz is damaged or cut short"),
    "betas twice": (_second_space, "pass --pattern"),
    "two subjects": (_second_subject, "betas of the subjects ['01', '02']"),
    "mask of another grid": (_other_mask, "shapes (4, 5, 4) and (4, 5, 3)"),
    "empty mask": (_empty_mask, "holds no voxel"),
    "no mask": (lambda root: (root / "sub-01" / "sub-01_mask.nii.gz").unlink(), "has no mask"),
    "no events": (_no_events, "no _events.tsv belongs to"),
    "no image column": (_no_image_column, "has no column"),
    "image missing": (lambda root: (root / "stimuli" / "s4.png").unlink(), "1 of 9 images named"),
    "no stimuli": (lambda root: (root / "stimuli").rename(root / "pictures"), "pass --images"),
    "betas on a surface": (
        lambda root: [
            p.rename(p.with_name("sub-01_hemi-L_betas.func.gii")) for p in root.rglob("*_betas.nii.gz")
        ],
        "has no file of the right hemisphere beside it (sub-01_hemi-R_betas.func.gii)",
    ),
    "no betas": (lambda root: [p.unlink() for p in root.rglob("*_betas.nii.gz")], "has no betas like"),
    "grids differ": (_other_grid, "shapes (4, 5, 4) and (4, 5, 3)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_and_nothing_written(
    case: str, src: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = BAD[case]
    spoil(src[0])
    assert main(["prepare", "bids", str(src[0]), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_is_not_taken_up_for_other_volumes(
    src: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A design that is mended in between shows the same trials in other volumes."""
    root, volumes = src
    design = tmp_path / "design.csv"

    def designed(blank: int) -> BidsOptions:
        names = [f"s{i % 9}.png" for i in range(17)]
        design.write_text("\n".join(["image", *names[:blank], "n/a", *names[blank:]]) + "\n")
        return BidsOptions(design=design)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sessions, "_gather", stop)  # every file was read
        with pytest.raises(KeyboardInterrupt):
            prepare_bids(root, tmp_path / "out", options=designed(blank=8))
    made = prepare_bids(root, tmp_path / "out", options=designed(blank=0))
    inside = (np.arange(60).reshape(GRID) % 4 == 0).ravel()
    np.testing.assert_array_equal(made.responses, volumes[1:].reshape(17, -1)[:, inside])


def test_a_share_of_test_images_is_a_share() -> None:
    for share in (20, -0.2):
        with pytest.raises(ValueError, match="test_fraction"):
            BidsOptions(test_fraction=share)


def test_command(src: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--unit", "percent signal change", "--subject", "01", "--test-fraction", "0.5"]
    assert main(["prepare", "bids", str(src[0]), str(tmp_path / "out"), *words]) == 0
    assert (
        "18 trials x 15 voxels, unit percent signal change; 5 training and 4 test" in capsys.readouterr().out
    )
    assert load_dataset(tmp_path / "out").info.subject == "sub-01"


def test_a_mask_may_be_called_mask(src: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    (src[0] / "sub-01" / "sub-01_mask.nii.gz").rename(src[0] / "mask.nii.gz")
    assert prepare_bids(src[0], tmp_path / "out").n_voxels == 15


def test_an_atlas_has_one_name_in_all_subjects(src: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    names = "sub-01_desc-visual_dseg", "sub-01_run-1_desc-visual_dseg"
    labels = [src[0] / "sub-01" / f"{name}.nii.gz" for name in names]
    for path in labels:
        save(path, np.ones(GRID, dtype=np.int16))
    made = prepare_bids(src[0], tmp_path / "out", options=BidsOptions(atlases=labels))
    assert list(made.space.atlases) == ["visual", names[1]]  # none is lost
