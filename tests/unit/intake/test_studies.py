"""From objects to results: what is one study, what is asked, what is left out, and what a kill at any step leaves."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from highdicom.sr import srread

from pneumoserve.imaging import ImageError
from pneumoserve.imaging.prepare import prepare
from pneumoserve.intake import IntakeRules
from pneumoserve.intake.calls import Answers
from pneumoserve.intake.errors import ServiceAwayError, ServiceFaultError, ServiceRefusalError
from pneumoserve.intake.recording import Recorder
from pneumoserve.intake.rules import Reading
from pneumoserve.intake.selections import REJECTIONS
from pneumoserve.intake.spool import ANSWER, REPORT, Batch, Form, Incoming
from pneumoserve.intake.studies import Studies
from pneumoserve.records import Entry, Flag, Withdrawal, read_entries
from pneumoserve.store import MemoryStore, StoreError
from tests.support.archives import reader_of
from tests.support.entries import KEY
from tests.support.intake import (
    NORMAL,
    PNEUMONIA,
    STUDY,
    FakeDestination,
    FakeService,
    make_incoming,
    make_note,
    make_object,
    make_spool,
)

RULES = IntakeRules(quiet_seconds=0, read=Reading(min_age_years=1, below_age_years=6))


class World:
    """A spool in memory, with all that works on it."""

    def __init__(self, rules: IntakeRules = RULES) -> None:
        self.store = MemoryStore()
        self.spool = make_spool(self.store)
        self.service = FakeService()
        self.destination = FakeDestination(self.spool)
        self.archive = MemoryStore()
        self.studies = Studies(self.spool, rules, self.service, [self.destination], Recorder(self.archive, KEY))

    def said(self) -> list[Entry]:
        """What is on record of what people said."""
        return list(read_entries(reader_of(self.archive, KEY)))

    def reject(self, *numbers: int, title: str = "113001^DCM") -> str:
        note, selection = make_note(title, *numbers)
        return self.spool.keep_rejection(note, REJECTIONS[title], selection.studies)

    def keep(self, *numbers: int, flagged: bool = False, **attributes: object) -> None:
        for number in numbers:
            assert self.spool.keep(make_incoming(number, **attributes), flagged=flagged) != "refused"

    def advance(self, times: int = 2) -> None:
        for _ in range(times):
            for study in self.spool.studies():
                self.studies.advance(study)

    @property
    def study(self) -> str:
        return self.spool._hashes.hash("study", STUDY)

    def outcome(self, number: int) -> str:
        instance = self.spool._hashes.hash("instance", f"{STUDY}.1.{number}")
        return self.spool._read(f"instances/{instance}/done")["outcome"]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.studies.finish()


def test_one_study_is_one_call_and_one_result(world: World) -> None:
    world.keep(1, 2, 3)
    world.advance()
    (asked,) = world.service.asked
    assert asked == {
        "study": STUDY, "patient": "MRN-4711", "origin": "routed", "practitioner": "Meier^Anna",
        "reference": "ACC-4711",
    }  # fmt: skip
    assert [len(taken) for taken in world.destination.taken.values()] == [1]
    assert world.spool.studies() == []
    assert {world.outcome(number) for number in (1, 2, 3)} == {"answered"}


def test_identifiers_go_when_the_result_is_delivered(world: World) -> None:
    world.destination.open = False
    world.keep(1)
    world.advance()
    assert any(b"MRN-4711" in world.store.get(each.key) for each in world.store.list("objects/"))
    world.destination.open = True
    world.advance()
    for each in world.store.versions(""):
        assert each.etag is None or b"4711" not in world.store.get(each.key, each.version)


def test_a_study_that_is_still_coming_waits(world: World) -> None:
    studies = Studies(world.spool, RULES.model_copy(update={"quiet_seconds": 60}), world.service)
    world.keep(1)
    studies.advance(world.study)
    assert world.service.asked == []
    world.store.clock = lambda: datetime.now(UTC) - timedelta(seconds=61)
    world.keep(2)
    studies.advance(world.study)
    assert world.service.asked == []
    studies.finish()


def test_what_all_came_just_now_is_not_looked_into(world: World) -> None:
    studies = Studies(world.spool, RULES.model_copy(update={"quiet_seconds": 60}), world.service)
    world.keep(1)
    studies.look()
    assert world.spool.studies() == [world.study]
    assert not studies._at_work
    world.store.clock = lambda: datetime.now(UTC) - timedelta(seconds=61)
    world.keep(2)
    studies.look()
    assert studies._at_work
    studies.finish()


def test_a_note_is_looked_into_at_once(world: World) -> None:
    studies = Studies(world.spool, RULES.model_copy(update={"quiet_seconds": 60}), world.service)
    world.keep(1, flagged=True)
    studies.look()
    assert studies._at_work
    studies.finish()


def test_a_flagged_study_says_so(world: World) -> None:
    world.keep(1, flagged=True)
    world.advance()
    assert [asked["origin"] for asked in world.service.asked] == ["flagged"]


def test_a_picture_of_the_result_goes_along_where_a_rule_says_so() -> None:
    for wanted in (False, True):
        world = World(RULES.model_copy(update={"secondary_capture": wanted}))
        world.keep(1)
        world.advance()
        ((sent,),) = world.destination.taken.values()
        assert sent.count(b"DICM") == (2 if wanted else 1)
        world.studies.finish()


def test_a_flag_that_comes_after_the_answer_is_on_record_once(world: World) -> None:
    world.keep(1)
    world.advance()
    assert world.said() == []
    for _ in range(2):
        world.keep(1, flagged=True)
        world.advance()
    (flag,) = world.said()
    assert isinstance(flag, Flag)
    assert (flag.case_id, flag.release, flag.title) == (world.study, "0" * 12, None)
    assert world.spool.studies() == []


def test_a_flag_that_comes_with_the_study_is_its_origin_alone(world: World) -> None:
    world.spool.flag(STUDY, "113000^DCM")
    world.advance()
    world.keep(1)
    world.advance()
    assert ([asked["origin"] for asked in world.service.asked], world.said()) == (["flagged"], [])
    assert world.spool.studies() == []


def test_a_flag_waits_for_the_answer_and_for_an_archive_that_is_away(world: World) -> None:
    world.service.failing = [ServiceAwayError("away")]
    world.keep(1)
    world.advance(1)
    world.spool.flag(STUDY, "113000^DCM")
    world.advance()
    assert world.said() == []
    world.studies._later.clear()

    def fail(operation: str, key: str) -> None:
        raise StoreError("away")

    world.archive.before = fail
    for _ in range(2):
        with pytest.raises(StoreError):
            world.advance()
    world.archive.before = lambda operation, key: None
    world.advance()
    assert [entry.title for entry in world.said() if isinstance(entry, Flag)] == ["113000^DCM"]


def test_a_flag_of_a_study_that_never_comes_is_forgotten(world: World) -> None:
    world.store.clock = lambda: datetime.now(UTC) - timedelta(days=15)
    world.spool.flag(STUDY)
    world.store.clock = lambda: datetime.now(UTC)
    world.advance()
    assert (world.said(), world.spool.studies()) == ([], [])


@pytest.mark.parametrize(("title", "why"), REJECTIONS.items())
def test_a_rejection_note_withdraws_the_answer(world: World, title: str, why: str) -> None:
    world.keep(1, 2)
    world.advance()
    (first,) = world.destination.taken
    assert world.reject(1, title=title) == "kept"
    world.advance(3)
    (withdrawal,) = world.said()
    assert isinstance(withdrawal, Withdrawal)
    read = {each.instance: each.prediction_id for each in world.spool.answer_of(first).read}
    assert (withdrawal.case_id, withdrawal.release, withdrawal.why) == (world.study, "0" * 12, why)
    rejected = world.spool._hashes.hash("instance", f"{STUDY}.1.1")
    assert withdrawal.prediction_ids == (read[rejected],)
    # The answer of the other image stands.
    second = max(world.destination.taken)
    assert world.spool.answer_of(second).study == world.service.decision
    document = srread(io.BytesIO(world.destination.taken[second][0]))
    (predecessor,) = document.PredecessorDocumentsSequence
    (series,) = predecessor.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == world.spool.uid(f"result {first.folder}")
    assert f"{STUDY}.1.1" in str(document)
    assert "is withdrawn" in str(document)
    assert (world.reject(1, title=title), world.spool.studies()) == ("repeat", [])
    for each in world.store.versions(""):
        assert each.etag is None or b"4711" not in world.store.get(each.key, each.version)


def test_of_a_study_that_is_rejected_whole_nothing_is_left_and_a_later_image_counts_alone(world: World) -> None:
    world.keep(1)
    world.advance()
    world.reject(1)
    world.advance()
    assert world.spool.answer_of(Batch(world.study, 2)).study is None
    world.service.decision = NORMAL
    world.keep(2)
    world.advance()
    assert world.spool.answer_of(Batch(world.study, 3)).study == NORMAL
    assert len(world.destination.taken) == 3


def test_an_image_that_was_rejected_before_it_came_or_was_asked_of_is_not_read(world: World) -> None:
    world.keep(1)
    world.reject(1, 2)
    world.advance()
    world.keep(2)
    world.advance()
    assert (world.service.asked, world.said(), world.destination.taken) == ([], [], {})
    assert ([world.outcome(number) for number in (1, 2)], world.spool.studies()) == (["rejected"] * 2, [])


def test_a_rejection_waits_for_the_answer_that_it_withdraws(world: World) -> None:
    world.service.failing = [ServiceAwayError("away")]
    world.keep(1)
    world.advance(1)
    world.reject(1)
    world.advance()
    assert world.said() == []
    world.studies._later.clear()
    world.advance(3)
    assert [entry.prediction_ids for entry in world.said() if isinstance(entry, Withdrawal)] == [
        tuple(each.prediction_id for each in world.spool.answer_of(Batch(world.study, 1)).read)
    ]


def test_a_rejection_of_what_failed_holds_for_a_retry_too(world: World) -> None:
    world.service.failing = [ServiceRefusalError("no")]
    world.keep(1)
    world.advance()
    world.reject(1)
    world.advance()
    (failure,) = world.spool.all_failures()
    world.spool.retry(failure)
    world.advance(5)
    assert [type(entry) for entry in world.said()] == [Withdrawal]
    assert world.spool.studies() == []


def test_what_exceeds_a_call_is_split_and_joined(world: World) -> None:
    world.keep(*range(1, 20))
    world.advance()
    assert sorted(len(answers.predictions) for answers in world.service.first.values()) == [3, 16]
    assert len(world.spool.answer_of(Batch(world.study, 1)).read) == 19
    assert len(world.destination.taken) == 1


def test_a_study_of_any_size_is_results_of_so_many_objects_and_one_call_at_a_time_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What it costs to write a report is another test's.
    monkeypatch.setattr("pneumoserve.intake.studies.make_report", lambda batch, answer, *_: answer.time.encode())
    world = World()
    world.destination.forms = (REPORT,)
    world.studies._caller = service = CountingService()
    file, uid = make_object(1000, side=8), f"{STUDY}.1."
    for number in range(1000, 1500):
        same = file.replace(f"{uid}1000".encode(), f"{uid}{number}".encode())
        assert world.spool.keep(Incoming(STUDY, f"{uid}{number}", same), flagged=False) == "kept"
    monkeypatch.setattr(world.store, "get", lambda key, get=world.store.get: Held(get(key)))
    world.advance(5)
    assert [len(world.spool.read_plan(batch).instances) for batch in world.destination.taken] == [160, 160, 160, 20]
    assert (sum(service.sizes), max(service.sizes), len(service.sizes)) == (500, 16, 32)
    # One call's, and the one that was read last.
    assert 16 <= Held.most <= 16 + 1
    assert world.spool.studies() == []
    # The last one is of the whole study.
    assert world.spool.answer_of(Batch(world.study, 4)).study == PNEUMONIA
    world.studies.finish()


class Held(bytes):
    """Bytes of the spool; how many of its objects are in memory at once."""

    now = most = 0

    def __init__(self, _: bytes) -> None:
        Held.now += self.is_object
        Held.most = max(Held.most, Held.now)

    def __del__(self) -> None:
        Held.now -= self.is_object

    @property
    def is_object(self) -> bool:
        return self.startswith(bytes(128))


class CountingService(FakeService):
    """Keeps how many images each call had, and none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def ask(self, images: Sequence[bytes], named: Mapping[str, str], key: str) -> Answers:
        self.sizes.append(len(images))
        answers = super().ask(images, named, key)
        self.images.clear()
        return answers


