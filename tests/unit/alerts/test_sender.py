"""The sender: each alert once, the next one where nobody answers, nothing lost whatever fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from prometheus_client import REGISTRY
from sqlalchemy import text

from pneumoserve.records import REVIEW_WRITERS, Addressee, AlertEvent, envelope_key, read_entries, seal_envelope
from pneumoserve.review import DatabaseError, ReviewDatabase, find_finished, measure_alerts
from pneumoserve.store import NotFoundError, StoreError
from tests.support.alerts import MAIL, PAGER, ROUTED, STEPS, Channels, look, policy_of, sender_of, watched
from tests.support.entries import id_made
from tests.support.reviews import NORMAL, Ward, answer, case_of, withdrawal_of


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    database = ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}")
    yield Ward(database)
    database.close()


@pytest.fixture
def channels() -> Iterator[Channels]:
    with watched() as made:
        yield made


def test_an_urgent_study_is_sent_once_and_the_rest_is_only_listed(ward: Ward, channels: Channels) -> None:
    for name, kind in (("sure", "normal"), ("leg", "leg"), ("sick", "pneumonia"), ("unsure", "uncertain")):
        ward.study(name, kind)
    sender = sender_of(ward, policy_of(link="https://room.example/alerts/"))
    look(sender)
    look(sender)
    assert sorted(message.facts["reasons"] for _, message in channels.sent) == [["pneumonia"], ["uncertain_finding"]]
    assert channels.sent[0][1].facts["link"].startswith("https://room.example/alerts/")
    figures = measure_alerts(ward.database, ward.time - timedelta(days=1))
    assert (figures.images, figures.alerts, figures.listed) == (4, 2, {"not_a_chest_film": 1})
    assert figures.per_100_images == 50.0


def test_a_site_may_alert_of_what_is_listed_else(ward: Ward, channels: Channels) -> None:
    ward.study("leg", "leg")
    ward.study("sick", "pneumonia")
    sender = sender_of(ward, policy_of(alsoAlert=["not_a_chest_film"]))
    look(sender)
    assert sorted(message.facts["severity"] for _, message in channels.sent) == ["listed", "urgent"]
    look(sender)
    assert len(channels.sent) == 2


def test_one_alert_a_study(ward: Ward, channels: Channels) -> None:
    sender = sender_of(ward, policy_of())
    ward.study("one", "uncertain", "pneumonia")
    look(sender)
    ward.study("one", "pneumonia")
    look(sender)
    assert len(channels.sent) == 1


def test_studies_of_long_ago_alert_nobody(ward: Ward, channels: Channels) -> None:
    ward.study("old", "pneumonia")
    ward.later(days=8)
    look(sender_of(ward, policy_of()))
    assert channels.sent == []


def test_the_next_one_is_told_where_nobody_answers(ward: Ward, channels: Channels) -> None:
    ward.study("one", "uncertain")
    sender = sender_of(ward, policy_of())
    look(sender)
    ward.later(minutes=14)
    look(sender)
    assert len(channels.sent) == 1
    ward.later(minutes=1)
    # Somebody who did not sign in has seen it: of an uncertain finding that is not enough.
    (alert,) = ward.desk.list_open()
    ward.desk.acknowledge(alert.alert_id, None)
    look(sender)
    assert [(kind, message.event) for kind, message in channels.sent[1:]] == [
        ("email", "alert.escalated"), ("webhook", "alert.escalated"),
    ]  # fmt: skip
    ward.later(hours=5)
    look(sender)
    assert len(channels.sent) == 3


def test_whoever_was_told_is_told_that_an_alert_is_withdrawn(ward: Ward, channels: Channels) -> None:
    record = answer("one", "uncertain", ward.time)
    ward.put(record)
    sender = sender_of(ward, policy_of())
    look(sender)
    ward.later(minutes=15)
    look(sender)
    ward.put(withdrawal_of(record, at=ward.time), role="review")
    del channels.sent[:]
    for _ in range(2):
        ward.later(hours=1)
        look(sender)
    assert [(kind, message.event) for kind, message in channels.sent] == [
        ("email", "alert.retracted"), ("webhook", "alert.retracted"),
    ]  # fmt: skip
    body = channels.sent[0][1].text.body
    assert "Do not act on the alert" in body
    assert "look at" not in body.lower()


def test_a_named_answer_ends_it(ward: Ward, channels: Channels) -> None:
    ward.study("one", "uncertain")
    sender = sender_of(ward, policy_of())
    look(sender)
    (alert,) = ward.desk.list_open()
    ward.desk.order(alert.alert_id, "dr.5", "blood_test")
    ward.later(hours=1)
    look(sender)
    assert len(channels.sent) == 1
    figures = measure_alerts(ward.database, ward.time - timedelta(days=1))
    assert (figures.share_acted_on, figures.per_person_and_day, figures.unanswered) == (1.0, 1.0, 0)


def test_two_senders_tell_one_person(ward: Ward, channels: Channels) -> None:
    for name in "abcdef":
        ward.study(name, "uncertain")
    senders = [sender_of(ward, policy_of()) for _ in range(3)]
    for minutes in (0, 20):
        ward.later(minutes=minutes)
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(look, senders))
    assert len(set(channels.keys)) == 12
    assert len(channels.sent) == 6 + 12


def test_the_most_urgent_goes_first(ward: Ward, channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.alerts.sender._WORKERS", 1)
    for name, kind in (("leg", "leg"), ("sick", "pneumonia"), ("foot", "leg"), ("unsure", "uncertain")):
        ward.study(name, kind)
        ward.later(seconds=1)
    sender = sender_of(ward, policy_of(alsoAlert=["not_a_chest_film"]))
    look(sender)
    severities = [message.facts["severity"] for _, message in channels.sent]
    assert severities == ["urgent", "urgent", "listed", "listed"]


def test_a_channel_that_fails_is_tried_again(ward: Ward, channels: Channels) -> None:
    ward.study("one", "pneumonia")
    sender = sender_of(ward, policy_of())
    channels.broken = {"email"}
    look(sender)
    look(sender)
    assert channels.sent == []
    channels.broken = set()
    ward.later(seconds=5)
    look(sender)
    assert len(channels.sent) == 1
    (alert,) = ward.desk.list_open()
    assert alert.sent is not None


def test_one_channel_of_a_step_is_enough(ward: Ward, channels: Channels) -> None:
    steps = [{"afterMinutes": 0, "channels": ["mail", "pager"], "who": "all"}]
    ward.study("one", "pneumonia")
    channels.broken = {"email"}
    look(sender_of(ward, policy_of(routes=[{"name": "all", "steps": steps}])))
    ward.later(hours=1)
    look(sender_of(ward, policy_of(routes=[{"name": "all", "steps": steps}])))
    assert [kind for kind, _ in channels.sent] == ["webhook"]


def shown(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"pneumoserve_{name}")


def test_ages_of_what_waits_are_shown(ward: Ward, channels: Channels) -> None:
    ward.study("one", "pneumonia")
    channels.broken = {"email", "webhook"}
    raised = ward.time.timestamp()
    look(sender_of(ward, policy_of()))
    ward.later(minutes=5)
    look(sender_of(ward, policy_of()))
    assert shown("alerts_oldest_waiting_timestamp_seconds") == pytest.approx(raised, abs=0.01)
    assert shown("alerts_oldest_unanswered_timestamp_seconds") == pytest.approx(raised, abs=0.01)
    assert shown("archive_sealed_timestamp_seconds") == 0
    channels.broken = set()
    ward.later(hours=1)
    look(sender_of(ward, policy_of()))
    ward.later(minutes=2)
    look(sender_of(ward, policy_of(routes=[])))
    assert shown("alerts_oldest_waiting_timestamp_seconds") == 0


def test_whoever_runs_it_hears_of_alerts_that_reach_nobody(
    ward: Ward, channels: Channels, caplog: pytest.LogCaptureFixture
) -> None:
    def undelivered() -> float:
        return REGISTRY.get_sample_value("pneumoserve_alerts_undelivered_total") or 0.0

    before = undelivered()
    ward.study("one", "pneumonia")
    ward.study("two", "pneumonia")
    steps = [{"afterMinutes": 0, "channels": ["mail"], "who": "the ward"}]
    sender = sender_of(ward, policy_of(operator=["pager"], routes=[{"name": "all", "steps": steps}]))
    channels.broken = {"email"}
    for _ in range(5):
        look(sender)
        ward.later(minutes=2)
    assert [message.event for _, message in channels.sent] == ["operator.undelivered"]
    assert undelivered() - before == 10
    assert "reached nobody, at try 3" in caplog.text
    assert case_of("one") not in caplog.text
    ward.later(minutes=15)
    look(sender)
    assert len(channels.sent) == 2


def test_without_routes_alerts_are_listed(ward: Ward, channels: Channels, caplog: pytest.LogCaptureFixture) -> None:
    ward.study("one", "pneumonia")
    sender = sender_of(ward, policy_of(routes=[]))
    sender.run(sender.stop)
    assert channels.sent == []
    assert len(ward.desk.list_open()) == 1
    assert "sent to nobody" in caplog.text


def test_what_the_archive_did_not_take_is_not_sent_again(ward: Ward, channels: Channels) -> None:
    ward.study("one", "pneumonia")
    sender = sender_of(ward, policy_of())
    ward.database.follow(ward.reader)
    ward.desk.raise_alerts()
    ward.fails = True
    look(sender)
    ward.later(minutes=2)
    look(sender)
    assert len(channels.sent) == 1
    assert ward.desk.list_open()[0].sent is None
    ward.fails = False
    ward.later(minutes=2)
    look(sender)
    assert len(channels.sent) == 1
    assert ward.desk.list_open()[0].sent is not None


def test_a_store_that_is_down_only_delays(ward: Ward, channels: Channels, caplog: pytest.LogCaptureFixture) -> None:
    sender = sender_of(ward, policy_of())
    ward.study("one", "pneumonia")

    def fail(operation: str, key: str) -> None:
        raise StoreError("The store could not be reached; check its address, and that it runs.")

    looks = iter([fail, fail, None])

    def turn() -> None:
        following = next(looks, "end")
        if following == "end":
            sender.stop()
        else:
            ward.memory.before = following or (lambda *_: None)

    turn()
    sender.run(turn)
    assert len(channels.sent) == 1
    assert "alerts wait: The store could not be reached" in caplog.text


def test_what_was_read_long_ago_is_not_kept_in_mind(ward: Ward) -> None:
    """A sender that runs for years must not read a longer list with each look."""
    today = ward.time
    for days in (9, 6, 0):
        ward.time = today - timedelta(days=days)
        ward.put(answer(f"study {days}", "normal", ward.time))
    for _ in range(2):
        assert ward.database.follow(ward.reader) == 0
        with ward.database.read() as connection:
            places = connection.execute(text("select place from positions")).scalars().all()
        assert sorted(place[:10] for place in places if place != "day") == [
            (today - timedelta(days=days)).date().isoformat() for days in (6, 0)
        ]
    assert len(ward.rows()["predictions"]) == 3


def test_a_database_that_does_not_answer_only_delays(
    ward: Ward, channels: Channels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ward.study("one", "pneumonia")
    sender = sender_of(ward, policy_of())

    def fail(*_: object) -> None:
        raise DatabaseError("The review database does not answer (OperationalError).")

    def mend() -> None:
        if not channels.sent and "alerts wait" in caplog.text:
            monkeypatch.undo()
        if channels.sent:
            sender.stop()

    monkeypatch.setattr(ward.desk, "take_from_outbox", fail)
    sender.run(mend)
    assert len(channels.sent) == 1


def test_an_entry_of_a_newer_version_stops_no_alert(
    ward: Ward, channels: Channels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ward.study("one", "pneumonia")

    def fail(*_: object) -> None:
        raise ValueError("an entry of a form that this version does not read")

    monkeypatch.setattr(ward.database, "follow", fail)
    look(sender_of(ward, policy_of()))
    assert len(channels.sent) == 1
    assert "does not read" in caplog.text


def test_a_database_that_was_deleted_is_made_anew_and_answers_stay(
    ward: Ward, channels: Channels, tmp_path: Path
) -> None:
    for name in ("answered", "open"):
        ward.study(name, "uncertain")
    look(sender_of(ward, policy_of()))
    (first, _) = ward.desk.list_open()
    ward.desk.acknowledge(first.alert_id, "dr.5")
    ward.study("new", "pneumonia")
    anew = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'anew.sqlite'}"), ward.store, ward.time)
    anew.later(minutes=20)
    look(sender_of(anew, policy_of()))
    anew.database.close()
    assert len(set(channels.keys)) == len(set(channels.keys[:2])) + 2
    assert [message.event for _, message in channels.sent[2:]].count("alert.raised") == 1


def test_an_escalation_beyond_the_last_step_reaches_the_last_one(ward: Ward, channels: Channels) -> None:
    """A third escalation, of a route that has two steps now."""
    ward.study("one", "uncertain")
    look(sender_of(ward, policy_of()))
    (alert,) = ward.desk.list_open()
    for step in (1, 2):
        ward.desk.escalate(alert.alert_id, step)
    look(sender_of(ward, policy_of()))
    assert channels.keys.count(f"{alert.alert_id}-2") == 2


# --- whose X-ray it is


def sealed(ward: Ward, key: X25519PrivateKey) -> str:
    record = answer("one", "uncertain", ward.time)
    envelope = seal_envelope(
        key.public_key(), record.prediction_id, Addressee(practitioner="dr.meier", reference="ACC-4711")
    )
    ward.store.put(envelope_key(record.prediction_id), envelope, "application/octet-stream")
    ward.put(record)
    return record.prediction_id


def test_a_channel_that_may_show_it_gets_whose_it_is(ward: Ward, channels: Channels) -> None:
    key = X25519PrivateKey.generate()
    sealed(ward, key)
    shown = {"mail": {**MAIL, "shows": ["reference"]}, "pager": PAGER}
    look(sender_of(ward, policy_of(channels=shown), key))
    assert channels.sent[0][1].addressee == Addressee(practitioner="dr.meier", reference="ACC-4711")


def test_no_envelope_is_opened_where_no_channel_may_show_it(ward: Ward, channels: Channels) -> None:
    key = X25519PrivateKey.generate()
    prediction = sealed(ward, key)
    look(sender_of(ward, policy_of(), key))
    assert channels.sent[0][1].addressee == Addressee()
    assert envelope_key(prediction) not in ward.memory.read


def test_an_envelope_that_does_not_open_costs_the_name_alone(
    ward: Ward, channels: Channels, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(ward, X25519PrivateKey.generate())
    shown = {"mail": {**MAIL, "shows": ["practitioner"]}, "pager": PAGER}
    look(sender_of(ward, policy_of(channels=shown), X25519PrivateKey.generate()))
    assert channels.sent[0][1].addressee == Addressee()
    assert "without practitioner and reference" in caplog.text
    assert "meier" not in caplog.text


def test_names_are_erased_once_the_study_is_over(ward: Ward, channels: Channels) -> None:
    key = X25519PrivateKey.generate()
    prediction = sealed(ward, key)
    sender = sender_of(ward, policy_of(eraseNamesDays=30))
    for _ in range(3):
        look(sender)
        ward.later(days=31)
    # Nobody answered, and nobody has read it.
    assert ward.store.get(envelope_key(prediction))
    (alert,) = ward.desk.list_open()
    ward.desk.acknowledge(alert.alert_id, "dr.5")
    ward.room.claim(case_of("one"), "r.1")
    ward.room.save_reading(case_of("one"), "r.1", NORMAL)
    ward.later(days=29)
    look(sender)
    assert ward.store.get(envelope_key(prediction))
    ward.later(days=2)
    look(sender)
    with pytest.raises(NotFoundError):
        ward.store.get(envelope_key(prediction))
    assert list(ward.store.versions("envelopes/")) == []


def test_an_envelope_without_a_study_is_erased_too(ward: Ward, channels: Channels) -> None:
    lost = id_made(ward.time)
    long_ago, second = ward.time - timedelta(days=180), timedelta(seconds=1)
    assert find_finished(ward.database, [lost], ward.time - second, long_ago) == set()
    assert find_finished(ward.database, [lost], ward.time + second, long_ago) == {lost}


def test_names_of_a_study_that_nobody_reads_are_erased_all_the_same(ward: Ward, channels: Channels) -> None:
    prediction = sealed(ward, X25519PrivateKey.generate())
    sender = sender_of(ward, policy_of(keepNamesDays=90))
    for days, there in ((0, True), (89, True), (2, False)):
        ward.later(days=days)
        look(sender)
        assert bool(list(ward.store.versions(f"envelopes/{prediction}"))) == there
    # Only its names are gone: it still waits to be read and answered.
    assert len(ward.desk.list_open(unanswered=True)) == len(ward.waiting()) == 1


def test_an_answered_alert_is_closed_once_the_study_is_over(ward: Ward, channels: Channels) -> None:
    ward.put(*(answer("one", "uncertain", ward.time) for _ in range(2)))
    sender = sender_of(ward, policy_of(eraseNamesDays=30))
    look(sender)
    (alert,) = ward.desk.list_open()
    ward.desk.order(alert.alert_id, "dr.5", "blood_test")
    ward.later(days=31)
    look(sender)
    # It is answered, and nobody has read it.
    assert len(ward.desk.list_open()) == 1
    ward.room.claim(case_of("one"), "r.1")
    ward.room.save_reading(case_of("one"), "r.1", NORMAL)
    for days, left in ((29, 1), (2, 0)):
        ward.later(days=days)
        look(sender)
        assert len(ward.desk.list_open()) == left
    entries = read_entries(ward.reader, roles=(REVIEW_WRITERS,))
    events = [each for each in entries if isinstance(each, AlertEvent) and each.what == "closed"]
    assert [(each.alert_id, each.by) for each in events] == [(alert.alert_id, None)]
    look(sender)
    assert ward.desk.close_finished(ward.time) == 0


def test_libraries_of_channels_log_nothing() -> None:
    """What Apprise and httpx log of a failure holds addresses."""
    for name in ("apprise", "httpx", "httpcore"):
        assert not logging.getLogger(name).isEnabledFor(logging.CRITICAL)


def test_routes_are_of_the_site_that_sent_the_image(ward: Ward, channels: Channels) -> None:
    record = answer("one", "pneumonia", ward.time)
    ward.put(record.model_copy(update={"call": record.call.model_copy(update={"subject": "clinic-a"})}))
    routes = [
        {"name": "a", "sites": ["clinic-a"], "steps": [{"afterMinutes": 0, "channels": ["pager"], "who": "all"}]},
        {"name": "all", "steps": STEPS},
    ]
    look(sender_of(ward, policy_of(routes=routes)))
    assert [kind for kind, _ in channels.sent] == ["webhook"]
    assert ROUTED["routes"] != routes
