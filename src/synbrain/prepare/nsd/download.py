"""Fetch the Natural Scenes Dataset (NSD) from its public bucket into a folder of the same layout.

The plan is made from the bucket's own listing, so sizes are the real ones and no session is missed. The
folder then is what ``synbrain prepare nsd`` reads. ``DEST/download.json`` records what was verified, so
that a second run looks at nothing twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any

from synbrain.describe import counted
from synbrain.errors import SynBrainError
from synbrain.files import read_json, require_space, write_json
from synbrain.prepare.nsd.bucket import (
    Bucket,
    RemoteFile,
    Retrying,
    fetch,
    open_bucket,
    patiently,
    transient_errors,
    verify,
)
from synbrain.prepare.nsd.options import DownloadOptions
from synbrain.progress import announce, bar

TERMS = "https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions"
FORM = "https://forms.gle/xue2bCdM9LaFNMeb7"
# Published counts (NSD data manual): sessions of subjects 1 to 8.
SESSIONS = {1: 40, 2: 40, 3: 32, 4: 30, 5: 40, 6: 32, 7: 40, 8: 30}
RECORD = "download.json"
DEFAULTS = DownloadOptions()


@dataclass(frozen=True)
class Plan:
    """What will be fetched: the files, and what the user should know about them."""

    files: list[RemoteFile]
    notes: list[str] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Bytes of all files, those that are there already included."""
        return sum(file.size for file in self.files)

    def describe(self) -> str:
        """The plan as text: one line a folder, the sum, where the terms are."""
        folders: dict[str, list[int]] = {}
        for file in self.files:
            folders.setdefault(file.key.rpartition("/")[0], []).append(file.size)
        lines = [
            f"  {sum(sizes) / 1e9:9.3f} GB  {len(sizes):4d} files  {folder}"
            for folder, sizes in folders.items()
        ]
        total = f"  {self.n_bytes / 1e9:9.3f} GB  {len(self.files):4d} files  in all"
        terms = ["NSD is free for those who accept its terms and fill in its form:"]
        terms += [f"  terms  {TERMS}", f"  form   {FORM}"]
        return "\n".join([*lines, total, *self.notes, *terms])


@dataclass(frozen=True)
class Fetched:
    """What a download did: its plan, keys fetched now, keys that were there, bytes moved now."""

    plan: Plan
    fetched: list[str]
    present: list[str]
    n_bytes: int


def plan_nsd(
    bucket: Bucket,
    subjects: Sequence[int],
    options: DownloadOptions = DEFAULTS,
    *,
    retrying: Retrying | None = None,
) -> Plan:
    """List the bucket and pick what ``synbrain prepare nsd`` needs for ``subjects``.

    Args:
        bucket: NSD's bucket, or a mirror of it.
        subjects: numbers from 1 to 8.
        options: which sessions, betas and stimuli.
        retrying: back-off where listing fails.

    Raises:
        SynBrainError: for a subject that NSD has not, more sessions than there are, a missing part,
            or a server that cannot be reached.
    """
    sessions, space = options.sessions, options.space
    _check_wanted(subjects, sessions)
    patience = retrying or Retrying(attempts=4)

    def pick(prefix: str, pattern: str, *, optional: bool = False) -> list[RemoteFile]:
        listed = [
            f for f in _list(bucket, prefix, patience) if re.fullmatch(pattern, f.key.removeprefix(prefix))
        ]
        if not listed and not optional:
            raise SynBrainError(
                f"the bucket {bucket.name} has nothing like {pattern} in {prefix}",
                "check --betas, --space and --format, or the bucket",
            )
        return listed

    surface, notes = space == "fsaverage", list[str]()
    files = pick("nsddata/experiments/nsd/", r"nsd_expdesign\.mat")
    files += pick("nsddata/experiments/nsd/", r"nsd_stim_info_merged\.csv")
    if not options.no_stimuli:
        files += pick("nsddata_stimuli/stimuli/nsd/", r"nsd_stimuli\.hdf5")
    if surface:
        files += pick("nsddata/freesurfer/fsaverage/label/", r"[^/]*(\.mgz|\.ctab)")
    for subject in dict.fromkeys(subjects):
        name = f"subj{subject:02d}"
        folder = f"nsddata_betas/ppdata/{name}/{space}/{options.betas}/"
        session = (
            r"[lr]h\.betas_session\d\d\.mgh"
            if surface
            else rf"betas_session\d\d\.{re.escape(options.format)}"
        )
        every = pick(folder, session)
        wanted, note = _sessions_wanted(subject, every, sessions)
        files += wanted + pick(folder, r"([lr]h\.)?ncsnr\.(mgh|nii\.gz)", optional=True)
        files += pick(f"nsddata/ppdata/{name}/behav/", r"responses\.tsv", optional=True)
        if not surface:
            files += pick(f"nsddata/ppdata/{name}/{space}/roi/", r"[^/]*\.nii\.gz")
            files += pick(f"nsddata/freesurfer/{name}/label/", r"[^/]*\.ctab", optional=True)
            to_surface = rf"[lr]h\.({space.removesuffix('mm')}-to-layerB2|white-to-fsaverage)\.mgz"
            files += pick(f"nsddata/ppdata/{name}/transforms/", to_surface, optional=True)
        notes += note
    return Plan(files, notes)


