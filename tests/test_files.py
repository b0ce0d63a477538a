"""Atomic writes, checksums, arrays: a file stands whole under its name, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from synbrain.errors import SynBrainError
from synbrain.files import (
    allocate_array,
    atomic_path,
    digest,
    digest_of,
    open_array,
    read_json,
    require_absent,
    require_space,
    save_array,
    verify_manifest,
    write_json,
    write_manifest,
    write_text,
    writing,
)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_write_leaves_the_older_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_names_the_file_and_other_errors_pass(tmp_path: Path, code: int) -> None:
    told = pytest.raises(SynBrainError, match=r"(is full|is used up) while writing .*a\.txt")
    with told, atomic_path(tmp_path / "a.txt"):
        raise OSError(code, "no space")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PermissionError), writing(tmp_path):
        raise PermissionError


def test_require_space_looks_at_the_nearest_folder_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, asked = namedtuple("usage", "total used free"), []

    def there(path: Path) -> object:
        asked.append(path)
        return usage(10, 5, 5)

    monkeypatch.setattr(shutil, "disk_usage", there)
    require_space(tmp_path / "a" / "b", 5)
    with pytest.raises(SynBrainError, match="free some space"):
        require_space(tmp_path / "a" / "b", 6)
    assert set(asked) == {tmp_path}


def test_require_absent(tmp_path: Path) -> None:
    require_absent(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    require_absent(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(SynBrainError, match="exists already: pass --overwrite"):
            require_absent(taken)
        require_absent(taken, overwrite=True)


def test_json_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None, "é"]})
    assert read_json(path) == {"a": [1, None, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": [1, None, "é"]}
    path.write_text('{"a": ')
    with pytest.raises(SynBrainError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(SynBrainError, match="is missing"):
        read_json(tmp_path / "b.json")


def test_arrays_are_mapped_and_damage_is_told(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    save_array(tmp_path / "a.npy", values)
    mapped = open_array(tmp_path / "a.npy")
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, values)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0
    content = (tmp_path / "a.npy").read_bytes()
    for broken in (content[:-3], content[:20], b"", b"hello"):
        (tmp_path / "a.npy").write_bytes(broken)
        with pytest.raises(SynBrainError, match="damaged or cut short"):
            open_array(tmp_path / "a.npy")
    with pytest.raises(SynBrainError, match="is missing"):
        open_array(tmp_path / "b.npy")


def test_objects_are_neither_saved_nor_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_array(tmp_path / "a.npy", np.array([{}]))
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(SynBrainError):
        open_array(tmp_path / "b.npy")


def test_allocated_array_has_its_blocks_and_its_values(tmp_path: Path) -> None:
    array = allocate_array(tmp_path / "deep" / "a.npy", (100, 30), np.float32)
    array[3] = 7
    array.flush()
    stat = (tmp_path / "deep" / "a.npy").stat()
    assert stat.st_blocks * 512 >= 100 * 30 * 4
    assert (open_array(tmp_path / "deep" / "a.npy")[3] == 7).all()


def test_allocation_on_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SynBrainError, match="disk is full"):
        allocate_array(tmp_path / "a.npy", (10, 10), np.float32)


def test_manifest_finds_what_was_altered_or_removed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, ["b", "a"])
    verify_manifest(tmp_path)
    (tmp_path / "b").write_text("c")
    verify_manifest(tmp_path, only={"a"})
    with pytest.raises(SynBrainError, match="b was altered"):
        verify_manifest(tmp_path)
    (tmp_path / "b").unlink()
    with pytest.raises(SynBrainError, match="b is missing"):
        verify_manifest(tmp_path)


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})
