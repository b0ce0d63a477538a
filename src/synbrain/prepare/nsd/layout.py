"""Where the Natural Scenes Dataset keeps its files, and its published counts."""

from __future__ import annotations

import re
from pathlib import Path

from synbrain.data.budget import TRIALS_PER_HOUR
from synbrain.errors import SynBrainError

DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIM_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
STIMULI_KEY = "imgBrick"
BETA_VERSIONS = ("betas_fithrf_GLMdenoise_RR", "betas_fithrf", "betas_assumehrf")

# Allen et al. 2022 and the NSD manual; used only to compare, and only where the design is NSD's own
N_SUBJECTS, N_OWN_IMAGES, N_PLANNED_TRIALS, N_PER_SESSION = 8, 10_000, 30_000, TRIALS_PER_HOUR
SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
NSDGENERAL_VOXELS = (15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386)
SHAPES = (
    (81, 104, 83), (82, 106, 84), (81, 106, 82), (85, 99, 80),
    (79, 97, 78), (85, 113, 83), (78, 95, 81), (80, 103, 78),
)  # fmt: skip
TEST_COUNTS = {"shared1000": 1000, "shared515": 515, "shared907": 907}


def subject_name(subject: int) -> str:
    """NSD's name of a subject, such as subj03."""
    return f"subj{subject:02d}"


def subject_number(subject: int | str) -> int:
    """3 of 3, "3", "03", "subj03" and "sub-03".

    >>> subject_number("subj03")
    3
    """
    match = re.fullmatch(r"(?:subj?-?)?0*([1-9]\d*)", str(subject).strip())
    if match is None:
        raise SynBrainError(f"--subject {subject} names no subject", "pass its number, such as 1")
    return int(match[1])


def betas_folder(src: Path, subject: int, space: str, version: str) -> Path:
    """The folder of one subject's betas."""
    return src / "nsddata_betas/ppdata" / subject_name(subject) / space / version


def roi_folder(src: Path, subject: int, space: str) -> Path:
    """The folder of label volumes, or of fsaverage's label files."""
    if space == "fsaverage":
        return src / "nsddata/freesurfer/fsaverage/label"
    return src / "nsddata/ppdata" / subject_name(subject) / space / "roi"


def label_folders(src: Path, subject: int, space: str) -> list[Path]:
    """Folders that may hold a label volume's names (``.mgz.ctab``), the likelier first."""
    freesurfer = src / "nsddata/freesurfer"
    own, average = freesurfer / subject_name(subject) / "label", freesurfer / "fsaverage/label"
    return [average, own] if space == "fsaverage" else [own, average]


def transforms_folder(src: Path, subject: int) -> Path:
    """The folder of maps between the subject's volumes and surfaces."""
    return src / "nsddata/ppdata" / subject_name(subject) / "transforms"


def behaviour(src: Path, subject: int) -> Path:
    """The table of responses, which tells the run of every trial."""
    return src / "nsddata/ppdata" / subject_name(subject) / "behav/responses.tsv"


def session_files(folder: Path, space: str) -> dict[int, tuple[Path, ...]]:
    """Session number (1-based) -> its file, or its left and right hemisphere files.

    HDF5 is preferred where a session lies there in both forms: it is read without decompressing all.
    """
    sessions: dict[int, tuple[Path, ...]] = {}
    if space == "fsaverage":
        for left in sorted(folder.glob("lh.betas_session*.mgh")):
            right = left.with_name("rh" + left.name[2:])
            if not right.exists():
                raise SynBrainError(f"{right} is missing beside {left.name}", "download it")
            sessions[_number(left)] = (left, right)
        return sessions
    for suffix in (".nii", ".nii.gz", ".hdf5"):  # the last one found is taken
        for path in folder.glob(f"betas_session*{suffix}"):
            if path.name.endswith(suffix) and path.name.count(".") == suffix.count("."):
                sessions[_number(path)] = (path,)
    return sessions


def _number(path: Path) -> int:
    match = re.search(r"session(\d+)", path.name)
    assert match is not None
    return int(match[1])


def find_sessions(
    src: Path, subject: int, space: str, version: str, asked: str | int
) -> list[tuple[Path, ...]]:
    """The files of the first sessions, "all" or a number of them, in order.

    Raises:
        SynBrainError: where there are none, one lacks in between, or fewer than asked.
    """
    folder = betas_folder(src, subject, space, version)
    files = session_files(folder, space)
    if not files:
        there = [name for name in BETA_VERSIONS if betas_folder(src, subject, space, name).exists()]
        raise SynBrainError(
            f"no betas of {subject_name(subject)} in {folder}",
            f"pass --betas {there[0]}"
            if there
            else "run `synbrain download nsd`, or check SRC and --subject",
        )
    last = max(files) if asked == "all" else _count(asked)
    missing = [number for number in range(1, last + 1) if number not in files]
    if missing:
        raise SynBrainError(
            f"{subject_name(subject)} lacks sessions {missing} of {last} in {folder}",
            f"download them, or pass --sessions {missing[0] - 1}" if missing[0] > 1 else "download them",
        )
    return [files[number] for number in range(1, last + 1)]


def _count(asked: str | int) -> int:
    if not str(asked).isdigit() or int(asked) < 1:
        raise SynBrainError(f"--sessions {asked} is no number of sessions", "pass all, or 1, 2, ...")
    return int(asked)
