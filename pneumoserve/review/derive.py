"""What follows from all that the archive says of one study: a pure function, whatever order it was learned in.

So the database is the same whether the archive was followed while it grew, or read anew from its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from pneumoserve.decision import Decision, of_study
from pneumoserve.ids import time_text
from pneumoserve.records import (
    Adjudication,
    Alert,
    AlertEvent,
    AlertReason,
    Asked,
    CallOrigin,
    Draw,
    Flag,
    Incident,
    Label,
    ReadingRequest,
    Severity,
    View,
    Withdrawal,
)

# By when a study is to be read. All are in one order by this moment, but that flagged ones come first.
DUE_WITHIN: Final[dict[Asked, timedelta]] = {
    "flag": timedelta(hours=1),
    "referral": timedelta(hours=4),
    "disagreement": timedelta(days=3),
    "qa_draw": timedelta(days=7),
    "second_reading": timedelta(days=7),
    "third_reading": timedelta(days=3),
}
_FIRST_PAUSE: Final = timedelta(seconds=5)
_LONGEST_PAUSE: Final = timedelta(minutes=10)

Fact = Label | ReadingRequest | Draw | Flag | Withdrawal | View | Alert | AlertEvent | Adjudication | Incident
Row = dict[str, object]
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Prediction:
    """What is known of one image of a study."""

    prediction_id: str
    time: str
    release: str
    caller: str | None
    patient: str | None
    origin: CallOrigin | None
    pneumonia_probability: float | None
    decision: Decision


@dataclass
class Derived:
    """The rows of one study, by table."""

    cases: list[Row] = field(default_factory=list)
    tasks: list[Row] = field(default_factory=list)
    readings: list[Row] = field(default_factory=list)
    exposures: list[Row] = field(default_factory=list)
    alerts: list[Row] = field(default_factory=list)
    outbox: list[Row] = field(default_factory=list)


def severity_of(decision: Decision) -> Severity | None:
    """How urgent a study's answer is for its practitioner; None of a confident normal.

    An uncertain finding and a stated pneumonia are urgent. An image that cannot be judged is only listed.
    """
    if decision.finding == "pneumonia" or "uncertain_finding" in decision.reasons:
        return "urgent"
    return "listed" if decision.referred else None


def alert_reasons(decision: Decision) -> tuple[AlertReason, ...]:
    """Why a practitioner is to look at a study: what is uncertain, and whether pneumonia is stated."""
    stated: tuple[AlertReason, ...] = ("pneumonia",) if decision.finding == "pneumonia" else ()
    return (*stated, *decision.reasons)


def derive(case_id: str, predictions: Sequence[Prediction], facts: Sequence[Fact]) -> Derived:
    """The rows of a study, of what is said of it, the first first; none where the archive has no prediction of it."""
    rows = Derived()
    if not predictions:
        return rows
    withdrawn = _of(facts, Withdrawal)
    images = sorted(predictions, key=lambda each: (each.time, each.prediction_id))
    left = [each for each in images if not any(each.prediction_id in one.prediction_ids for one in withdrawn)]
    # Of a study of which nothing is left, the pages show what was answered; it counts nowhere.
    is_withdrawn, images = not left, left or images
    decision = of_study([each.decision for each in images])
    labels = first_readings(_of(facts, Label))
    draws, alerts = _of(facts, Draw), _of(facts, Alert)
    rows.readings = [_reading_row(case_id, number, each) for number, each in enumerate(labels, 1)]
    rows.tasks = [] if is_withdrawn else _tasks(case_id, images, facts, labels)
    rows.exposures = _exposures(case_id, facts)
    events = _of(facts, AlertEvent)
    retracted = {each.alert_id for each in events if each.what == "retracted"}
    # The first one counts; of a study that was withdrawn and sent anew, the first one since.
    standing = [each for each in alerts if each.alert_id not in retracted]
    if alerts:
        _add_alert(rows, images[0], case_id, standing[0] if standing else alerts[-1], events)
    # Whoever was told of an alert first hears that it holds no more, and then of another.
    is_alerted = bool(standing or rows.outbox)
    scores = [each.pneumonia_probability for each in images if each.pneumonia_probability is not None]
    severity = None if is_withdrawn else severity_of(decision)
    rows.cases.append(
        {
            "case_id": case_id,
            "opened": images[0].time,
            "release": images[0].release,
            "patient": images[0].patient,
            "flagged": _is_flagged(images),
            "withdrawn": is_withdrawn,
            "images": len(images),
            "finding": decision.finding,
            "pneumonia_type": decision.pneumonia_type,
            "confidence": decision.confidence,
            "referred": decision.referred,
            "reasons": " ".join(decision.reasons),
            "pneumonia_probability": max(scores, default=None),
            "severity": severity,
            "alerted": is_alerted,
            "alert_due": severity == "urgent" and not is_alerted,
            "drawn": bool(draws),
            "adjudication_due": len(labels) > 2 and not is_withdrawn and not _of(facts, Adjudication),
        }
    )
    return rows


def _is_flagged(images: Sequence[Prediction]) -> bool:
    """Whether a radiologist had chosen the study when it was first answered: chance has no part in its being here.

    A flag that comes later takes no study from those that estimates are of: who doubts an answer flags it, so that the
    misses would be missing.
    """
    return images[0].origin == "flagged"


def _of(facts: Sequence[Fact], kind: type[_Kind]) -> list[_Kind]:
    return [each for each in facts if isinstance(each, kind)]


def first_readings(labels: Sequence[Label]) -> list[Label]:
    """Each reader's first reading: what somebody states again later is no second opinion."""
    first: dict[str, Label] = {}
    for each in labels:
        if each.source == "radiologist":
            first.setdefault(each.author, each)
    return list(first.values())