def test_an_object_of_several_frames_is_taken_and_named_as_unreadable(world: World) -> None:
    several = make_incoming(2, NumberOfFrames=2)
    with pytest.raises(ImageError, match="several frames"):
        prepare(several.file)
    world.service.bad = {several.file}
    world.keep(1)
    world.keep(2, NumberOfFrames=2)
    world.advance()
    assert [world.outcome(number) for number in (1, 2)] == ["answered", "unreadable"]


def test_a_call_asks_for_no_more_pixels_than_the_service_takes(world: World) -> None:
    world.keep(1, 2, 3, Rows=8000, Columns=5000)
    world.advance()
    assert sorted(len(answers.predictions) for answers in world.service.first.values()) == [1, 2]


def test_an_unreadable_object_is_named_and_spoils_no_other(world: World) -> None:
    world.service.bad = {make_incoming(2).file}
    world.keep(1, 2, 3)
    world.advance()
    answer = world.spool.answer_of(Batch(world.study, 1))
    assert [len(answer.read), [each.why for each in answer.unreadable]] == [2, ["The DICOM object is damaged."]]
    assert [world.outcome(number) for number in (1, 2, 3)] == ["answered", "unreadable", "answered"]


def test_what_a_rule_leaves_out_is_not_asked_and_counted_with_its_reason(world: World) -> None:
    world.keep(1, ViewPosition="LL")
    world.advance()
    assert (world.service.asked, world.destination.taken, world.outcome(1)) == ([], {}, "lateral")


