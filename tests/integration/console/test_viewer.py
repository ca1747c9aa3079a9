"""The viewer in a browser: what mouse, keys and buttons make of the pixels, under the policy of the console's pages."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from pneumoserve.canonical import digest_of
from pneumoserve.console.heat_maps import HeatMap, HeatMapBusyError
from pneumoserve.records import image_key
from tests.conftest import wait_for
from tests.support.consoles import Clinic, cookie_of, new_clinic
from tests.support.films import encoded

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
# Dark at its left and bright at its right, darker towards its bottom; twice as wide as high.
SIDE = 400
DEEP = np.add.outer(-20 * np.arange(SIDE // 2), 100 * np.arange(SIDE)) + 10_000
FILE = encoded(Image.fromarray(DEEP.astype(np.uint16)), "PNG")
COUNT_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    made = new_clinic(tmp_path)
    yield made
    made.ward.database.close()


@pytest.fixture
def url(clinic: Clinic) -> Iterator[str]:
    """The address of a console over the clinic, in a thread of its own."""
    server = uvicorn.Server(uvicorn.Config(clinic.app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


class Viewer:
    """The page of a study with one image."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.canvas = page.get_by_role("application", name="Image 1 of 1")

    def wait(self) -> None:
        self.page.locator("figure[data-shown]").wait_for()

    def state(self) -> str:
        self.draw()
        return self.page.locator("output").inner_text()

    def draw(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def gray(self, across: float = 0.5, down: float = 0.5) -> int:
        """The gray value at a place of the canvas, from its left and top as parts of its sides."""
        return self._color(across, down)[0]

    def reddish(self, across: float = 0.5, down: float = 0.5) -> int:
        """By how much a place is redder than it is blue: orange is above 0, blue below it, gray at 0."""
        red, blue = self._color(across, down)
        return red - blue

    def _color(self, across: float, down: float) -> tuple[int, int]:
        """Red and blue at a place of the canvas."""
        self.draw()
        red, _, blue, _ = self.canvas.evaluate(
            """(canvas, [across, down]) => {
                const [x, y] = [Math.floor(across * (canvas.width - 1)), Math.floor(down * (canvas.height - 1))];
                return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
            }""",
            [across, down],
        )
        return red, blue

    def drag(self, right: int, down: int, button: str = "left") -> None:
        box = self.canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down(button=button)
        mouse.move(x + right, y + down, steps=4)
        mouse.up(button=button)


@pytest.fixture
def viewer(clinic: Clinic, url: str, browser: Browser) -> Iterator[Viewer]:
    clinic.study_of(FILE, "image/png")
    now = int(time.time())
    cookie = cookie_of({"name": "r.1", "roles": ["reader"], "since": now, "seen": now})
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    context.add_cookies([{"name": "console", "value": cookie, "url": url}])
    page = context.new_page()
    page.add_init_script(COUNT_VIOLATIONS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    page.keyboard.press("n")
    page.wait_for_url("**/read")
    made = Viewer(page)
    yield made
    assert (page.evaluate("violations"), faults) == ([], [])
    context.close()


def test_the_whole_image_is_shown_from_its_darkest_to_its_brightest(viewer: Viewer) -> None:
    viewer.wait()
    # Wider than the canvas is, so there is black above.
    assert viewer.gray(0.5, 0.01) == 0
    assert viewer.gray(0.02) < 30
    assert 110 < viewer.gray() < 140
    assert viewer.gray(0.98) > 220
    assert not viewer.page.get_by_role("button", name="Load it again").is_visible()
    assert viewer.state() == f"Level {(DEEP.min() + DEEP.max()) // 2} · width {DEEP.max() - DEEP.min()} · 100 %"
    assert Axe().run(viewer.page).violations_count == 0


def test_dragging_changes_brightness_and_contrast(viewer: Viewer) -> None:
    viewer.wait()
    before, left, right = viewer.gray(), viewer.gray(0.1), viewer.gray(0.9)
    viewer.drag(0, -60)
    assert viewer.gray() > before + 20
    viewer.drag(0, 60)
    viewer.drag(-120, 0)
    assert viewer.gray(0.9) - viewer.gray(0.1) > right - left + 20


def test_the_image_is_zoomed_about_the_pointer_and_moved(viewer: Viewer) -> None:
    viewer.wait()
    bright, dark = viewer.gray(0.9), viewer.gray(0.1)
    box = viewer.canvas.bounding_box()
    viewer.page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    viewer.page.mouse.wheel(0, -100)
    viewer.page.mouse.wheel(0, -100)
    assert abs(viewer.gray(0.9) - bright) < 4
    assert viewer.gray(0.1) > dark + 40
    middle = viewer.gray()
    viewer.drag(150, 0, button="right")
    assert viewer.gray() < middle - 10
    assert "156 %" in viewer.state()


def test_keys_alone_do_all_of_it_and_leave_the_form_to_its_own(viewer: Viewer) -> None:
    viewer.wait()
    keys = viewer.page.keyboard
    keys.press("1")
    keys.press("ArrowRight")
    # Arrows are the form's where the form has the keys.
    assert viewer.state().endswith("100 %")
    assert viewer.page.locator("input[name=finding][value=pneumonia]").is_checked()
    first, left, right = viewer.gray(), viewer.gray(0.1), viewer.gray(0.9)
    keys.press("v")
    keys.press("ArrowUp")
    brighter = viewer.gray()
    assert brighter > first + 5
    keys.press("ArrowDown")
    for _ in range(5):
        keys.press("ArrowRight")
    assert viewer.gray(0.9) - viewer.gray(0.1) > right - left + 20
    keys.press("0")
    keys.press("i")
    assert abs(viewer.gray(0.1) - (255 - left)) < 3
    keys.press("i")
    keys.press("r")
    # Its left is above now, and it is narrower than the canvas.
    assert viewer.gray(0.5, 0.1) < 60
    assert viewer.gray(0.5, 0.9) > 190
    assert viewer.gray(0.02) == 0
    assert viewer.state().endswith("turned 90°")
    for _ in range(3):
        keys.press("r")
    for _ in range(4):
        keys.press("+")
    keys.press("Shift+ArrowLeft")
    assert viewer.gray() > first + 3
    keys.press("0")
    assert (viewer.gray(), viewer.gray(0.1), viewer.gray(0.9)) == (first, left, right)
    keys.press("c")
    keys.type("irr0")
    assert viewer.page.locator("textarea").input_value() == "irr0"
    assert viewer.state().endswith("100 %")


def test_every_button_does_something(viewer: Viewer) -> None:
    viewer.wait()
    for name in ("Brighter", "Darker", "More contrast", "Less contrast", "Zoom in", "Invert", "Rotate", "Reset"):
        before = viewer.state()
        viewer.page.get_by_role("button", name=name).click()
        wait_for(lambda before=before: viewer.state() != before)
    assert viewer.state().endswith("· 100 %")


def test_an_image_that_is_gone_is_said_so_in_its_place_and_the_form_still_works(viewer: Viewer, clinic: Clinic) -> None:
    viewer.wait()
    key = image_key(digest_of(FILE))
    clinic.ward.memory.hide(key)
    viewer.page.reload()
    viewer.page.get_by_role("alert").get_by_text("The store no longer has this image").wait_for()
    assert Axe().run(viewer.page).violations_count == 0
    for pressed in ("i", "r", "v", "ArrowUp", "2", "9", "4", "p"):
        viewer.page.keyboard.press(pressed)
    clinic.ward.store.put(key, FILE, "image/png")
    viewer.page.get_by_role("button", name="Load it again").click()
    viewer.wait()
    assert viewer.page.get_by_role("alert").count() == 0
    viewer.page.keyboard.press("s")
    viewer.page.get_by_text("What the model answered").wait_for()


@pytest.fixture
def case_page(viewer: Viewer, clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> Viewer:
    """The page of the study after it was read, with a heat map whose lower right place alone is hot."""
    falls = np.zeros((13, 13))
    falls[12, 12], falls[0, 0] = 2.0, -2.0
    monkeypatch.setattr(clinic.services.heat_maps, "make", lambda _: HeatMap(falls, 0.9, 0.6, 0.95))
    viewer.wait()
    for key in ("2", "9", "4", "p", "s"):
        viewer.page.keyboard.press(key)
    viewer.page.get_by_text("What the model answered").wait_for()
    viewer.wait()
    return viewer


def test_a_heat_map_is_drawn_over_the_image_and_away_again_by_keys(case_page: Viewer) -> None:
    """It lies on the image however that is zoomed, moved or turned."""
    viewer, keys = case_page, case_page.page.keyboard
    shape = "canvas => [canvas.clientWidth, canvas.clientHeight]"
    width, height = viewer.canvas.evaluate(shape)
    # The image is twice as wide as high, and as wide as the canvas.
    high = width / 2 / height
    right_below, left_above = (0.93, 0.5 + 0.43 * high), (0.07, 0.5 - 0.43 * high)
    label = viewer.page.get_by_text("An aid, not a finding:")
    assert (viewer.reddish(*right_below), viewer.reddish(*left_above), label.is_visible()) == (0, 0, False)
    keys.press("h")
    viewer.page.get_by_text("With one place covered it is between 0.600 and 0.950").wait_for()
    assert label.is_visible()
    assert viewer.page.get_by_role("button", name="Heat map").get_attribute("aria-pressed") == "true"
    assert viewer.reddish(*right_below) > 40
    assert viewer.reddish(*left_above) < -40
    assert viewer.reddish() == 0
    assert viewer.state().endswith("heat map 60 %")
    assert Axe().run(viewer.page).violations_count == 0
    before = viewer.reddish(*right_below)
    keys.press(",")
    assert 0 < viewer.reddish(*right_below) < before
    for _ in range(2):
        keys.press(".")
    assert viewer.reddish(*right_below) > before
    keys.press("r")
    keys.press("r")
    assert viewer.reddish(*left_above) > 40
    keys.press("h")
    assert (viewer.reddish(*left_above), label.is_visible()) == (0, False)
    assert viewer.state().endswith("turned 180°")


def test_a_heat_map_that_there_is_not_is_said_so_and_may_be_asked_for_again(
    case_page: Viewer, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = case_page

    def refuse(_: object) -> HeatMap:
        raise HeatMapBusyError

    with monkeypatch.context() as patched:
        patched.setattr(clinic.services.heat_maps, "make", refuse)
        viewer.page.get_by_role("button", name="Heat map").click()
        viewer.page.get_by_role("alert").get_by_text("busy with other heat maps; try again").wait_for()
    assert Axe().run(viewer.page).violations_count == 0
    assert not viewer.page.get_by_role("button", name="Load it again").is_visible()
    viewer.page.get_by_role("button", name="Heat map").click()
    viewer.page.get_by_text("With one place covered").wait_for()
    assert viewer.page.get_by_role("alert").count() == 0


def test_before_the_reading_is_saved_no_key_asks_for_a_heat_map(viewer: Viewer) -> None:
    viewer.wait()
    asked: list[str] = []
    viewer.page.on("request", lambda request: asked.append(request.url))
    for key in ("h", ",", "."):
        viewer.page.keyboard.press(key)
    assert viewer.state().endswith("100 %")
    assert asked == []


def test_the_policy_refuses_code_made_of_text(viewer: Viewer) -> None:
    """So the count of violations that every test here ends with would see one."""
    viewer.wait()
    viewer.page.evaluate("setTimeout('window.ran = true', 0)")
    wait_for(lambda: viewer.page.evaluate("violations.splice(0)") == ["script-src"])
    assert viewer.page.evaluate("window.ran") is None