def _reading_row(case_id: str, number: int, label: Label) -> Row:
    detail = label.reading
    return {
        "label_id": label.label_id,
        "case_id": case_id,
        "number": number,
        "reader": label.author,
        "time": label.time,
        "finding": label.finding,
        "blind": detail is not None and detail.blind,
        "probability": None if detail is None else detail.probability,
    }


def _tasks(case_id: str, images: Sequence[Prediction], facts: Sequence[Fact], labels: Sequence[Label]) -> list[Row]:
    """What is to be read: by a first reader, by a second one that was drawn, by a third where these two differ."""
    referred = [each.time for each in images if each.decision.referred]
    draws = _of(facts, Draw)
    # A referred study is read in any case; a drawn one with the probability of its draw; what is asked for because two
    # releases differ was not chosen by chance alone.
    probability = 1.0 if referred else draws[0].probability if draws else None
    if _is_flagged(images):
        probability = None
    asked: list[tuple[str, Asked]] = []
    flags = [each.time for each in images if each.origin == "flagged"] + [each.time for each in _of(facts, Flag)]
    if not labels:
        asked += [(_due("flag", time), "flag") for time in flags]
        asked += [(_due("referral", time), "referral") for time in referred]
        asked += [(_due("qa_draw", each.time), "qa_draw") for each in draws]
        asked += [(_due("disagreement", each.time), "disagreement") for each in _of(facts, ReadingRequest)]
    elif len(labels) == 1 and labels[0].reading is not None and labels[0].reading.second_drawn:
        asked.append((_due("second_reading", labels[0].time), "second_reading"))
    elif len(labels) == 2 and labels[0].finding != labels[1].finding:
        asked.append((_due("third_reading", labels[1].time), "third_reading"))
    if not asked:
        return []
    due, why = min(asked, key=lambda each: (each[1] != "flag", each))
    if labels and probability is not None:
        second = labels[0].reading.second_probability if labels[0].reading is not None else None
        probability = None if second is None else probability * second
    return [{"case_id": case_id, "asked": why, "number": len(labels) + 1, "due": due, "probability": probability}]


def _due(asked: Asked, time: str) -> str:
    return time_text(datetime.fromisoformat(time) + DUE_WITHIN[asked])


def _exposures(case_id: str, facts: Sequence[Fact]) -> list[Row]:
    """Who knows, or may know, what the model answered; the practitioner who took note of its alert is no reader."""
    seen = {(each.by, each.page) for each in _of(facts, View) if each.page != "images"}
    acted = {(each.by, "practitioner") for each in _of(facts, AlertEvent) if each.by is not None}
    return [{"case_id": case_id, "person": person, "page": page} for person, page in sorted(seen | acted)]


def _add_alert(rows: Derived, first: Prediction, case_id: str, alert: Alert, events: Sequence[AlertEvent]) -> None:
    """The alert's state, and what of it is still to be sent."""
    mine = [each for each in events if each.alert_id == alert.alert_id]
    by_step = {what: [each for each in mine if each.what == what] for what in ("sent", "failed", "escalated")}
    noted = [each for each in mine if each.what in {"acknowledged", "ordered"}]
    named = [each for each in noted if each.by is not None]
    retracted = next((each for each in mine if each.what == "retracted"), None)
    closed = next((each.time for each in mine if each.what in {"retracted", "closed"}), None)
    # Whoever opens a link without a name may be anybody: of an uncertain finding that is not enough.
    answered = bool(named) or (bool(noted) and "uncertain_finding" not in alert.reasons)
    rows.alerts.append(
        {
            "alert_id": alert.alert_id,
            "case_id": case_id,
            "caller": first.caller,
            "answer_time": first.time,
            "time": alert.time,
            "severity": alert.severity,
            "reasons": " ".join(alert.reasons),
            "sent": min((each.time for each in by_step["sent"]), default=None),
            "acknowledged": noted[0].time if noted else None,
            "acknowledged_by": named[0].by if named else None,
            "ordered": next((each.ordered for each in reversed(mine) if each.ordered is not None), None),
            "escalations": len({each.step for each in by_step["escalated"]}),
            "answered": answered,
            "retracted": retracted is not None,
            "closed": closed,
        }
    )
    delivered = {each.step for each in by_step["sent"]}
    if retracted is not None:
        # Whoever was told of the alert is told that it holds no more, even if somebody answered for it.
        if delivered and retracted.step not in delivered:
            failures = [each for each in by_step["failed"] if each.step == retracted.step]
            rows.outbox.append(_outbox_row(alert, retracted.step, retracted.time, failures))
        return
    if closed is not None:
        return
    raised = {0: alert.time}
    for each in by_step["escalated"]:
        raised.setdefault(each.step, each.time)
    for step, time in raised.items():
        # Once a person answers for the study, nobody else need be told.
        if step not in delivered and not (answered and step > 0):
            failures = [each for each in by_step["failed"] if each.step == step]
            rows.outbox.append(_outbox_row(alert, step, time, failures))


def _outbox_row(alert: Alert, step: int, time: str, failures: Sequence[AlertEvent]) -> Row:
    next_try = time
    if failures:
        pause = min(_FIRST_PAUSE * 2 ** min(len(failures) - 1, 10), _LONGEST_PAUSE)
        next_try = time_text(datetime.fromisoformat(failures[-1].time) + pause)
    return {
        "alert_id": alert.alert_id,
        "step": step,
        "case_id": alert.case_id,
        "urgent": alert.severity == "urgent",
        "time": time,
        "attempts": len(failures),
        "next_try": next_try,
    }
