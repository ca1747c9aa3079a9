"""People decide what the model should not: alert sender, console and random check in the cluster.

People sign in through real Envoy Gateway, in a browser, at a provider outside of the cluster.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from pneumoserve.ids import time_of
from pneumoserve.records import REVIEW_WRITERS, Alert, AlertEvent, Draw, Entry, find_record, read_entries
from pneumoserve.review import study_number
from tests.e2e.conftest import Cluster, Images, named, restricted_namespace
from tests.e2e.product import NAME, SMALL, Product, wait_until
from tests.support.cluster.certificates import new_authority
from tests.support.cluster.node import ADDRESS
from tests.support.peers import Mails, mail_server
from tests.support.postgres import server
from tests.support.provider import running_provider
from tests.support.walk import (
    CHROMIUM,
    People,
    answer_alert,
    check_readings,
    read,
    read_to_the_end,
    running_browser,
    send_until,
)

pytestmark = pytest.mark.skipif(
    "KUBECONFIG" in os.environ or CHROMIUM is None,
    reason="provider and mail server listen on our own node's address, and people need Chromium",
)
HOST: Final = "room.example.org"
CONSOLE: Final = "console.example.org"
URL: Final = f"https://{CONSOLE}"
PRACTITIONER: Final = "dr-4711"
REFERENCE: Final = "ACC-2026-0815"
SELECTOR: Final = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component"
PASSWORD: Final = "of the mail server"
CALL: Final = {
    "Host": HOST, "Content-Type": "image/jpeg",
    "Pneumoserve-Practitioner": PRACTITIONER, "Pneumoserve-Reference": REFERENCE,
}  # fmt: skip


@dataclass
class Room:
    """An install with all that people need, who they are, and what was mailed to them."""

    product: Product
    gateway: str
    mails: Mails
    people: People
    issuer: str
    secure_gateway: str
    trust: ssl.SSLContext

    def ask(self, place: str) -> httpx.Response:
        """What the console answers to somebody who has not signed in."""
        with httpx.Client(verify=self.trust, timeout=30) as client:
            return client.get(
                f"https://{self.secure_gateway}{place}", headers={"Host": CONSOLE}, extensions={"sni_hostname": CONSOLE}
            )

    def wait_for_page(self, place: str) -> None:
        """Wait until the console shows a page to whoever has not signed in."""
        wait_until(lambda: self.ask(place).status_code == 200, 120, f"an answer of the console to {place}")

    def mails_of(self, case_id: str) -> list[EmailMessage]:
        """The mails about a study, once there is one; a sender that was killed may have sent it twice."""
        number = study_number(case_id)
        taken = self.mails.taken
        return wait_until(lambda: [mail for mail in taken if number in mail.get_content()], 180, "a mail of the study")

    def entries(self) -> list[Entry]:
        """What people, alert sender and random check have put on record."""
        with self.product.reader() as reader:
            return list(read_entries(reader, roles=(REVIEW_WRITERS,)))

    # --- pods

    def kill(self, part: str) -> None:
        """End a part's pods at once; others take their place, and know what the archive says."""
        self.product.kubectl("delete", "pods", f"--selector={SELECTOR}={part}", "--grace-period=0", "--force")

    def wait_for_pods(self, *parts: str) -> None:
        """Wait until each part has a pod that is Ready."""
        for part in parts:
            self.product.kubectl("wait", "pods", f"--selector={SELECTOR}={part}", "--for=create", "--timeout=60s")
            self.product.kubectl(
                "wait", "pods", f"--selector={SELECTOR}={part}", "--for=condition=Ready", "--timeout=300s"
            )


def link_of(mail: EmailMessage) -> str:
    """Where a mail says that one answers for it, as a path of the console."""
    (link,) = re.findall(rf"{URL}(/alerts/\S+)", mail.get_content())
    return str(link)


