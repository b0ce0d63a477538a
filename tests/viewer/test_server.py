"""The server lets in its own page and pictures, and nothing else; nothing falls over."""

from __future__ import annotations

import base64
import http.client
import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

pytest.importorskip("starlette", reason="the extra view is not installed")

from synbrain.viewer.server import MAX_BYTES, bind
from synbrain.viewer.source import Source


def ask(
    port: int, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, answer.headers


def png(width: int = 32, height: int = 32) -> bytes:
    content = io.BytesIO()
    rng = np.random.default_rng(width)
    Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def post(port: int, content: bytes, kind: str = "image/png", **headers: str) -> tuple[int, Any]:
    status, answer, _ = ask(port, "/api/predict", "POST", content, Content_Type=kind, **headers)
    return status, json.loads(answer)


def test_the_page_and_its_headers(port: int) -> None:
    status, page, headers = ask(port, "/")
    assert status == 200
    assert b"viewer-data" in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    for path in ("/viewer.js", "/viewer.css"):
        assert ask(port, path)[0] == 200


def test_a_picture_gives_what_the_model_predicts(port: int, source: Source) -> None:
    status, answer = post(port, png(), X_Name="my%20cat.png")
    assert status == 200
    assert answer["name"] == "my cat.png"
    packed = answer["maps"]["expected"]
    values = np.frombuffer(base64.b64decode(packed["data"]), "<i2") * packed["scale"]
    expected = source.model.predict([Image.open(io.BytesIO(png())).convert("RGB")])[0]
    np.testing.assert_allclose(values, expected, atol=np.abs(expected).max() / 30000)
    assert {"expected", "sd", "error", "trials"} == set(answer["maps"])
    assert answer["rois"][0].keys() >= {"atlas", "name", "expected", "sd", "baseline", "ceiling"}


def test_test_images_are_numbers(port: int) -> None:
    status, answer, _ = ask(port, "/api/test?row=1")
    assert status == 200
    assert "measured" in json.loads(answer)["maps"]
    for row in ("-1", "999", "1e0", "../../etc/passwd", "", "1%00", "٣".encode().hex(), "9" * 400):
        status, answer, _ = ask(port, f"/api/test?row={row}")
        assert status == 404, row
        assert b"no test image" in answer


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/../pyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "/static/viewer.js", "//", "/api"],
)
def test_no_path_reaches_the_disk(port: int, path: str) -> None:
    status, answer, _ = ask(port, path)
    assert status == 404
    assert json.loads(answer) == {"error": "there is no such page"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_pages_and_names_are_refused(port: int, headers: dict[str, str]) -> None:
    given = {name: value.format(port=port) for name, value in headers.items()}
    status, answer = post(port, png(), **given)
    assert status == 403
    assert "its own" in answer["error"]
    assert ask(port, "/api/test?row=0", **given)[0] == 403
    if "Host" in given:
        assert ask(port, "/", **given)[0] == 403


def test_its_own_page_is_let_in(port: int) -> None:
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-origin"}
    assert post(port, png(), **own)[0] == 200
    assert ask(port, "/", Host=f"localhost:{port}")[0] == 200
    assert ask(port, "/", Sec_Fetch_Site="cross-site")[0] == 200  # a link to the page opens it


def test_only_pictures_are_taken(port: int) -> None:
    assert post(port, png(), kind="text/plain")[0] == 415
    assert post(port, png(), kind="multipart/form-data; boundary=x")[0] == 415
    assert post(port, b"")[0] == 400
    for content in (
        b"not a picture",
        b"GIF89a",
        png()[:200],
        b"%PDF-1.4",
        b"<svg/>",
        b"%!PS-Adobe EPSF",
    ):
        status, answer = post(port, content)
        assert status == 415, content[:10]
        assert "no picture" in answer["error"] or "cannot be read" in answer["error"]
    assert ask(port, "/api/predict")[0] == 405


def test_large_uploads_are_cut_off(port: int) -> None:
    status, answer = post(port, b"x" * 10, Content_Length=str(MAX_BYTES + 1))
    assert status == 413
    assert "20 MB" in answer["error"]
    assert ask(port, "/")[0] == 200


def test_a_length_that_lies_is_counted(port: int) -> None:
    def endless() -> Any:
        for _ in range(MAX_BYTES // 1_000_000 + 2):
            yield b"\x00" * 1_000_000

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/api/predict", endless(), {"Content-Type": "image/png"})
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):  # closed while it was still being sent
        pass
    finally:
        connection.close()
    assert ask(port, "/")[0] == 200


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_hundred_megapixels_are_refused_unread(port: int) -> None:
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\x00" * (10_000 * 3 + 1) * 100)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    status, answer = post(port, bomb)
    assert status == 413
    assert "100 megapixels" in answer["error"]


def test_zip_bombs_do_not_unpack(port: int) -> None:
    # a small picture whose pixel data unpack to 300 MB: only what the picture needs is read
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(b"\x00" * 1_000_000) for _ in range(300)) + packed.flush()
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    assert len(bomb) < 400_000
    status, _ = post(port, bomb)
    assert status in (200, 415)
    # text that unpacks to 100 MB
    content = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 100_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(content, "PNG", pnginfo=info)
    status, _ = post(port, content.getvalue())
    assert status in (200, 415)
    assert post(port, png())[0] == 200


def test_two_hundred_requests_at_once(port: int) -> None:
    contents = [png(16 + i % 5) for i in range(200)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda c: post(port, c), contents))
    assert {status for status, _ in answers} == {200}
    first = {len(c): a["maps"]["expected"] for c, (_, a) in zip(contents, answers, strict=True)}
    for content, (_, answer) in zip(contents, answers, strict=True):  # no request got another's answer
        assert answer["maps"]["expected"] == first[len(content)]


def test_a_taken_port_gives_another() -> None:
    one = bind(0)
    one.listen()
    other = bind(one.getsockname()[1])
    assert other.getsockname()[1] != one.getsockname()[1]
    assert other.getsockname()[0] == "127.0.0.1"
    one.close()
    other.close()
