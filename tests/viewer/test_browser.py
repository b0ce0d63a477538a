"""The page in a real browser: pixels, hover, upload, downloads, dark, phone; no error, no outside request."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from synbrain.data.dataset import Dataset
from synbrain.data.space import VoxelSpace
from synbrain.model.synbrain import SynBrain
from synbrain.viewer.options import ViewOptions
from synbrain.viewer.packing import geometry
from synbrain.viewer.page import exported, page
from synbrain.viewer.source import Source
from synbrain.viewer.view import export_page


@pytest.fixture(scope="module")
def exported_page(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "page.html"
    return export_page(replace(source, options=ViewOptions(images=3, trials=2)), out)


def find_vertex(page: Any) -> tuple[float, float]:
    """A place on the page under which a voxel lies."""
    box = page.locator(".sv canvas").bounding_box()
    for y in range(int(box["height"] * 0.95), 0, -12):
        for x in range(10, int(box["width"]), 12):
            hit = page.evaluate(
                "([x, y]) => { const c = document.querySelector('.sv').viewer.cortex; const h = c.pick(x, y);"
                " return h && c.voxelOf(h.vertex) >= 0 }",
                [x, y],
            )
            if hit:
                return box["x"] + x, box["y"] + y
    raise AssertionError("no voxel is seen")


def test_one_file_shows_the_cortex_without_server_or_network(
    watch: Callable[..., Any], exported_page: Path
) -> None:
    text = exported_page.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://www.nitrc.org", "")
    assert exported_page.stat().st_size < 3_000_000
    shown = watch(exported_page.as_uri())
    assert shown.colours() > 300
    before = shown.page.screenshot()
    shown.page.get_by_role("button", name="sd of single trials").click()
    assert shown.page.screenshot() != before
    assert "sd of single trials" in shown.page.locator(".sv-bar").inner_text()
    for sheet in ("white", "flat"):
        shown.page.get_by_label("surface", exact=True).select_option(sheet)
        assert shown.colours() > 100, sheet
    shown.page.get_by_label("surface", exact=True).select_option("inflated")
    shown.page.get_by_role("button", name="error of the mean (sd)").click()
    assert shown.page.locator(".sv-bar b").inner_text().startswith("error of the mean (sd) (")
    assert shown.page.locator(".sv-bar span").first.inner_text() == "0.00"
    for view in ("below", "left", "right", "inside"):
        shown.page.get_by_label("view", exact=True).select_option(view)
        assert shown.colours() > 100, view
    assert shown.errors == []
    assert shown.outside == []


def test_hover_tells_roi_value_and_ceiling_and_is_never_stale(
    watch: Callable[..., Any], exported_page: Path, source: Source
) -> None:
    shown = watch(exported_page.as_uri())
    x, y = find_vertex(shown.page)
    shown.page.mouse.move(x, y)
    tip = shown.page.locator(".sv-tip")
    first = tip.inner_text()
    assert "percent signal change" in first
    assert "expected response" in first
    assert "ceiling r" in first
    voxel = int(first.split("voxel ")[1].split()[0])
    row = int(source.test_rows[0])
    assert source.dataset is not None
    value = source.model.predict([source.dataset.load_image(row)])[0, voxel] - source._statistics[0][voxel]
    assert f"{value:.2f} percent" in first.replace("−", "-")
    image = [source.dataset.load_image(row)]
    base = source._statistics[0][voxel]
    expected = source.model.predict(image)[0, voxel] - base
    low, high = source.model.interval(image, 0.9)[:, 0, voxel] - base
    told = first.replace("−", "-")
    measured = source._measured(row)[voxel] - base
    assert f"expected {expected:.2f}, measured {measured:.2f}" in told
    assert f"90 % of new trials: {low:.2f} to {high:.2f}" in told
    assert "trial sd 1.00, mean known to ± 0.50 (sd)" in told
    assert "expected response, minus the mean map" in told
    shown.page.keyboard.press("5")  # measured
    second = tip.inner_text()
    assert "measured mean, minus the mean map" in second
    assert f"{measured:.2f} percent" in second.replace("−", "-")
    shown.page.get_by_label("minus the mean map").uncheck()
    shown.page.mouse.move(x, y)
    third = tip.inner_text().replace("−", "-")
    assert "minus the mean map" not in third
    assert f"expected {expected + base:.2f}, measured {measured + base:.2f}" in third


TAP = """([x, y]) => {
  const canvas = document.querySelector(".sv-stage canvas");
  for (const [name, pointerType] of [["pointerdown", "touch"], ["pointerleave", "touch"]])
    canvas.dispatchEvent(new PointerEvent(name, { clientX: x, clientY: y, pointerType, pointerId: 1 }));
}"""


def test_what_a_finger_tapped_on_stays(watch: Callable[..., Any], exported_page: Path) -> None:
    shown = watch(exported_page.as_uri())
    place = find_vertex(shown.page)
    tip = shown.page.locator(".sv-tip")
    shown.page.mouse.move(1, 1)  # a mouse that leaves takes the words along
    assert not tip.is_visible()
    shown.page.evaluate(TAP, place)
    assert "ceiling r" in tip.inner_text()
    assert tip.is_visible()


def test_roi_bars_show_both_uncertainties_apart(
    watch: Callable[..., Any], exported_page: Path, source: Source
) -> None:
    shown = watch(exported_page.as_uri())
    table = shown.page.locator(".sv-rois table")
    head = table.locator("thead th").all_inner_texts()
    assert head[2:5] == ["expected", "trial sd", "error of mean"]
    row = table.locator("tbody tr").first
    name, cells = row.locator("th").inner_text(), row.locator("td").all_inner_texts()
    atlas = shown.page.evaluate("document.querySelector('.sv').viewer.atlases[0].name")
    mask = source.part.space.roi_masks()[f"{atlas}/{name}"]
    assert source.dataset is not None
    image = source.dataset.load_image(int(source.test_rows[0]))
    [(_, known)] = source.model.iter_predictive([image])
    drawn = known.sample(4000, 0)[:, 0, mask].mean(axis=1).std()
    trial, error = float(cells[2]), float(cells[3])
    assert np.hypot(trial, error) == pytest.approx(drawn, rel=0.12)  # trials of ROIs are 100 draws
    line, block = (row.locator(f".sv-track {tag}").bounding_box() for tag in ("u", "b"))
    assert block["width"] < line["width"]
    assert block["y"] > line["y"] + 3 * line["height"]
    colours = [
        row.locator(f".sv-track {tag}").evaluate("e => getComputedStyle(e).backgroundColor")
        for tag in ("u", "b", "i")
    ]
    assert len(set(colours)) == 3
    assert "error of the mean" in table.locator("caption").inner_text()
    for width in (1280, 390):  # every column is seen, none is cut off
        shown.page.set_viewport_size({"width": width, "height": 800})
        section = shown.page.locator(".sv-rois")
        assert section.evaluate("s => s.scrollWidth - s.clientWidth") <= 0, width


def test_a_run_without_trial_noise_claims_no_uncertainty(
    watch: Callable[..., Any], source: Source, tmp_path: Path
) -> None:
    model = SynBrain(source.model.config, {"subj01": replace(source.part, noise=None)})
    silent = Source(model, source.dataset, ViewOptions(images=1))
    shown = watch(export_page(silent, tmp_path / "page.html").as_uri())
    x, y = find_vertex(shown.page)
    shown.page.mouse.move(x, y)
    told = shown.page.locator(".sv-tip").inner_text()
    assert "expected response" in told
    assert "trials" not in told
    assert shown.page.locator(".sv-maps button").count() == 3  # expected, measured, their difference
    assert shown.page.locator(".sv-rois thead th").all_inner_texts()[2:] == [
        "expected",
        "measured",
        "ceiling r",
    ]
    assert shown.errors == []


def test_two_brains_share_one_scale(watch: Callable[..., Any], exported_page: Path) -> None:
    shown = watch(exported_page.as_uri())
    shown.page.get_by_role("button", name="Keep as B").click()
    shown.page.get_by_label("next image").click()
    assert shown.page.locator(".sv-names").inner_text().split("\n") == ["A", "B", "A − B"]
    viewer = "document.querySelector('.sv').viewer"
    a, b, difference = shown.page.evaluate(f"{viewer}.shown.map(([, v]) => Array.from(v))")
    np.testing.assert_allclose(np.subtract(a, b), difference, atol=1e-5)
    assert shown.page.evaluate(f"{viewer}.cortex.panels.length") == 3
    assert shown.page.locator(".sv-bar i").count() == 1
    assert shown.errors == []


def test_the_roi_table_of_two_pictures_has_both_and_their_difference(
    watch: Callable[..., Any], exported_page: Path, source: Source
) -> None:
    shown = watch(exported_page.as_uri(), width=390)
    shown.page.get_by_role("button", name="Keep as B").click()
    shown.page.get_by_label("next image").click()
    table = shown.page.locator(".sv-rois table")
    assert table.locator("thead th").all_inner_texts() == ["ROI", "", "A", "B", "A − B"]
    assert "expected response, minus the mean map" in table.locator("caption").inner_text()
    row = table.locator("tbody tr").first
    atlas = shown.page.evaluate("document.querySelector('.sv').viewer.atlases[0].name")
    mask = source.part.space.roi_masks()[f"{atlas}/{row.locator('th').inner_text()}"]
    dataset, base = source.dataset, source._statistics
    assert dataset is not None
    assert base is not None
    b, a = (int(test_row) for test_row in source.test_rows[:2])  # the first picture was kept as B

    def values() -> list[float]:
        return [float(cell.replace("−", "-")) for cell in row.locator("td").all_inner_texts()[1:]]

    of = {k: source.model.predict([dataset.load_image(k)])[0, mask].mean() for k in (a, b)}
    off = base[0][mask].mean()
    np.testing.assert_allclose(values(), [of[a] - off, of[b] - off, of[a] - of[b]], atol=0.006)
    shown.page.get_by_role("button", name="measured").click()
    of = {k: source._measured(k)[mask].mean() for k in (a, b)}
    np.testing.assert_allclose(values(), [of[a] - off, of[b] - off, of[a] - of[b]], atol=0.006)
    shown.page.get_by_role("button", name="trial sd").click()
    assert values()[2] == pytest.approx(values()[0] - values()[1], abs=0.011)
    assert "minus the mean map" not in table.locator("caption").inner_text()
    section = shown.page.locator(".sv-rois")
    assert section.evaluate("s => s.scrollWidth - s.clientWidth") <= 0
    shown.page.get_by_role("button", name="Stop comparing").click()
    assert "expected" in table.locator("thead th").all_inner_texts()
    assert shown.errors == []


def test_a_dropped_picture_is_answered_and_errors_stand_in_the_page(
    watch: Callable[..., Any], port: int, tmp_path: Path
) -> None:
    shown = watch(f"http://127.0.0.1:{port}/")
    assert shown.colours() > 300
    picture, text = tmp_path / "stripes.png", tmp_path / "words.png"
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[::8] = 255
    Image.fromarray(stripes).save(picture)
    text.write_text("no picture")
    shown.page.locator("input[type=file]").set_input_files(picture)
    shown.page.get_by_text("stripes.png").wait_for()
    assert shown.page.get_by_role("button", name="measured mean").is_disabled()
    place = shown.page.locator(".sv-scrub output")
    assert place.inner_text() == "your own picture"
    shown.page.locator("input[type=file]").set_input_files(text)
    shown.page.get_by_role("alert").wait_for()
    assert "no picture" in shown.page.get_by_role("alert").inner_text()
    assert place.inner_text() == "your own picture"  # it is still the one that is shown
    shown.page.get_by_label("next image").click()
    shown.page.get_by_text("2 of").wait_for()
    assert shown.outside == []
    assert [e for e in shown.errors if "415" not in e] == []  # the browser notes the refused upload itself


def test_two_browsers_at_once(watch: Callable[..., Any], port: int) -> None:
    pages = [watch(f"http://127.0.0.1:{port}/") for _ in range(2)]
    for row in (2, 3):
        for place, shown in enumerate(pages):
            shown.page.locator(".sv-scrub input").evaluate(
                "(s, v) => { s.value = v; s.dispatchEvent(new Event('input')) }", row + place
            )
    names = []
    for place, shown in enumerate(pages):
        shown.page.get_by_text(f"{4 + place} of").wait_for()
        shown.page.locator(".sv-busy").wait_for(state="detached")  # the page forbids evaluated strings
        names.append(shown.page.locator(".sv-caption").first.inner_text())
        assert shown.errors == []
    assert names[0] != names[1]


def test_downloads_open_in_other_tools(
    watch: Callable[..., Any], exported_page: Path, source: Source
) -> None:
    shown = watch(exported_page.as_uri())
    with shown.page.expect_download() as waiting:
        shown.page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    assert len(rows) == source.part.n_voxels
    assert source.dataset is not None
    expected = source.model.predict([source.dataset.load_image(int(source.test_rows[0]))])[0]
    top = np.abs(expected).max()
    np.testing.assert_allclose([float(r["expected"]) for r in rows], expected, atol=top / 30000)
    low, high = source.model.interval([source.dataset.load_image(int(source.test_rows[0]))], 0.9)[:, 0]
    np.testing.assert_allclose([float(r["lower_90"]) for r in rows], low, atol=top / 10000)
    np.testing.assert_allclose([float(r["upper_90"]) for r in rows], high, atol=top / 10000)
    np.testing.assert_allclose([float(r["mean_error_sd"]) for r in rows], 0.5, atol=1e-4)
    with shown.page.expect_download() as waiting:
        shown.page.get_by_role("button", name="PNG").click()
    assert np.asarray(Image.open(waiting.value.path()).convert("RGB")).std() > 3
    files: list[Any] = []
    shown.page.on("download", lambda file: files.append(file))
    shown.page.get_by_role("button", name="GIfTI").click()
    shown.page.wait_for_timeout(800)
    names = sorted(f.suggested_filename for f in files)
    assert [n[-16:] for n in names] == ["_hemi-L.func.gii", "_hemi-R.func.gii"]
    left = next(f for f in files if "hemi-L" in f.suggested_filename)
    copy = Path(left.path()).with_suffix(".gii")
    left.save_as(copy)
    gifti = nib.load(copy)
    assert gifti.meta["AnatomicalStructurePrimary"] == "CortexLeft"
    seen = shown.page.evaluate("Array.from(document.querySelector('.sv').viewer.vertices[0]).slice(0, 10242)")
    np.testing.assert_allclose(
        gifti.darrays[0].data, np.array(seen, dtype=np.float32), rtol=1e-6, equal_nan=True
    )


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light"), (390, "dark")])
def test_dark_and_phone(watch: Callable[..., Any], exported_page: Path, width: int, scheme: str) -> None:
    shown = watch(exported_page.as_uri(), width=width, scheme=scheme)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    back = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = int(back.split("(")[1].split(",")[0])
    assert (level < 60) == (scheme == "dark")
    assert shown.colours() > 100
    tops = {b.bounding_box()["y"] for b in shown.page.locator(".sv-maps button").all()}
    assert len(tops) <= 2  # six maps, three in a row on a phone
    shown.page.keyboard.press("d")
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") != back
    assert shown.errors == []


def test_voxels_without_a_surface_are_a_cloud(
    watch: Callable[..., Any], shown_dataset: Dataset, make_model: Callable[..., SynBrain], tmp_path: Path
) -> None:
    native = replace(shown_dataset.space, fsaverage5=None)
    n = shown_dataset.n_voxels
    table = VoxelSpace(n, "points", positions=native.coordinates())
    for name, space, kind in (
        ("native", native, "points"),
        ("table", table, "points"),
        ("units", VoxelSpace(n), "grid"),
    ):
        assert geometry(space)["kind"] == kind
        dataset = replace(shown_dataset, space=space)
        source = Source(make_model(space), dataset, ViewOptions(trials=1))
        out = tmp_path / f"{name}.html"
        out.write_text(page(exported(source, 2), inline=True))
        shown = watch(out.as_uri())
        assert shown.colours() > 300
        x, y = find_vertex(shown.page)
        shown.page.mouse.move(x, y)
        word = "unit" if name == "units" else "voxel"
        told = shown.page.locator(".sv-tip").inner_text()
        assert told.startswith(f"{word} ")
        assert (" · " in told or "no ROI" in told) == (name == "native")  # no atlas, no word of it
        assert shown.page.locator(".sv-rois table").count() == (name == "native")
        assert shown.page.get_by_label("view", exact=True).count() == (name != "units")
        assert "cortex" not in shown.page.locator("body").inner_text()
        stage = shown.page.locator(".sv canvas").get_attribute("aria-label")
        assert stage.startswith(f"The {word}s with the chosen map")
        assert shown.errors == []
