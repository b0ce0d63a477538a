"""Downloaded bytes against the checksums that the server tells, whole or in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synbrain.prepare.nsd.bucket import RemoteFile, multipart_etag, open_bucket, verify
from synbrain.prepare.nsd.options import BUCKET

pytest.importorskip("moto.server")


def test_multipart_etag_is_verified(nsd_bucket: tuple[Any, int], tmp_path: Path, content_of: Any) -> None:
    client, port = nsd_bucket
    content, part = content_of("multi", 6_000_000), 5 * 2**20 + 7
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


def test_part_size_is_inferred_where_the_server_does_not_tell(tmp_path: Path, content_of: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(content_of("inferred", 9 * 2**20))
    known = RemoteFile("file", 9 * 2**20, multipart_etag(path, 8 * 2**20))
    assert verify(path, known) == "multipart md5"
    assert verify(path, RemoteFile("file", 9 * 2**20, "0" * 32 + "-2")) == "size"  # unusual parts
    assert verify(path, RemoteFile("file", 9 * 2**20, "not-an-md5")) == "size"
    assert verify(path, RemoteFile("file", 9 * 2**20, "0" * 32)) is None
