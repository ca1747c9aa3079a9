"""One case from its image to its label, by five people in a browser; axe looks at every page they open.

With CONSOLE_PICTURES it leaves the pictures of docs/images in that folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from pneumoserve.local.process import free_ports
from pneumoserve.local.state import State
from pneumoserve.records import LABEL_WRITERS, REVIEW_WRITERS, Adjudication, Alert, Label, View, read_entries
from pneumoserve.review import CaseBook, ReviewDatabase, ReviewError, commit_to, study_number
from pneumoserve.store import S3Store
from tests.conftest import Stack, start_stack, wait_for
from tests.support import films
from tests.support.cluster.certificates import Authority, new_authority
from tests.support.peers import Mails, mail_server

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
NAMED = {"Pneumoserve-Practitioner": "Dr. A. Example", "Pneumoserve-Reference": "ACC-4711"}
SIZE = {"width": 1280, "height": 800}


@dataclass
class Hospital:
    """A stack whose sender writes mails, a console that people sign in to, and a browser for each of them."""

    stack: Stack
    url: str
    mails: Mails
    database: ReviewDatabase
    cases: CaseBook
    browser: Browser
    pictures: Path
    faults: list[str]

    def person(self, name: str, place: str) -> Page:
        """A browser of one person's own, who opens a page and signs in."""
        page = self.browser.new_context(viewport=SIZE, color_scheme="dark").new_page()
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
        """Whatever a browser complains of on our pages; that a form is refused is no fault."""
        if message.type == "error" and message.location["url"].startswith(self.url) and "422" not in message.text:
            self.faults.append(message.text)

    def look(self, page: Page, name: str) -> None:
        """Have axe look at a page, and take its picture."""
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SIZE["width"], f"{name} is {width} pixels wide"
        page.screenshot(path=self.pictures / f"{name}.png")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, provider: str) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    authority = new_authority(folder)
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    with mail_server(authority) as mails:
        tell_by_mail(folder / "state", mails, authority, url)
        stack = start_stack(folder / "state")
        state = State(stack.state)
        (folder / "secret").write_text("the provider takes any")
        command = [
            *(sys.executable, "-m", "pneumoserve.console", f"--port={port}", f"--url={url}"),
            *(f"--oidc-issuer={provider}", "--oidc-client-id=console", f"--oidc-client-secret={folder / 'secret'}"),
            *(f"--archive-key={state.archive_key_file}", f"--archive-trust={state.archive_trust}"),
            *(f"--sealer-trust={state.sealer_trust}", f"--chance-key={state.chance_key}"),
            *(f"--link-keys={state.link_keys}", f"--envelope-key={state.opening_key}"),
            *(f"--releases={state.releases}", f"--trust={state.trust}"),
        ]
        database_url = f"sqlite:///{folder / 'review.sqlite'}"
        environment = {**os.environ, **stack.s3.to_env(), "REVIEW_DATABASE": database_url}
        with contextlib.ExitStack() as ends:
            console = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            ends.callback(console.wait, 30)
            ends.callback(console.terminate)
            assert url in console.stdout.readline()
            database = ends.enter_context(contextlib.closing(ReviewDatabase(database_url)))
            driver = ends.enter_context(sync_playwright())
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            ends.callback(browser.close)
            pictures = Path(os.environ.get("CONSOLE_PICTURES", folder))
            cases = CaseBook(database, commit_to(S3Store(stack.s3), state.archive_key))
            yield Hospital(stack, url, mails, database, cases, browser, pictures, [])
            console.stdout.close()
        assert stack.stop() == 0


def tell_by_mail(state: Path, mails: Mails, authority: Authority, url: str) -> None:
    """Have the stack's sender write to the ward, with links to the console."""
    mail = {
        "kind": "email", "host": "127.0.0.1", "port": mails.port, "caFile": str(authority.file),
        "sender": "alerts@hospital.example", "to": ["ward@hospital.example"],
    }  # fmt: skip
    steps = [{"afterMinutes": 0, "channels": ["mail"], "who": "the ward"}]
    policy = {"link": f"{url}/alerts/", "channels": {"mail": mail}, "routes": [{"name": "all", "steps": steps}]}
    state.mkdir()
    (state / "alerts.yaml").write_text(yaml.safe_dump(policy))


def refer(stack: Stack) -> str:
    """Send X-rays until one is referred for its type or finding; its prediction id."""
    for film in films.sample_films():
        url = f"{stack.url}/v1/models/pneumonia:predict"
        answer = httpx.post(url, content=film.read_bytes(), headers=NAMED, timeout=60)
        (prediction,) = answer.json()["predictions"]
        if prediction["referred"]:
            return str(prediction["prediction_id"])
    raise AssertionError("no X-ray of the sample is referred")


def read(page: Page, *keys: str) -> None:
    """Take the next study and read it, by keys alone."""
    page.keyboard.press("n")
    page.wait_for_url("**/read")
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("s")
    page.wait_for_url(re.compile(r"/studies/[^/]+$"))


def find_mail(hospital: Hospital, case_id: str) -> EmailMessage:
    """The mail that the stack's sender wrote of a study; it comes a moment after the answer."""
    found: list[EmailMessage] = []

    def has_come() -> bool:
        found[:] = [each for each in list(hospital.mails.taken) if study_number(case_id) in each.get_content()]
        return bool(found)

    wait_for(has_come)
    return found[0]


