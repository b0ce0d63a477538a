"""Pictures of the viewer's page and of reports, as the docs show them: wide and phone, light and dark.

    synbrain demo --out demo-out
    python docs/screenshots.py demo-out

A browser (Chromium) and playwright are needed. ``--whole FOLDER`` writes whole pages and print instead, to be looked at.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
WIDTHS = (1280, 390)
HEIGHTS = {"viewer": 900, "report": 1500}  # what is seen of a page
MOST_BYTES = 120_000
PATIENCE = 180_000  # ms: software rendering on a busy machine
IMAGES = Path(__file__).parent / "images"


def export_viewer(demo: Path) -> Path:
    """The viewer's page of the demo, with decoded pictures."""
    page = demo / "view.html"
    words = ["view", demo / "run", demo / "dataset", "--decoder", demo / "decoder", "--mni", "--overwrite"]
    subprocess.run([sys.executable, "-m", "synbrain", *words, "--export", page], check=True)
    return page


def save_small(content: bytes, path: Path) -> None:
    """As WebP, with the quality lowered until it is small enough for the docs."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    for quality in range(85, 20, -5):
        small = io.BytesIO()
        picture.save(small, "WEBP", quality=quality, method=6)
        if small.tell() <= MOST_BYTES:
            path.write_bytes(small.getvalue())
            print(f"{path}: {picture.width} x {picture.height}, {small.tell() / 1000:.0f} kB")
            return
    raise SystemExit(f"{path} stays larger than {MOST_BYTES / 1000:.0f} kB")


def shoot(browser: Any, name: str, page: Path, whole: Path | None) -> None:
    """The page at each width, light and dark; whole pages and a printed one into ``whole`` where it is given."""
    height = HEIGHTS.get(name, 900)
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(page.resolve().as_uri(), timeout=PATIENCE)
            if tab.locator("[data-synbrain]").count():
                tab.wait_for_selector("[data-ready]", timeout=PATIENCE)
            tab.wait_for_timeout(500)
            overflow = tab.evaluate("document.documentElement.scrollWidth") - width
            if overflow > 0:
                raise SystemExit(f"{page} is {overflow} px wider than {width}")
            if whole is None:
                save_small(tab.screenshot(), IMAGES / f"{name}-{width}-{scheme}.webp")
            else:
                tab.screenshot(path=whole / f"{name}-{width}-{scheme}.png", full_page=True)
                if (width, scheme) == (1280, "light"):
                    tab.emulate_media(media="print")
                    tab.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dots an inch
                    tab.wait_for_timeout(500)
                    tab.screenshot(path=whole / f"{name}-print.png", full_page=True)
            tab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of `synbrain demo`")
    parser.add_argument("--page", type=Path, action="append", default=[], help="further pages, with --whole")
    parser.add_argument("--whole", type=Path, help="write whole pages and print here, not into the docs")
    given = parser.parse_args()
    pages = {"viewer": export_viewer(given.demo), "report": given.demo / "report.html"}
    pages |= {page.stem: page for page in given.page}
    path = next((place for name in BROWSERS if (place := shutil.which(name))), None)
    if path is None:
        raise SystemExit("no Chromium is installed (apt-get install chromium)")
    if given.whole is not None:
        given.whole.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for name, page in pages.items():
            shoot(browser, name, page, given.whole)
        browser.close()
    for name, page in pages.items():
        print(f"{name}: {page.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
