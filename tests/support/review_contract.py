"""What the review database does on either engine: SQLite (tests/unit) and a real PostgreSQL (tests/integration)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from pneumoserve.ledger import SealSettings, seal
from pneumoserve.records import Label, append, labels_of, open_ledger
from pneumoserve.review import (
    AlertDesk,
    ClaimError,
    DatabaseError,
    ReadingRoom,
    ReviewDatabase,
    ReviewError,
    Verdict,
    VerdictError,
)
from pneumoserve.review.tables import METADATA
from pneumoserve.store import StoreError
from tests.support.archives import reader_of, trust_in
from tests.support.entries import KEY, label_of, request_of
from tests.support.reviews import (
    CHANCE,
    NORMAL,
    PNEUMONIA,
    UNSURE,
    Ward,
    answer,
    case_of,
    flag_of,
    flagged,
    withdrawal_of,
)

LEASE = timedelta(minutes=1)


def undrawn() -> str:
    """A name of a study whose normal reading is read by nobody else."""
    return next(f"alone {n}" for n in count() if not CHANCE.draws("second_reading", case_of(f"alone {n}"), 0.2))


def drawn() -> str:
    return next(f"twice {n}" for n in count() if CHANCE.draws("second_reading", case_of(f"twice {n}"), 0.2))


class ReviewContract:
    """Subclasses give `url`, that of an empty database."""

    @pytest.fixture
    def ward(self, url: str) -> Iterator[Ward]:
        database = ReviewDatabase(url)
        yield Ward(database)
        database.close()

    # --- the tables

    def test_an_empty_database_gets_the_tables_that_the_code_has(self, ward: Ward, url: str) -> None:
        with ward.database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        ReviewDatabase(url).close()

    def test_several_processes_may_make_them_at_once(self, url: str) -> None:
        with ThreadPoolExecutor(4) as threads:
            for database in threads.map(ReviewDatabase, [url] * 4):
                database.close()

    def test_a_database_of_a_newer_version_is_refused(self, ward: Ward, url: str) -> None:
        with ward.database.write() as connection:
            connection.execute(text("update alembic_version set version_num = '999'"))
        with pytest.raises(DatabaseError, match="made by a newer version"):
            ReviewDatabase(url)

    def test_what_fails_in_a_transaction_leaves_nothing(self, ward: Ward) -> None:
        insert = text("insert into positions (place, sequence) values ('a', 1)")

        def write_twice() -> None:
            with ward.database.write() as connection:
                connection.execute(insert)
                connection.execute(insert)

        with pytest.raises(DatabaseError, match="IntegrityError") as caught:
            write_twice()
        assert "insert" not in str(caught.value)
        with ward.database.read() as connection:
            assert connection.scalar(text("select count(*) from positions")) == 0

    # --- following and rebuilding

    def live(self, ward: Ward) -> None:
        """A day in the ward, with some of everything."""
        ward.study("normal", "normal", "normal")
        ward.study("sick", "normal", "pneumonia")
        ward.study("leg", "leg")
        for name in (undrawn(), drawn(), "differ"):
            ward.study(name, "uncertain")
        lone = answer(None, "type", ward.time)
        ward.put(lone)
        ward.put(request_of(answer("normal", "normal", ward.time)), request_of(lone), role="reading")
        ward.desk.raise_alerts()
        ward.later(seconds=1)
        first, second = ward.desk.take_from_outbox(LEASE, 2)
        ward.desk.record_sent(first, "mail")
        ward.desk.record_failed(second, "mail", "it does not answer")
        ward.desk.order(first.alert_id, "dr.5", "blood_test")
        ward.desk.escalate(second.alert_id, 1)
        ward.room.record_view(case_of("differ"), "r.9", "answer")
        for name, reader, verdict in (
            (undrawn(), "r.1", NORMAL),
            (drawn(), "r.1", NORMAL),
            ("differ", "r.1", PNEUMONIA),
            ("differ", "r.2", NORMAL),
            ("differ", "r.3", UNSURE),
        ):
            ward.later(seconds=1)
            ward.room.claim(case_of(name), reader)
            ward.room.save_reading(case_of(name), reader, verdict)
        ward.room.adjudicate(case_of("differ"), "lead", NORMAL)
        # The end of a study that came late.
        ward.put(answer("normal", "uncertain", ward.time))

    def test_a_rebuilt_database_is_the_one_that_followed(self, ward: Ward) -> None:
        self.live(ward)
        followed = ward.rows()
        assert {name for name, rows in followed.items() if not rows} == set()
        assert ward.database.rebuild(ward.reader) > 20
        assert ward.rows() == followed
        assert ward.database.follow(ward.reader) == 0

    def test_what_is_read_again_after_it_was_sealed_changes_nothing(self, ward: Ward) -> None:
        self.live(ward)
        followed = ward.rows()
        sealer = KEY
        seal(open_ledger(ward.store, trust_in(KEY), trust_in(sealer)), sealer, ward.time, SealSettings(lock_days=0))
        ward.database.follow(ward.reader)
        assert ward.rows() == followed
        for item in list(ward.store.list("records/")):
            ward.memory.hide(item.key)
        ward.database.rebuild(reader_of(ward.store, KEY, sealers=[sealer]))
        assert ward.rows() == followed

    def test_an_archive_that_fails_leaves_a_rebuild_undone(self, ward: Ward) -> None:
        self.live(ward)
        followed = ward.rows()

        def fail(operation: str, key: str) -> None:
            if operation == "get":
                raise StoreError("away")

        ward.memory.before = fail
        with pytest.raises(StoreError):
            ward.database.rebuild(ward.reader)
        assert ward.rows() == followed

    def test_a_crash_between_archive_and_database_is_healed(self, ward: Ward) -> None:
        study = ward.study(undrawn(), "uncertain")
        ward.room.claim(study, "r.1")
        real = ward.commit

        def crash(entries: Any) -> None:
            real(entries)
            raise KeyboardInterrupt

        crashing = ReadingRoom(ward.database, crash, CHANCE, ward.now)
        with pytest.raises(KeyboardInterrupt):
            crashing.save_reading(study, "r.1", NORMAL)
        assert ward.rows()["readings"] == []
        ward.database.follow(ward.reader)
        assert len(ward.rows()["readings"]) == 1
        with pytest.raises(ClaimError, match="You have read this study"):
            ward.room.save_reading(study, "r.1", NORMAL)

    def test_a_shadow_and_raw_scores_are_no_cases(self, ward: Ward) -> None:
        record = answer("a", "uncertain", ward.time)
        ward.put(record.model_copy(update={"arm": "shadow"}), answer("b", "uncertain", ward.time).model_copy(
            update={"decision": None}))  # fmt: skip
        assert ward.rows()["cases"] == []

    def test_a_study_has_the_answer_of_its_surest_pneumonia(self, ward: Ward) -> None:
        ward.put(*(answer("two", kind, ward.time, score) for kind, score in (("type", 0.9), ("pneumonia", 0.99))))
        (case,) = ward.rows()["cases"]
        assert 0.99 in case
        assert 0.9 not in case

    # --- the reading room

    def test_all_that_is_to_be_read_is_in_one_order(self, ward: Ward) -> None:
        asked = answer("asked", "normal", ward.time)
        ward.put(asked)
        ward.put(request_of(asked), role="reading")
        ward.later(days=2, hours=23)
        referred = ward.study("referred", "uncertain")
        assert ward.study("quiet", "normal") not in {each.case_id for each in ward.waiting()}
        # What was asked for three days ago, to be read within three days, is due before what was referred just now.
        assert [each.case_id for each in ward.waiting()] == [case_of("asked"), referred]
        ward.room.next_study("r.1")
        assert [each.claimed for each in ward.waiting()] == [True, False]

    def test_what_a_radiologist_flags_is_read_first_whenever_they_do(self, ward: Ward) -> None:
        overdue = ward.study("overdue", "uncertain")
        ward.later(hours=8)
        late, before = answer("late", "normal", ward.time), flagged(answer("before", "uncertain", ward.time))
        ward.put(late, before)
        assert [each.case_id for each in ward.waiting()] == [case_of("before"), overdue]
        ward.put(flag_of(late, ward.time), role="review")
        assert {each.case_id for each in ward.waiting()[:2]} == {case_of("late"), case_of("before")}
        assert ward.waiting()[2].case_id == overdue
        # Neither was chosen by chance, so that no estimate may count what is read of them.
        for _ in range(2):
            study = ward.room.next_study("r.1")
            assert study is not None
            detail = ward.room.save_reading(study.case_id, "r.1", NORMAL).reading
            assert detail is not None
            assert (detail.asked, detail.probability) == ("flag", None)

    def test_a_study_comes_with_all_its_images_and_no_answer(self, ward: Ward) -> None:
        study = ward.study("two", "normal", "uncertain")
        given = ward.room.next_study("r.1")
        assert given is not None
        assert given.case_id == study
        assert [image.format for image in given.images] == ["dicom"] * 2
        assert not {"finding", "confidence", "reasons", "asked"} & set(vars(given) | vars(given.images[0]))

    def test_no_two_readers_get_one_study(self, ward: Ward) -> None:
        names = [ward.study(f"s{n}", "uncertain") for n in range(6)]
        barrier = threading.Barrier(6)

        def take(reader: str) -> str:
            barrier.wait()
            study = ward.room.next_study(reader)
            assert study is not None
            return study.case_id

        with ThreadPoolExecutor(6) as threads:
            got = list(threads.map(take, [f"r.{n}" for n in range(6)]))
        assert sorted(got) == sorted(names)
        assert ward.room.next_study("r.7") is None
        again = ward.room.next_study("r.0")
        assert again is not None
        assert again.case_id == got[0]

    def test_a_claim_runs_out(self, ward: Ward) -> None:
        study = ward.study("one", "uncertain")
        ward.room.claim(study, "r.1")
        with pytest.raises(ClaimError, match="Somebody else reads this study"):
            ward.room.claim(study, "r.2")
        ward.later(minutes=31)
        with pytest.raises(ClaimError, match="your time for it ran out"):
            ward.room.save_reading(study, "r.1", NORMAL)
        ward.room.claim(study, "r.2")
        with pytest.raises(ClaimError, match="your time for it ran out"):
            ward.room.save_reading(study, "r.1", NORMAL)
        ward.room.save_reading(study, "r.2", NORMAL)
        assert labels_of(ward.reader, self.first_image(ward, study))[0].author == "r.2"

    def first_image(self, ward: Ward, study: str) -> str:
        return next(row[0] for row in ward.rows()["predictions"] if row[1] == study)

    def test_a_claim_is_given_back(self, ward: Ward) -> None:
        study = ward.study("one", "uncertain")
        ward.room.claim(study, "r.1")
        ward.room.release(study, "r.2")
        assert ward.room.next_study("r.2") is None
        ward.room.release(study, "r.1")
        given = ward.room.next_study("r.2")
        assert given is not None

    def test_of_two_verdicts_at_once_one_counts(self, ward: Ward) -> None:
        study = ward.study("one", "uncertain")
        ward.room.claim(study, "r.1")
        barrier = threading.Barrier(2)

        def save(verdict: Verdict) -> Label | ClaimError:
            barrier.wait()
            try:
                return ward.room.save_reading(study, "r.1", verdict)
            except ClaimError as error:
                return error

        with ThreadPoolExecutor(2) as threads:
            outcomes = list(threads.map(save, [NORMAL, PNEUMONIA]))
        (label,) = [each for each in outcomes if isinstance(each, Label)]
        (refused,) = [each for each in outcomes if isinstance(each, ClaimError)]
        assert "You have read this study" in str(refused)
        assert labels_of(ward.reader, label.prediction_id) == [label]

    def test_a_store_that_is_away_loses_no_claim_and_saves_nothing(self, ward: Ward) -> None:
        study = ward.study("one", "uncertain")
        ward.room.claim(study, "r.1")
        before, ward.fails = ward.rows(), True
        with pytest.raises(StoreError):
            ward.room.save_reading(study, "r.1", NORMAL)
        assert ward.rows() == before
        ward.fails = False
        assert ward.room.save_reading(study, "r.1", NORMAL).author == "r.1"

    @pytest.mark.parametrize(
        ("verdict", "sentence"),
        [
            (Verdict("normal", "cannot_tell", True), "not both"),
            (Verdict(None, "sure", True), "not both"),
            (Verdict("normal", "sure", True, pneumonia_type="viral"), "Only pneumonia has a type"),
            (Verdict("lung", "sure", True), "The finding is"),  # type: ignore[arg-type]
            (Verdict("normal", "certain", True), "The certainty is"),  # type: ignore[arg-type]
            (Verdict("pneumonia", "sure", True, pneumonia_type="worse"), "The type is"),  # type: ignore[arg-type]
            (Verdict("normal", "sure", True, comment="x" * 1_000_000), "at most 2000 characters"),
            (Verdict("normal", "sure", True, comment="see <b>this</b>"), "plain text"),
            (Verdict("normal", "sure", True, comment="\x00"), "plain text"),
        ],
    )
    def test_a_verdict_that_cannot_be_one_is_refused(self, ward: Ward, verdict: Verdict, sentence: str) -> None:
        study = ward.study("one", "uncertain")
        ward.room.claim(study, "r.1")
        with pytest.raises(VerdictError, match=sentence):
            ward.room.save_reading(study, "r.1", verdict)
        assert ward.rows()["readings"] == []
        with pytest.raises(VerdictError, match="staff id or role"):
            ward.room.next_study("Mary Miller, born 1960")

    def test_a_second_reader_reads_what_the_first_finds_and_a_share_of_the_rest(self, ward: Ward) -> None:
        positive, twice, alone = (ward.study(name, "uncertain") for name in (undrawn() + "+", drawn(), undrawn()))
        for study, verdict, share in ((positive, PNEUMONIA, 1.0), (twice, NORMAL, 0.2), (alone, NORMAL, 0.2)):
            ward.room.claim(study, "r.1")
            detail = ward.room.save_reading(study, "r.1", verdict).reading
            assert detail is not None
            assert (detail.probability, detail.second_probability) == (1.0, share)
            assert detail.second_drawn is (study != alone)
        assert ward.room.next_study("r.1") is None
        assert {each.case_id for each in ward.waiting()} == {positive, twice}
        ward.room.claim(twice, "r.2")
        second = ward.room.save_reading(twice, "r.2", NORMAL).reading
        assert second is not None
        assert (second.asked, second.probability, second.second_probability) == ("second_reading", 0.2, None)
        assert [each.case_id for each in ward.waiting()] == [positive]

    def test_a_third_reads_only_where_two_differ_and_a_lead_decides(self, ward: Ward) -> None:
        agreed, differ = ward.study("agreed", "uncertain"), ward.study("differ", "uncertain")
        for study, second in ((agreed, PNEUMONIA), (differ, NORMAL)):
            for reader, verdict in (("r.1", PNEUMONIA), ("r.2", second)):
                ward.room.claim(study, reader)
                ward.room.save_reading(study, reader, verdict)
                ward.later(seconds=1)
        assert [each.case_id for each in ward.waiting()] == [differ]
        with pytest.raises(ReviewError, match="No decision is asked for"):
            ward.room.adjudicate(differ, "lead", NORMAL)
        ward.room.claim(differ, "r.3")
        ward.room.save_reading(differ, "r.3", UNSURE)
        assert ward.waiting() == []
        assert ward.room.list_to_adjudicate() == [differ]
        made = ward.room.adjudicate(differ, "lead", NORMAL)
        assert (len(made.label_ids), made.finding) == (3, "normal")
        assert ward.room.list_to_adjudicate() == []

    def test_who_knows_the_answer_is_not_blind_and_the_practitioner_reads_nothing(self, ward: Ward) -> None:
        study = ward.study("one", "uncertain")
        ward.room.record_view(study, "r.1", "alert")
        assert ward.room.next_study("r.1") is None
        ward.room.claim(study, "r.1")
        label = ward.room.save_reading(study, "r.1", Verdict("pneumonia", "sure", no_result_seen=False))
        assert label.reading is not None
        assert label.reading.not_blind == ("opened_alert", "result_seen")
        (alert,) = ward.desk.raise_alerts()
        ward.desk.acknowledge(alert.alert_id, "dr.5")
        with pytest.raises(ClaimError, match="You are the practitioner"):
            ward.room.claim(study, "dr.5")
        with pytest.raises(ReviewError, match="no such study"):
            ward.room.record_view("unknown", "r.1", "case")

    def test_a_label_from_a_file_closes_a_study_and_counts_as_not_blind(self, ward: Ward) -> None:
        record = answer("one", "uncertain", ward.time)
        ward.put(record)
        blood = label_of(record).model_copy(update={"source": "blood_test"})
        ward.put(blood, role="label")
        assert len(ward.waiting()) == 1
        ward.put(label_of(record), role="label")
        assert ward.waiting() == []
        # Who states something again later has no second opinion.
        ward.put(label_of(record).model_copy(update={"finding": "normal"}), role="label")
        (row,) = ward.rows()["readings"]
        assert row[-3:] == ("pneumonia", False, None)

    # --- alerts

    def test_an_alert_is_raised_once_a_study_for_what_is_urgent(self, ward: Ward) -> None:
        sick, unsure = ward.study("sick", "pneumonia", "normal"), ward.study("unsure", "uncertain", "uncertain")
        typed = ward.study("typed", "type")
        ward.study("leg", "leg")
        ward.study("well", "normal")
        raised = ward.desk.raise_alerts()
        assert [(each.case_id, each.reasons) for each in raised] == [
            (sick, ("pneumonia",)),
            (unsure, ("uncertain_finding",)),
            (typed, ("pneumonia", "uncertain_type")),
        ]
        assert {len(each.prediction_ids) for each in raised} == {1, 2}
        ward.put(answer("sick", "uncertain", ward.time))
        assert ward.desk.raise_alerts() == []
        # Another process, that has not seen them, raises them again: the first counts.
        other = raised[0].model_copy(update={"alert_id": "f" * 36, "time": raised[2].time})
        append(ward.store, KEY, [other], "review")
        ward.database.follow(ward.reader)
        assert {each.alert_id for each in ward.desk.list_open()} == {each.alert_id for each in raised}

    def test_of_rejected_images_nothing_is_read_nor_alerted(self, ward: Ward) -> None:
        sick, well = answer("part", "uncertain", ward.time), answer("part", "normal", ward.time)
        alone = answer("alone", "uncertain", ward.time)
        ward.put(sick, well, alone)
        ward.put(withdrawal_of(sick, at=ward.time), withdrawal_of(alone, at=ward.time), role="review")
        assert (ward.waiting(), ward.desk.raise_alerts()) == ([], [])
        # What is sent in their place is a study like any other.
        ward.put(answer("alone", "uncertain", ward.time))
        assert [each.case_id for each in ward.desk.raise_alerts()] == [case_of("alone")]

    def test_a_retracted_alert_is_told_to_those_who_were_told_and_another_follows(self, ward: Ward) -> None:
        told, untold = answer("told", "uncertain", ward.time), answer("untold", "pneumonia", ward.time)
        ward.put(told)
        (alert,) = ward.desk.raise_alerts()
        (message,) = ward.desk.take_from_outbox(LEASE)
        ward.desk.record_sent(message, "mail")
        ward.put(untold)
        ward.desk.raise_alerts()
        ward.put(withdrawal_of(told, at=ward.time), withdrawal_of(untold, at=ward.time), role="review")
        assert (ward.desk.retract_withdrawn(), ward.desk.retract_withdrawn(), ward.desk.list_open()) == (2, 0, [])
        (notice,) = ward.desk.take_from_outbox(LEASE)
        assert (notice.alert_id, notice.step, notice.retracted) == (alert.alert_id, 1, True)
        ward.put(answer("told", "uncertain", ward.time))
        assert ward.desk.raise_alerts() == []
        ward.desk.record_sent(notice, "mail")
        assert [each.case_id for each in ward.desk.raise_alerts()] == [case_of("told")]
        assert ward.desk.retract_withdrawn() == 0

    def test_an_alert_waits_in_the_outbox_until_it_is_on_record_as_sent(self, ward: Ward) -> None:
        for name in ("one", "two"):
            ward.study(name, "uncertain")
        raised = ward.desk.raise_alerts()
        first, second = ward.desk.take_from_outbox(LEASE)
        assert {first.alert_id, second.alert_id} == {each.alert_id for each in raised}
        # Leased, so that no other sender gets them.
        assert ward.desk.take_from_outbox(LEASE) == []
        ward.desk.record_sent(first, "mail")
        ward.later(minutes=2)
        # The second one's sender died.
        (again,) = ward.desk.take_from_outbox(LEASE)
        assert (again.key, again.attempts) == (second.key, 0)
        ward.desk.record_failed(again, "mail", "it does not answer")
        assert ward.desk.take_from_outbox(LEASE) == []
        ward.later(seconds=6)
        (third,) = ward.desk.take_from_outbox(LEASE)
        assert third.attempts == 1
        ward.desk.record_sent(third, "pager")
        ward.later(hours=1)
        assert ward.desk.take_from_outbox(LEASE) == []

    def test_two_senders_never_get_one_message(self, ward: Ward) -> None:
        for n in range(6):
            ward.study(f"s{n}", "uncertain")
        ward.desk.raise_alerts()
        barrier = threading.Barrier(3)

        def take(_: int) -> list[str]:
            barrier.wait()
            return [each.key for each in ward.desk.take_from_outbox(LEASE, 4)]

        with ThreadPoolExecutor(3) as threads:
            taken = [key for keys in threads.map(take, range(3)) for key in keys]
        assert len(taken) == len(set(taken)) == 6

    def test_an_escalation_is_sent_too_and_ends_when_somebody_answers(self, ward: Ward) -> None:
        ward.study("one", "uncertain")
        (alert,) = ward.desk.raise_alerts()
        for message in ward.desk.take_from_outbox(LEASE):
            ward.desk.record_sent(message, "mail")
        ward.later(seconds=1)
        ward.desk.escalate(alert.alert_id, 1)
        (message,) = ward.desk.take_from_outbox(LEASE)
        assert message.key == f"{alert.alert_id}-1"
        # Somebody without a name opened the link: of an uncertain finding that ends nothing.
        ward.desk.acknowledge(alert.alert_id, None)
        with pytest.raises(ReviewError, match="Another step"):
            ward.desk.escalate(alert.alert_id, 1)
        ward.desk.escalate(alert.alert_id, 2)
        assert not ward.desk.list_open()[0].answered
        ward.desk.order(alert.alert_id, "dr.5", "expert")
        (state,) = ward.desk.list_open()
        assert (state.answered, state.acknowledged_by, state.ordered, state.escalations) == (True, "dr.5", "expert", 2)
        ward.later(hours=1)
        assert ward.desk.take_from_outbox(LEASE) == []
        with pytest.raises(ReviewError, match="Somebody has answered"):
            ward.desk.escalate(alert.alert_id, 3)
        ward.desk.close(alert.alert_id, "dr.5")
        assert ward.desk.list_open() == []
        with pytest.raises(ReviewError, match="This alert is closed"):
            ward.desk.acknowledge(alert.alert_id, "dr.6")
        with pytest.raises(ReviewError, match="no such alert"):
            ward.desk.acknowledge("unknown", "dr.6")

    def test_an_answered_alert_is_its_practitioners_until_its_study_is_over(self, ward: Ward) -> None:
        for name in ("one", "two"):
            ward.study(name, "pneumonia")
        first, _ = ward.desk.raise_alerts()
        ward.desk.order(first.alert_id, "dr.5", "expert")
        assert [each.alert_id for each in ward.desk.list_answered_by("dr.5")] == [first.alert_id]
        assert ward.desk.list_answered_by("dr.6") == []
        assert ward.desk.close_finished(ward.time - timedelta(days=1)) == 0
        ward.later(days=2)
        # The other one is answered by nobody.
        assert ward.desk.close_finished(ward.time - timedelta(days=1)) == 1
        assert ward.desk.list_answered_by("dr.5") == []
        (left,) = ward.desk.list_open()
        assert left.alert_id != first.alert_id

    def test_an_alert_that_the_store_does_not_take_is_raised_later(self, ward: Ward) -> None:
        ward.study("one", "uncertain")
        ward.fails = True
        with pytest.raises(StoreError):
            ward.desk.raise_alerts()
        assert ward.desk.list_open() == []
        ward.fails = False
        assert len(ward.desk.raise_alerts()) == 1

    def test_no_alert_is_lost_with_the_database(self, ward: Ward) -> None:
        for name in ("sent", "open"):
            ward.study(name, "uncertain")
        ward.desk.raise_alerts()
        sent, left = ward.desk.take_from_outbox(LEASE)
        ward.desk.record_sent(sent, "mail")
        ward.study("new", "uncertain")
        with ward.database.write() as connection:
            for table in reversed(METADATA.sorted_tables):
                connection.execute(table.delete())
        ward.database.follow(ward.reader)
        desk = AlertDesk(ward.database, ward.commit, ward.now)
        assert len(desk.raise_alerts()) == 1
        assert desk.take_from_outbox(LEASE)[0].key == left.key
