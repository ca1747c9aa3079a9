"""Pages of figures in a browser: axe looks at them, and the policy of contents lets them through.

The browser's calls are answered by the application inside this process, so that the cohorts can be a hundred days old.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Route, async_playwright

from tests.support.consoles import new_clinic
from tests.support.drift import put_drift
from tests.support.metrics import read_ward
from tests.support.reviews import Ward

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
URL = "http://127.0.0.1"


@pytest.mark.parametrize(
    ("fill", "place", "shown", "mark"),
    [
        (partial(read_ward, capacity=500), "/overview/metrics?prevalence=0.01", "At a prevalence of 1 %", "line.range"),
        (put_drift, "/overview/drift", "12 windows, 2 of them alarms", "rect.range"),
    ],
    ids=["metrics", "drift"],
)
async def test_axe_finds_nothing_on_a_page_full_of_figures(
    fill: Callable[[Ward], object], place: str, shown: str, mark: str, tmp_path: Path
) -> None:
    clinic = new_clinic(tmp_path)
    fill(clinic.ward)
    clinic.ward.later(days=30)
    auditor = clinic.someone("a.1", "auditor")
    faults: list[str] = []

    async def answer(route: Route) -> None:
        parts = urlsplit(route.request.url)
        given = await auditor.get(f"{parts.path}?{parts.query}")
        await route.fulfill(status=given.status_code, headers=dict(given.headers), body=given.content)

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
        page = await context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        await page.route("**/*", answer)
        await page.goto(f"{URL}{place}")
        await page.get_by_text(shown).first.wait_for()
        await page.wait_for_load_state("networkidle")
        found = await Axe().run(page)
        await page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert found.violations_count == 0, found.generate_report()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 1280
        # The style of the plots comes from our own sheet: without it a line has no colour.
        assert await page.locator(mark).first.evaluate("each => getComputedStyle(each).stroke") != "none"
        await browser.close()
    clinic.ward.database.close()
    assert faults == []
