"""One file of an S3 bucket, fetched to the byte: resumed, retried, verified, renamed when it is right.

While a file is under way there are ``X.partial`` (the bytes so far) and ``X.partial.json`` (the size and
ETag they belong to). A later run goes on at the last byte where the ETag is still the same, and starts
again where the file changed on the server. ``X`` itself appears only when size and checksum are right.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from synbrain.errors import SynBrainError
from synbrain.files import read_json, write_json

Result = TypeVar("Result")
BLOCK = 8 * 2**20  # bytes of one range request: what a dropped connection can lose
MiB = 2**20
RESTARTS = 3  # a file that is wrong or changed this often is given up
# Part sizes that common uploaders use, tried where the server does not tell the size of part 1.
PART_SIZES = tuple(n * MiB for n in (8, 5, 16, 15, 32, 64, 100, 128, 256, 512, 1024))


@dataclass(frozen=True)
class RemoteFile:
    """A file in the bucket: its key, its size in bytes and its ETag (quotes stripped)."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Bucket:
    """A bucket behind an s3fs file system: lists, reads ranges, tells part sizes."""

    fs: Any
    name: str

    def files(self, prefix: str) -> list[RemoteFile]:
        """All files whose key starts with the folder ``prefix``, sorted by key."""
        listing = self.fs.find(f"{self.name}/{prefix}", detail=True)
        return [self._remote(path, about) for path, about in sorted(listing.items())]

    def open(self, key: str) -> Any:
        """A handle whose reads are single range requests that fail where the ETag changed."""
        self.fs.invalidate_cache()
        return self.fs.open(f"{self.name}/{key}", "rb", block_size=BLOCK, cache_type="none")

    def state(self, handle: Any, key: str) -> RemoteFile:
        """Size and ETag of an open handle's file, as the server told them now."""
        return self._remote(f"{self.name}/{key}", handle.details)

    def part_size(self, key: str) -> int | None:
        """Bytes of the first part of a multipart upload, where the server tells them."""
        try:
            head = self.fs.call_s3("head_object", Bucket=self.name, Key=key, PartNumber=1)
        except transient_errors():
            return None
        return int(head["ContentLength"]) or None

    def _remote(self, path: str, about: dict[str, Any]) -> RemoteFile:
        key = path.removeprefix(self.name + "/")
        return RemoteFile(key, int(about["size"]), str(about.get("ETag", "")).strip('"'))


def open_bucket(name: str, endpoint_url: str | None = None) -> Bucket:
    """The bucket ``name``, read without an account.

    Args:
        name: the bucket's name.
        endpoint_url: another S3 server than Amazon's (a mirror, a test).

    Raises:
        SynBrainError: where the extra ``download`` is not installed.
    """
    try:
        s3fs = importlib.import_module("s3fs")
    except ImportError as error:
        raise SynBrainError(
            "downloading needs s3fs, which is not installed", "pip install 'synbrain[download]'"
        ) from error
    fs = s3fs.S3FileSystem(
        anon=True,
        endpoint_url=endpoint_url,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"connect_timeout": 20, "read_timeout": 60, "retries": {"total_max_attempts": 1}},
    )
    fs.retries = 1  # retrying is done here, where what was fetched already is known
    return Bucket(fs, name)


