"""Alerts: raised for studies that a practitioner is to look at, handed to a sender, answered.

The outbox is made of the archive like everything else: what is on record as an alert and not as sent waits in it. So an
alert is sent at least once, whatever is killed, and a receiver tells a second one by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, exists, insert, or_, select

from pneumoserve.decision import of_study
from pneumoserve.ids import time_text, uuid7
from pneumoserve.records import Alert, AlertEvent, AlertStep, Ordered
from pneumoserve.review.archive import Commit
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.derive import alert_reasons, severity_of
from pneumoserve.review.errors import ReviewError
from pneumoserve.review.figures import is_over
from pneumoserve.review.following import list_predictions, prediction_of, put_on_record
from pneumoserve.review.tables import UNANSWERED, alerts, cases, exposures, leases, outbox, predictions

_AT_ONCE: Final = 100


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is not closed. Times are RFC 3339, UTC; `answered`: nobody else need be told.

    `caller` is who sent the X-ray, where a gateway verifies callers.
    """

    alert_id: str
    case_id: str
    caller: str | None
    time: str
    severity: str
    reasons: tuple[str, ...]
    sent: str | None
    acknowledged: str | None
    acknowledged_by: str | None
    ordered: str | None
    escalations: int
    answered: bool


OPEN_ALERT: Final = tuple(alerts.c[name] for name in OpenAlert.__dataclass_fields__)


def open_alert_of(row: Any) -> OpenAlert:
    """A row of the columns `OPEN_ALERT`."""
    return OpenAlert(**{**row._mapping, "reasons": tuple(row.reasons.split())})


@dataclass(frozen=True)
class Message:
    """What is to be sent: an alert (`step` 0), its nth escalation, or that it is `retracted`.

    A receiver drops what has a `key` it knows.
    """

    alert_id: str
    step: int
    case_id: str
    caller: str | None
    urgent: bool
    answer_time: str
    time: str
    reasons: tuple[str, ...]
    attempts: int
    lease: str
    retracted: bool

    @property
    def key(self) -> str:
        """The same for each try."""
        return f"{self.alert_id}-{self.step}"


