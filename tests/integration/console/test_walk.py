"""One case from its image to its label, by five people in a browser; axe looks at every page they open.

With CONSOLE_PICTURES it leaves the pictures of docs/images in that folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page

from pneumoserve.local.process import free_ports
from pneumoserve.local.state import State
from pneumoserve.records import Alert
from pneumoserve.review import CaseBook, ReviewDatabase, ReviewError, commit_to, study_number
from pneumoserve.store import S3Store
from tests.conftest import Stack, start_stack, wait_for
from tests.support.cluster.certificates import Authority, new_authority
from tests.support.peers import Mails, mail_server
from tests.support.walk import (
    CHROMIUM,
    SIZE,
    People,
    answer_alert,
    check_readings,
    read_to_the_end,
    running_browser,
    send_until,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
NAMED = {"Pneumoserve-Practitioner": "Dr. A. Example", "Pneumoserve-Reference": "ACC-4711"}


@dataclass
class Hospital(People):
    """A stack whose sender writes mails, beside its console; axe looks at every page, of which a picture is kept."""

    stack: Stack
    mails: Mails
    database: ReviewDatabase
    cases: CaseBook
    pictures: Path

    def look(self, page: Page, name: str) -> None:
        """Have axe look at a page, and take its picture."""
        super().look(page, name)
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
            browser = ends.enter_context(running_browser())
            pictures = Path(os.environ.get("CONSOLE_PICTURES", folder))
            cases = CaseBook(database, commit_to(S3Store(stack.s3), state.archive_key))
            yield Hospital(url, browser, stack, mails, database, cases, pictures)
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


def find_mail(hospital: Hospital, case_id: str) -> EmailMessage:
    """The mail that the stack's sender wrote of a study; it comes a moment after the answer."""
    found: list[EmailMessage] = []

    def has_come() -> bool:
        found[:] = [each for each in list(hospital.mails.taken) if study_number(case_id) in each.get_content()]
        return bool(found)

    wait_for(has_come)
    return found[0]


def test_a_case_goes_from_its_image_to_its_label(hospital: Hospital) -> None:
    case_id = send_until(hospital.stack.url, referred=True, headers=NAMED)
    mail = find_mail(hospital, case_id)
    assert mail["To"] == "ward@hospital.example"
    assert not any(name in mail.as_string() for name in NAMED.values())
    (link,) = re.findall(r"https?://\S+", mail.get_content())
    assert link.startswith(f"{hospital.url}/alerts/")
    doctor = answer_alert(hospital, link.removeprefix(hospital.url))
    for word in (*NAMED.values(), study_number(case_id)):
        doctor.get_by_text(word, exact=True).wait_for()
    (alert,) = hospital.cases.load(case_id).of(Alert)
    found = hospital.cases.find_alert(alert.alert_id)
    assert (found.acknowledged_by, found.ordered, found.answered) == ("d.1", "blood_test", True)
    read_to_the_end(hospital, case_id)
    check_readings(hospital.stack.reader)
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
    case_id = send_until(hospital.stack.url, referred=True)
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
