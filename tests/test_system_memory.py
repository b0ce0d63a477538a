"""What the C library is told about memory: whole pages alone, and nothing elsewhere than on Linux."""

import ctypes
import mmap
import sys
import types

import numpy as np
import pytest

from synbrain import system_memory

PAGE = mmap.PAGESIZE


def test_whole_pages_inside_are_given_back(monkeypatch):
    given = []
    libc = types.SimpleNamespace(madvise=lambda start, size, advice: given.append((start.value, size.value)))
    monkeypatch.setattr(system_memory, "c_library", lambda name: libc)
    system_memory.page_out(PAGE + 1, 3 * PAGE)
    system_memory.page_out(PAGE + 1, PAGE)  # holds no whole page
    assert given == [(2 * PAGE, 2 * PAGE)]


@pytest.mark.skipif(system_memory.c_library("madvise") is None, reason="the system is not Linux")
def test_pages_of_a_file_go_and_what_they_hold_stays(tmp_path):
    def of_files() -> int:
        with open("/proc/self/status") as file:
            return int(next(line for line in file if line.startswith("RssFile")).split()[1]) * 1024

    np.arange(2_000_000).tofile(tmp_path / "file")
    mapped = np.memmap(tmp_path / "file", dtype=np.int64, mode="r")
    assert mapped.sum() == 1_999_999_000_000
    held = of_files()
    system_memory.page_out(mapped.ctypes.data, mapped.nbytes)
    assert of_files() < held - 10_000_000
    assert mapped.sum() == 1_999_999_000_000


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the C library was opened"))
    system_memory.keep_freed()
    system_memory.page_out(0, 10 * PAGE)
    system_memory.give_back_freed()