class AlertDesk:
    """Alerts of one database; `commit` puts on record, `now` is the clock."""

    def __init__(
        self, database: ReviewDatabase, commit: Commit, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._commit = commit
        self._now = now

    def raise_alerts(self, since: datetime | None = None, also: Collection[str] = ()) -> list[Alert]:
        """Put on record an alert for each study that needs one and has none; the oldest first, 100 at most.

        Studies that were opened before `since` are left out: nobody is told of last year's. `also` are reasons that
        are only listed else.

        Raises:
            StoreError: the archive did not take them; none was raised.
            DatabaseError: the database does not answer.
        """
        listed = [cases.c.reasons.contains(reason) & ~cases.c.alerted & ~cases.c.withdrawn for reason in also]
        wanted = select(cases.c.case_id, cases.c.release).where(or_(cases.c.alert_due, *listed))
        if since is not None:
            wanted = wanted.where(cases.c.opened >= time_text(since))
        wanted = wanted.order_by(cases.c.opened, cases.c.case_id).limit(_AT_ONCE)
        with self._database.write() as connection:
            raised = [self._alert(connection, row.case_id, row.release) for row in connection.execute(wanted)]
            if raised:
                put_on_record(connection, self._commit, raised)
        return raised

    def list_open(self, *, unanswered: bool = False) -> list[OpenAlert]:
        """All alerts that are not closed, or those of them that nobody has answered, the oldest first.

        Raises:
            DatabaseError: the database does not answer.
        """
        found = select(*OPEN_ALERT).where(alerts.c.closed.is_(None)).order_by(alerts.c.time, alerts.c.alert_id)
        if unanswered:
            found = found.where(UNANSWERED)
        with self._database.read() as connection:
            return [open_alert_of(row) for row in connection.execute(found)]

    def list_answered_by(self, person: str) -> list[OpenAlert]:
        """The alerts that are not closed and that a person took note of or ordered something for, the newest first.

        Raises:
            DatabaseError: the database does not answer.
        """
        theirs = exists().where(
            exposures.c.case_id == alerts.c.case_id, exposures.c.person == person, exposures.c.page == "practitioner"
        )
        found = select(*OPEN_ALERT).where(alerts.c.closed.is_(None), theirs)
        with self._database.read() as connection:
            rows = connection.execute(found.order_by(alerts.c.time.desc(), alerts.c.alert_id))
            return [open_alert_of(row) for row in rows]

    def take_from_outbox(self, lease: timedelta, limit: int = 10) -> list[Message]:
        """What is to be sent now, urgent ones first and then the oldest; nobody else gets it for as long as `lease`.

        Raises:
            DatabaseError: the database does not answer.
        """
        now = time_text(self._now())
        leased = exists().where(
            leases.c.alert_id == outbox.c.alert_id, leases.c.step == outbox.c.step, leases.c.until > now
        )
        wanted = (
            select(outbox, alerts.c.reasons, alerts.c.caller, alerts.c.answer_time, alerts.c.retracted)
            .join(alerts, alerts.c.alert_id == outbox.c.alert_id)
            .where(outbox.c.next_try <= now, ~leased)
            .order_by(outbox.c.urgent.desc(), outbox.c.time, outbox.c.alert_id, outbox.c.step)
            .limit(limit)
        )
        until = time_text(self._now() + lease)
        taken = []
        with self._database.write() as connection:
            for row in connection.execute(wanted).all():
                held = (leases.c.alert_id == row.alert_id, leases.c.step == row.step)
                holder = uuid7()
                connection.execute(delete(leases).where(*held))
                connection.execute(
                    insert(leases).values(alert_id=row.alert_id, step=row.step, holder=holder, until=until)
                )
                taken.append(
                    Message(
                        row.alert_id, row.step, row.case_id, row.caller, row.urgent, row.answer_time, row.time,
                        tuple(row.reasons.split()), row.attempts, holder, row.retracted,
                    )
                )  # fmt: skip
        return taken

    def record_sent(self, message: Message, channel: str) -> None:
        """Put on record that a channel took a message; it leaves the outbox, whoever else may have sent it meanwhile.

        Raises:
            StoreError: the archive did not take it, so that the message will be sent again.
            DatabaseError: the database does not answer.
        """
        self._record(message.alert_id, "sent", step=message.step, channel=channel, lease=message.lease)

    def record_failed(self, message: Message, channel: str, fault: str) -> None:
        """Put on record that a channel did not take a message; it is tried again after a pause that doubles.

        Raises:
            StoreError: the archive did not take it; the message comes again when its lease is over.
            DatabaseError: the database does not answer.
        """
        self._record(message.alert_id, "failed", step=message.step, channel=channel, fault=fault, lease=message.lease)

    def escalate(self, alert_id: str, step: int) -> None:
        """Have the next one told that nobody answered: the `step`th escalation, from 1, which is made once.

        Raises:
            ReviewError: there is no such alert, it is closed, somebody answered, or another step is the next.
            StoreError, DatabaseError: nothing was done.
        """
        self._record(alert_id, "escalated", step=step)

    def retract_withdrawn(self) -> int:
        """Retract the open alerts of studies that were withdrawn, 100 at most; how many those were.

        Those who were told of one are told of this too.

        Raises:
            StoreError, DatabaseError: nothing was done.
        """
        wanted = select(alerts, cases.c.release).join(cases, cases.c.case_id == alerts.c.case_id)
        wanted = wanted.where(alerts.c.closed.is_(None), cases.c.withdrawn).order_by(alerts.c.time)
        with self._database.write() as connection:
            retracted = [
                AlertEvent(
                    event_id=uuid7(), alert_id=row.alert_id, case_id=row.case_id, release=row.release,
                    time=time_text(self._now()), what="retracted", step=row.escalations + 1,
                )
                for row in connection.execute(wanted.limit(_AT_ONCE))
            ]  # fmt: skip
            if retracted:
                put_on_record(connection, self._commit, retracted)
        return len(retracted)

    def list_predictions(self, case_id: str) -> list[str]:
        """The ids of a study's predictions, the first first.

        Raises:
            DatabaseError: the database does not answer.
        """
        with self._database.read() as connection:
            return list_predictions(connection, case_id)

    def acknowledge(self, alert_id: str, by: str | None) -> None:
        """Put on record that somebody took note; without a name this ends no escalation of an uncertain finding.

        Raises:
            ReviewError: there is no such alert, or it is closed.
            StoreError, DatabaseError: nothing was done.
        """
        self._record(alert_id, "acknowledged", by=by)

    def order(self, alert_id: str, by: str, ordered: Ordered) -> None:
        """Put on record what the practitioner ordered; they take note by it.

        Raises:
            ReviewError: there is no such alert, or it is closed.
            StoreError, DatabaseError: nothing was done.
        """
        self._record(alert_id, "ordered", by=by, ordered=ordered)

    def close(self, alert_id: str, by: str | None) -> None:
        """Put on record that nothing is left to do; what waits in the outbox is not sent any more.

        Raises:
            ReviewError: there is no such alert, or it is closed.
            StoreError, DatabaseError: nothing was done.
        """
        self._record(alert_id, "closed", by=by)

    def close_finished(self, before: datetime) -> int:
        """Close alerts that were answered and whose studies were over at a moment, 100 at most; how many those were.

        Raises:
            StoreError, DatabaseError: nothing was done.
        """
        alert, case = alerts.alias(), cases.alias()
        done = (alert.c.closed.is_(None), alert.c.answered, is_over(alert.c.case_id, time_text(before)))
        wanted = select(alert.c.alert_id, case.c.case_id, case.c.release)
        wanted = wanted.join(case, case.c.case_id == alert.c.case_id).where(*done).order_by(alert.c.time)
        with self._database.write() as connection:
            closed = [
                AlertEvent(event_id=uuid7(), time=time_text(self._now()), what="closed", **row._mapping)
                for row in connection.execute(wanted.limit(_AT_ONCE))
            ]
            if closed:
                put_on_record(connection, self._commit, closed)
        return len(closed)

    def _record(self, alert_id: str, what: AlertStep, lease: str | None = None, **said: object) -> AlertEvent:
        found = select(alerts, cases.c.release).join(cases, cases.c.case_id == alerts.c.case_id)
        with self._database.write() as connection:
            row = connection.execute(found.where(alerts.c.alert_id == alert_id)).first()
            if row is None:
                raise ReviewError("There is no such alert; check its id, and that the archive was followed.")
            if row.closed is not None and what not in {"sent", "failed"}:
                raise ReviewError("This alert is closed; report an incident if it should not be.")
            if what == "escalated":
                if row.answered:
                    raise ReviewError("Somebody has answered for this study; there is nobody else to tell.")
                if said["step"] != row.escalations + 1:
                    raise ReviewError("Another step of this escalation is the next; look at the alert again.")
            event = AlertEvent.model_validate(
                {
                    "event_id": uuid7(), "alert_id": alert_id, "case_id": row.case_id, "release": row.release,
                    "time": time_text(self._now()), "what": what, **said,
                }
            )  # fmt: skip
            put_on_record(connection, self._commit, [event])
            if lease is not None:
                connection.execute(delete(leases).where(leases.c.alert_id == alert_id, leases.c.holder == lease))
        return event

    def _alert(self, connection: Connection, case_id: str, release: str) -> Alert:
        said = select(predictions).where(predictions.c.case_id == case_id)
        rows = connection.execute(said.order_by(predictions.c.time, predictions.c.prediction_id)).all()
        decision = of_study([prediction_of(row).decision for row in rows])
        return Alert(
            alert_id=uuid7(),
            case_id=case_id,
            time=time_text(self._now()),
            release=release,
            prediction_ids=tuple(row.prediction_id for row in rows),
            reasons=alert_reasons(decision),
            severity=severity_of(decision) or "listed",
        )