def test_a_later_object_makes_a_new_result_and_lowers_no_finding(world: World) -> None:
    world.keep(1)
    world.advance()
    world.service.decision = NORMAL
    world.keep(2)
    world.advance()
    first, second = (world.spool.answer_of(Batch(world.study, number)).study for number in (1, 2))
    assert first is not None
    assert first == second
    assert len(world.destination.taken) == 2


def test_a_later_object_goes_on_where_the_first_was_given_up(world: World) -> None:
    world.service.failing = [ServiceRefusalError("no")]
    world.keep(1)
    world.advance()
    world.spool.drop(Batch(world.study, 1), "dropped")
    world.keep(2)
    world.advance()
    assert [batch.number for batch in world.destination.taken] == [2]
    assert (world.outcome(1), world.outcome(2)) == ("dropped", "answered")


def test_a_later_object_waits_for_the_answer_before_it(world: World) -> None:
    world.service.failing = [ServiceAwayError("away")]
    world.keep(1)
    world.advance(1)
    world.keep(2)
    world.advance(1)
    assert list(world.spool.batches(world.study)) == [Batch(world.study, 1)]


def test_a_service_that_is_away_is_asked_again_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumoserve.intake.backoff._FIRST_SECONDS", 0.0)
    world.service.failing = [ServiceAwayError("away"), ServiceAwayError("away")]
    world.keep(1)
    world.advance(5)
    assert (len(world.service.asked), len(world.destination.taken)) == (3, 1)


