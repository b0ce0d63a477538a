"""A run and a dataset of a simulated subject with a surface, a server on loopback, and a browser."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.noise import plain_noise
from synbrain.data.dataset import Dataset, load_dataset
from synbrain.data.space import VoxelSpace
from synbrain.features.encoders import get_encoder
from synbrain.linear.path import LinearPath
from synbrain.model.parts import RunConfig, SubjectPart
from synbrain.model.synbrain import SynBrain
from synbrain.prepare.nsd.prepare import prepare_nsd
from synbrain.viewer.options import ViewOptions
from synbrain.viewer.source import Source

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 180_000  # ms: software rendering on a busy machine
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]


def model_on(space: VoxelSpace, unit: str = "percent signal change", name: str = "subj01") -> SynBrain:
    n = space.n_voxels
    encoder = get_encoder("pixels")
    layer = encoder.default_layer
    shape = encoder.layers[layer]
    rng = np.random.default_rng(0)
    ones = np.ones(n, dtype=np.float32)
    projection = rng.normal(size=(shape[0] * shape[1], 3)).astype(np.float32) / 20
    linear = LinearPath(
        {layer: projection}, rng.normal(size=(3, n)).astype(np.float32), 0 * ones, {layer: shape}, {}
    )
    noise = replace(plain_noise(np.full((n, 1), 0.8), error_variance=0.25), skew=0.3 * ones, tail=1.1 * ones)
    part = SubjectPart(name, space, unit, 0 * ones, ones, linear=linear, noise=noise)
    config = RunConfig(encoder="pixels", encoder_digest=encoder.digest, linear_layers=(layer,))
    return SynBrain(config, {name: part})


@pytest.fixture(scope="session")
def shown_dataset(nsd_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("shown") / "data"
    prepare_nsd(nsd_tree, folder, subject=1)
    return load_dataset(folder)


@pytest.fixture(scope="session")
def source(shown_dataset: Dataset) -> Source:
    return Source(model_on(shown_dataset.space), shown_dataset, ViewOptions(trials=2))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., SynBrain]:
    return model_on


@contextmanager
def running(source: Source) -> Iterator[int]:
    """The port of a server that runs in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra view is not installed")
    pytest.importorskip("starlette", reason="the extra view is not installed")
    from synbrain.viewer.server import bind, hosts_of, make_app

    listening = bind(0)
    port = int(listening.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(make_app(source, hosts_of(port)), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield port
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def port(source: Source) -> Iterator[int]:
    with running(source) as number:
        yield number


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium with software WebGL; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A page of the browser that remembers console errors and requests to the outside."""

    def __init__(
        self, browser: Any, url: str, width: int = 1280, scheme: str = "light", ready: bool = True
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, accept_downloads=True
        )
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        base = url.partition("?")[0]
        self.page.on(
            "request",
            lambda r: r.url.startswith((base, "data:", "blob:")) or self.outside.append(r.url),
        )
        self.page.goto(url)
        if ready:  # the cortex; other pages have none
            self.page.wait_for_selector("[data-ready]")

    def colours(self) -> int:
        """Pixels of the canvas that are neither grey nor background."""
        return int(
            self.page.evaluate(
                """() => { const c = document.querySelector('.sv canvas'); 
                const d = document.createElement('canvas');
                d.width = c.width; d.height = c.height; const p = d.getContext('2d'); p.drawImage(c, 0, 0);
                const x = p.getImageData(0, 0, d.width, d.height).data; let n = 0;
                for (let i = 0; i < x.length; i += 4) if (x[i + 3] && Math.max(x[i], x[i+1], x[i+2])
                  - Math.min(x[i], x[i+1], x[i+2]) > 40) n++; return n; }"""
            )
        )

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def watch(browser: Any) -> Iterator[Callable[..., Watched]]:
    opened: list[Watched] = []

    def open_page(url: str, **named: Any) -> Watched:
        opened.append(Watched(browser, url, **named))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()
