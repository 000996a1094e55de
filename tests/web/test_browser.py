"""The page in a real browser: bring, paint, reconstruct, compare, cancel, and what goes wrong.

    SPARSEFIELD_SCREENSHOTS=docs/figures python -m pytest -m slow tests/web/test_browser.py

keeps pictures of what the tests see.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def keep(page, name):
    """Keep a picture where somebody asked for it."""
    if folder := os.environ.get("SPARSEFIELD_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.evaluate("window.scrollTo(0, 0)")
        shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        shot.save(Path(folder) / f"page_{name}.webp", quality=88)


def small(page, name="cat", size="64"):
    page.get_by_role("button", name=name).click()
    page.locator("figure canvas").first.wait_for()
    page.select_option("#resolution", size)


def run(page):
    page.click("#run")
    page.wait_for_selector("#keepsakes:not([hidden])")


def missing(page):
    return int(page.inner_text("#given").split(",")[1].split("%")[0].strip().split(".")[0])


def test_a_sample_is_reconstructed_and_compared(page):
    small(page)
    run(page)
    titles = page.locator("figcaption span").all_inner_texts()
    assert titles[:3] == ["Observed", "photographs: mean", "Standard deviation"]
    assert {"nearest", "tps"} <= set(titles)
    notes = page.locator("figcaption small").all_inner_texts()
    assert " dB" in notes[1] and " s" in notes[1]
    page.locator("figure canvas").nth(1).hover(position={"x": 100, "y": 90})
    readout = page.inner_text("#readout")
    assert "row" in readout and "photographs" in readout and "±" in readout and "tps" in readout
    keep(page, "photograph")


def test_samples_move_on_and_from_noise(page):
    small(page)
    page.fill("#count", "3")
    run(page)
    slider = page.get_by_label("Sample", exact=True)
    slider.fill("2")
    assert page.get_by_text("Sample 3 of 3").is_visible()
    page.get_by_role("button", name="From noise").click()
    page.get_by_text("evaluation 2 of").wait_for()
    page.get_by_role("button", name="Stop").click()


def test_painting_by_mouse_and_by_keys_can_be_undone(page):
    small(page)
    page.get_by_role("button", name="Restore all").click()
    assert page.is_disabled("#run") and "erase something" in page.inner_text("#given")
    canvas = page.locator("figure canvas").first
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 220, box["y"] + 60, steps=20)
    page.mouse.up()
    painted = missing(page)
    assert painted > 3 and page.is_enabled("#run")
    canvas.focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert missing(page) > painted
    page.keyboard.press("Control+z")
    assert missing(page) == painted
    page.keyboard.press("Control+z")
    assert page.is_disabled("#run")


def test_zoom_is_one_for_all_panels(page):
    small(page)
    page.fill("#count", "0")
    run(page)
    canvases = page.locator("figure .frame canvas")

    def pictures():
        script = "(all) => all.map((canvas) => canvas.toDataURL())"
        return canvases.evaluate_all(script)

    before = pictures()
    page.click("#zoom-in")
    page.wait_for_timeout(200)
    assert all(a != b for a, b in zip(before, pictures(), strict=True))
    canvases.first.focus()
    page.keyboard.press("0")
    page.wait_for_timeout(200)
    assert pictures()[1:] == before[1:]


def test_an_own_photograph_is_brought_and_its_field_kept(page, tmp_path):
    rows, columns = np.mgrid[:40, :60]
    pixels = np.stack([rows * 6, columns * 4, rows + columns], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.jpg")
    page.set_input_files("#file", tmp_path / "own.jpg")
    page.locator("figure canvas").first.wait_for()
    page.fill("#count", "0")
    run(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="NPZ").click()
    with np.load(download.value.path()) as field:
        assert field["mean"].shape == (40, 60, 3)


def test_a_job_is_cancelled(page):
    small(page, size="128")
    page.fill("#count", "64")
    page.click("#run")
    while page.locator("#progress").evaluate("(bar) => bar.value") <= 0:
        page.wait_for_timeout(50)
    page.click("#cancel")
    page.get_by_text("cancelled", exact=True).wait_for()
    assert page.is_enabled("#run")


def test_what_cannot_be_read_is_said(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_selector("#error:not([hidden])")
    assert "broken.png" in page.inner_text("#error")
    keep(page, "error")


def test_stations_are_read_added_and_removed(page):
    page.get_by_role("button", name="stations").click()
    page.locator("figure canvas").first.wait_for()
    assert "120 stations of temperature" in page.inner_text("#given")
    canvas = page.locator("figure canvas").first
    page.fill("#reading", "25")
    canvas.click(position={"x": 60, "y": 70})
    assert "121 stations" in page.inner_text("#given")
    page.get_by_text("Remove", exact=True).click()
    canvas.click(position={"x": 60, "y": 70})
    assert "120 stations" in page.inner_text("#given")
    page.fill("#cells", "48")
    run(page)
    assert page.locator("figcaption span").all_inner_texts()[1] == "universal: mean"
    page.locator("figure canvas").nth(1).hover(position={"x": 100, "y": 90})
    assert "lon" in page.inner_text("#readout")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    header, *rows = download.value.path().read_text().splitlines()
    assert {"lat", "lon"} <= set(header.split(",")) and len(rows) == 48 * 40
    keep(page, "stations")


@pytest.mark.parametrize(
    "page",
    [
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True},
        {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    ],
    indirect=True,
    ids=["phone", "dark"],
)
def test_phones_and_the_dark(page, request):
    small(page)
    run(page)
    assert page.locator("figure").nth(1).evaluate("(box) => box.getBoundingClientRect().top") < 400
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    keep(page, request.node.callspec.id)