def transient_errors() -> tuple[type[BaseException], ...]:
    """What a broken line or a busy server raises; s3fs turns most of it into OSError."""
    kinds: list[type[BaseException]] = [OSError]
    for module, name in (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError")):
        try:
            kinds.append(getattr(importlib.import_module(module), name))
        except ImportError:
            continue
    return tuple(kinds)


def _is_permanent(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, (FileNotFoundError, PermissionError))


class StoppedError(Exception):
    """The whole download was stopped; what was fetched stays in the partial file."""


class FileChangedError(OSError):
    """The file on the server is another one than the partial bytes belong to."""


@dataclass(frozen=True)
class Retrying:
    """How often and how long to try again.

    Attributes:
        attempts: failures in a row, without one new byte, after which a file is given up.
        first_wait: seconds before the first new try; doubles each time, with jitter, up to ``longest``.
        longest: the longest wait in seconds.
    """

    attempts: int = 8
    first_wait: float = 1.0
    longest: float = 60.0

    def wait(self, failures: int) -> float:
        """Seconds before the try that follows ``failures`` failures in a row."""
        return min(self.first_wait * 2.0 ** (failures - 1), self.longest) * random.uniform(0.75, 1.25)


def patiently(call: Callable[[], Result], retrying: Retrying) -> Result:
    """The result of ``call``, tried again with back-off where the line or the server fails."""
    failures = 0
    while True:
        try:
            return call()
        except transient_errors() as error:
            failures += 1
            if _is_permanent(error) or failures >= retrying.attempts:
                raise
        time.sleep(retrying.wait(failures))


def fetch(
    bucket: Bucket,
    wanted: RemoteFile,
    target: Path,
    *,
    moved: Callable[[int], None],
    stop: Event,
    retrying: Retrying,
) -> tuple[RemoteFile, str]:
    """Fetch one file to ``target``, going on from what an earlier run left.

    Args:
        bucket: where it lies.
        wanted: the file as listed; where it changed since, the newer one is fetched.
        target: its final name; the folder is made.
        moved: told the bytes gained (negative where a changed file makes them void).
        stop: set by the caller to end early.
        retrying: the back-off.

    Returns:
        The file as fetched, and how it was verified: "md5", "multipart md5" or "size".

    Raises:
        SynBrainError: where it cannot be had, is refused, or the disk is full.
        StoppedError: where ``stop`` was set.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    failures = restarts = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            remote = _fetch_rest(bucket, wanted.key, partial, moved, stop)
            how = verify(partial, remote, bucket)
            if how is None:
                raise FileChangedError(f"the checksum of {wanted.key} does not fit its ETag")
            os.replace(partial, target)
            _note_of(partial).unlink(missing_ok=True)
            return remote, how
        except FileChangedError as error:
            restarts += 1
            _discard(partial, moved)
            if restarts > RESTARTS:
                raise SynBrainError(str(error), "try again later") from error
        except transient_errors() as error:
            if _is_permanent(error):
                raise _told(error, wanted.key) from error
            gained = partial.exists() and partial.stat().st_size > before
            failures = 1 if gained else failures + 1
            if failures >= retrying.attempts:
                raise SynBrainError(
                    f"{wanted.key} failed {failures} times in a row ({error})",
                    "run the same command again: it goes on where it stopped",
                ) from error
        if stop.wait(retrying.wait(max(failures, 1))):
            raise StoppedError


def _fetch_rest(
    bucket: Bucket, key: str, partial: Path, moved: Callable[[int], None], stop: Event
) -> RemoteFile:
    with bucket.open(key) as handle:
        remote = bucket.state(handle, key)
        _require_same(partial, remote, moved)
        with partial.open("ab") as out:
            handle.seek(out.tell())
            while (missing := remote.size - out.tell()) > 0:
                if stop.is_set():
                    raise StoppedError
                block = _read(handle, min(BLOCK, missing), key)
                if not block:
                    raise OSError(f"the server ended {key} {missing} bytes early")
                _append(out, block)
                moved(len(block))
            os.fsync(out.fileno())
    return remote


def _read(handle: Any, n_bytes: int, key: str) -> bytes:
    try:
        return bytes(handle.read(n_bytes))
    except OSError as error:
        if type(error).__name__ == "FileExpired":  # s3fs: the If-Match condition failed
            raise FileChangedError(f"{key} keeps changing on the server") from error
        raise


def _append(out: Any, block: bytes) -> None:
    """Write through to the file, so that its length always says what is there."""
    out.write(block)
    out.flush()


def _require_same(partial: Path, remote: RemoteFile, moved: Callable[[int], None]) -> None:
    """Start again where the partial bytes belong to another version of the file."""
    note = _note_of(partial)
    known = read_json(note) if note.exists() else None
    same = known == {"size": remote.size, "etag": remote.etag}
    if partial.exists() and (not same or partial.stat().st_size > remote.size):
        _discard(partial, moved)
    if not same:
        write_json(note, {"size": remote.size, "etag": remote.etag})


def _note_of(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _discard(partial: Path, moved: Callable[[int], None]) -> None:
    if partial.exists():
        moved(-partial.stat().st_size)
        partial.unlink()
    _note_of(partial).unlink(missing_ok=True)


def _told(error: BaseException, key: str) -> SynBrainError:
    if isinstance(error, FileNotFoundError):
        return SynBrainError(f"{key} is not on the server", "check the options, or the bucket's name")
    if isinstance(error, PermissionError):
        return SynBrainError(f"the server refuses {key} ({error})", "see whether it is public")
    return SynBrainError(
        f"the disk is full while fetching {key}",
        "free some space and run the command again: what was fetched is kept",
    )


def verify(path: Path, remote: RemoteFile, bucket: Bucket | None = None) -> str | None:
    """Check a local file against size and ETag.

    A plain ETag is the MD5 of the bytes. That of a multipart upload is the MD5 of the parts' MD5s and
    their number; the part size is asked of the server or inferred. An ETag of another kind (encrypted
    objects, unusual parts) can only be compared by size.

    Returns:
        "md5", "multipart md5" or "size": how the file was found right; None where it is wrong.
    """
    if path.stat().st_size != remote.size:
        return None
    etag, _, count = remote.etag.partition("-")
    if len(etag) != 32 or any(c not in "0123456789abcdef" for c in etag):
        return "size"
    if not count:
        with path.open("rb") as handle:
            return "md5" if hashlib.file_digest(handle, "md5").hexdigest() == etag else None
    size_of_parts = bucket.part_size(remote.key) if bucket is not None else None
    fits = [size for size in _part_sizes(remote.size, int(count)) if size != size_of_parts]
    if size_of_parts is not None and -(-remote.size // size_of_parts) == int(count):
        # The server's word settles it: a mismatch means wrong bytes, unless parts were uneven.
        return "multipart md5" if multipart_etag(path, size_of_parts) == remote.etag else None
    for size in fits:
        if multipart_etag(path, size) == remote.etag:
            return "multipart md5"
    return "size"


def _part_sizes(size: int, count: int) -> list[int]:
    """Usual part sizes that cut ``size`` bytes into ``count`` parts."""
    return [part for part in PART_SIZES if -(-size // part) == count]


def multipart_etag(path: Path, part_size: int) -> str:
    """The ETag that S3 gives a file uploaded in parts of ``part_size`` bytes."""
    digests = []
    with path.open("rb") as handle:
        left = path.stat().st_size
        while left > 0:
            part, in_part = hashlib.md5(usedforsecurity=False), min(part_size, left)
            left -= in_part
            while in_part > 0:
                block = handle.read(min(BLOCK, in_part))
                part.update(block)
                in_part -= len(block)
            digests.append(part.digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
