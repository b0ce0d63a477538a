"""What several folders of tests share: an S3 server on loopback, threads that do not spin, no deadlines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

pytest_plugins = ["fixtures.nsd", "fixtures.recordings", "fixtures.surfaces", "fixtures.training"]

# Read when torch is loaded, which is after this file. On tiny networks more threads only wait for each other:
# on a busy machine of two cores the tests take several times the CPU time without these.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests check behaviour, never a timing: the first example of a process may pay for loading torch.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def s3() -> Iterator[tuple[Any, int]]:
    """A client of a running S3 server, and the server's port; skips where moto is not installed."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    yield client, port
    server.stop()
