"""What alerts amount to, and which studies are over."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from pneumoserve.ids import time_of, time_text
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.tables import ACTED_ON, UNANSWERED, alerts, cases, facts, outbox, predictions, tasks


@dataclass(frozen=True)
class AlertFigures:
    """Alerts since a moment.

    `oldest_message`: since when the oldest message waits to be sent, `oldest_unanswered`: when the oldest alert was
    raised that nobody has answered (RFC 3339, UTC; None where there is none).
    `listed` counts studies that alert nobody, by reason. `per_person_and_day`: alerts that a person with a name
    answered on a day on which that person answered any. Shares are None where there is nothing to count.
    """

    images: int
    alerts: int
    waiting: int
    unanswered: int
    oldest_message: str | None
    oldest_unanswered: str | None
    listed: dict[str, int]
    per_100_images: float | None
    per_person_and_day: float | None
    share_acted_on: float | None


def measure_alerts(database: ReviewDatabase, since: datetime) -> AlertFigures:
    """The figures of alerts raised, and X-rays answered, from `since` on.

    Raises:
        DatabaseError: the database does not answer.
    """
    begin = time_text(since)
    raised = alerts.c.time >= begin
    day = func.substr(alerts.c.acknowledged, 1, 10)
    with database.read() as connection:
        images = connection.scalar(select(func.count()).where(predictions.c.time >= begin)) or 0
        total = connection.scalar(select(func.count()).where(raised)) or 0
        acting = connection.scalar(select(func.count()).where(raised, ACTED_ON)) or 0
        unanswered = connection.scalar(select(func.count()).where(raised, UNANSWERED)) or 0
        waiting = connection.scalar(select(func.count()).select_from(outbox)) or 0
        oldest_message = connection.scalar(select(func.min(outbox.c.time)))
        oldest_unanswered = connection.scalar(select(func.min(alerts.c.time)).where(raised, UNANSWERED))
        named = (raised, alerts.c.acknowledged_by.is_not(None))
        answers = connection.execute(
            select(func.count()).where(*named).group_by(alerts.c.acknowledged_by, day)
        ).scalars().all()  # fmt: skip
        listed: dict[str, int] = {}
        silent = select(cases.c.reasons).where(cases.c.severity == "listed", cases.c.opened >= begin)
        for reasons in connection.scalars(silent):
            for reason in reasons.split():
                listed[reason] = listed.get(reason, 0) + 1
    return AlertFigures(
        images=images,
        alerts=total,
        waiting=waiting,
        unanswered=unanswered,
        oldest_message=oldest_message,
        oldest_unanswered=oldest_unanswered,
        listed=listed,
        per_100_images=100 * total / images if images else None,
        per_person_and_day=sum(answers) / len(answers) if answers else None,
        share_acted_on=acting / total if total else None,
    )


def is_over(of: ColumnElement[Any], begin: str) -> ColumnElement[bool]:
    """Whether nothing waits for the study of this id, and nothing was said of it since a moment (RFC 3339, UTC).

    `of` is a column of `predictions` or of an alias: tables that are asked here are not those of the query around it.
    """
    image = predictions.alias()
    said_of_image = exists().where(facts.c.prediction_id == image.c.prediction_id, facts.c.time >= begin)
    return ~or_(
        exists().where(tasks.c.case_id == of),
        exists().where(cases.c.case_id == of, cases.c.adjudication_due),
        exists().where(alerts.c.case_id == of, UNANSWERED),
        exists().where(image.c.case_id == of, or_(image.c.time >= begin, said_of_image)),
        exists().where(facts.c.case_id == of, facts.c.time >= begin),
    )


def find_finished(
    database: ReviewDatabase, prediction_ids: Collection[str], before: datetime, latest: datetime
) -> set[str]:
    """Those of some predictions whose studies were over at `before`, or which are from before `latest`.

    One that no study has, since its call failed or asked for raw scores, counts once it is as old as `before`.

    Raises:
        DatabaseError: the database does not answer.
    """
    given = predictions.c.prediction_id.in_(prediction_ids)
    done = or_(is_over(predictions.c.case_id, time_text(before)), predictions.c.time < time_text(latest))
    with database.read() as connection:
        finished = set(connection.scalars(select(predictions.c.prediction_id).where(given, done)))
        unknown = set(prediction_ids).difference(connection.scalars(select(predictions.c.prediction_id).where(given)))
    return finished | {each for each in unknown if time_of(each) < before}
