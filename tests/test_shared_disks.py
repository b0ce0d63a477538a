"""Two processes that make one output, and storage that cannot be written to."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synbrain.cli import main
from synbrain.data.dataset import load_dataset
from synbrain.errors import SynBrainError, unreadable
from synbrain.features.store import open_tokens, tokens_folder
from synbrain.files import (
    WORK,
    alone,
    atomic_path,
    beside,
    new_folder,
    require_absent,
    require_writable,
    save_array,
)

MAKE = """
import sys, time
from pathlib import Path
from synbrain.errors import SynBrainError
from synbrain.files import new_folder
out, start = Path(sys.argv[1]), float(sys.argv[2])
for k in range(20):
    time.sleep(max(0.0, start + 0.05 * k - time.time()))
    try:
        with new_folder(out / str(k)) as building:
            for name in "abcde":
                (building / name).write_text(sys.argv[3])
                time.sleep(0.001)
        print("made")
    except SynBrainError as error:
        print("told" if "another process" in str(error) or "exists already" in str(error) else error)
"""


def test_of_two_processes_one_makes_the_whole_folder_twenty_times(tmp_path: Path) -> None:
    import time

    start = str(time.time() + 3)
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, str(tmp_path), start, who], stdout=subprocess.PIPE, text=True
        )
        for who in ("first", "second")
    ]
    ends = [job.communicate(timeout=60)[0].split("\n")[:20] for job in jobs]
    for k, pair in enumerate(zip(*ends, strict=True)):
        assert sorted(pair) == ["made", "told"], pair
        assert sorted(path.name for path in (tmp_path / str(k)).iterdir()) == list("abcde")
        assert len({path.read_text() for path in (tmp_path / str(k)).iterdir()}) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_two_commands_at_once(table_source: Callable[..., Path], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "synbrain.cli",
        "prepare",
        "table",
        str(table_source()),
        str(tmp_path / "out"),
    ]
    jobs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [job.communicate(timeout=120)[1] for job in jobs]
    assert sorted(job.returncode for job in jobs) == [0, 2]
    loser = told[[job.returncode for job in jobs].index(2)]
    assert "Traceback" not in loser
    assert "another process is making" in loser or "exists already" in loser
    assert load_dataset(tmp_path / "out").n_trials == 52


def test_a_process_may_ask_again_and_leaves_no_lock(tmp_path: Path) -> None:
    with alone(tmp_path / "run"), alone(tmp_path / "run"), new_folder(tmp_path / "run") as building:
        (building / "a").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_inherited_stays_and_the_rest_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "training").mkdir(parents=True)
    (out / "training" / "log").write_text("steps")
    with new_folder(out, inherits=["training"]) as building:
        (building / "weights").write_text("1")
    assert (out / "training" / "log").read_text() == "steps"
    with pytest.raises(SynBrainError, match="exists already"), new_folder(out, inherits=["training"]):
        pass


REFUSED = {
    errno.EROFS: "read-only", errno.EACCES: "may not write", errno.EPERM: "may not write",
    errno.ENOTDIR: "a file stands where", errno.EISDIR: "a folder stands",
    errno.EEXIST: "stands there already",
    errno.EDQUOT: "quota", errno.ENOSPC: "disk is full",
}  # fmt: skip


@pytest.mark.parametrize("code", REFUSED)
def test_what_the_disk_refuses_is_one_message(code: int, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    with pytest.raises(SynBrainError, match=REFUSED[code]) as raised, atomic_path(path):
        raise OSError(code, os.strerror(code), str(path))
    assert str(path) in str(raised.value)
    if code not in (errno.EROFS, errno.EDQUOT, errno.ENOSPC):  # an input's own error keeps its words
        with pytest.raises(OSError, match="elsewhere"), atomic_path(path):
            raise OSError(code, os.strerror(code), "/elsewhere/input")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told_before_the_work(
    table_source: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["prepare", "table", str(table_source()), str(tmp_path / "file" / "out")]) == 2
    assert "a file stands where a folder is needed" in capsys.readouterr().err
    require_writable(tmp_path / "new" / "deep" / "out")
    assert not (tmp_path / "new").exists()


def test_a_lock_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "stimuli.hdf5"
    path.write_bytes(b"x")
    error = BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno = 11)")
    told = str(unreadable(path, error))
    assert "locked" in told
    assert "HDF5_USE_FILE_LOCKING" in told
    assert "download" not in told
    cut = OSError("Unable to open file (truncated file: eof = 96, sblock->base_addr = 0, stored_eof = 800)")
    assert "cut short" in str(unreadable(path, cut))  # "sblock" is no lock


def test_tokens_and_scores_go_where_they_are_told(
    table_source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["prepare", "table", str(table_source()), str(tmp_path / "ds")]) == 0
    monkeypatch.setenv(WORK, "unset")
    before = sorted(path.relative_to(tmp_path) for path in (tmp_path / "ds").rglob("*"))
    assert (
        main(["--work", str(tmp_path / "work"), "features", str(tmp_path / "ds"), "--encoder", "pixels"]) == 0
    )
    assert sorted(path.relative_to(tmp_path) for path in (tmp_path / "ds").rglob("*")) == before
    dataset = load_dataset(tmp_path / "ds")
    assert tokens_folder(dataset, "pixels").is_relative_to(tmp_path / "work")
    assert len(open_tokens(dataset, "pixels").rows) == 26
    shutil.copytree(tmp_path / "ds", tmp_path / "other" / "ds")  # another dataset of the same name
    assert beside(tmp_path / "other" / "ds") != beside(tmp_path / "ds")
    monkeypatch.delenv(WORK)
    with pytest.raises(SynBrainError, match="has no tokens"):
        open_tokens(dataset, "pixels")


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"
"""


