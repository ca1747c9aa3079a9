"""The sender is killed at 50 random moments, the database is deleted, and the receiver fails half the time."""

from __future__ import annotations

import multiprocessing
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pneumoserve.records import append
from pneumoserve.review import AlertDesk, ReviewDatabase, commit_to, derive
from pneumoserve.store import S3Settings, S3Store
from tests.support import alert_process
from tests.support.alert_process import Job
from tests.support.archives import reader_of
from tests.support.entries import KEY
from tests.support.peers import Hooks, hook_server
from tests.support.reviews import answer

_KILLS = 50
_LEASE = 0.5


def test_each_alert_arrives_whatever_is_killed(
    settings: S3Settings, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "_FIRST_PAUSE", alert_process.PAUSE)
    chance = random.Random(20261130)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([alert_process.__name__])
    with hook_server() as hooks:
        hooks.answer = lambda: 503 if chance.random() < 0.5 else 204
        policy = {
            "channels": {"hook": {"kind": "webhook", "url": hooks.url}},
            "routes": [{"name": "all", "steps": [{"afterMinutes": 0, "channels": ["hook"], "who": "the ward"}]}],
        }
        file = tmp_path / "alerts.yaml"
        file.write_text(yaml.safe_dump(policy))
        database = tmp_path / "review.sqlite"
        raw = KEY.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        job = Job(settings, raw, f"sqlite:///{database}", file, _LEASE)
        began = datetime.now(UTC)
        asked = []
        for kill in range(_KILLS):
            # By a front that is gone right after: nothing but the archive knows of it.
            kind = chance.choice(["uncertain", "pneumonia"] if kill % 2 else ["leg", "normal", "pneumonia"])
            record = answer(f"study {kill}", kind, datetime.now(UTC))
            append(store, KEY, [record], "front")
            asked += [record] if kind in {"uncertain", "pneumonia"} else []
            if kill == _KILLS // 2:
                for each in tmp_path.glob("review.sqlite*"):
                    each.unlink()
            sender = context.Process(target=alert_process.run, args=(job,))
            sender.start()
            if kill % 2:
                # Around the moment at which it sends, which a busy machine reaches late. There is something to send.
                _wait_for_more(hooks, 20.0)
                time.sleep(chance.uniform(0.0, 0.1))
            else:
                time.sleep(chance.uniform(0.02, 0.6))
            sender.kill()
            sender.join()
        # Kills of a sender that did nothing would show nothing.
        assert len(hooks.asked) > _KILLS // 10
        hooks.answer = lambda: 204
        last = context.Process(target=alert_process.run, args=(job,))
        last.start()
        wanted = {record.call.study for record in asked}
        opened = ReviewDatabase(job.database)
        give_up = time.monotonic() + 60
        while len(_sent(opened, store)) < len(wanted) and time.monotonic() < give_up:
            time.sleep(0.1)
        sent = _sent(opened, store)
        opened.close()
        last.terminate()
        last.join(30)
        assert last.exitcode == 0
    assert set(sent) == wanted
    # What the receiver took is what is on record as sent, each at least once.
    assert {key.rpartition("-")[0] for key in hooks.keys} == set(sent.values())
    assert len(hooks.keys) < 3 * len(wanted)
    assert datetime.now(UTC) - began < timedelta(minutes=4)


def _wait_for_more(hooks: Hooks, seconds: float) -> None:
    before, give_up = len(hooks.asked), time.monotonic() + seconds
    while len(hooks.asked) == before and time.monotonic() < give_up:
        time.sleep(0.005)


def _sent(database: ReviewDatabase, store: S3Store) -> dict[str, str]:
    """Alerts that are on record as sent, by study."""
    database.follow(reader_of(store, KEY))
    desk = AlertDesk(database, commit_to(store, KEY))
    return {each.case_id: each.alert_id for each in desk.list_open() if each.sent is not None}
