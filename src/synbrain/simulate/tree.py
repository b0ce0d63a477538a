"""The files of an NSD-layout tree: experiment design, stimulus table, label volumes, betas, behaviour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import savemat

from synbrain.data.fsaverage import NO_DATA, SIDES, mesh
from synbrain.files import atomic_path, write_text, writing
from synbrain.simulate.cortex import FLOC_LABELS, PRF_LABELS, STREAM_LABELS, Cortex

STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
BETA_VERSION = "betas_fithrf_GLMdenoise_RR"
BETA_SCALE = 300  # int16 = percent signal change * 300
REPEATS = 3
RUNS = 12


def beta_folder(tree: Path, subject: int) -> Path:
    return tree / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm" / BETA_VERSION


def make_design(n_images: int, n_shared: int, subjects: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """The experiment as in nsd_expdesign.mat; all values 1-based.

    Args:
        n_images: distinct images of each subject ("10k"), of which the first ``n_shared`` are shared.

    Returns:
        masterordering (1, 3 * n_images), the same for all subjects, in which the repeats of an image
        fall partly near each other and partly anywhere; subjectim (subjects, n_images); sharedix
        (1, n_shared).
    """
    rng = np.random.default_rng([seed, 1])
    total = n_shared + subjects * (n_images - n_shared)
    ids = rng.permutation(total) + 1
    shared = np.sort(ids[:n_shared])
    own = ids[n_shared:].reshape(subjects, -1)
    centre = rng.random((n_images, 1))
    near = (centre + 0.06 * rng.standard_normal((n_images, REPEATS))) % 1
    when = np.where(rng.random(near.shape) < 0.5, near, rng.random(near.shape))
    order = np.argsort(when.ravel(), kind="stable") // REPEATS + 1
    return {
        "masterordering": order[None],
        "subjectim": np.concatenate([np.tile(shared, (subjects, 1)), own], axis=1),
        "sharedix": shared[None],
    }


def write_design(tree: Path, design: dict[str, NDArray[np.int64]]) -> None:
    """nsd_expdesign.mat and nsd_stim_info_merged.csv."""
    folder = tree / "nsddata/experiments/nsd"
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "nsd_expdesign.mat", {name: array.astype(float) for name, array in design.items()})
    subjectim, order = design["subjectim"], design["masterordering"][0]
    total = int(subjectim.max())
    shared = np.isin(np.arange(1, total + 1), design["sharedix"][0])
    table: dict[str, Any] = {
        "cocoId": 1000 + 7 * np.arange(total),
        "cocoSplit": "train2017",
        "cropBox": "(0.0, 0.0, 0.0, 0.0)",
        "loss": 0.0,
        "nsdId": np.arange(total),
        "flagged": False,
        "BOLD5000": False,
        "shared1000": shared,
    }
    trials = np.argsort(order, kind="stable").reshape(-1, REPEATS) + 1  # 1-based trials of every image
    seen: dict[str, NDArray[np.int64]] = {}
    for subject, ids in enumerate(subjectim, start=1):
        repeats = np.zeros((total, REPEATS), dtype=int)
        repeats[ids - 1] = trials
        table[f"subject{subject}"] = (repeats[:, 0] > 0).astype(int)
        seen |= {f"subject{subject}_rep{k}": repeats[:, k] for k in range(REPEATS)}
    with atomic_path(folder / "nsd_stim_info_merged.csv") as partial:
        pd.DataFrame(table | seen).to_csv(partial)


def write_volume(path: Path, volume: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """One NIfTI file, gzipped at the fastest level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    with writing(path):
        nib.save(image, path)


def write_space(tree: Path, subject: int, cortex: Cortex) -> None:
    """nsdgeneral and the label volumes (both and single hemispheres), with their label names."""
    roi = tree / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi"
    label = tree / f"nsddata/freesurfer/subj{subject:02d}/label"
    volumes: dict[str, tuple[NDArray[Any], dict[int, str]]] = {
        "nsdgeneral": (np.ones(cortex.n_voxels), {1: "nsdgeneral"}),
        "prf-visualrois": (cortex.prf, PRF_LABELS),
        "streams": (cortex.stream, STREAM_LABELS),
        **{name: (cortex.floc[name], names) for name, names in FLOC_LABELS.items()},
    }
    all_right = (
        np.unravel_index(cortex.ribbon, cortex.shape)[0] * cortex.affine[0, 0] + cortex.affine[0, 3] > 0
    )
    for name, (values, names) in volumes.items():
        rows = "".join(f"{value} {text}\n" for value, text in {0: "Unknown", **names}.items())
        write_text(label / f"{name}.mgz.ctab", rows)
        for prefix, in_ribbon, in_mask in (
            ("", slice(None), slice(None)),
            ("lh.", ~all_right, ~cortex.right),
            ("rh.", all_right, cortex.right),
        ):
            flat = np.full(int(np.prod(cortex.shape)), -1, dtype=np.int16)  # -1: not cortex
            flat[cortex.ribbon[in_ribbon]] = 0
            flat[cortex.index[in_mask]] = values[in_mask]
            write_volume(roi / f"{prefix}{name}.nii.gz", flat.reshape(cortex.shape), cortex.affine)