def test_a_service_that_fails_for_a_day_is_asked_no_more_until_a_person_looked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumoserve.intake.backoff._FIRST_SECONDS", 0.0)
    world.service.failing = [ServiceFaultError("The service answers 500: no.")] * 6
    world.keep(1)
    world.advance(3)
    assert (len(world.service.asked), world.spool.all_failures()) == (3, [])
    key = f"{Batch(world.study, 1).folder}fault"
    old = world.store.get(key).replace(str(datetime.now(UTC).year).encode(), b"2020")
    world.store.put(key, old, "application/json")
    world.advance(3)
    (failure,) = world.spool.all_failures()
    assert (len(world.service.asked), "look at its log" in failure.reason) == (4, True)
    world.spool.retry(failure)
    world.advance(4)
    assert (len(world.service.asked), len(world.destination.taken), world.spool.studies()) == (7, 1, [])


def test_what_the_service_refuses_waits_for_a_person(world: World) -> None:
    world.service.failing = [ServiceRefusalError("The service answers 404: no.")]
    world.keep(1)
    world.advance(5)
    (failure,) = world.spool.all_failures()
    assert (failure.what, len(world.service.asked)) == (ANSWER, 1)
    world.spool.retry(failure)
    world.advance()
    assert (world.spool.all_failures(), len(world.destination.taken)) == ([], 1)


