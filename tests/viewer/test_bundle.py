"""The committed bundle is what its source and its lock file give."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB, BUILT = ROOT / "viewer" / "web", ROOT / "src" / "synbrain" / "viewer" / "static"


def test_the_lock_file_fixes_every_version_and_names_no_host() -> None:
    text = (WEB / "package-lock.json").read_text()
    assert "://" not in text
    packages = json.loads(text)["packages"]
    wanted = json.loads((WEB / "package.json").read_text())
    for name, version in (wanted["dependencies"] | wanted["devDependencies"]).items():
        assert packages[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in entry for place, entry in packages.items() if place)
    assert f"three.js {wanted['dependencies']['three']}" in (BUILT / "viewer.js").read_text()[:200]


def test_the_bundle_is_in_step_with_its_source(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (WEB / "node_modules").is_dir():
        pytest.skip("the packages of the viewer's source are not installed (make viewer)")
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=WEB, check=True)
    for name in ("viewer.js", "viewer.css", "LICENSE-three.txt"):
        assert (tmp_path / name).read_bytes() == (BUILT / name).read_bytes(), name
