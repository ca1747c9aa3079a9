"""`pneumoserve alerts`, over a state folder and a real store; and what the process leaves of whose X-ray it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumoserve.local.state import State
from pneumoserve.records import Addressee, append, envelope_key, load_sealing_key, seal_envelope
from pneumoserve.store import S3Settings, S3Store
from tests.support.cluster.certificates import new_authority
from tests.support.commands import Ran, invoke
from tests.support.peers import Hooks, Mails, hook_server, mail_server
from tests.support.reviews import answer

PNEUMOSERVE = Path(sys.executable).with_name("pneumoserve")
NAMES = Addressee(practitioner="Zq-practitioner", reference="Zq-reference")


@dataclass
class Site:
    """A state folder, its store, and those who are told."""

    folder: Path
    s3: S3Settings
    store: S3Store
    hooks: Hooks
    mails: Mails

    def run(self, *words: str, code: int = 0) -> Ran:
        done = invoke(["alerts", *words, "--state", str(self.folder)], self.s3.to_env())
        assert done.returncode == code, done.stderr
        return done

    def begin_sending(self) -> subprocess.Popen[bytes]:
        command = [str(PNEUMOSERVE), "alerts", "send", "--state", str(self.folder)]
        with (self.folder / "logs" / "alerts.log").open("wb") as log:
            return subprocess.Popen(command, env={**os.environ, **self.s3.to_env()}, stderr=log, stdout=log)

    def listed(self) -> Any:
        return json.loads(self.run("list", "--answered", "--json").stdout)


@pytest.fixture
def site(settings: S3Settings, store: S3Store, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "state"
    State(folder).make()
    (tmp_path / "ca").mkdir()
    authority = new_authority(tmp_path / "ca")
    with hook_server() as hooks, mail_server(authority) as mails:
        mail = {
            "kind": "email", "host": "127.0.0.1", "port": mails.port, "caFile": str(authority.file),
            "sender": "alerts@hospital.example", "to": ["ward@hospital.example"], "shows": ["practitioner"],
        }  # fmt: skip
        step = {"afterMinutes": 0, "channels": ["mail", "hook"], "who": "the ward"}
        policy = {
            "channels": {"mail": mail, "hook": {"kind": "webhook", "url": hooks.url}},
            "link": "https://room.example/alerts/",
            "routes": [{"name": "all", "steps": [step]}],
        }
        (folder / "alerts.yaml").write_text(yaml.safe_dump(policy))
        yield Site(folder, settings, store, hooks, mails)


def refer(site: Site) -> str:
    """A study that must alert, with its envelope; its case."""
    record = answer("one", "uncertain", datetime.now(UTC))
    key = load_sealing_key(State(site.folder).sealing_key)
    envelope = seal_envelope(key, record.prediction_id, NAMES)
    site.store.put(envelope_key(record.prediction_id), envelope, "application/octet-stream")
    append(site.store, State(site.folder).archive_key, [record], "front")
    return str(record.call.study)


def test_an_alert_goes_from_the_archive_to_people_and_back(site: Site) -> None:
    sending = site.begin_sending()
    case = refer(site)
    give_up = time.monotonic() + 60
    while not (site.hooks.taken and site.mails.taken) and time.monotonic() < give_up:
        time.sleep(0.05)
    while not any(each["sent"] for each in site.listed()["alerts"]) and time.monotonic() < give_up:
        time.sleep(0.1)
    (alert,) = site.listed()["alerts"]
    assert alert["case_id"] == case
    site.run("ack", alert["alert_id"])
    assert site.listed()["alerts"][0]["answered"] is False
    site.run("ack", alert["alert_id"], "--by", "dr.5", "--ordered", "blood_test")
    found = site.listed()
    assert (found["alerts"][0]["answered"], found["alerts"][0]["ordered"]) == (True, "blood_test")
    assert found["figures"]["share_acted_on"] == 1.0
    sending.send_signal(signal.SIGTERM)
    assert sending.wait(30) == 0
    # Shown where the site says so, and nowhere else: no log, no database, no object, no head of a mail, no webhook.
    (mail,) = site.mails.taken
    assert "Practitioner: Zq-practitioner" in mail.get_content()
    assert "Zq-reference" not in mail.as_string()
    places = {"head of the mail": str(mail.items()).encode(), "webhook": str(site.hooks.asked).encode()}
    places |= {str(path): path.read_bytes() for path in site.folder.rglob("*") if path.is_file()}
    places |= {item.key: site.store.get(item.key) + item.key.encode() for item in site.store.list("")}
    assert len(places) > 10
    assert [place for place, content in places.items() if b"Zq-" in content] == []


def test_channels_are_tried(site: Site) -> None:
    assert "mail: taken" in site.run("test").stdout
    assert site.mails.taken[0]["Subject"] == "Chest X-ray: a test of this channel"
    site.hooks.answer = lambda: 401
    failed = site.run("test", "hook", code=1)
    assert "hook: the receiver answers 401" in failed.stdout
    assert "took nothing: hook" in failed.stderr
    assert len(site.mails.taken) == 1
    assert "no channel pigeon; it has" in site.run("test", "pigeon", code=2).stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("ack", "unknown"), 1, "There is no such alert"),
        (("ack", "x", "--ordered", "expert"), 2, "needs --by"),
        (("ack", "x", "--by", "dr.5", "--ordered", "surgery"), 2, "--ordered is one of"),
        (("ack", "x", "--by", "a\nb"), 2, "printable characters"),
        (("ack", "x", "--by", "a" * 256), 2, "1 to 255"),
        (("list", "--database", "mysql://a:hidden@b/c"), 1, "sqlite:///FILE"),
        (("send", "--link-keys", "none"), 1, "none holds no keys for links"),
        (("send", "--envelope-key", "none"), 2, "no private X25519 key"),
        (("send", "--policy", "none.yaml"), 2, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(site: Site, words: tuple[str, ...], code: int, says: str) -> None:
    done = site.run(*words, code=code)
    assert says in done.stderr
    assert "hidden" not in done.stderr
