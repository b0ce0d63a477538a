"""NSD's experiment design as one trials table: which image, when, how often, and in which split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import loadmat

from synbrain.describe import counted
from synbrain.errors import SynBrainError, unreadable
from synbrain.prepare.nsd import layout as nsd_layout
from synbrain.prepare.nsd.layout import subject_name
from synbrain.prepare.nsd.options import OtherShared, Repeats, TestSet

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Design:
    """nsd_expdesign.mat with 0-based numbers.

    Attributes:
        ordering: (n_planned_trials,) which of the subject's own images each trial shows; one for all.
        images: (n_subjects, n_own) 73k id of each subject's own images.
        shared: (n_shared,) 73k ids of the images that are planned for all subjects, ascending.
    """

    ordering: Ids
    images: Ids
    shared: Ids

    @property
    def is_nsd(self) -> bool:
        """Whether this is NSD's own design, not a simulated or reduced one."""
        full = (nsd_layout.N_SUBJECTS, nsd_layout.N_OWN_IMAGES)
        return self.images.shape == full and len(self.ordering) == nsd_layout.N_PLANNED_TRIALS

    def ids(self, subject: int, n_trials: int | None = None) -> Ids:
        """73k ids that ``subject`` (1-based) saw, trial by trial, in the first ``n_trials``."""
        ids: Ids = self.images[subject - 1, self.ordering[:n_trials]]
        return ids

    def planned(self) -> NDArray[np.int64]:
        """(n_own,) how often each own image is planned to be shown."""
        return np.bincount(self.ordering, minlength=self.images.shape[1]).astype(np.int64)


def read_design(src: Path) -> Design:
    """Read the experiment design of a tree in NSD's layout.

    Raises:
        SynBrainError: where the file is missing, damaged, or its numbers do not fit together.
    """
    path = src / nsd_layout.DESIGN
    if not path.exists():
        raise SynBrainError(f"{path} is missing", "give the root of a tree in NSD's layout as SRC")
    try:
        ordering, images, shared = (
            np.asarray(values, dtype=np.int64) - 1
            for values in _matlab_arrays(path, ("masterordering", "subjectim", "sharedix"))
        )
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise unreadable(path, error, "download it again") from error
    design = Design(ordering.ravel(), images, np.sort(shared.ravel()))
    if design.ordering.min() < 0 or design.ordering.max() >= images.shape[1] or images.min() < 0:
        raise SynBrainError(f"{path} has indices out of range", "download it again")
    return design