def test_a_fault_of_ours_waits_for_a_person_too(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.service.failing = [ValueError("Beispiel^Änne")]
    world.keep(1)
    world.advance(5)
    assert [failure.reason for failure in world.spool.all_failures()] == ["A fault of intake (ValueError); report it."]
    assert (len(world.service.asked), "Beispiel" in caplog.text) == (1, False)


def test_what_nobody_looked_at_expires_with_its_identifiers(world: World) -> None:
    world.service.failing = [ServiceRefusalError("no")]
    world.keep(1)
    world.advance()
    batch = Batch(world.study, 1)
    key = f"{batch.folder}failed-{ANSWER}"
    old = world.store.get(key).replace(str(datetime.now(UTC).year).encode(), b"2020")
    world.store.put(key, old, "application/json")
    world.advance()
    assert (world.spool.studies(), world.outcome(1)) == ([], "expired")


class Killed(BaseException):
    """The process ends here."""


def live(world: World) -> None:
    """What happens to a study of two objects: the sender sends until it is told that each is durable."""
    world.keep(1, 2)
    world.advance(3)
    world.spool.flag(STUDY)
    world.reject(1)
    world.advance(3)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_step_loses_nothing_and_answers_nothing_twice(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real one takes most of this test's time; two tries of one differ by their time.
    for form in get_args(Form):
        monkeypatch.setattr(f"pneumoserve.intake.studies.make_{form}", lambda batch, answer, *_: answer.time.encode())
    rules = RULES.model_copy(update={"secondary_capture": True})
    for step in itertools.count(1):
        world = World(rules)
        kill = kill_at(step)
        for store in (world.store, world.archive):
            setattr(store, moment, kill)
        try:
            live(world)
        except Killed:
            for store in (world.store, world.archive):
                setattr(store, moment, lambda operation, key: None)
        else:
            break
        finally:
            world.studies.finish()
        # What starts again has the bucket alone; the service and the PACS stand.
        again = World(rules)
        again.store, again.archive, again.service = world.store, world.archive, world.service
        again.spool = make_spool(world.store)
        again.destination = FakeDestination(again.spool, taken=world.destination.taken)
        recorder = Recorder(again.archive, KEY)
        again.studies = Studies(again.spool, rules, again.service, [again.destination], recorder)
        live(again)
        again.studies.finish()
        assert again.spool.studies() == [], step
        assert not [each.key for each in again.store.list("studies/") if each.key.endswith(get_args(Form))], step
        assert [again.outcome(number) for number in (1, 2)] == ["answered", "answered"], step
        answered = [image for images in again.service.images.values() for image in images]
        assert len(answered) == len(set(answered)) == 2, step
        reports = [report for taken in again.destination.taken.values() for report in taken]
        assert reports, step
        assert len(set(reports)) == len(again.destination.taken), step
        assert sorted(type(entry).__name__ for entry in again.said()) == ["Flag", "Withdrawal"], step
    assert step > 50


def kill_at(step: int) -> Callable[[str, str], None]:
    left = itertools.count(1)

    def kill(operation: str, key: str) -> None:
        if next(left) == step:
            raise Killed

    return kill
