"""A download through a proxy that breaks things: connections, servers, disks, bytes."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from synbrain.errors import SynBrainError
from synbrain.prepare.nsd import bucket as download_file
from synbrain.prepare.nsd.bucket import Retrying, open_bucket
from synbrain.prepare.nsd.download import plan_nsd
from synbrain.prepare.nsd.options import BUCKET

pytest.importorskip("moto.server")

FAST = Retrying(attempts=4, first_wait=0.01, longest=0.05)
BETAS = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session{:02d}.nii.gz"


def test_dropped_connection_goes_on_at_the_byte(
    nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any
) -> None:
    _, proxy, held = nsd_server
    dropped: list[int] = []

    def fault(method: str, path: str, count: int) -> str | None:
        if (
            method == "GET"
            and "session01" in path
            and len(proxy.gets)
            and proxy.range == "bytes=100000-199999"
        ):
            dropped.append(count)
            return "drop" if len(dropped) < 3 else None
        return None

    proxy.fault = fault
    get_nsd(proxy, tmp_path, workers=1)
    assert len(dropped) == 3
    ranges = [r for path, r in proxy.gets if "session01" in path]
    assert ranges.count("bytes=0-99999") == 1  # what was there is not fetched again
    assert_right(tmp_path, held)


def test_busy_server_is_asked_again(nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any) -> None:
    _, proxy, held = nsd_server
    # by file, as several are fetched at once: counted over all, one file might be refused four times in a row
    proxy.fault = lambda method, path, count: (
        "503" if method == "GET" and sum(asked == path for asked, _ in proxy.gets) % 3 == 1 else None
    )
    get_nsd(proxy, tmp_path)
    assert_right(tmp_path, held)


def test_listing_is_tried_again_too(nsd_server: Any, tmp_path: Path) -> None:
    _, proxy, held = nsd_server
    asked: list[str] = []

    def fault(method: str, path: str, count: int) -> str | None:
        asked.append(path)
        return "503" if len(asked) % 2 else None

    proxy.fault = fault
    plan = plan_nsd(open_bucket(BUCKET, proxy.url), [1], retrying=FAST)
    assert len(asked) > 10
    assert {file.key for file in plan.files} <= set(held)


def test_server_that_stays_broken_is_an_error_that_keeps_the_rest(
    nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any
) -> None:
    _, proxy, held = nsd_server
    proxy.fault = lambda method, path, count: "503" if "session02" in path else None
    with pytest.raises(SynBrainError, match=r"session02.*in a row"):
        get_nsd(proxy, tmp_path)
    assert (tmp_path / BETAS.format(1, 1)).read_bytes() == held[BETAS.format(1, 1)]
    proxy.fault = lambda method, path, count: None
    get_nsd(proxy, tmp_path)
    assert_right(tmp_path, held)


def test_file_that_changes_midway_is_fetched_anew(
    nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any, content_of: Any
) -> None:
    client, proxy, held = nsd_server
    key, newer = BETAS.format(1, 1), content_of("newer", 350_000)

    def fault(method: str, path: str, count: int) -> str | None:
        if method == "GET" and key in path and proxy.range.startswith("bytes=200000") and held[key] != newer:
            held[key] = newer
            client.put_object(Bucket=BUCKET, Key=key, Body=newer, ACL="public-read")
        return None

    proxy.fault = fault
    get_nsd(proxy, tmp_path)
    assert held[key] == newer
    assert_right(tmp_path, held)


def test_partial_of_an_older_version_is_not_continued(
    nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any, content_of: Any
) -> None:
    client, proxy, held = nsd_server
    key = BETAS.format(1, 1)
    proxy.fault = lambda method, path, count: "503" if "bytes=200000" in proxy.range else None
    with pytest.raises(SynBrainError):
        get_nsd(proxy, tmp_path, workers=1)
    assert (tmp_path / (key + ".partial")).stat().st_size == 200_000
    held[key] = content_of("same size, other bytes")
    client.put_object(Bucket=BUCKET, Key=key, Body=held[key], ACL="public-read")
    proxy.fault = lambda method, path, count: None
    get_nsd(proxy, tmp_path)
    assert_right(tmp_path, held)


def test_full_disk_stops_and_the_next_run_finishes(
    nsd_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, get_nsd: Any, assert_right: Any
) -> None:
    _, proxy, held = nsd_server
    real, written = download_file._append, []

    def full(out: Any, block: bytes) -> None:
        written.append(len(block))
        if sum(written) > 150_000:
            real(out, block[: len(block) // 2])  # a full disk takes part of a block
            raise OSError(errno.ENOSPC, "No space left on device")
        real(out, block)

    monkeypatch.setattr(download_file, "_append", full)
    with pytest.raises(SynBrainError, match="disk is full"):
        get_nsd(proxy, tmp_path)
    assert not (tmp_path / BETAS.format(1, 1)).exists()
    assert (tmp_path / (BETAS.format(1, 1) + ".partial")).exists()
    monkeypatch.setattr(download_file, "_append", real)
    get_nsd(proxy, tmp_path)
    assert_right(tmp_path, held)


def test_too_little_space_is_said_before_anything_is_fetched(
    nsd_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, get_nsd: Any
) -> None:
    _, proxy, _ = nsd_server
    usage = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(SynBrainError, match="free"):
        get_nsd(proxy, tmp_path)
    assert not proxy.gets


def test_interrupt_keeps_the_bytes_and_the_next_run_finishes(
    nsd_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, get_nsd: Any, assert_right: Any
) -> None:
    _, proxy, held = nsd_server
    from synbrain.prepare.nsd import download

    real = download.wait

    def interrupted(*args: Any, **options: Any) -> Any:
        real(*args, timeout=0.3)
        raise KeyboardInterrupt

    hold = threading.Event()
    proxy.fault = lambda method, path, count: (
        None if method != "GET" or "bytes=100000" not in proxy.range else str(hold.wait(1.0))
    )
    monkeypatch.setattr(download, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get_nsd(proxy, tmp_path)
    partial = tmp_path / (BETAS.format(1, 1) + ".partial")
    assert 0 < partial.stat().st_size < 300_000
    proxy.fault = lambda method, path, count: None
    proxy.gets.clear()
    monkeypatch.setattr(download, "wait", real)
    get_nsd(proxy, tmp_path)
    assert "bytes=0-99999" not in [r for path, r in proxy.gets if "session01" in path]
    assert_right(tmp_path, held)


def test_rotten_partial_bytes_are_found_by_the_checksum(
    nsd_server: Any, tmp_path: Path, get_nsd: Any, assert_right: Any
) -> None:
    _, proxy, held = nsd_server
    proxy.fault = lambda method, path, count: "503" if "bytes=200000" in proxy.range else None
    with pytest.raises(SynBrainError):
        get_nsd(proxy, tmp_path, workers=1)
    partial = tmp_path / (BETAS.format(1, 1) + ".partial")
    with partial.open("r+b") as handle:
        handle.write(b"rotten")
    proxy.fault = lambda method, path, count: None
    get_nsd(proxy, tmp_path)
    assert_right(tmp_path, held)
