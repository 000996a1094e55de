"""What the page does at once, in a real browser: nothing stale is reconstructed or shown."""

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


class Held:
    """Requests that the browser sends and that reach the server only later."""

    def __init__(self, page, pattern, method="POST"):
        self.page, self.method, self.routes = page, method, []
        page.route(pattern, self._take)

    def _take(self, route):
        if route.request.method == self.method:
            self.routes.append(route)
        else:
            route.continue_()

    def wait(self, count=1):
        while len(self.routes) < count:
            self.page.wait_for_timeout(20)

    def let(self, number=0):
        """Let one go, and give what could go wrong the time to do so."""
        self.routes[number].continue_()
        self.page.wait_for_timeout(700)


class Asked:
    """The requests that the browser sends from now on."""

    def __init__(self, page):
        self.lines = []
        page.on("request", lambda request: self.lines.append(f"{request.method} {request.url}"))

    def of(self, part):
        return [line for line in self.lines if part in line]


@pytest.fixture
def own(tmp_path):
    """A picture of one's own, 60 pixels wide and 40 high."""
    rows, columns = np.mgrid[:40, :60]
    pixels = np.stack([rows * 6, columns * 4, rows + columns], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    return tmp_path / "own.png"


def cat(page):
    page.get_by_role("button", name="cat").click()
    given(page, "cat.png: 128 × 128")
    page.select_option("#resolution", "64")
    page.fill("#count", "0")


def given(page, text):
    page.locator("#given", has_text=text).wait_for()


def titles(page):
    return page.locator("figcaption span").all_inner_texts()


def run(page):
    page.click("#run")
    page.wait_for_selector("#keepsakes:not([hidden])")
    page.wait_for_selector("#cancel", state="hidden")


def erase(page, height=100):
    """Erase a stripe across the picture."""
    box = page.locator("figure canvas").first.bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + height)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + height, steps=20)
    page.mouse.up()


def nothing_to_reconstruct(page):
    return page.is_disabled("#run") and not titles(page) and page.locator("#keepsakes").is_hidden()


def test_nothing_starts_while_a_file_is_read(page, own):
    cat(page)
    held, asked = Held(page, "**/api/uploads?*"), Asked(page)
    page.set_input_files("#file", own)
    held.wait()
    assert page.inner_text("#given") == "reading own.png …"
    assert page.is_disabled("#run") and page.is_visible("#cancel")
    page.press("#seed", "Enter")
    page.keyboard.press("Control+z")
    page.wait_for_timeout(300)
    assert not asked.of("/api/jobs")
    held.let()
    given(page, "own.png: 60 × 40 pixels")
    run(page)
    assert len(asked.of("/api/jobs?name=own.png")) == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="NPZ").click()
    with np.load(download.value.path()) as field:
        assert field["mean"].shape == (40, 60, 3)


def test_a_sample_that_is_picked_while_a_file_is_read_stays(page, own):
    held = Held(page, "**/api/uploads?*")
    page.set_input_files("#file", own)
    held.wait()
    page.get_by_role("button", name="stations").click()
    given(page, "stations.csv: 120 stations")
    held.let()
    assert "stations.csv: 120 stations" in page.inner_text("#given")
    assert titles(page) == ["Stations"] and page.locator("#paint").is_hidden()


def test_the_last_of_several_samples_is_shown(page):
    held = Held(page, "**/api/samples/*")
    for number, name in enumerate(("cat", "stations", "cat", "stations"), 1):
        page.get_by_role("button", name=name).click()
        held.wait(number)
    held.let(3)
    given(page, "stations.csv")
    for stale in (2, 0, 1):
        held.let(stale)
    assert titles(page) == ["Stations"] and page.is_enabled("#run")


def test_a_file_that_cannot_be_read_leaves_no_field(page, tmp_path):
    cat(page)
    run(page)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_selector("#error:not([hidden])")
    assert "broken.png" in page.inner_text("#error")
    assert nothing_to_reconstruct(page)
    assert page.locator("#paint").is_hidden() and page.inner_text("#given") == ""
    cat(page)
    assert page.is_enabled("#run") and page.locator("#error").is_hidden()


def test_a_picture_that_does_not_arrive_leaves_no_field(page, own):
    cat(page)
    page.route("**/picture.png", lambda route: route.abort())
    page.set_input_files("#file", own)
    page.wait_for_selector("#error:not([hidden])")
    assert nothing_to_reconstruct(page)


def test_a_volume_leaves_no_field(page, tmp_path):
    cat(page)
    rows = "\n".join(f"{i},{i * i % 7},{i % 5},{i}" for i in range(20))
    (tmp_path / "volume.csv").write_text(f"x,y,z,value\n{rows}\n")
    page.set_input_files("#file", tmp_path / "volume.csv")
    page.wait_for_selector("#error:not([hidden])")
    assert "3 coordinates" in page.inner_text("#error") and nothing_to_reconstruct(page)


