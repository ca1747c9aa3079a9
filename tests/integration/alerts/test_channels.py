"""Channels against real peers: a mail server with TLS, a receiver of webhooks, and what Apprise makes of an address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.alerts import ChannelError, Outgoing, send
from pneumoserve.alerts.advice import write_alert
from pneumoserve.alerts.channels import describe
from pneumoserve.alerts.policy import Apprise, Email, Webhook
from pneumoserve.ids import uuid7
from pneumoserve.records import Addressee
from tests.support.cluster.certificates import Authority, new_authority
from tests.support.peers import Hooks, Mails, hook_server, mail_server

CASE = "c0ffee" + "0" * 58
LINK = "https://room.example/alerts/token"
NAMES = Addressee(practitioner="dr.meier", reference="ACC-4711")
SECRET = base64.b64encode(b"s" * 32).decode()


def message() -> Outgoing:
    reasons = ("pneumonia", "uncertain_type")
    return Outgoing(
        f"{uuid7()}-0", "2026-11-30T12:00:00.000Z", "alert.raised", write_alert(CASE, 0, reasons, LINK),
        describe(CASE, "urgent", reasons, LINK), NAMES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def mails(authority: Authority) -> Iterator[Mails]:
    with mail_server(authority) as server:
        yield server


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with hook_server() as server:
        yield server


def email(mails: Mails, authority: Authority, **changes: Any) -> Email:
    given = {"host": "127.0.0.1", "port": mails.port, "caFile": authority.file, "sender": "alerts@hospital.example"}
    return Email.model_validate({"kind": "email", "to": ["ward@hospital.example"], **given, **changes})


# --- mail


def test_a_mail_names_nobody(mails: Mails, authority: Authority) -> None:
    given = message()
    send(email(mails, authority), given)
    (mail,) = mails.taken
    assert mail["Subject"] == "Chest X-ray: please look at a study"
    assert mail["To"] == "ward@hospital.example"
    assert mail["Message-ID"] == f"<{given.key}@pneumoserve.invalid>"
    text = mail.get_content()
    assert "never withhold antibiotics" in text
    assert LINK in text
    assert "Not cleared for clinical use" in text
    assert not any(word in mail.as_string() for word in ("dr.meier", "ACC-4711", CASE))


def test_names_are_shown_where_the_site_says_so_and_never_in_the_head(mails: Mails, authority: Authority) -> None:
    known = {"dr.meier": "meier@hospital.example"}
    send(email(mails, authority, shows=["practitioner", "reference"], practitioners=known), message())
    (mail,) = mails.taken
    assert mails.to == [["meier@hospital.example"]]
    assert {"Practitioner: dr.meier", "Reference: ACC-4711"} <= set(mail.get_content().splitlines())
    assert "ACC-4711" not in str(mail.items())


def test_an_unknown_practitioner_is_told_by_the_wards_address(mails: Mails, authority: Authority) -> None:
    send(email(mails, authority, practitioners={"dr.other": "other@hospital.example"}), message())
    assert mails.to == [["ward@hospital.example"]]


def test_a_server_that_wants_a_password_gets_it(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right\n")
    with mail_server(authority, password="right") as mails:
        channel = email(mails, authority, user="alerts", passwordFile=tmp_path / "password")
        send(channel, message())
        assert len(mails.taken) == 1
        (tmp_path / "password").write_text("secret-but-wrong")
        with pytest.raises(ChannelError, match="the mail server answers 535") as refused:
            send(channel, message())
    assert "secret" not in str(refused.value)


def test_tls_may_begin_at_once(authority: Authority) -> None:
    with mail_server(authority, implicit=True) as mails:
        send(email(mails, authority, tls="implicit"), message())
        assert len(mails.taken) == 1


def test_a_certificate_of_nobody_we_know_is_refused(mails: Mails, authority: Authority, tmp_path: Path) -> None:
    other = new_authority(tmp_path)
    with pytest.raises(ChannelError, match="SSLCertVerificationError"):
        send(email(mails, other), message())
    assert mails.taken == []


def test_a_refusal_is_told_without_its_words(mails: Mails, authority: Authority) -> None:
    mails.refuse = "554 no mail about ACC-4711 for ward@hospital.example"
    with pytest.raises(ChannelError, match=r"^the mail server answers 554$"):
        send(email(mails, authority), message())
    mails.refuse, mails.refuse_to = "", "550 no such user"
    with pytest.raises(ChannelError, match=r"^the mail server refuses all recipients \(550\)$"):
        send(email(mails, authority), message())


def test_a_server_without_tls_gets_no_mail(authority: Authority) -> None:
    """It is asked for STARTTLS, and must offer it."""
    with mail_server(authority, implicit=True) as mails, pytest.raises(ChannelError):
        send(email(mails, authority), message())


def test_a_server_that_is_away_is_told(authority: Authority) -> None:
    with mail_server(authority) as mails:
        gone = email(mails, authority)
    with pytest.raises(ChannelError, match="the mail server does not answer"):
        send(gone, message())


# --- webhooks


def test_a_webhook_is_a_cloudevent_that_is_signed(hooks: Hooks, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"whsec_{SECRET}\n")
    given = message()
    send(Webhook(kind="webhook", url=hooks.url, secret_file=tmp_path / "secret"), given)
    ((headers, body),) = hooks.asked
    event = json.loads(body)
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "time")} == {
        "specversion": "1.0",
        "id": given.key,
        "source": "urn:pneumoserve:alerts",
        "type": "org.pneumoserve.alert.raised",
        "time": given.time,
    }
    assert headers["content-type"] == "application/cloudevents+json"
    assert event["data"]["reasons"] == ["pneumonia", "uncertain_type"]
    assert "dr.meier" not in body.decode()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(SECRET), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "answers 400"),
        (410, "answers 410"),
        (500, "answers 500"),
        (302, "redirects .302.; give its final address"),
    ],
)
def test_whatever_is_no_success_is_none(hooks: Hooks, status: int, says: str) -> None:
    hooks.answer = lambda: status
    with pytest.raises(ChannelError, match=says) as refused:
        send(Webhook(kind="webhook", url=hooks.url), message())
    assert hooks.url not in str(refused.value)
    assert len(hooks.asked) == 1


def test_a_receiver_that_says_nothing_is_given_up(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.alerts.channels._SECONDS", 0.3)
    hooks.wait = threading.Event()
    with pytest.raises(ChannelError, match="ReadTimeout"):
        send(Webhook(kind="webhook", url=hooks.url), message())


@pytest.mark.parametrize("content", ["short", "not base64!", ""])
def test_a_secret_that_is_none_is_refused(hooks: Hooks, tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ChannelError, match="make another"):
        send(Webhook(kind="webhook", url=hooks.url, secret_file=tmp_path / "secret"), message())
    (tmp_path / "secret").unlink()
    with pytest.raises(ChannelError, match="secret cannot be read"):
        send(Webhook(kind="webhook", url=hooks.url, secret_file=tmp_path / "secret"), message())
    assert hooks.asked == []


# --- Apprise


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_apprise_brings_it_elsewhere(hooks: Hooks, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "pager.url"
    file.write_text(hooks.url.replace("http://", "json://user:hidden@"))
    channel = Apprise(kind="apprise", url_file=file)
    send(channel, message())
    assert hooks.taken[0]["title"] == "Chest X-ray: please look at a study"
    assert "Order" not in hooks.taken[0]["title"]
    assert "dr.meier" not in json.dumps(hooks.taken)
    hooks.answer = lambda: 500
    with pytest.raises(ChannelError, match="could not deliver"):
        send(channel, message())
    file.write_text("nonsense")
    with pytest.raises(ChannelError, match=r"pager\.url holds no address"):
        send(channel, message())
    assert "hidden" not in caplog.text
