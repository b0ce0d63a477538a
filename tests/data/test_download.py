"""NSD from a real S3 server on loopback, behind a proxy that breaks things."""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synbrain.cli import main
from synbrain.data import download_file
from synbrain.data.download import download_nsd, fetch_plan, plan_nsd
from synbrain.data.download_file import RemoteFile, Retrying, multipart_etag, open_bucket, verify
from synbrain.errors import SynBrainError

pytest.importorskip("moto.server")

BUCKET = "natural-scenes-dataset"
FAST = Retrying(attempts=4, first_wait=0.01, longest=0.05)
BETAS = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session{:02d}.nii.gz"


class Proxy:
    """Forwards to the S3 server; ``fault(method, path, count)`` may name what to break."""

    def __init__(self, upstream: int) -> None:
        self.fault: Callable[[str, str, int], str | None] = lambda method, path, count: None
        self.count = 0
        self.gets: list[tuple[str, str]] = []
        self.range = ""  # of the latest GET of an object
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _forward(self) -> None:
                path = self.path.partition("?")[0]
                if self.command == "GET" and "?" not in self.path:
                    proxy.count += 1
                    proxy.range = self.headers.get("Range", "")
                    proxy.gets.append((path, proxy.range))
                fault = proxy.fault(self.command, path, proxy.count)
                if fault == "503":
                    self.send_error(503, "Slow Down")
                    return
                ahead = HTTPConnection("127.0.0.1", upstream, timeout=20)
                ahead.request(self.command, self.path, headers=dict(self.headers))
                answer = ahead.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else len(body)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if fault == "drop" else body)
                if fault == "drop":
                    self.wfile.flush()
                    self.close_connection = True
                ahead.close()

            do_GET = do_HEAD = _forward  # noqa: N815

            def log_message(self, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def s3(s3: tuple[Any, int]) -> tuple[Any, int]:
    """The shared server with NSD's bucket."""
    s3[0].create_bucket(Bucket=BUCKET)
    return s3


def _content(key: str, size: int = 300_000) -> bytes:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).bytes(size)


