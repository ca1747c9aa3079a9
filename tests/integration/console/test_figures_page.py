"""The page of metrics in a browser, full of figures: axe looks at it, and the policy of contents lets it through.

The browser's calls are answered by the application inside this process, so that the cohorts can be a hundred days old.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Route, async_playwright

from tests.support.consoles import new_clinic
from tests.support.metrics import read_ward

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
URL = "http://127.0.0.1"


async def test_axe_finds_nothing_on_a_page_full_of_figures(tmp_path: Path) -> None:
    clinic = new_clinic(tmp_path)
    read_ward(clinic.ward, capacity=500)
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
        await page.goto(f"{URL}/overview/metrics?prevalence=0.01")
        await page.get_by_text("At a prevalence of 1 %").first.wait_for()
        await page.wait_for_load_state("networkidle")
        found = await Axe().run(page)
        await page.screenshot(path=tmp_path / "metrics.png", full_page=True)
        assert found.violations_count == 0, found.generate_report()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 1280
        # The style of the plots comes from our own sheet: without it a line has no colour.
        assert await page.locator("line.range").first.evaluate("each => getComputedStyle(each).stroke") != "none"
        await browser.close()
    clinic.ward.database.close()
    assert faults == []