@pytest.fixture(scope="module")
def room(
    cluster: Cluster, images: Images, gateway: str, secure_gateway: str, gateway_trust: ssl.SSLContext,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Room]:  # fmt: skip
    folder = tmp_path_factory.mktemp("room")
    with contextlib.ExitStack() as opened:
        name = opened.enter_context(restricted_namespace(cluster))
        product = Product(cluster, name, images, folder)
        product.prepare()
        issuer, _ = opened.enter_context(running_provider(folder / "provider.log", ADDRESS))
        authority = new_authority(folder / "mail")
        mails = opened.enter_context(mail_server(authority, password=PASSWORD, host=ADDRESS))
        # By the gateway's listener with TLS, whatever the machine's own names are.
        browser = opened.enter_context(running_browser(f"--host-resolver-rules=MAP {CONSOLE}:443 {secure_gateway}"))
        product.kubectl("create", "secret", "generic", "console-client", "--from-literal=secret=the provider takes any")
        files = (f"--from-literal=mail-password={PASSWORD}", f"--from-file=mail-authority.pem={authority.file}")
        product.kubectl("create", "secret", "generic", "alert-files", *files)
        product.values |= {"replicas": 1, "route": {"hostnames": [HOST]}, **values_of(images, issuer, mails.port)}
        product.helm("install")
        product.push(product.folder / "releases" / product.first)
        product.helm("upgrade", release={"id": product.first})
        product.wait_ready(product.first)
        made = Room(product, gateway, mails, People(URL, browser), issuer, secure_gateway, gateway_trust)
        made.wait_for_pods("console", "alerts")
        made.wait_for_page("/ready")
        front = f"http://{gateway}/v2/health/ready"
        wait_until(lambda: httpx.get(front, headers=CALL, timeout=30).is_success, 120, "a front behind the gateway")
        yield made
        cluster.helm("uninstall", NAME, f"--namespace={name}", "--wait")


def values_of(images: Images, issuer: str, mail_port: int) -> dict[str, Any]:
    """What the chart takes for console, alert sender and random check."""
    node = [f"{ADDRESS}/32"]
    mail = {
        "kind": "email", "host": ADDRESS, "port": mail_port, "caFile": "mail-authority.pem",
        "user": "chest-xray", "passwordFile": "mail-password", "sender": "chest-xray@hospital.example",
        "to": ["ward@hospital.example"], "practitioners": {PRACTITIONER: "dr@hospital.example"}, "shows": ["reference"],
    }  # fmt: skip
    steps = [{"afterMinutes": 0, "channels": ["mail"], "who": "the practitioner"}]
    policy = {
        "timeZone": "Europe/Berlin", "link": f"{URL}/alerts/",
        "channels": {"mail": mail}, "routes": [{"name": "all", "steps": steps}],
    }  # fmt: skip
    return {
        "review": {"image": named(images.review)},
        "console": {
            "enabled": True, "url": URL, "resources": SMALL,
            "signIn": {"issuer": issuer, "clientId": "console", "existingSecret": "console-client"},
        },
        "alerts": {"enabled": True, "resources": SMALL, "existingSecret": "alert-files", "policy": policy},
        "sample": {"enabled": True, "resources": SMALL},
        "networkPolicies": {"signIn": {"cidrs": node}, "channels": {"cidrs": node, "ports": [mail_port]}},
    }  # fmt: skip


def test_whoever_has_not_signed_in_is_sent_to_the_provider(room: Room) -> None:
    first = room.ask("/overview")
    assert (first.status_code, first.headers["location"]) == (303, "/sign-in?next=%2Foverview")
    assert "strict-transport-security" in first.headers
    at = urlsplit(room.ask(first.headers["location"]).headers["location"])
    assert f"{at.scheme}://{at.netloc}" == room.issuer
    assert parse_qs(at.query)["redirect_uri"] == [f"{URL}/sign-in/done"]