def _matlab_arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """Arrays of a MATLAB file; those of version 7.3 are HDF5 with the axes in reversed order."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return [np.asarray(file[name][()]).T for name in names]
    content = loadmat(path)
    return [content[name] for name in names]


def stimulus_table(src: Path) -> pd.DataFrame | None:
    """nsd_stim_info_merged.csv by 73k id: coco_id and shared1000; None where the file is missing."""
    path = src / nsd_layout.STIM_INFO
    if not path.exists():
        return None
    table = pd.read_csv(path)
    lacking = [name for name in ("nsdId", "cocoId") if name not in table]
    if lacking:
        raise SynBrainError(f"{path} lacks the columns {lacking}", "download it again")
    return table.set_index("nsdId")


def seen_trials(src: Path, design: Design, subject: int, n_sessions: int, per_session: int) -> pd.DataFrame:
    """Every trial that a subject saw in the first sessions, in order.

    Returns:
        nsd_id (73k id, 0-based), session, run (0-based; missing where responses.tsv is), repeat (0-based,
        over all sessions), coco_id (-1 where unknown), shared1000.

    Raises:
        SynBrainError: where the design has no such subject or fewer trials, or other tables contradict it.
    """
    if not 1 <= subject <= len(design.images):
        raise SynBrainError(
            f"the design has no {subject_name(subject)}", f"pass --subject 1 to {len(design.images)}"
        )
    n_trials = n_sessions * per_session
    if n_trials > len(design.ordering):
        raise SynBrainError(
            f"{counted(n_sessions, 'session')} of {counted(per_session, 'trial')}, but the design plans "
            f"{len(design.ordering)}",
            "use betas and nsd_expdesign.mat of the same tree",
        )
    ids = design.ids(subject, n_trials)
    trials = pd.DataFrame({"nsd_id": ids.astype(np.int32)})
    trials["session"] = (np.arange(n_trials) // per_session).astype(np.int16)
    trials["run"] = _runs(src, subject, ids, per_session)
    trials["repeat"] = trials.groupby("nsd_id").cumcount().astype(np.int16)
    trials["shared1000"] = np.isin(ids, design.shared)
    trials["coco_id"] = np.int32(-1)
    table = stimulus_table(src)
    if table is not None:
        unknown = np.setdiff1d(ids, table.index.to_numpy())
        if len(unknown):
            raise SynBrainError(
                f"{src / nsd_layout.STIM_INFO} has no image {unknown[0]} ({len(unknown)} such)",
                "download it again",
            )
        trials["coco_id"] = table.loc[ids, "cocoId"].to_numpy(dtype=np.int32)
        if "shared1000" in table:
            stated = table.loc[ids, "shared1000"].to_numpy(dtype=bool)
            if (stated != trials["shared1000"].to_numpy()).any():
                raise SynBrainError(
                    "nsd_stim_info_merged.csv and nsd_expdesign.mat disagree on the shared images",
                    "use both files of the same tree",
                )
    return trials


def _runs(src: Path, subject: int, ids: Ids, per_session: int) -> pd.Series[Any]:
    """(n_trials,) Int16 run of each trial, 0-based; all missing where responses.tsv is."""
    path = nsd_layout.behaviour(src, subject)
    if not path.exists():
        return pd.Series(pd.NA, index=range(len(ids)), dtype="Int16")
    table = pd.read_csv(path, sep="\t", usecols=["SESSION", "RUN", "TRIAL", "73KID"])
    table = table.sort_values(["SESSION", "RUN", "TRIAL"], kind="stable", ignore_index=True)
    table = table[table["SESSION"] <= len(ids) // per_session]
    same = len(table) == len(ids)
    if not same or (table["73KID"].to_numpy(dtype=np.int64) - 1 != ids).any():
        where = f"{counted(len(table), 'trial')} instead of {len(ids)}" if not same else "other images"
        raise SynBrainError(
            f"{path} tells {where} than nsd_expdesign.mat for {subject_name(subject)}",
            "use both files of the same tree",
        )
    return pd.Series(table["RUN"].to_numpy(dtype=np.int16) - 1, dtype="Int16")


def shared_by_all(design: Design, times: int | None, sessions: list[int], per_session: int) -> Ids:
    """73k ids of the shared images that every subject saw at least ``times`` times, ascending.

    Args:
        times: None for as often as planned (three times in NSD).
        sessions: how many sessions each subject completed.
    """
    common = design.shared
    planned = design.planned()
    for subject, n_sessions in enumerate(sessions, start=1):
        own = design.images[subject - 1]
        seen = np.bincount(design.ordering[: n_sessions * per_session], minlength=len(own))
        enough = seen >= (planned if times is None else times)
        common = np.intersect1d(common, own[enough & (planned > 0)])
    return common


def select_test(
    design: Design, name: TestSet, sessions: list[int], per_session: int
) -> tuple[Ids, list[str]]:
    """73k ids of a named test set, ascending, and notes on counts that differ from NSD's published ones.

    ``shared1000``: all shared images (the paper's). ``shared515``: those that all subjects saw as often as
    planned. ``shared907``: those that all subjects saw at least once. The latter two follow from the
    sessions that every subject completed, whoever is being prepared.
    """
    if name == "shared1000":
        chosen = design.shared
    else:
        chosen = shared_by_all(design, None if name == "shared515" else 1, sessions, per_session)
    if len(chosen) == 0:
        raise SynBrainError(f"no image belongs to {name} in this tree", "choose another --test-set")
    expected = nsd_layout.TEST_COUNTS[name]
    odd = design.is_nsd and len(chosen) != expected
    return chosen, [f"{name} has {len(chosen)} images here, {expected} are published"] if odd else []


def assign_split(
    trials: pd.DataFrame,
    test_ids: Ids,
    planned: dict[int, int],
    repeats: Repeats,
    other_shared: OtherShared,
    who: str,
) -> tuple[pd.Series[Any], list[str]]:
    """The split of every trial: "train", "test", or missing where it serves neither.

    Shared images outside the test set are left out unless ``other_shared`` says "train": other subjects
    are tested on them, and models may be trained on several subjects.

    Args:
        trials: from :func:`seen_trials`.
        test_ids: 73k ids of the test set.
        planned: 73k id -> how often the image is planned, for the test images.
        repeats: "all" refuses a test set of which some image was seen less often than planned;
            "available" takes the repeats there are; "complete" leaves incomplete images out.
        other_shared: what becomes of shared images outside the test set.
        who: the subject's name, for messages.

    Returns:
        (n_trials,) split, and notes for the user.

    Raises:
        SynBrainError: where repeats are lacking and "all" is asked, or a split would be empty.
    """
    notes: list[str] = []
    seen = trials["nsd_id"].value_counts()
    short = [int(i) for i in test_ids if seen.get(i, 0) < planned[int(i)]]
    most = max(planned.values())
    if short and repeats == "all":
        raise SynBrainError(
            f"{len(short)} of {len(test_ids)} test images have fewer than {most} repeats for {who}",
            "pass repeats='available' (--repeats available), or 'complete' to leave them out",
        )
    used = np.setdiff1d(test_ids, short) if repeats == "complete" else np.intersect1d(test_ids, seen.index)
    if short:
        notes.append(
            f"{len(short)} of {len(test_ids)} test images have fewer than {most} repeats for {who}; "
            f"{len(used)} are used ({repeats})"
        )
    is_test = trials["nsd_id"].isin(used)
    spare = trials["shared1000"] & ~is_test
    leave = spare & (other_shared == "leave-out")
    # images of the test set that lack repeats never become training images
    leave |= trials["nsd_id"].isin(test_ids) & ~is_test
    if leave.any():
        n_left = trials.loc[leave, "nsd_id"].nunique()
        notes.append(f"{int(leave.sum())} trials of {n_left} shared images serve neither split, left out")
    split = pd.Series(np.where(is_test, "test", "train"), dtype="str").mask(leave.to_numpy())
    for name in ("train", "test"):
        if not (split == name).any():
            raise SynBrainError(f"{who} has no {name} trial in these sessions", "prepare more sessions")
    return split, notes
