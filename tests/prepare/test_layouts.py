"""The recipes of docs/guide/layouts.md, run as they stand on small files of each layout."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from synbrain.cli import main
from synbrain.data.dataset import Dataset, load_dataset

PAGE = Path(__file__).parents[2] / "docs/guide/layouts.md"
N = 12  # pictures; each says its number by its upper left corner
MASK = np.zeros((4, 3, 2), dtype=bool)
MASK[1:3, 1:3] = True
ATLASES = ("prf-visualrois", "floc-faces", "floc-bodies", "floc-places", "floc-words", "streams")


def picture(number: int) -> Image.Image:
    pixels = (
        np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    )
    pixels[:8, :8] = 20 * number
    return Image.fromarray(pixels)


def save(number: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path, **({"quality": 100} if path.suffix == ".jpg" else {}))


def responses(shown: list[int], n_units: int) -> np.ndarray:
    """(n_trials, n_units) float32: the picture's number, plus a hundredth of the unit's."""
    return (np.array(shown)[:, None] + np.arange(n_units) / 100).astype(np.float32)


def volume(values: np.ndarray) -> np.ndarray:
    """(x, y, z, n_trials) with the columns of ``values`` in the mask."""
    filled = np.zeros((*MASK.shape, len(values)), dtype=np.float32)
    filled[MASK] = values.T
    return filled


def orders(seed: int, repeated: int = 4, repeats: int = 3) -> list[int]:
    once = [*np.repeat(np.arange(repeated), repeats), *range(repeated, N)]
    return [int(k) for k in np.random.default_rng(seed).permutation(once)]


def algonauts() -> dict[str, Any]:
    src = Path("algonauts_2023_challenge_data/subj01")
    for k in range(N):
        save(k, src / f"training_split/training_images/train-{k + 1:04d}_nsd-{7 * k:05d}.png")
    (src / "training_split/training_fmri").mkdir()
    (src / "roi_masks").mkdir()
    both = responses(list(range(N)), 20)
    for h, half in (("lh", slice(0, 9)), ("rh", slice(9, 20))):
        np.save(src / f"training_split/training_fmri/{h}_training_fmri.npy", both[:, half])
        inside = np.zeros(163_842)
        inside[5 : 5 + 2 * len(range(20)[half]) : 2] = 1
        np.save(src / f"roi_masks/{h}.all-vertices_fsaverage_space.npy", inside)
        for atlas in ATLASES:
            np.save(src / f"roi_masks/{h}.{atlas}_challenge_space.npy", np.arange(len(range(20)[half])) % 3)
    for atlas in ATLASES:
        np.save(src / f"roi_masks/mapping_{atlas}.npy", {0: "Unknown", 1: "V1v", 2: "V1d"})
    return {}


def mindeye2() -> dict[str, Any]:
    src, shown = Path("mindeyev2"), orders(1)
    src.mkdir()
    with h5py.File(src / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = responses(shown, 7)
    with h5py.File(src / "COCO_73k_subj_indices.hdf5", "w") as file:
        file["subj01"] = 3 * np.array(shown)
    with h5py.File(src / "coco_images_224_float16.hdf5", "w") as file:
        pixels = np.stack([np.asarray(picture(i // 3)) for i in range(3 * N)]).transpose(0, 3, 1, 2)
        file["images"] = (pixels / 255).astype(np.float16)
    np.save(src / "shared1000.npy", np.isin(np.arange(3 * N), [0, 3, 6, 9]))
    return {}


def glmsingle(flat: bool = False) -> dict[str, Any]:
    shown = orders(2)
    values = responses(shown, int(MASK.sum()))
    for k in range(N):
        save(k, Path(f"stimuli/s{k}.png"))
    Path("glmsingle").mkdir()
    np.save(
        "glmsingle/TYPED_FITHRF_GLMDENOISE_RR.npy",
        {"betasmd": values.T if flat else volume(values), "R2": np.ones(3)},
    )  # type: ignore[arg-type]
    nib.save(nib.Nifti1Image(MASK.astype(np.uint8), np.diag([2.0, 2, 2, 1])), "brainmask.nii.gz")
    design = [np.zeros((50, N)), np.zeros((50, N))]
    for place, condition in enumerate(shown):
        design[place // 10][4 * (place % 10) + 3, condition] = 1
    return {"design": design, "names": [f"s{k}.png" for k in range(N)]}


def bold5000() -> dict[str, Any]:
    shown = orders(3)
    names = [f"{('COCO_train2014_', 'n0144_', 'rep_')[k % 3]}{k:03d}.jpg" for k in range(N)]
    for k, name in enumerate(names):
        save(k, Path("pictures") / name)
    Path("BOLD5000").mkdir()
    Path("BOLD5000/CSI1_imgnames.txt").write_text("\n".join(names[k] for k in shown))
    for number, rows in enumerate(np.array_split(np.arange(len(shown)), 11), start=1):
        values = volume(responses([shown[row] for row in rows], int(MASK.sum())))
        path = f"BOLD5000/CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-{number:02d}.nii.gz"
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), path)
    nib.save(
        nib.Nifti1Image(MASK.astype(np.uint8), np.diag([2.0, 2, 2, 1])), "BOLD5000/CSI1_brainmask.nii.gz"
    )
    return {}


def bold5000_areas() -> dict[str, Any]:
    bold5000()
    src = Path("BOLD5000_GLMsingle_ROI_betas/py")
    src.mkdir(parents=True)
    shown = orders(3)
    for place, area in enumerate(("LHEarlyVis", "LHPPA", "RHEarlyVis")):
        columns = responses(shown, 12)[:, 4 * place : 4 * place + 2 + place]
        np.save(src / f"CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{area}.npy", columns)
    return {}


def things() -> dict[str, Any]:
    shown = orders(4)
    for k in range(N):
        save(k, Path(f"THINGS/images/thing{k // 2}/thing{k // 2}_{k:02d}s.jpg"))
    Path("betas_csv").mkdir()
    with h5py.File("betas_csv/sub-01_ResponseData.h5", "w") as file:
        file["ResponseData/block0_values"] = responses(shown, 15).T.astype(np.float64)
        file["ResponseData/block1_values"] = np.arange(15)[:, None]
    kinds = ["test" if k < 4 else "train" for k in shown]
    meta = {"trial_type": kinds, "session": np.arange(len(shown)) // 10 + 1, "subject_id": 1}
    meta |= {
        "stimulus": [f"thing{k // 2}_{k:02d}s.jpg" for k in shown],
        "concept": [f"thing{k // 2}" for k in shown],
    }
    pd.DataFrame(meta).to_csv("betas_csv/sub-01_StimulusMetadata.csv", index=False)
    places = {f"voxel_{axis}": np.arange(15) * step for axis, step in zip("xyz", (1, 2, 3), strict=True)}
    voxels = {
        "voxel_id": np.arange(15),
        **places,
        "nc_testset": 3.3,
        "V1": np.arange(15) < 4,
        "lFFA": np.arange(15) > 9,
    }
    pd.DataFrame(voxels).astype({"V1": int, "lFFA": int}).to_csv(
        "betas_csv/sub-01_VoxelMetadata.csv", index=False
    )
    return {}


def nod() -> dict[str, Any]:
    """Eleven runs, 1 to 11, whose events count 01 to 11; another subject and another task beside them."""
    for k in range(N):
        save(k, Path(f"NOD/stimuli/imagenet/n0144/n0144_{k}.png"))
    left = nib.cifti2.BrainModelAxis.from_surface(np.arange(3), 32492, "CIFTI_STRUCTURE_CORTEX_LEFT")
    right = nib.cifti2.BrainModelAxis.from_surface(np.arange(2, 5), 32492, "CIFTI_STRUCTURE_CORTEX_RIGHT")
    for subject in ("01", "02"):
        shown = orders(int(subject))
        for run, rows in enumerate(np.array_split(np.arange(len(shown)), 11), start=1):
            names = [f"imagenet/n0144/n0144_{shown[row]}.png" for row in rows]
            func = Path(f"NOD/sub-{subject}/ses-imagenet01/func")
            func.mkdir(parents=True, exist_ok=True)
            events = {"onset": np.arange(len(rows)), "duration": 1, "trial_type": 7, "stim_file": names}
            stem = f"sub-{subject}_ses-imagenet01_task-imagenet_run-{run:02d}"
            pd.DataFrame(events).to_csv(func / f"{stem}_events.tsv", sep="\t", index=False)
            values = responses([shown[row] for row in rows], 6)
            named = nib.cifti2.ScalarAxis([Path(name).name for name in names])
            image = nib.Cifti2Image(values, (named, left + right))
            for task in (f"task-imagenet_run-{run}", f"task-coco_run-{run}"):
                stem = f"ses-imagenet01_{task}"
                folder = Path(f"NOD/derivatives/ciftify/sub-{subject}/results/{stem}")
                folder.mkdir(parents=True, exist_ok=True)
                nib.save(image, folder / f"{stem}_beta.dscalar.nii")
    return {}


def mat() -> dict[str, Any]:
    shown, time = orders(5), np.arange(0, 200, 10)
    for k in range(N):
        save(k, Path(f"stimuli/im_{k}.png"))
    counts = np.full((len(time), len(shown), 6), 200, dtype=np.uint8)  # whose sum is no uint8
    counts[(time >= 50) & (time < 150)] = 0
    counts[5] = 10 * np.array(shown)[:, None]
    counts[6] = 10 * np.array(shown)[:, None]
    cell = np.empty((len(shown), 1), dtype=object)
    cell[:, 0] = [f"im_{k}.png" for k in shown]
    savemat("session.mat", {"counts": counts, "files": cell, "time": time[None]})
    return {}


LAYOUTS = {
    "algonauts": algonauts, "mindeye2": mindeye2, "glmsingle": glmsingle, "bold5000": bold5000,
    "bold5000-areas": bold5000_areas, "things": things, "nod": nod, "mat": mat,
}  # fmt: skip
BLOCKS = {  # layout of each Python block of the page, with its code
    code.split("\n", 1)[0].removeprefix("# layout: "): code
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
}


COMMANDS = {"bold5000": "## BOLD5000", "nod": "## NOD"}  # layouts that need no code, with their section


def command_after(text: str) -> list[str]:
    """The words of the first ``synbrain prepare`` of the page after ``text``."""
    rest = PAGE.read_text()
    rest = rest[rest.index(text) :].replace("\\\n", " ")
    line = re.search(r"^synbrain (prepare .*)$", rest, re.MULTILINE)
    assert line is not None
    return shlex.split(line.group(1))


def require_in_step(made: Dataset, scale: float = 1) -> None:
    """Every trial's picture is the one that its responses say."""
    corners = [np.asarray(made.load_image(row))[1:7, 1:7].mean() / 20 for row in range(made.n_images)]
    seen = np.array(corners)[made.trials["image"]]
    assert np.allclose(made.responses[:, 0], np.round(seen) * scale)
    assert made.n_images == N


