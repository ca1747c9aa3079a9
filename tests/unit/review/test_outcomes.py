"""What became of studies: by which chance they were to be read, what readers found, and what does not count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from pneumoserve.decision import STOPPED
from pneumoserve.ids import uuid7
from pneumoserve.monitoring import describe_counts, describe_tested, measure, tally
from pneumoserve.records import NoStudiesError, Scope
from pneumoserve.review import Cohort, ReviewDatabase, Verdict, list_cohorts
from pneumoserve.review.following import take_entries
from tests.support.entries import RELEASE, label_of
from tests.support.metrics import DAY, KINDS, POLICY, read_all, read_ward
from tests.support.reviews import NORMAL, PNEUMONIA, UNSURE, Ward, answer, case_of, flag_of, flagged, withdrawal_of


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    database = ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}")
    yield Ward(database, time=DAY)
    database.close()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """A ward of two sites whose readings are all in."""
    folder = tmp_path_factory.mktemp("done")
    ward = Ward(ReviewDatabase(f"sqlite:///{folder / 'review.sqlite'}"))
    read_ward(ward, sites=("hospital-a", "hospital-b"))
    yield ward
    ward.database.close()


def only(ward: Ward, scope: Scope = Scope(), now: datetime | None = None) -> Cohort:  # noqa: B008 - frozen
    (cohort,) = list_cohorts(ward.database, now or datetime.now(UTC), scope)
    return cohort


def test_what_a_radiologist_flags_is_no_sample_of_the_others(ward: Ward) -> None:
    """Flagged before its answer it is in no figure; flagged later it stays what chance made of it."""
    doubted, referred = answer("doubted", "normal", DAY), answer("referred", "uncertain", DAY)
    chosen = flagged(answer("chosen", "uncertain", DAY))
    ward.put(chosen, doubted, referred, flag_of(doubted, DAY), flag_of(referred, DAY))
    for _ in range(3):
        study = ward.room.next_study("r.1")
        assert study is not None
        ward.room.save_reading(study.case_id, "r.1", PNEUMONIA)
    found = {each.case_id: (each.probability, each.outcome) for each in only(ward).studies}
    assert found == {case_of("doubted"): (None, "not_drawn"), case_of("referred"): (1.0, "read")}


def test_withdrawn_answers_are_in_no_figure(ward: Ward) -> None:
    """Of the study of which an image is left, that one alone counts."""
    images = {kind: answer("part", kind, DAY) for kind in ("uncertain", "normal")}
    alone = answer("alone", "pneumonia", DAY)
    rejected = (withdrawal_of(images["uncertain"], at=DAY), withdrawal_of(alone, at=DAY))
    ward.put(*images.values(), alone, *rejected)
    assert [(each.case_id, each.stratum) for each in only(ward).studies] == [(case_of("part"), "normal")]


def test_a_day_of_readings_becomes_figures(done: Ward) -> None:
    """174 studies: all 30 referred are read but for one that cannot be told; of 144 confident ones chance drew some."""
    cohort = only(done)
    counted = tally(cohort.studies, POLICY.detector_threshold)
    assert counted.answers == {"referred": 30, "pneumonia": 24, "normal": 120}
    strata = {each.name: each for each in counted.strata}
    assert strata["referred"].outcomes == {"cannot_tell": 1, "read": 29}
    drawn = sum(strata[name].chosen for name in strata if name != "referred")
    assert 50 < drawn < 95
    assert {each.probability for each in cohort.studies if each.stratum == "referred"} == {1.0}
    found = measure(counted).observed
    sensitivity = found["product_sensitivity"].interval
    assert sensitivity is not None
    # 15 of the referred, 8 of the stated and 2 of the normal are sick.
    assert sensitivity.low < 23 / 25 < sensitivity.high
    assert cohort.effort.minutes == 2
    assert cohort.effort.read == drawn + 30
    assert cohort.effort.readings == cohort.effort.read


def test_it_is_the_same_from_a_database_made_anew(done: Ward) -> None:
    before = only(done)
    done.database.rebuild(done.reader)
    assert only(done) == before


def test_a_cohort_counts_once_it_is_closed(done: Ward) -> None:
    early = only(done, now=DAY + timedelta(days=13))
    assert (early.studies, early.open) == ((), 174)
    late = only(done, now=DAY + timedelta(days=15))
    assert (len(late.studies), late.open) == (174, 0)


def test_what_is_said_after_the_closing_changes_nothing(ward: Ward) -> None:
    case_id = ward.study("late", "uncertain", score=0.5)
    ward.later(days=20)
    read_all(ward, {case_id: PNEUMONIA})
    (study,) = only(ward).studies
    assert (study.outcome, study.truth, study.probability) == ("unread", None, 1.0)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """A ward that several tests read studies of their own in."""
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path_factory.mktemp('room') / 'review.sqlite'}"), time=DAY)
    yield ward
    ward.database.close()


def judged(ward: Ward, *verdicts: Verdict, decision: Verdict | None = None) -> tuple[str, str | None]:
    name = f"judged {next(_NUMBERS)}"
    case_id = case_of(name)
    with ward.database.write() as connection:
        take_entries(connection, [answer(name, "uncertain", ward.time, 0.5)])
    for number, verdict in enumerate(verdicts):
        ward.room.claim(case_id, f"r.{number}")
        ward.room.save_reading(case_id, f"r.{number}", verdict)
        ward.later(seconds=1)
    if decision is not None:
        ward.room.adjudicate(case_id, "lead", decision)
    (study,) = (each for each in only(ward).studies if each.case_id == case_id)
    return study.outcome, study.truth


_NUMBERS = count()
SEEN = Verdict(finding="pneumonia", certainty="sure", no_result_seen=False)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), ("unread", None)),
        ((PNEUMONIA,), ("read", "pneumonia")),
        ((UNSURE,), ("cannot_tell", None)),
        ((SEEN,), ("not_blind", None)),
        ((PNEUMONIA, NORMAL), ("undecided", None)),
        ((PNEUMONIA, NORMAL, NORMAL), ("read", "normal")),
        ((PNEUMONIA, NORMAL, UNSURE), ("undecided", None)),
        ((PNEUMONIA, NORMAL, SEEN), ("undecided", None)),
        ((SEEN, NORMAL), ("read", "normal")),
    ],
)
def test_what_readers_found(room: Ward, verdicts: tuple[Verdict, ...], expected: tuple[str, str | None]) -> None:
    assert judged(room, *verdicts) == expected


@pytest.mark.parametrize(
    ("decision", "expected"), [(PNEUMONIA, ("read", "pneumonia")), (UNSURE, ("cannot_tell", None))]
)
def test_a_lead_decides(room: Ward, decision: Verdict, expected: tuple[str, str | None]) -> None:
    assert judged(room, PNEUMONIA, NORMAL, UNSURE, decision=decision) == expected


def test_what_chance_did_not_choose_has_no_truth(ward: Ward) -> None:
    """A confident normal that somebody labelled, and one that was asked for since two releases differ."""
    record = answer("labelled", "normal", ward.time)
    ward.put(record)
    ward.put(label_of(record), role="labels")
    (study,) = only(ward).studies
    assert (study.outcome, study.truth, study.probability, study.stratum) == ("not_drawn", None, None, "normal")


def test_a_blood_test_describes_those_who_were_tested_and_no_more(ward: Ward) -> None:
    record = answer("tested", "uncertain", ward.time, 0.5)
    ward.put(record, answer("another", "uncertain", ward.time, 0.5))
    label = label_of(record).model_copy(update={"source": "blood_test", "finding": "pneumonia"})
    ward.put(label, role="labels")
    cohort = only(ward)
    assert cohort.tested == {"blood_test": {"referred": (2, 1, 1)}}
    assert {study.truth for study in cohort.studies} == {None}
    (line,) = describe_tested(cohort.tested)
    assert line.startswith(
        "blood tests: 1 of 2 studies with the answer referred were tested, 1 of them sick. Sensitivity"
    )
    assert "not estimable" in line


def test_a_site_is_a_caller(done: Ward) -> None:
    ours = only(done, Scope(site="hospital-b"))
    assert len(ours.studies) == sum(amount // 2 for _, _, _, amount, _ in KINDS)


def test_releases_are_measured_apart_the_last_first(ward: Ward) -> None:
    ward.later(days=1)
    ward.put(answer("a", "normal", DAY), answer("b", "normal", ward.time, release="fedcba987654"))
    cohorts = list_cohorts(ward.database, datetime.now(UTC), Scope())
    assert [each.release for each in cohorts] == ["fedcba987654", RELEASE]
    assert only(ward, Scope(release=RELEASE)).release == RELEASE
    later = list_cohorts(ward.database, datetime.now(UTC), Scope(since=ward.time))
    assert Counter(each.release for each in later) == {"fedcba987654": 1}


@pytest.mark.parametrize(
    ("scope", "sentence"),
    [
        (Scope(release="fedcba987654"), f"has answered no study; those that did: {RELEASE}"),
        (Scope(since=DAY + timedelta(days=50)), "No study was answered in that time"),
        (Scope(site="elsewhere"), "those that studies came from: hospital-a, hospital-b"),
    ],
)
def test_what_was_never_seen_is_told(done: Ward, scope: Scope, sentence: str) -> None:
    with pytest.raises(NoStudiesError, match=sentence) as caught:
        list_cohorts(done.database, datetime.now(UTC), scope)
    assert caught.value.exit_code == 2


def test_an_empty_archive_is_told(ward: Ward) -> None:
    with pytest.raises(NoStudiesError, match="No study has been answered yet"):
        list_cohorts(ward.database, datetime.now(UTC), Scope())


def test_calls_without_a_caller_have_no_site(ward: Ward) -> None:
    ward.study("one", "normal")
    with pytest.raises(NoStudiesError, match="leave the site out"):
        list_cohorts(ward.database, datetime.now(UTC), Scope(site="here"))


def test_names_of_studies_are_not_in_the_figures(done: Ward) -> None:
    counted = tally(only(done).studies, 0.5)
    assert case_of("referred 0") not in repr(counted)


def test_what_was_answered_while_the_release_was_stopped_counts_in_no_figure(ward: Ward) -> None:
    stopped = answer("meanwhile", "normal", ward.time).model_copy(update={"stop": uuid7(), "decision": STOPPED})
    ward.put(answer("before", "normal", ward.time), stopped)
    cohort = only(ward)
    assert ([each.case_id for each in cohort.studies], cohort.stopped, cohort.open) == ([case_of("before")], 1, 0)
    assert "1 studies were answered while the release was stopped" in " ".join(
        describe_counts(tally(cohort.studies, None), cohort.open, 14, cohort.stopped)
    )
