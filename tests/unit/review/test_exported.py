"""Figures of an export: the same, to the last digit, as those of a review database of the same archive."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from pneumoserve.decision import STOPPED
from pneumoserve.ids import time_text, uuid7
from pneumoserve.monitoring import Counted, count_cohorts, measure
from pneumoserve.monitoring.exported import ExportedError, count_exported
from pneumoserve.records import Entry, FolderTarget, NoStudiesError, Scope, append, export
from pneumoserve.review import CLOSED_AFTER, ReviewDatabase, list_cohorts
from pneumoserve.review.following import take_entries
from tests.support.entries import KEY, label_of
from tests.support.metrics import DAY, POLICY, read_ward
from tests.support.reviews import NORMAL, PNEUMONIA, UNSURE, Ward, answer, case_of, flag_of, flagged, withdrawal_of

THRESHOLD = POLICY.detector_threshold
OTHER = "fedcba987654"
NOW = datetime.now(UTC)


def put(ward: Ward, *entries: Entry, role: str = "front") -> None:
    """Put entries of long ago on record; following would no longer look at their day."""
    append(ward.store, KEY, entries, role)
    with ward.database.write() as connection:
        take_entries(connection, entries)


def fill(ward: Ward) -> None:
    """Whatever a study can be: of one patient, of several images, of two releases, late, differing, tested, new."""
    read_ward(ward, sites=("hospital-a", "hospital-b"))
    # Patients with several studies, whose scores lie in every band, and which nobody draws.
    for number in range(60):
        record = answer(f"of a patient {number}", "normal", DAY, 0.005 * (number + 1))
        call = record.call.model_copy(update={"patient": f"patient {number % 7}" if number > 19 else None})
        put(ward, record.model_copy(update={"call": call}))
    # The first image says of which release and patient a study is.
    later = answer("several images", "pneumonia", DAY + timedelta(seconds=1), 0.9, OTHER)
    later = later.model_copy(update={"call": later.call.model_copy(update={"patient": "patient 3"})})
    put(ward, later, answer("several images", "normal", DAY, 0.02))
    put(ward, *(answer("one is not told", kind, DAY, 0.02) for kind in ("normal", "leg")))
    put(ward, answer(None, "pneumonia", DAY, 0.97), answer("of another release", "uncertain", DAY, 0.5, OTHER))
    # A radiologist chose these: the one before its answer, the other after it, and of one the first image alone.
    doubted = answer("doubted", "normal", DAY, 0.02)
    put(ward, flagged(answer("chosen", "uncertain", DAY, 0.4)), doubted, flagged(answer("first", "normal", DAY, 0.1)))
    put(ward, answer("first", "leg", DAY + timedelta(seconds=1), 0.1))
    put(ward, flag_of(doubted, DAY), role="review")
    # Images of these were rejected: all of the one, and of the other the first.
    rejected, first = answer("rejected", "uncertain", DAY, 0.5), answer("one is rejected", "uncertain", DAY, 0.5)
    put(ward, rejected, first, answer("one is rejected", "normal", DAY + timedelta(seconds=1), 0.02))
    put(ward, withdrawal_of(rejected, at=DAY), withdrawal_of(first, at=DAY), role="review")
    read_by_people(ward)
    tested = answer("tested", "normal", DAY, 0.3)
    put(ward, tested)
    for source, finding in (("blood_test", "normal"), ("blood_test", "pneumonia"), ("follow_up", "normal")):
        ward.later(seconds=1)
        label = label_of(tested).model_copy(update={"source": source, "finding": finding, "time": time_text(ward.time)})
        put(ward, label, role="labels")
    put(ward, label_of(tested), role="labels")
    ward.desk.raise_alerts()
    (alert,) = (each for each in ward.desk.list_open() if each.case_id == case_of("agreed"))
    ward.desk.order(alert.alert_id, "p.1", "blood_test")
    ward.desk.order(alert.alert_id, "p.1", "expert")
    put(ward, answer("new", "uncertain", NOW, 0.5))
    # The third study of a patient, and the only one that was answered while the release was stopped.
    stopped = answer("stopped", "normal", DAY, 0.02)
    call = stopped.call.model_copy(update={"patient": "patient 3"})
    put(ward, stopped.model_copy(update={"stop": uuid7(), "decision": STOPPED, "call": call}))


def read_by_people(ward: Ward) -> None:
    """Studies of which readers say whatever readers can say."""
    verdicts = {
        "agreed": (PNEUMONIA, NORMAL, NORMAL), "undecided": (PNEUMONIA, NORMAL),
        "told by a lead": (PNEUMONIA, NORMAL, UNSURE), "not told": (PNEUMONIA, NORMAL, UNSURE),
        "seen": (replace(PNEUMONIA, no_result_seen=False),), "late": (PNEUMONIA,),
    }  # fmt: skip
    for name, said in verdicts.items():
        ward.time = DAY + timedelta(days=20 if name == "late" else 1)
        put(ward, answer(name, "uncertain", DAY, 0.45))
        for number, verdict in enumerate(said):
            ward.room.claim(case_of(name), f"r.{number}")
            ward.room.save_reading(case_of(name), f"r.{number}", verdict)
            ward.later(minutes=3)
    ward.room.adjudicate(case_of("told by a lead"), "lead", PNEUMONIA)
    ward.room.adjudicate(case_of("not told"), "lead", UNSURE)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path_factory.mktemp('ward') / 'review.sqlite'}"))
    fill(ward)
    yield ward
    ward.database.close()


@pytest.fixture(scope="module")
def folder(ward: Ward, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("it's an export")
    export(ward.reader, FolderTarget(folder))
    return folder


def followed(ward: Ward, scope: Scope) -> list[Counted]:
    return count_cohorts(list_cohorts(ward.database, NOW, scope, CLOSED_AFTER), lambda _: THRESHOLD)


def exported(folder: Path, scope: Scope = Scope()) -> list[Counted]:  # noqa: B008 - frozen
    return count_exported(folder, NOW, scope, CLOSED_AFTER, lambda _: THRESHOLD)


@pytest.mark.parametrize(
    "scope",
    [
        Scope(),
        Scope(release=OTHER),
        Scope(site="hospital-b"),
        Scope(since=DAY + timedelta(days=1)),
        Scope(before=DAY + timedelta(days=1)),
    ],
    ids=["all", "release", "site", "since", "before"],
)
def test_both_count_the_same(ward: Ward, folder: Path, scope: Scope) -> None:
    expected, found = followed(ward, scope), exported(folder, scope)
    assert found == expected
    assert [measure(each.tally, 0.01) for each in found] == [measure(each.tally, 0.01) for each in expected]


def test_the_ward_has_whatever_there_can_be(folder: Path) -> None:
    """Else the two could agree on nothing."""
    first, other = exported(folder)
    assert {name for each in first.tally.strata for name in each.outcomes} == {
        "read", "cannot_tell", "undecided", "not_blind", "unread"
    }  # fmt: skip
    assert {each.name for each in first.tally.strata} == {
        "normal/far", "normal/middle", "normal/near", "pneumonia/far", "pneumonia/middle", "referred"
    }  # fmt: skip
    assert first.tally.left_out == 33
    assert (first.open, other.open, first.stopped) == (1, 0, 1)
    assert first.effort.experts == 1
    assert first.tested == {"blood_test": {"normal": (183, 1, 1)}, "follow_up": {"normal": (183, 1, 0)}}


@pytest.mark.parametrize(
    ("scope", "sentence"),
    [
        (Scope(release="0" * 12), "has answered no study"),
        (Scope(site="nowhere"), "those that studies came from: hospital-a, hospital-b"),
        (Scope(since=NOW + timedelta(days=2)), "No study was answered in that time"),
    ],
)
def test_what_was_never_seen_is_told(folder: Path, scope: Scope, sentence: str) -> None:
    with pytest.raises(NoStudiesError, match=sentence):
        exported(folder, scope)


def test_no_export_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportedError, match="holds no export"):
        exported(tmp_path)


@pytest.mark.parametrize(("table", "column"), [("labels", "blind"), ("reviews", "kind")])
@pytest.mark.parametrize("all_files", [True, False])
def test_an_export_of_an_earlier_version_is_told(
    folder: Path, tmp_path: Path, table: str, column: str, all_files: bool
) -> None:
    """Whether all of its files lack what the queries ask, or only those that were there before an update."""
    copy = tmp_path / "export"
    shutil.copytree(folder, copy)
    files = sorted((copy / table).rglob("*.parquet"))
    for file in files if all_files else files[:1]:
        earlier = tmp_path / "earlier.parquet"
        rows = duckdb.read_parquet(str(file), hive_partitioning=False)
        rows.project(f"* EXCLUDE ({column})").write_parquet(str(earlier))
        earlier.replace(file)
    with pytest.raises(ExportedError, match=f"earlier version, whose table {table} says less"):
        exported(copy)


def test_an_archive_without_a_label_has_figures_too(tmp_path: Path) -> None:
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}"))
    ward.put(answer("alone", "uncertain", DAY, 0.5))
    export(ward.reader, FolderTarget(tmp_path / "export"))
    assert exported(tmp_path / "export") == followed(ward, Scope())
    ward.database.close()
