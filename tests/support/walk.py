"""A case from its image to its label: people with browsers at a console, and what each of them does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from pneumoserve.ledger import Reader
from pneumoserve.records import LABEL_WRITERS, REVIEW_WRITERS, Adjudication, Label, View, read_entries
from tests.support import films

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SIZE = {"width": 1280, "height": 800}
# What a page may take on a machine that does much beside.
_MILLISECONDS = 60_000


@contextmanager
def running_browser(*arguments: str) -> Iterator[Browser]:
    """Chromium, for as long as the context lasts."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()


@dataclass
class People:
    """Those who sign in at the console at `url`, each with a browser of their own, and what browsers complained of."""

    url: str
    browser: Browser
    faults: list[str] = field(default_factory=list, init=False)

    def person(self, name: str, place: str) -> Page:
        """A browser of one person's own, who opens a page and signs in."""
        # A gateway's certificate may come from an authority that browsers do not know.
        context = self.browser.new_context(viewport=SIZE, color_scheme="dark", ignore_https_errors=True)
        context.set_default_timeout(_MILLISECONDS)
        page = context.new_page()
        page.on("console", self.note)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.goto(self.url + place)
        if "/alerts/" in place:
            self.look(page, "console-link")
            page.get_by_text("Sign in and see it").click()
        page.locator(f"button[name=sub][value='{name}']").first.click()
        page.wait_for_url(f"{self.url}/**")
        return page

    def note(self, message: ConsoleMessage) -> None:
        """Whatever a browser complains of on our pages; a refused form is no fault, nor are pods that come and go."""
        expected = "422" in message.text or "ERR_NETWORK_CHANGED" in message.text
        if message.type == "error" and message.location["url"].startswith(self.url) and not expected:
            self.faults.append(message.text)

    def look(self, page: Page, name: str) -> None:
        """Have axe look at each new page; it is waited for, since keys are heard once its scripts have come."""
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"


def send_until(url: str, *, referred: bool, headers: Mapping[str, str] | None = None) -> str:
    """Send X-rays until one is referred for its type or finding, or until one is not; its prediction id."""
    place = f"{url}/v1/models/pneumonia:predict"
    for film in films.sample_films():
        answer = httpx.post(place, content=film.read_bytes(), headers=headers, timeout=60)
        assert answer.is_success, answer.text
        (prediction,) = answer.json()["predictions"]
        if prediction["referred"] == referred:
            return str(prediction["prediction_id"])
    raise AssertionError(f"no X-ray of the sample has an answer with referred={referred}")


def read(page: Page, *keys: str) -> None:
    """Take the next study and read it, by keys alone."""
    page.keyboard.press("n")
    page.wait_for_url("**/read")
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("s")
    page.wait_for_url(re.compile(r"/studies/[^/]+$"))


def answer_alert(people: People, link: str) -> Page:
    """The practitioner opens the link, takes note and orders a blood test."""
    doctor = people.person("d.1", link)
    assert doctor.url.endswith(link)
    people.look(doctor, "console-alert")
    doctor.keyboard.press("a")
    doctor.get_by_text("d.1 takes care of it").wait_for()
    # Keys are heard once the page's scripts have come.
    doctor.wait_for_load_state("networkidle")
    doctor.keyboard.press("1")
    doctor.keyboard.press("s")
    doctor.get_by_text("was acted on by d.1: a blood test").wait_for()
    people.look(doctor, "console-alert-done")
    return doctor


def read_first(people: People, case_id: str) -> None:
    """The first reader reads it blind, by keys; a mistake keeps what was typed."""
    first = people.person("r.1", "/")
    people.look(first, "console-home")
    first.keyboard.press("n")
    first.wait_for_url("**/read")
    assert case_id in first.url
    first.locator("figure.viewer[data-shown]").first.wait_for()
    for key in ("1", "9", "4", "c"):
        first.keyboard.press(key)
    first.keyboard.type("Dense at the left base; n is a letter here.")
    first.keyboard.press("Escape")
    first.keyboard.press("p")
    first.keyboard.press("s")
    first.get_by_text("Only pneumonia has a type").wait_for()
    assert first.locator("textarea").input_value().startswith("Dense at the left base")
    first.keyboard.press("2")
    people.look(first, "console-read")
    first.keyboard.press("s")
    first.wait_for_url(re.compile(rf"/studies/{case_id}$"))
    people.look(first, "console-case")
    see_heat_map(people, first)


def see_heat_map(people: People, page: Page) -> None:
    """Have the heat map of a study's first image drawn over it, by a key."""
    page.locator("figure.viewer[data-shown]").first.wait_for()
    assert not page.get_by_text("An aid, not a finding:").first.is_visible()
    page.keyboard.press("h")
    page.get_by_text(re.compile(r"With one place covered it is between 0\.\d+ and 0\.\d+")).wait_for()
    assert page.get_by_text("An aid, not a finding:").first.is_visible()
    people.look(page, "console-heat-map")


def decide(people: People, case_id: str) -> None:
    """A lead decides, and the decision is a label in the archive."""
    lead = people.person("l.1", "/adjudications")
    people.look(lead, "console-decisions")
    lead.get_by_role("link", name="Study").first.click()
    people.look(lead, "console-decide")
    lead.keyboard.press("2")
    lead.keyboard.press("9")
    lead.keyboard.press("s")
    lead.wait_for_url(re.compile(rf"/studies/{case_id}$"))
    lead.get_by_text("Decided").wait_for()


def read_to_the_end(people: People, case_id: str) -> None:
    """The first reader reads it; a second one differs, so a third reads it, and a lead decides."""
    read_first(people, case_id)
    read(people.person("r.2", "/"), "1", "7", "4", "p")
    read(people.person("r.3", "/"), "2", "8", "5", "p")
    decide(people, case_id)


def check_readings(reader: Reader) -> None:
    """See that it is on record, where this case is the only one that was read."""
    entries = list(read_entries(reader, roles=(LABEL_WRITERS, REVIEW_WRITERS)))
    labels = sorted((each for each in entries if isinstance(each, Label)), key=lambda each: each.time)
    assert [(each.author, each.finding, each.reading is not None and each.reading.blind) for each in labels] == [
        ("r.1", "pneumonia", True), ("r.2", "normal", True), ("r.3", "pneumonia", True),
    ]  # fmt: skip
    (decided,) = [each for each in entries if isinstance(each, Adjudication)]
    assert (decided.by, decided.finding, decided.pneumonia_type) == ("l.1", "pneumonia", "viral")
    seen = {(each.by, each.page) for each in entries if isinstance(each, View)}
    assert {("d.1", "alert"), ("l.1", "images"), ("l.1", "case")} <= seen
    assert {page for person, page in seen if person == "r.1"} == {"images", "answer", "heat_map"}