def write_transforms(tree: Path, subject: int, cortex: Cortex) -> None:
    """NSD's maps from the volume to the surface; this subject's own surface is fsaverage5 itself.

    ``?h.func1pt8-to-layerB2.mgz`` (n, 1, 1, 3): 1-based places in the volume, 9999 outside it;
    ``?h.white-to-fsaverage.mgz`` (n, 1, 1): 1-based vertices.
    """
    folder = tree / f"nsddata/ppdata/subj{subject:02d}/transforms"
    folder.mkdir(parents=True, exist_ok=True)
    for hemi, side in zip(("lh", "rh"), SIDES, strict=True):
        middle = (mesh(side, "white")[0] + mesh(side, "pial")[0]) / 2
        place = nib.affines.apply_affine(np.linalg.inv(cortex.affine), middle) + 1
        inside = ((np.rint(place) >= 1) & (np.rint(place) <= np.array(cortex.shape))).all(axis=1)
        place[~inside] = NO_DATA
        vertices = np.arange(1, len(place) + 1, dtype=np.float32)
        for name, values in (
            ("func1pt8-to-layerB2", place.astype(np.float32)[:, None, None]),
            ("white-to-fsaverage", vertices[:, None, None]),
        ):
            nib.save(nib.MGHImage(values, np.eye(4)), folder / f"{hemi}.{name}.mgz")


def write_betas(tree: Path, subject: int, session: int, cortex: Cortex, betas: NDArray[np.int16]) -> None:
    """betas_sessionNN.nii.gz from (n_trials, n_voxels) int16; voxels outside nsdgeneral are 0."""
    x, y, z = np.unravel_index(cortex.index, cortex.shape)
    volume = np.zeros((len(betas), *cortex.shape[::-1]), dtype=np.int16)  # the order of the file on disk
    volume[:, z, y, x] = betas
    path = beta_folder(tree, subject) / f"betas_session{session:02d}.nii.gz"
    write_volume(path, volume.transpose(3, 2, 1, 0), cortex.affine)


def write_ncsnr(tree: Path, subject: int, cortex: Cortex, ncsnr: NDArray[np.float32]) -> None:
    """ncsnr.nii.gz beside the betas; 0 outside nsdgeneral."""
    flat = np.zeros(int(np.prod(cortex.shape)), dtype=np.float32)
    flat[cortex.index] = ncsnr
    write_volume(beta_folder(tree, subject) / "ncsnr.nii.gz", flat.reshape(cortex.shape), cortex.affine)


def write_behaviour(
    tree: Path,
    subject: int,
    ids: NDArray[np.int64],
    positions: NDArray[np.int64],
    per_session: int,
    seed: int,
) -> None:
    """behav/responses.tsv: one row per trial; ids are 1-based, as in NSD.

    Args:
        ids: (n_trials,) 73k ids, 0-based; positions: (n_trials,) "10k" ids, 1-based.
    """
    rng = np.random.default_rng([seed, 2, subject])
    trial = np.arange(len(ids)) % per_session
    old = pd.Series(ids).duplicated().to_numpy()
    run = trial * RUNS // per_session
    table = pd.DataFrame(
        {
            "SUBJECT": subject,
            "SESSION": np.arange(len(ids)) // per_session + 1,
            "RUN": run + 1,
            "TRIAL": trial - np.searchsorted(run[:per_session], run) + 1,
            "73KID": ids + 1,
            "10KID": positions,
            "TIME": np.round(np.arange(len(ids)) // per_session * 7 + trial * 4 / 86400, 6),
            "ISOLD": old.astype(int),
            "ISCORRECT": (rng.random(len(ids)) < 0.9).astype(int),
            "RT": np.round(rng.lognormal(6.8, 0.3, len(ids)), 1),
        }
    )
    with atomic_path(tree / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv") as partial:
        table.to_csv(partial, sep="\t", index=False)