# A browser drops what it loads while the node's network changes, as it does with each pod of others.
@pytest.mark.usefixtures("alone")
def test_a_case_goes_from_its_image_to_its_label_though_pods_are_killed(room: Room) -> None:
    """The sender is killed before the call, the console after the practitioner's answer; each begins with nothing."""
    room.kill("alerts")
    case_id = send_until(f"http://{room.gateway}", referred=True, headers=CALL)
    mail, *_ = room.mails_of(case_id)
    assert mail["To"] == "dr@hospital.example"
    assert f"Reference: {REFERENCE}" in mail.get_content()
    assert REFERENCE not in mail["Subject"]
    link = link_of(mail)
    # The console hears of the alert within seconds.
    room.wait_for_page(link)
    doctor = answer_alert(room.people, link)

    room.kill("console")
    room.wait_for_pods("console")
    room.wait_for_page(link)
    # The session goes on, and what was done is there.
    doctor.reload()
    doctor.get_by_text("was acted on by d.1: a blood test").wait_for()
    doctor.context.close()

    read_to_the_end(room.people, case_id)
    with room.product.reader() as reader:
        record = find_record(reader, case_id)
        check_readings(reader)
    assert record is not None
    assert REFERENCE not in record.model_dump_json()
    entries = room.entries()
    (alert,) = [each for each in entries if isinstance(each, Alert) and each.case_id == case_id]
    done = [(each.what, each.by, each.ordered) for each in entries if isinstance(each, AlertEvent)
            and each.alert_id == alert.alert_id]  # fmt: skip
    assert {("acknowledged", "d.1", None), ("ordered", "d.1", "blood_test")} <= set(done)
    assert len({mail["Message-ID"] for mail in room.mails_of(case_id)}) == 1
    assert room.people.faults == []


@pytest.mark.usefixtures("alone")
def test_a_page_is_refused_to_people_without_its_role(room: Room) -> None:
    auditor = room.people.person("a.1", "/overview")
    answer = auditor.goto(f"{URL}/adjudications")
    assert answer is not None
    assert (answer.status, "This page is for the role lead" in answer.text()) == (403, True)


def test_the_random_check_draws_confident_answers_for_readers(room: Room) -> None:
    """Of today: by itself the Job draws from the day before."""
    case_id = send_until(f"http://{room.gateway}", referred=False, headers=CALL)
    sentence = room.product.job("sample", f"--date={time_of(case_id).date()}")
    print(sentence)
    assert "are drawn to be read" in sentence
    assert case_id in {each.case_id for each in room.entries() if isinstance(each, Draw)}


@pytest.fixture
def two_of_each(room: Room) -> Iterator[Room]:
    """The same install with a PostgreSQL database, and two pods of each."""
    product = room.product
    with server(ADDRESS) as url:
        product.kubectl("create", "secret", "generic", "review-database", f"--from-literal=url={url}")
        given, port = dict(product.values), urlsplit(url).port
        product.helm(
            "upgrade",
            review={**given["review"], "database": {"existingSecret": "review-database"}},
            console={**given["console"], "replicas": 2},
            alerts={**given["alerts"], "replicas": 2},
            networkPolicies={**given["networkPolicies"], "database": {"cidrs": [f"{ADDRESS}/32"], "ports": [port]}},
        )
        for part in ("console", "alerts"):
            product.kubectl("rollout", "status", f"deployment/{NAME}-{part}", "--timeout=300s")
        yield room
        product.helm("upgrade", **{name: given[name] for name in ("review", "console", "alerts", "networkPolicies")})


@pytest.mark.usefixtures("alone")
def test_two_of_each_share_a_database_and_know_what_one_knew(two_of_each: Room) -> None:
    case_id = send_until(f"http://{two_of_each.gateway}", referred=True, headers=CALL)
    two_of_each.mails_of(case_id)
    # Its pages come from either pod.
    read(two_of_each.people.person("r.1", "/"), "1", "7", "4", "p")
    entries = two_of_each.entries()
    (alert,) = [each for each in entries if isinstance(each, Alert) and each.case_id == case_id]
    sent = [each for each in entries if isinstance(each, AlertEvent) and each.alert_id == alert.alert_id]
    assert [each.what for each in sent] == ["sent"]


def test_nothing_of_it_troubles_who_verifies_the_archive(room: Room) -> None:
    print(room.product.job("verify"))