@pytest.fixture
def tree(
    s3: tuple[Any, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Proxy, dict[str, bytes]]]:
    """A small bucket: subject 1 with 40 sessions, subject 3 with 31 of its 32."""
    client, port = s3
    monkeypatch.setattr(download_file, "BLOCK", 100_000)
    keys = ["nsddata/experiments/nsd/nsd_expdesign.mat", "nsddata/experiments/nsd/nsd_stim_info_merged.csv"]
    keys += ["nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "nsddata_stimuli/stimuli/nsd/other.bin"]
    for subject, n_sessions in ((1, 40), (3, 31)):
        keys += [BETAS.format(subject, session + 1) for session in range(n_sessions)]
        keys += [BETAS.format(subject, 1).replace("betas_session01", "ncsnr")]
        keys += [
            f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/{r}.nii.gz" for r in ("nsdgeneral", "streams")
        ]
        keys += [f"nsddata/freesurfer/subj{subject:02d}/label/streams.mgz.ctab"]
        keys += [f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"]
    held = {key: _content(key, 300_000 if "session01" in key else 2_000) for key in keys}
    for key, content in held.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=content, ACL="public-read")
    proxy = Proxy(port)
    yield client, proxy, held
    proxy.close()


def _get(proxy: Proxy, dest: Path, **options: Any) -> Any:
    options = {"subjects": [1], "sessions": "2", "retrying": FAST, "accept_terms": True} | options
    return download_nsd(dest, endpoint_url=proxy.url, bucket=BUCKET, **options)


def _assert_right(dest: Path, held: dict[str, bytes], subjects: tuple[int, ...] = (1,)) -> None:
    files = [p for p in dest.rglob("*") if p.is_file() and p.parent != dest]
    assert not [p for p in files if ".partial" in p.name]
    keys = {str(p.relative_to(dest)) for p in files}
    assert {BETAS.format(s, n) for s in subjects for n in (1, 2)} <= keys
    for key in keys:
        assert (dest / key).read_bytes() == held[key], key


def test_plan_takes_every_session_and_says_where_one_is_missing(tree: Any) -> None:
    _, proxy, held = tree
    plan = plan_nsd(open_bucket(BUCKET, proxy.url), [1, 3])
    keys = {file.key for file in plan.files}
    assert {BETAS.format(1, n + 1) for n in range(40)} <= keys  # the published script stops at 39
    assert keys == set(held) - {"nsddata_stimuli/stimuli/nsd/other.bin"}
    assert plan.n_bytes == sum(len(held[key]) for key in keys)
    assert any("subject 3" in note and "31" in note and "32" in note for note in plan.notes)
    assert "40" not in " ".join(plan.notes)


def test_dry_run_fetches_nothing_and_names_the_terms(
    tree: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, proxy, _ = tree
    words = ["download", "nsd", str(tmp_path / "nsd"), "--subjects", "1", "3", "--endpoint-url", proxy.url]
    assert main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "GB" in printed
    assert "Terms-and-Conditions" in printed
    assert not (tmp_path / "nsd").exists()
    assert not proxy.gets
    assert main(words) == 2
    assert "--accept-terms" in capsys.readouterr().err
    assert not (tmp_path / "nsd").exists()


def test_command_fetches_all_and_then_nothing(
    tree: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, proxy, held = tree
    words = ["download", "nsd", str(tmp_path), "--subjects", "1", "3", "--sessions", "2"]
    words += ["--accept-terms", "--endpoint-url", proxy.url]
    assert main(words) == 0
    _assert_right(tmp_path, held, (1, 3))
    proxy.gets.clear()
    assert main(words) == 0
    assert not proxy.gets
    assert "0 files fetched" in capsys.readouterr().out


def test_dropped_connection_goes_on_at_the_byte(tree: Any, tmp_path: Path) -> None:
    _, proxy, held = tree
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
    _get(proxy, tmp_path, workers=1)
    assert len(dropped) == 3
    ranges = [r for path, r in proxy.gets if "session01" in path]
    assert ranges.count("bytes=0-99999") == 1  # what was there is not fetched again
    _assert_right(tmp_path, held)


def test_busy_server_is_asked_again(tree: Any, tmp_path: Path) -> None:
    _, proxy, held = tree
    proxy.fault = lambda method, path, count: (
        "503" if method == "GET" and count % 3 == 1 and count < 30 else None
    )
    _get(proxy, tmp_path)
    _assert_right(tmp_path, held)


def test_listing_is_tried_again_too(tree: Any, tmp_path: Path) -> None:
    _, proxy, held = tree
    asked: list[str] = []

    def fault(method: str, path: str, count: int) -> str | None:
        asked.append(path)
        return "503" if len(asked) % 2 else None

    proxy.fault = fault
    plan = plan_nsd(open_bucket(BUCKET, proxy.url), [1], retrying=FAST)
    assert len(asked) > 10
    assert {file.key for file in plan.files} <= set(held)


def test_server_that_stays_broken_is_an_error_that_keeps_the_rest(tree: Any, tmp_path: Path) -> None:
    _, proxy, held = tree
    proxy.fault = lambda method, path, count: "503" if "session02" in path else None
    with pytest.raises(SynBrainError, match=r"session02.*in a row"):
        _get(proxy, tmp_path)
    assert (tmp_path / BETAS.format(1, 1)).read_bytes() == held[BETAS.format(1, 1)]
    proxy.fault = lambda method, path, count: None
    _get(proxy, tmp_path)
    _assert_right(tmp_path, held)


def test_file_that_changes_midway_is_fetched_anew(tree: Any, tmp_path: Path) -> None:
    client, proxy, held = tree
    key, newer = BETAS.format(1, 1), _content("newer", 350_000)

    def fault(method: str, path: str, count: int) -> str | None:
        if method == "GET" and key in path and proxy.range.startswith("bytes=200000") and held[key] != newer:
            held[key] = newer
            client.put_object(Bucket=BUCKET, Key=key, Body=newer, ACL="public-read")
        return None

    proxy.fault = fault
    _get(proxy, tmp_path)
    assert held[key] == newer
    _assert_right(tmp_path, held)


def test_partial_of_an_older_version_is_not_continued(tree: Any, tmp_path: Path) -> None:
    client, proxy, held = tree
    key = BETAS.format(1, 1)
    proxy.fault = lambda method, path, count: "503" if "bytes=200000" in proxy.range else None
    with pytest.raises(SynBrainError):
        _get(proxy, tmp_path, workers=1)
    assert (tmp_path / (key + ".partial")).stat().st_size == 200_000
    held[key] = _content("same size, other bytes")
    client.put_object(Bucket=BUCKET, Key=key, Body=held[key], ACL="public-read")
    proxy.fault = lambda method, path, count: None
    _get(proxy, tmp_path)
    _assert_right(tmp_path, held)


def test_full_disk_stops_and_the_next_run_finishes(
    tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, proxy, held = tree
    real, written = download_file._append, []

    def full(out: Any, block: bytes) -> None:
        written.append(len(block))
        if sum(written) > 150_000:
            real(out, block[: len(block) // 2])  # a full disk takes part of a block
            raise OSError(errno.ENOSPC, "No space left on device")
        real(out, block)

    monkeypatch.setattr(download_file, "_append", full)
    with pytest.raises(SynBrainError, match="disk is full"):
        _get(proxy, tmp_path)
    assert not (tmp_path / BETAS.format(1, 1)).exists()
    assert (tmp_path / (BETAS.format(1, 1) + ".partial")).exists()
    monkeypatch.setattr(download_file, "_append", real)
    _get(proxy, tmp_path)
    _assert_right(tmp_path, held)


def test_too_little_space_is_said_before_anything_is_fetched(
    tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, proxy, _ = tree
    usage = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(SynBrainError, match="free"):
        _get(proxy, tmp_path)
    assert not proxy.gets


def test_interrupt_keeps_the_bytes_and_the_next_run_finishes(
    tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, proxy, held = tree
    from synbrain.data import download

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
        _get(proxy, tmp_path)
    partial = tmp_path / (BETAS.format(1, 1) + ".partial")
    assert 0 < partial.stat().st_size < 300_000
    proxy.fault = lambda method, path, count: None
    proxy.gets.clear()
    monkeypatch.setattr(download, "wait", real)
    _get(proxy, tmp_path)
    assert "bytes=0-99999" not in [r for path, r in proxy.gets if "session01" in path]
    _assert_right(tmp_path, held)


def test_rotten_partial_bytes_are_found_by_the_checksum(tree: Any, tmp_path: Path) -> None:
    _, proxy, held = tree
    proxy.fault = lambda method, path, count: "503" if "bytes=200000" in proxy.range else None
    with pytest.raises(SynBrainError):
        _get(proxy, tmp_path, workers=1)
    partial = tmp_path / (BETAS.format(1, 1) + ".partial")
    with partial.open("r+b") as handle:
        handle.write(b"rotten")
    proxy.fault = lambda method, path, count: None
    _get(proxy, tmp_path)
    _assert_right(tmp_path, held)


def test_finished_file_that_was_altered_or_renewed_is_fetched_again(tree: Any, tmp_path: Path) -> None:
    client, proxy, held = tree
    _get(proxy, tmp_path)
    altered, renewed = BETAS.format(1, 1), BETAS.format(1, 2)
    (tmp_path / altered).write_bytes(b"x" * len(held[altered]))
    held[renewed] = _content("renewed", 2_000)
    client.put_object(Bucket=BUCKET, Key=renewed, Body=held[renewed], ACL="public-read")
    assert set(_get(proxy, tmp_path).fetched) == {altered, renewed}
    _assert_right(tmp_path, held)


def test_foreign_file_is_not_overwritten_unless_asked(tree: Any, tmp_path: Path) -> None:
    _, proxy, held = tree
    foreign, same = tmp_path / BETAS.format(1, 1), tmp_path / BETAS.format(1, 2)
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    same.write_bytes(held[BETAS.format(1, 2)])
    with pytest.raises(SynBrainError, match="--overwrite"):
        _get(proxy, tmp_path)
    assert foreign.read_bytes() == b"mine"
    assert BETAS.format(1, 2) in _get(proxy, tmp_path, overwrite=True).present
    _assert_right(tmp_path, held)


def test_multipart_etag_is_verified(s3: tuple[Any, int], tmp_path: Path) -> None:
    client, port = s3
    content, part = _content("multi", 6_000_000), 5 * 2**20 + 7
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="big", ACL="public-read")["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(content), part), 1):
        sent = client.upload_part(
            Bucket=BUCKET, Key="big", UploadId=upload, PartNumber=number, Body=content[start : start + part]
        )
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    client.complete_multipart_upload(
        Bucket=BUCKET, Key="big", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    bucket = open_bucket(BUCKET, f"http://127.0.0.1:{port}")
    (remote,) = [file for file in bucket.files("") if file.key == "big"]
    assert remote.etag.endswith("-2")
    path = tmp_path / "big"
    path.write_bytes(content)
    assert multipart_etag(path, part) == remote.etag
    assert verify(path, remote, bucket) == "multipart md5"  # the server tells the unusual part size
    path.write_bytes(content[:-1] + b"\0")
    assert verify(path, remote, bucket) is None
    path.write_bytes(content[:-1])
    assert verify(path, remote, bucket) is None


def test_part_size_is_inferred_where_the_server_does_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(_content("inferred", 9 * 2**20))
    known = RemoteFile("file", 9 * 2**20, multipart_etag(path, 8 * 2**20))
    assert verify(path, known) == "multipart md5"
    assert verify(path, RemoteFile("file", 9 * 2**20, "0" * 32 + "-2")) == "size"  # unusual parts
    assert verify(path, RemoteFile("file", 9 * 2**20, "not-an-md5")) == "size"
    assert verify(path, RemoteFile("file", 9 * 2**20, "0" * 32)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": [9]}, "no subjects"),
        ({"sessions": "41"}, "40 sessions"),
        ({"sessions": "some"}, "number"),
        ({"betas": "betas_fithrf"}, "nothing like"),
        ({"accept_terms": False}, "terms"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "cannot be listed"),
    ],
)
def test_bad_options_say_the_mend(tree: Any, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    _, proxy, _ = tree
    given = {
        "subjects": [1],
        "accept_terms": True,
        "retrying": FAST,
        "endpoint_url": proxy.url,
        "bucket": BUCKET,
    } | options
    with pytest.raises(SynBrainError, match=message):
        download_nsd(tmp_path, **given)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SynBrainError, match=r"synbrain\[download\]"):
        open_bucket(BUCKET)


def test_two_downloads_into_one_folder_are_kept_apart(tree: Any, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    _, proxy, _ = tree
    source = open_bucket(BUCKET, proxy.url)
    plan = plan_nsd(source, [1], sessions="1")
    with (tmp_path / ".download.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(SynBrainError, match="another download"):
            fetch_plan(source, plan, tmp_path)