def _check_wanted(subjects: Sequence[int], sessions: str) -> None:
    """Refuse what cannot be asked for before the bucket is looked at."""
    unknown = sorted(set(subjects) - set(SESSIONS))
    if unknown or not subjects:
        raise SynBrainError(f"NSD has no subjects {unknown}", "name some of 1 to 8 with --subjects")
    if sessions != "all" and not (sessions.isdigit() and int(sessions) > 0):
        raise SynBrainError(f"--sessions {sessions}", "say 'all' or a number")


def _list(bucket: Bucket, prefix: str, retrying: Retrying) -> list[RemoteFile]:
    try:
        return patiently(lambda: bucket.files(prefix), retrying)
    except FileNotFoundError:
        return []
    except transient_errors() as error:
        raise SynBrainError(
            f"the bucket {bucket.name} cannot be listed ({error})",
            "check the network (and --endpoint-url), then try again",
        ) from error


def _sessions_wanted(
    subject: int, every: list[RemoteFile], sessions: str
) -> tuple[list[RemoteFile], list[str]]:
    number = {file: int(file.key.rpartition("session")[2][:2]) for file in every}
    there = sorted(set(number.values()))
    if sessions == "all":
        short = [
            f"note: subject {subject} has {counted(len(there), 'session')} here, {SESSIONS[subject]} were "
            f"published"
        ]
        return every, short if len(there) != SESSIONS[subject] else []
    if int(sessions) > len(there):
        raise SynBrainError(
            f"subject {subject} has {counted(len(there), 'session')}, not {sessions}",
            "ask for fewer, or for 'all'",
        )
    wanted = set(there[: int(sessions)])
    return [file for file in every if number[file] in wanted], []


def download_nsd(
    dest: str | Path,
    *,
    subjects: Sequence[int],
    options: DownloadOptions = DEFAULTS,
    accept_terms: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    retrying: Retrying | None = None,
    show_progress: bool = False,
) -> Fetched:
    """Fetch the Natural Scenes Dataset; run the same command again to go on after any interruption.

    Args:
        dest: folder to fetch into; it gets the bucket's layout, which `synbrain prepare nsd` reads.
        subjects: numbers from 1 to 8.
        options: which files, from where, and how many at once.
        accept_terms: you accept NSD's terms and filled in its form; nothing is fetched without.
        dry_run: say what would be fetched and how many GB, and stop.
        overwrite: replace files that differ and that no download put there.
        retrying: back-off; the default gives up after 8 failures without one new byte.
        show_progress: print the plan before anything is fetched, then a bar with rate and remaining time.

    Raises:
        SynBrainError: where the terms were not accepted, the disk has too little space, or a file cannot
            be had; what was fetched is kept.
    """
    if not (show_progress or dry_run):  # nobody would read the plan
        require_terms(accept_terms)
    source = open_bucket(options.bucket, options.endpoint_url)
    plan = plan_nsd(source, subjects, options, retrying=retrying)
    announce(plan.describe(), show=show_progress)
    if dry_run:
        return Fetched(plan, [], [], 0)
    require_terms(accept_terms)
    return fetch_plan(
        source,
        plan,
        Path(dest),
        workers=options.workers,
        overwrite=overwrite,
        retrying=retrying,
        show_progress=show_progress,
    )


