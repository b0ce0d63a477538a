"""Freed memory is kept while a stage is trained, and given back afterwards."""

import resource
import sys

import pytest
import torch

from synbrain.networks.fit.memory import _glibc, freed_memory_kept

CPU = torch.device("cpu")
N = 16_000_000  # 64 MB: glibc maps such a block by itself unless told otherwise
PAGE = resource.getpagesize()
needs_glibc = pytest.mark.skipif(_glibc() is None, reason="the C library is not glibc")


def faults_of_rewriting(times: int = 10, n: int = N) -> int:
    """Pages that the system had to hand out while blocks of 4 n bytes were taken and freed."""
    torch.zeros(n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(n)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_a_block_that_was_freed_is_taken_again():
    pages = 4 * N // PAGE
    outside = faults_of_rewriting()
    with freed_memory_kept(CPU):
        inside = faults_of_rewriting()
    assert inside < 2 * pages < outside
    assert faults_of_rewriting() > 5 * pages  # and the usual settings are back


@needs_glibc
def test_memory_is_given_back_in_the_end():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE

    with freed_memory_kept(CPU):
        torch.ones(100_000_000)
        kept = resident()
    assert resident() < kept - 300_000_000


def test_settings_are_back_after_an_error():
    with pytest.raises(ValueError, match="loss"), freed_memory_kept(CPU):
        raise ValueError("loss")
    if _glibc() is not None:
        assert faults_of_rewriting() > 5 * (4 * N // PAGE)


def test_other_devices_and_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept(CPU), freed_memory_kept(torch.device("meta")):
        pass
    assert _glibc() is None