def answer_alert(hospital: Hospital, case_id: str) -> None:
    """The practitioner opens the link of the mail, takes note and orders a blood test."""
    mail = find_mail(hospital, case_id)
    assert mail["To"] == "ward@hospital.example"
    assert not any(name in mail.as_string() for name in NAMED.values())
    (link,) = re.findall(r"https?://\S+", mail.get_content())
    assert link.startswith(f"{hospital.url}/alerts/")
    doctor = hospital.person("d.1", link.removeprefix(hospital.url))
    assert doctor.url == link
    for word in (*NAMED.values(), study_number(case_id)):
        doctor.get_by_text(word, exact=True).wait_for()
    hospital.look(doctor, "console-alert")
    doctor.keyboard.press("a")
    doctor.get_by_text("d.1 takes care of it").wait_for()
    # Keys are heard once the page's scripts have come.
    doctor.wait_for_load_state("networkidle")
    doctor.keyboard.press("1")
    doctor.keyboard.press("s")
    doctor.get_by_text("was acted on by d.1: a blood test").wait_for()
    hospital.look(doctor, "console-alert-done")
    (alert,) = hospital.cases.load(case_id).of(Alert)
    found = hospital.cases.find_alert(alert.alert_id)
    assert (found.acknowledged_by, found.ordered, found.answered) == ("d.1", "blood_test", True)


def read_first(hospital: Hospital, case_id: str) -> None:
    """The first reader reads it blind, by keys; a mistake keeps what was typed."""
    first = hospital.person("r.1", "/")
    hospital.look(first, "console-home")
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
    hospital.look(first, "console-read")
    first.keyboard.press("s")
    first.wait_for_url(re.compile(rf"/studies/{case_id}$"))
    hospital.look(first, "console-case")


def decide(hospital: Hospital, case_id: str) -> None:
    """A lead decides, and the decision is a label in the archive."""
    lead = hospital.person("l.1", "/adjudications")
    hospital.look(lead, "console-decisions")
    lead.get_by_role("link", name="Study").first.click()
    hospital.look(lead, "console-decide")
    lead.keyboard.press("2")
    lead.keyboard.press("9")
    lead.keyboard.press("s")
    lead.wait_for_url(re.compile(rf"/studies/{case_id}$"))
    lead.get_by_text("Decided").wait_for()


def test_a_case_goes_from_its_image_to_its_label(hospital: Hospital) -> None:
    case_id = refer(hospital.stack)
    answer_alert(hospital, case_id)
    read_first(hospital, case_id)
    # A second one differs, so a third reads it.
    read(hospital.person("r.2", "/"), "1", "7", "4", "p")
    read(hospital.person("r.3", "/"), "2", "8", "5", "p")
    decide(hospital, case_id)
    entries = list(read_entries(hospital.stack.reader, roles=(LABEL_WRITERS, REVIEW_WRITERS)))
    labels = [each for each in entries if isinstance(each, Label)]
    assert [(each.author, each.finding, each.reading.blind) for each in sorted(labels, key=lambda each: each.time)] == [
        ("r.1", "pneumonia", True), ("r.2", "normal", True), ("r.3", "pneumonia", True),
    ]  # fmt: skip
    (decided,) = [each for each in entries if isinstance(each, Adjudication)]
    assert (decided.by, decided.finding, decided.pneumonia_type) == ("l.1", "pneumonia", "viral")
    assert {("d.1", "alert"), ("r.1", "images"), ("r.1", "answer"), ("l.1", "images"), ("l.1", "case")} <= {
        (each.by, each.page) for each in entries if isinstance(each, View)
    }
    # The policy of contents let everything of ours through, and nothing else was tried.
    assert hospital.faults == []


@pytest.mark.parametrize(
    ("person", "place", "name"),
    [
        ("d.1", "/alerts", "console-alerts"),
        ("l.1", "/", "console-home-lead"),
        ("l.1", "/overview", "console-overview"),
        ("l.1", "/incidents/new", "console-incident"),
        ("a.1", "/incidents", "console-incidents"),
        ("a.1", "/studies/nowhere", "console-problem"),
    ],
)
def test_axe_finds_nothing_on_the_other_pages(person: str, place: str, name: str, hospital: Hospital) -> None:
    page = hospital.person(person, place)
    hospital.look(page, name)
    if place == "/overview":
        page.get_by_role("button", name="Sign out").click()
        page.get_by_text("You are signed out").wait_for()
        hospital.look(page, "console-signed-out")


def test_an_incident_and_a_stated_reason_are_pages_too(hospital: Hospital) -> None:
    case_id = refer(hospital.stack)
    wait_for(lambda: case_is_there(hospital, case_id))
    doctor = hospital.person("d.1", f"/studies/{case_id}/break-glass")
    hospital.look(doctor, "console-reason")
    doctor.get_by_label("Your reason").fill("The child worsens, and the PACS is down.")
    doctor.get_by_role("button", name="Show me the study").click()
    doctor.wait_for_url(re.compile(rf"/studies/{case_id}$"))
    hospital.look(doctor, "console-case-seen")
    doctor.get_by_role("link", name="record").click()
    hospital.look(doctor, "console-record")
    doctor.goto(f"{hospital.url}/incidents/new?study={case_id}")
    doctor.get_by_label("A pneumonia was missed").check()
    doctor.get_by_role("button", name="Report it").click()
    doctor.get_by_text("The incident is on record").wait_for()
    hospital.look(doctor, "console-reported")


def case_is_there(hospital: Hospital, case_id: str) -> bool:
    try:
        hospital.cases.load(case_id)
    except ReviewError:
        return False
    return True