@pytest.fixture
def read_only(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code with a folder mounted read-only; skips without the right to mount."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    probe = tmp_path / "probe"
    probe.mkdir()
    base = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh"]
    if subprocess.run([*base, str(probe), "true"], capture_output=True).returncode:
        pytest.skip("no right to mount a folder read-only here")

    def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*base, str(folder), *command], capture_output=True, text=True, timeout=120)

    return run


def test_read_only_storage(
    table_source: Callable[..., Path],
    tmp_path: Path,
    read_only: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    store = tmp_path / "store"
    assert main(["prepare", "table", str(table_source()), str(store / "ds")]) == 0
    synbrain = [sys.executable, "-m", "synbrain.cli"]
    told = read_only(store, *synbrain, "features", str(store / "ds"), "--encoder", "pixels")
    assert told.returncode == 2
    assert "the disk is read-only" in told.stderr
    assert "SYNBRAIN_WORK" in told.stderr
    assert "Traceback" not in told.stderr
    work = tmp_path / "work"
    done = read_only(
        store, *synbrain, "features", str(store / "ds"), "--encoder", "pixels", "--work", str(work)
    )
    assert done.returncode == 0, done.stderr
    assert next(work.rglob("tokens.json"))
    told = read_only(store, *synbrain, "prepare", "table", str(tmp_path / "mine"), str(store / "new"))
    assert told.returncode == 2
    assert str(store / "new") in told.stderr
    assert "check images" not in told.stderr  # told before the work


def test_scores_are_shown_where_the_run_cannot_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synbrain.model import folder as model_folder

    monkeypatch.setattr(model_folder, "load_run", lambda path: None)
    monkeypatch.setattr(model_folder, "model_card", lambda parts, scores: "card")
    told = model_folder.refresh_card(tmp_path / "run", {"a": 1})
    assert json.loads((tmp_path / "run" / "scores.json").read_text()) == {"a": 1}
    assert "README.md" in told
    (tmp_path / "taken").write_text("")
    told = model_folder.refresh_card(tmp_path / "taken", {"a": 1})
    assert "the scores are not in the run" in told
    monkeypatch.setenv(WORK, str(tmp_path / "work"))
    told = model_folder.refresh_card(tmp_path / "taken", {"a": 1})
    assert (beside(tmp_path / "taken") / "scores.json").exists()


def test_an_array_is_whole_or_absent(tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", np.arange(3))
    require_absent(tmp_path / "b.npy")
    with pytest.raises(SynBrainError, match="exists already"):
        require_absent(tmp_path / "a.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