def require_terms(accepted: bool) -> None:
    """Raise unless the user said that NSD's terms are accepted."""
    if not accepted:
        raise SynBrainError(
            "NSD's terms are not accepted yet",
            f"read {TERMS}, fill in {FORM}, then pass --accept-terms",
        )


def fetch_plan(
    source: Bucket,
    plan: Plan,
    dest: Path,
    *,
    workers: int = 4,
    overwrite: bool = False,
    retrying: Retrying | None = None,
    show_progress: bool = False,
) -> Fetched:
    """Fetch the files of a plan, several at once; see :func:`download_nsd`."""
    dest.mkdir(parents=True, exist_ok=True)
    with _alone(dest):
        record = _Record(dest / RECORD)
        missing = [file for file in plan.files if not _is_there(source, file, dest, record, overwrite)]
        there = {file.key: _partial_bytes(dest / file.key) for file in missing}
        require_space(dest, sum(max(file.size - there[file.key], 0) for file in missing))
        progress = bar(
            "download",
            total=sum(file.size for file in missing),
            unit="B",
            show=show_progress,
            initial=sum(there.values()),
        )
        lock, stop, gained = Lock(), Event(), [0]

        def moved(n_bytes: int) -> None:
            with lock:
                gained[0] += n_bytes
                progress.update(n_bytes)

        def one(file: RemoteFile) -> None:
            target = dest / file.key
            remote, how = fetch(source, file, target, moved=moved, stop=stop, retrying=retrying or Retrying())
            record.add(remote, how, target)

        try:
            _run_all(one, missing, workers, stop)
        finally:
            progress.close()
    fetched = [file.key for file in missing]
    return Fetched(plan, fetched, [f.key for f in plan.files if f.key not in set(fetched)], gained[0])


def _run_all(one: Any, files: list[RemoteFile], workers: int, stop: Event) -> None:
    """Run ``one`` on every file; a file that fails does not lose the others, a full disk stops all."""
    errors: list[SynBrainError] = []
    pool = ThreadPoolExecutor(max_workers=max(workers, 1))
    try:
        pending: set[Future[None]] = {pool.submit(one, file) for file in files}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    future.result()
                except SynBrainError as error:
                    errors.append(error)
                    if "disk is full" in error.problem:
                        raise
    finally:  # Ctrl-C and a full disk included: let the running ones end at their next block
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    if errors:
        others = f" (and {len(errors) - 1} more files failed)" if len(errors) > 1 else ""
        raise SynBrainError(errors[0].problem + others, errors[0].mend) from errors[0]


class _Record:
    """``download.json``: size, ETag, way of verification and time stamp of each finished file."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._files: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}

    def add(self, remote: RemoteFile, how: str, target: Path) -> None:
        about = {"size": remote.size, "etag": remote.etag, "verified": how}
        with self._lock:
            self._files[remote.key] = about | {"mtime_ns": target.stat().st_mtime_ns}
            write_json(self._path, self._files)

    def knows(self, key: str) -> bool:
        return key in self._files

    def vouches(self, remote: RemoteFile, target: Path) -> bool:
        """True where this very file was verified and not touched since."""
        about, now = self._files.get(remote.key, {}), target.stat()
        there = (about.get("size"), about.get("etag"), about.get("mtime_ns"))
        return there == (remote.size, remote.etag, now.st_mtime_ns) and now.st_size == remote.size


def _is_there(source: Bucket, file: RemoteFile, dest: Path, record: _Record, overwrite: bool) -> bool:
    target = dest / file.key
    if not target.exists():
        return False
    if record.vouches(file, target):
        return True
    how = verify(target, file, source)
    if how is not None and not (how == "size" and record.knows(file.key)):
        record.add(file, how, target)
        return True
    if not record.knows(file.key) and not overwrite:
        raise SynBrainError(
            f"{target} differs from the server's file, and no download put it there",
            "move it away, or pass --overwrite",
        )
    return False


def _partial_bytes(target: Path) -> int:
    partial = target.with_name(target.name + ".partial")
    return partial.stat().st_size if partial.exists() else 0


@contextmanager
def _alone(dest: Path) -> Iterator[None]:
    """Keep two downloads into one folder apart, where the system has file locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (dest / ".download.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SynBrainError(
                f"another download is writing to {dest}", "wait for it, or stop it first"
            ) from error
        yield