def test_columns_are_asked_for_until_they_are_right(page, tmp_path):
    cat(page)
    rows = "\n".join(f"{i},{i * i % 7},{i % 5}" for i in range(20))
    (tmp_path / "odd.csv").write_text(f"a,b,c\n{rows}\n3,3,\n4,4,NA\n")
    page.set_input_files("#file", tmp_path / "odd.csv")
    given(page, "odd.csv: columns a, b, c")
    assert nothing_to_reconstruct(page) and "Name the columns" in page.inner_text("#error")
    page.fill("#coords", "a, nowhere")
    page.get_by_role("button", name="Use these columns").click()
    page.locator("#error", has_text="nowhere").wait_for()
    assert nothing_to_reconstruct(page)
    page.fill("#coords", "a, b")
    page.get_by_role("button", name="Use these columns").click()
    given(page, "odd.csv: 20 stations of c over a and b; 2 rows have no value")
    assert page.is_enabled("#run") and page.locator("#error").is_hidden()


def test_a_reading_that_is_cancelled_leaves_all_as_it_was(page, own):
    cat(page)
    run(page)
    before = page.inner_text("#given"), titles(page)
    held = Held(page, "**/api/uploads?*")
    page.set_input_files("#file", own)
    held.wait()
    page.click("#cancel")
    held.let()
    assert (page.inner_text("#given"), titles(page)) == before
    assert page.inner_text("#status") == "cancelled" and page.is_enabled("#run")
    run(page)


def test_what_is_cancelled_while_it_is_sent_is_cancelled_at_the_server(page):
    cat(page)
    held, asked = Held(page, "**/api/jobs?*"), Asked(page)
    page.click("#run")
    held.wait()
    page.click("#cancel")
    assert page.inner_text("#status") == "cancelled" and page.is_enabled("#run")
    held.let()
    assert len(asked.of("/cancel")) == 1
    assert titles(page) == ["Observed"] and page.inner_text("#status") == "cancelled"


def test_a_new_file_ends_the_job(gated, own):
    page, gate = gated
    cat(page)
    page.click("#run")
    page.get_by_text("loading photographs").wait_for()
    asked = Asked(page)
    page.set_input_files("#file", own)
    given(page, "own.png: 60 × 40 pixels")
    assert len(asked.of("/cancel")) == 1
    gate.open.set()
    page.wait_for_timeout(1500)
    assert titles(page) == ["Observed"] and page.locator("#keepsakes").is_hidden()
    run(page)
    assert titles(page)[1] == "photographs: mean"


def test_a_model_that_is_changed_while_another_loads_is_the_next_one(gated):
    page, gate = gated
    cat(page)
    page.click("#run")
    page.get_by_text("loading photographs").wait_for()
    page.select_option("#model", "default")
    assert page.is_disabled("#run")
    gate.open.set()
    page.wait_for_selector("#keepsakes:not([hidden])")
    assert titles(page)[1] == "photographs: mean"
    page.click("#run")
    page.get_by_text("default: mean").wait_for()


def test_a_job_that_is_cancelled_while_a_model_loads_is_never_shown(gated):
    page, gate = gated
    cat(page)
    page.click("#run")
    page.get_by_text("loading photographs").wait_for()
    page.click("#cancel")
    page.select_option("#model", "default")
    page.click("#run")
    gate.open.set()
    page.wait_for_selector("#keepsakes:not([hidden])")
    assert titles(page)[1] == "default: mean"


def test_what_is_erased_while_a_job_runs_is_not_scored(page):
    cat(page)
    run(page)
    scores = page.locator("figcaption small").all_inner_texts()
    held = Held(page, "**/api/jobs?*")
    page.click("#run")
    held.wait()
    before = page.inner_text("#given")
    erase(page)
    assert page.inner_text("#given") != before and page.is_disabled("#run")
    held.let()
    page.wait_for_selector("#cancel", state="hidden")
    again = page.locator("figcaption small").all_inner_texts()
    assert [note.split(" dB")[0] for note in again] == [note.split(" dB")[0] for note in scores]
    assert "changed since" in page.inner_text("#status")
    page.click("#undo")
    assert "changed since" not in page.inner_text("#status")


def test_another_resolution_ends_the_job(page):
    cat(page)
    held, asked = Held(page, "**/api/jobs?*"), Asked(page)
    page.click("#run")
    held.wait()
    page.select_option("#resolution", "48")
    assert page.is_enabled("#run") and page.locator("#cancel").is_hidden()
    held.let()
    assert len(asked.of("/cancel")) == 1 and titles(page) == ["Observed"]


def test_a_station_that_is_added_while_a_job_runs_is_for_the_next(page):
    page.get_by_role("button", name="stations").click()
    given(page, "120 stations")
    page.fill("#cells", "24")
    page.fill("#count", "0")
    held = Held(page, "**/api/jobs?*")
    page.click("#run")
    held.wait()
    page.locator("figure canvas").first.click(position={"x": 60, "y": 70})
    held.let()
    page.wait_for_selector("#keepsakes:not([hidden])")
    assert page.inner_text("#status").startswith("120 observed")
    assert page.inner_text("#status").endswith("changed since")
    assert "121 stations" in page.inner_text("#given")
