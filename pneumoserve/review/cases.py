"""What the pages of leads, auditors and practitioners show: one study with all that is on record of it, and counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import func, or_, select

from pneumoserve.canonical import digest_of
from pneumoserve.decision import Decision, of_study
from pneumoserve.ids import time_text, uuid7
from pneumoserve.records import Incident, IncidentKind, Label, ReleaseResume, ReleaseStop, parse_entry
from pneumoserve.review.alerts import OPEN_ALERT, OpenAlert, open_alert_of
from pneumoserve.review.archive import Commit
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.derive import Fact
from pneumoserve.review.errors import NO_CASE, ReviewError
from pneumoserve.review.following import load_cases, put_on_record
from pneumoserve.review.room import Image, check_comment, images_of
from pneumoserve.review.tables import (
    ACTED_ON,
    UNANSWERED,
    alerts,
    cases,
    claims,
    facts,
    outbox,
    predictions,
    readings,
    tasks,
)

_SHOWN_INCIDENTS: Final = 200
_NUMBER: Final = re.compile(r"([0-9A-Fa-f]{4})[ -]?([0-9A-Fa-f]{4})")
_Kind = TypeVar("_Kind")


def study_number(case_id: str) -> str:
    """A short number by which people can speak of a study; it tells nothing of the patient, nor of when it was."""
    digest = digest_of(case_id.encode()).upper()
    return f"{digest[:4]}-{digest[4:8]}"


def find_incidents(database: ReviewDatabase) -> list[Incident]:
    """The last 200 incidents, the newest first.

    Raises:
        DatabaseError: the database does not answer.
    """
    wanted = select(facts.c.body).where(facts.c.kind == "incident").order_by(facts.c.time.desc())
    with database.read() as connection:
        bodies = list(connection.scalars(wanted.limit(_SHOWN_INCIDENTS)))
    return [parse_entry(body.encode()) for body in bodies]  # type: ignore[misc]


def find_stops(database: ReviewDatabase) -> list[ReleaseStop]:
    """The stops of releases that no resume has ended, the first first.

    Raises:
        DatabaseError: the database does not answer.
    """
    said = database.list_said("stop", "resume")
    ended = {stop for each in said if isinstance(each, ReleaseResume) for stop in each.stop_ids}
    return [each for each in said if isinstance(each, ReleaseStop) and each.stop_id not in ended]


@dataclass(frozen=True)
class Case:
    """A study, its answer, and what is on record of it, the first first. `opened` is RFC 3339, UTC."""

    case_id: str
    opened: str
    release: str
    decision: Decision
    images: tuple[Image, ...]
    facts: tuple[Fact, ...]
    to_adjudicate: bool

    def is_read_by(self, person: str) -> bool:
        """Whether a reading of theirs is on record."""
        return any(label.author == person for label in self.of(Label))

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        """The facts of one kind."""
        return [each for each in self.facts if isinstance(each, kind)]


@dataclass(frozen=True)
class Counts:
    """What waits and what was done. Times are RFC 3339, UTC; None where there is nothing.

    `acted`: alerts after which a blood test or an expert was ordered. `unsent_since`, `unraised_since`: since when
    the oldest message waits that could have been sent, and the oldest study that could have been alerted of.
    """

    images: int
    studies: int
    waiting: int
    claimed: int
    overdue: int
    oldest: str | None
    readings: int
    to_adjudicate: int
    alerts: int
    open_alerts: int
    acted: int
    unsent_since: str | None
    unraised_since: str | None

    @property
    def alerts_per_100_images(self) -> float | None:
        """None without an image."""
        return 100 * self.alerts / self.images if self.images else None


class CaseBook:
    """The studies of one database; `commit` puts on record, `now` is the clock."""

    def __init__(
        self, database: ReviewDatabase, commit: Commit, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._commit = commit
        self._now = now

    def load(self, case_id: str) -> Case:
        """One study.

        Raises:
            ReviewError: there is none.
            DatabaseError: the database does not answer.
        """
        with self._database.read() as connection:
            row = connection.execute(select(cases).where(cases.c.case_id == case_id)).first()
            if row is None:
                raise ReviewError(NO_CASE)
            said, found = load_cases(connection, [case_id])
            return Case(
                case_id=case_id,
                opened=row.opened,
                release=row.release,
                decision=of_study([each.decision for each in said[case_id]]),
                images=tuple(images_of(connection, case_id)),
                facts=tuple(found[case_id]),
                to_adjudicate=row.adjudication_due,
            )

    def find(self, name: str) -> str:
        """The id of the study that has this id or number, or an image whose prediction has the id.

        Raises:
            ReviewError: there is none, or several have the number.
            DatabaseError: the database does not answer.
        """
        number = _NUMBER.fullmatch(name)
        if number is not None:
            return self._find_by_number(f"{number[1]}-{number[2]}".upper())
        with self._database.read() as connection:
            wanted = or_(predictions.c.case_id == name, predictions.c.prediction_id == name)
            case_id = connection.scalar(select(predictions.c.case_id).where(wanted).limit(1))
        if case_id is None:
            raise ReviewError(NO_CASE)
        return str(case_id)

    def _find_by_number(self, number: str) -> str:
        with self._database.read() as connection:
            found = [each for each in connection.scalars(select(cases.c.case_id)) if study_number(each) == number]
        if not found:
            raise ReviewError(NO_CASE)
        if len(found) > 1:
            raise ReviewError("Several studies have this number; give the id of one of their predictions.")
        return str(found[0])

    def find_alert(self, alert_id: str) -> OpenAlert | None:
        """One alert, closed or not; None where there is none.

        Raises:
            DatabaseError: the database does not answer.
        """
        with self._database.read() as connection:
            row = connection.execute(select(*OPEN_ALERT).where(alerts.c.alert_id == alert_id)).first()
        return None if row is None else open_alert_of(row)

    def count(self) -> Counts:
        """What waits and what was done.

        Raises:
            DatabaseError: the database does not answer.
        """
        now = time_text(self._now())
        with self._database.read() as connection:

            def number(column: object, *conditions: object) -> int:
                wanted = select(func.count()).select_from(column).where(*conditions)  # type: ignore[arg-type]
                return int(connection.scalar(wanted) or 0)

            waiting = select(func.min(cases.c.opened)).join(tasks, tasks.c.case_id == cases.c.case_id)
            unsent = select(func.min(outbox.c.next_try)).where(outbox.c.next_try < now)
            unraised = select(func.min(cases.c.opened)).where(cases.c.alert_due)
            return Counts(
                images=number(predictions),
                studies=number(cases),
                waiting=number(tasks),
                claimed=number(claims, claims.c.until > now),
                overdue=number(tasks, tasks.c.due < now),
                oldest=connection.scalar(waiting),
                readings=number(readings),
                to_adjudicate=number(cases, cases.c.adjudication_due),
                alerts=number(alerts),
                open_alerts=number(alerts, UNANSWERED),
                acted=number(alerts, ACTED_ON),
                unsent_since=connection.scalar(unsent),
                unraised_since=connection.scalar(unraised),
            )

    def report_incident(self, case_id: str, by: str, kind: IncidentKind, comment: str) -> Incident:
        """Put on record that something went wrong with a study.

        Raises:
            VerdictError: the comment cannot be one.
            ReviewError: there is no such study.
            StoreError, DatabaseError: nothing was done.
        """
        check_comment(comment)
        case = self.load(case_id)
        incident = Incident(
            incident_id=uuid7(),
            case_id=case_id,
            time=time_text(self._now()),
            release=case.release,
            prediction_ids=tuple(each.prediction_id for each in case.images),
            by=by,
            kind=kind,
            comment=comment,
        )
        with self._database.write() as connection:
            put_on_record(connection, self._commit, [incident])
        return incident

    def is_late(self, since: str | None, by: timedelta) -> bool:
        """Whether a moment (RFC 3339, UTC) is longer ago than that."""
        return since is not None and since < time_text(self._now() - by)
