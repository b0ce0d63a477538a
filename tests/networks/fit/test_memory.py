"""Freed memory is kept while a stage is trained, and given back afterwards."""

import ctypes
import resource
import subprocess
import sys

import pytest
import torch

from synbrain import system_memory
from synbrain.networks.fit.memory import freed_memory_kept
from synbrain.system_memory import KEEP_ALL, USUAL, c_library

CPU = torch.device("cpu")
PAGE = resource.getpagesize()
needs_glibc = pytest.mark.skipif(c_library("mallopt") is None, reason="the C library is not glibc")
# In a process of its own, whose heap holds no free block that earlier tests left. Blocks of 64 MB: glibc maps
# such a block by itself unless it is told otherwise.
REWRITING = """
import resource, torch
from synbrain.networks.fit.memory import freed_memory_kept

def faults():
    for _ in range(20):  # the first few go to several places
        torch.ones(16_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = faults()
with freed_memory_kept(torch.device("cpu")):
    inside = faults()
print(outside, inside)
"""


@needs_glibc
def test_a_block_that_was_freed_is_taken_again():
    run = subprocess.run([sys.executable, "-c", REWRITING], capture_output=True, text=True, check=True)
    outside, inside = map(int, run.stdout.split())
    pages = 4 * 16_000_000 // PAGE
    assert inside < pages < outside


@needs_glibc
def test_memory_is_given_back_in_the_end():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE

    with freed_memory_kept(CPU):
        torch.ones(100_000_000)
        kept = resident()
    assert resident() < kept - 300_000_000


@needs_glibc
def test_settings_are_back_after_an_error(monkeypatch):
    given = []
    monkeypatch.setattr(system_memory, "_mallopt", given.append)
    with pytest.raises(ValueError, match="loss"), freed_memory_kept(CPU):
        raise ValueError("loss")
    assert given == [KEEP_ALL, USUAL]


def test_other_devices_and_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the C library was opened"))
    with freed_memory_kept(torch.device("meta")):
        pass
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept(CPU):
        pass
