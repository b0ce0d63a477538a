"""The local server of ``synbrain view``: one page, two questions, nothing from the disk.

What it lets in:

- only requests whose Host is this server on the loopback interface, so that a rebound name reaches nothing;
- only requests that come from its own page (Origin, Sec-Fetch-Site), so that other pages cannot ask it;
- uploads up to 20 MB of a picture type, looked at for their size in pixels before they are decoded.

No path of a request reaches the disk: every address is a constant, a test image is a number.
"""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import anyio.to_thread
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from synbrain.errors import SynBrainError
from synbrain.features.images import image_at
from synbrain.viewer.page import bundle, page
from synbrain.viewer.source import Source

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Scope = MutableMapping[str, Any]
Handler = Callable[..., Awaitable[Any]]


class RefusedError(Exception):
    """A request that is not answered: an HTTP status and one line of why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Gate:
    """Lets requests of the page itself through, and puts the protective headers on every answer."""

    def __init__(self, app: Handler, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Handler, send: Handler) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Scope) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        why = self._refusal(scope)
        if why is not None:
            await JSONResponse({"error": why}, 403)(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> str | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if len(host) != 1 or host[0].lower() not in self.hosts:
            return "this server answers on its own address alone"
        origins = {f"http://{name}" for name in self.hosts}
        if any(origin.lower() not in origins for origin in headers.get("origin", [])):
            return "this server answers its own page alone"
        site = headers.get("sec-fetch-site", ["none"])[0]
        is_link = scope["method"] == "GET" and scope["path"] == "/"  # a bookmark or a link may open the page
        if site not in ("same-origin", "none") and not is_link:
            return "this server answers its own page alone"
        return None


def read_picture(content: bytes) -> Image.Image:
    """Decode an uploaded picture after a look at its type and size.

    Raises:
        RefusedError: no picture, a type that is not taken, or too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here
            opened = Image.open(BytesIO(content), formats=FORMATS)
            n_pixels = opened.width * opened.height
            if n_pixels > MAX_PIXELS:
                most = MAX_PIXELS // 1_000_000
                raise RefusedError(
                    413, f"the picture has {n_pixels / 1e6:.0f} megapixels, {most} are the most"
                )
            opened.load()
            return image_at([opened], 0)
    except SynBrainError as error:
        raise RefusedError(415, str(error)) from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise RefusedError(415, f"this is no picture that can be read ({', '.join(FORMATS)})") from error


async def read_upload(request: Request) -> bytes:
    """The body, never more than MAX_BYTES of it in memory.

    Raises:
        RefusedError: too long, empty, or not called a picture.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/"):  # a form of another page can only send text or form types
        raise RefusedError(415, "send a picture (PNG, JPEG, WebP, BMP, GIF or TIFF)")
    most = f"a picture may have {MAX_BYTES // 1_000_000} MB at most"
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > MAX_BYTES:
        raise RefusedError(413, most)
    content = bytearray()
    async for block in request.stream():
        content += block
        if len(content) > MAX_BYTES:
            raise RefusedError(413, most)
    if not content:
        raise RefusedError(400, "the picture is empty")
    return bytes(content)


def make_app(source: Source, hosts: frozenset[str]) -> Gate:
    """The application; ``hosts`` are the names (with port) that it answers to."""
    head = source.head("server")
    first = source.of_test_image(0) if len(source.test_rows) else source.of_picture("grey", _grey())
    html = page(head | {"first": first}, inline=False)
    limiter = anyio.CapacityLimiter(1)  # the rest waits without a thread each

    async def show(request: Request) -> Response:
        return Response(html, media_type="text/html; charset=utf-8")

    async def script(request: Request) -> Response:
        return Response(bundle("viewer.js"), media_type="text/javascript")

    async def style(request: Request) -> Response:
        return Response(bundle("viewer.css"), media_type="text/css")

    async def test(request: Request) -> Response:
        row = request.query_params.get("row", "")
        if not (row.isascii() and row.isdigit() and len(row) < 9 and int(row) < len(source.test_rows)):
            raise RefusedError(404, f"there is no test image {row[:20]!r}")
        made = await anyio.to_thread.run_sync(source.of_test_image, int(row), limiter=limiter)
        return _json(made)

    async def predict(request: Request) -> Response:
        content = await read_upload(request)
        name = unquote(request.headers.get("x-name", "picture"))[:120]

        def answer() -> dict[str, Any]:
            return source.of_picture(name, read_picture(content))

        return _json(await anyio.to_thread.run_sync(answer, limiter=limiter))

    routes = [
        Route("/", show),
        Route("/viewer.js", script),
        Route("/viewer.css", style),
        Route("/api/test", test),
        Route("/api/predict", predict, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            RefusedError: _refused, SynBrainError: _failed, ClientDisconnect: _failed,
            404: _no_page, 405: _no_page,
        },
    )  # fmt: skip
    return Gate(app, hosts)


def _json(content: Any) -> Response:
    return Response(json.dumps(content, allow_nan=False), media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": str(error)}, error.status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _no_page(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is no such page"}, getattr(error, "status_code", 404))


def _grey() -> Image.Image:
    return Image.new("RGB", (224, 224), (127, 127, 127))


def bind(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1: ``port``, or any free one where it is taken."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError:
        listening.bind(("127.0.0.1", 0))
    return listening


def hosts_of(port: int) -> frozenset[str]:
    """The names under which a browser on this machine reaches ``port``."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))


def serve(app: Gate, listening: socket.socket) -> None:
    """Answer until Ctrl-C."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=5)
    uvicorn.Server(config).run(sockets=[listening])
