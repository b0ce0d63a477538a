"""A small tree in NSD's layout, simulated once: three subjects, the third with two of three sessions.

And a bucket like NSD's behind a proxy that can break things.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from synbrain.data import download_file
from synbrain.data.download import BUCKET, download_nsd
from synbrain.data.download_file import Retrying
from synbrain.data.simulate import SimulationSize, simulate

SIZE = SimulationSize(
    n_images=40, n_shared=10, sessions=3, trials_per_session=40, shape=(17, 11, 11), voxel_mm=9.0,
    n_voxels=60, side=32,
)  # fmt: skip


@pytest.fixture(scope="session")
def nsd_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree; do not change it."""
    tree = tmp_path_factory.mktemp("nsd") / "tree"
    simulate(tree, subjects=3, size=SIZE, sessions=[3, 3, 2], seed=5)
    return tree


@pytest.fixture
def own_nsd_tree(nsd_tree: Path, tmp_path: Path) -> Path:
    """A copy of the tree that a test may spoil."""
    return Path(shutil.copytree(nsd_tree, tmp_path / "tree"))


@pytest.fixture(scope="session")
def nsd_betas() -> Callable[[Path, int], Path]:
    """The folder of a subject's betas in a tree."""
    version = "betas_fithrf_GLMdenoise_RR"
    return lambda tree, subject: tree / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm" / version


@pytest.fixture(scope="session")
def spoil_betas() -> Callable[[Path, Callable[[np.ndarray], Any]], None]:
    """Writes a session's betas again after a change of the volume."""

    def spoil(path: Path, change: Callable[[np.ndarray], Any]) -> None:
        image = nib.load(path)
        volume = np.array(image.dataobj)
        nib.save(nib.Nifti1Image(change(volume), image.affine), path)

    return spoil


# --- the bucket ----------------------------------------------------------------------------------------

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


@pytest.fixture(scope="session")
def nsd_bucket(s3: tuple[Any, int]) -> tuple[Any, int]:
    """The shared server with NSD's bucket."""
    s3[0].create_bucket(Bucket=BUCKET)
    return s3


def _content(key: str, size: int = 300_000) -> bytes:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).bytes(size)


@pytest.fixture
def nsd_server(
    nsd_bucket: tuple[Any, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Proxy, dict[str, bytes]]]:
    """A small bucket: subject 1 with 40 sessions, subject 3 with 31 of its 32."""
    client, port = nsd_bucket
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


@pytest.fixture(scope="session")
def content_of() -> Callable[..., bytes]:
    """(key, size) to the bytes of that object."""
    return _content


@pytest.fixture(scope="session")
def get_nsd() -> Callable[..., Any]:
    """``download_nsd`` of two sessions of subject 1 through a proxy, impatiently."""
    return _get


@pytest.fixture(scope="session")
def assert_right() -> Callable[..., None]:
    """Every file under a folder is whole and what the bucket holds."""
    return _assert_right
