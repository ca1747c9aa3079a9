"""A ward with a random check of a hundred days ago, whose first readings are all in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from pneumoserve.decision import Band, Policy, Population
from pneumoserve.ids import time_text, uuid7
from pneumoserve.records import Label, ReadingDetail, View
from pneumoserve.review import Sampler, Verdict
from pneumoserve.review.following import list_predictions, put_on_record
from pneumoserve.review.tables import tasks
from tests.support.entries import RELEASE
from tests.support.reviews import CHANCE, NORMAL, PNEUMONIA, UNSURE, Ward, answer, case_of

POLICY = Policy(
    detector_threshold=0.5, detector_band=Band(low=0.4, high=0.6), typer_threshold=0.5,
    typer_band=Band(low=0.5, high=0.5), population=Population(min_age_years=1, below_age_years=6,
    unknown_dicom_age="refer"), assumed_prevalence=0.5, why="a test",
)  # fmt: skip
# Before the tests, so that its cohorts are closed.
DAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=100)
# Name, kind of answer, score, how many, and every how many-th is found sick.
KINDS = (
    ("referred", "uncertain", 0.5, 30, 2),
    ("stated", "pneumonia", 0.95, 24, 3),
    ("normal", "normal", 0.05, 120, 60),
)


def read_ward(ward: Ward, capacity: float = 72, sites: tuple[str, ...] = ("hospital-a",)) -> None:
    """A day of studies, its random check, and a reading of all that is to be read; the clock is at the end."""
    ward.time = DAY
    records = []
    for name, kind, score, amount, _ in KINDS:
        for number in range(amount):
            record = answer(f"{name} {number}", kind, DAY, score)
            call = record.call.model_copy(update={"subject": sites[number % len(sites)]})
            records.append(record.model_copy(update={"call": call}))
    ward.put(*records)
    Sampler(ward.database, ward.commit, CHANCE, lambda _: POLICY, ward.now).sample(DAY.date(), capacity)
    ward.later(hours=1)
    verdicts = {
        case_of(f"{name} {number}"): PNEUMONIA if number % every == 0 else NORMAL
        for name, _, _, amount, every in KINDS
        for number in range(amount)
    }
    verdicts[case_of("referred 29")] = UNSURE
    read_all(ward, verdicts)


def read_all(ward: Ward, verdicts: dict[str, Verdict]) -> None:
    """A reading of all that waits, as the reading room puts it on record, each of two minutes; in one transaction."""
    with ward.database.write() as connection:
        waiting = connection.execute(select(tasks)).all()
        readings = [_reading(connection, task, verdicts[task.case_id], ward) for task in waiting]
        # A writer writes entries of one kind.
        put_on_record(connection, ward.commit, [view for view, _ in readings])
        put_on_record(connection, ward.commit, [label for _, label in readings])


def _reading(connection: Connection, task: Any, verdict: Verdict, ward: Ward) -> tuple[View, Label]:
    images = tuple(list_predictions(connection, task.case_id))
    opened, closed = ward.time, ward.time + timedelta(minutes=2)
    view = View(view_id=uuid7(), case_id=task.case_id, time=time_text(opened), release=RELEASE, by="r.1", page="images")
    detail = ReadingDetail(
        case_id=task.case_id,
        prediction_ids=images,
        asked=task.asked,
        no_result_seen=True,
        not_blind=(),
        probability=task.probability,
    )
    label = Label(
        label_id=uuid7(),
        prediction_id=images[0],
        time=time_text(closed),
        release=RELEASE,
        source="radiologist",
        author="r.1",
        finding=verdict.finding,
        certainty=verdict.certainty,
        reading=detail,
    )
    return view, label


__all__ = ["DAY", "KINDS", "POLICY", "RELEASE", "read_all", "read_ward"]