def test_every_block_of_the_page_is_run() -> None:
    assert set(BLOCKS) | set(COMMANDS) == {*LAYOUTS, "glmsingle-flat"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recipe(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = LAYOUTS[layout]()
    code = BLOCKS.get(layout, "")
    exec(code, dict(given))
    assert main(command_after(code or COMMANDS[layout])) == 0
    made = load_dataset("data/mine")
    require_in_step(made, scale=20 if layout == "mat" else 1)
    if layout == "algonauts":
        assert made.space.shape == (163_842, 163_842)
        assert made.space.index is not None
        assert made.space.index.tolist() == [*range(5, 23, 2), *range(163_847, 163_869, 2)]
        masks = made.space.roi_masks("streams")
        assert {name: int(mask.sum()) for name, mask in masks.items()} == {"streams/V1v": 7, "streams/V1d": 6}
        assert made.responses[0].tolist() == pytest.approx(responses([0], 20)[0].tolist(), abs=1e-6)
    elif layout not in ("glmsingle", "nod"):  # whose split is drawn
        tested = made.trials["split"] == "test"
        assert (
            tested.tolist() == (np.round(made.responses[:, 0] / (20 if layout == "mat" else 1)) < 4).tolist()
        )
    if layout == "bold5000-areas":
        masks = made.space.roi_masks()
        assert np.flatnonzero(masks["area/EarlyVis"]).tolist() == [0, 1, 5, 6, 7, 8]
        assert np.flatnonzero(masks["area/PPA"]).tolist() == [2, 3, 4]
        assert np.flatnonzero(masks["hemisphere/right"]).tolist() == [5, 6, 7, 8]
    if layout == "things":
        assert made.space.coordinates()[3].tolist() == [6, 12, 18]
        assert {name: int(m.sum()) for name, m in made.space.roi_masks().items()} == {
            "V1/V1": 4,
            "lFFA/lFFA": 5,
        }
        assert made.responses[0].tolist() == pytest.approx(
            (made.responses[0, 0] + np.array([0, 1, 2, 3, 10, 11, 12, 13, 14]) / 100).tolist(), abs=1e-5
        )
        assert made.trials["session"].nunique() == 2


def test_flat_betas_of_glmsingle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = glmsingle(flat=True)
    exec(BLOCKS["glmsingle"], dict(given))
    exec(BLOCKS["glmsingle-flat"], {})
    assert main(command_after(BLOCKS["glmsingle-flat"])) == 0
    made = load_dataset("data/mine")
    require_in_step(made)
    assert made.space.shape == MASK.shape
    assert made.space.index is not None
    assert made.space.index.tolist() == np.flatnonzero(MASK).tolist()
