"""What became of studies: how each was answered, with which probability it was to be read, and what readers found.

A cohort is the studies of one day of answer. It closes some days later: what is said of a study after that changes no
figure any more. Until it closes it has no figure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, exists, select

from pneumoserve.decision import Finding, Reason
from pneumoserve.ids import time_text
from pneumoserve.records import (
    Adjudication,
    Draw,
    Effort,
    Label,
    PneumoniaType,
    ReadingOutcome,
    SamplePlan,
    Scope,
    Tested,
    View,
    parse_entry,
)
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.derive import first_readings
from pneumoserve.review.sample import Edges, stratum_of
from pneumoserve.review.tables import alerts, cases, facts, predictions

CLOSED_AFTER: Final = timedelta(days=14)
_STOPPED: Final[Reason] = "release_stopped"
_KINDS: Final = ("label", "draw", "adjudication", "view", "sample_plan")


@dataclass(frozen=True)
class Studied:
    """A study as far as its closing. Fields are those of `monitoring.Study`."""

    case_id: str
    opened: str
    release: str
    patient: str | None
    stratum: str
    score: float | None
    probability: float | None
    outcome: ReadingOutcome
    truth: Finding | None


@dataclass(frozen=True)
class Cohort:
    """The closed studies of one release, the first first, and what they took.

    `open`: studies whose cohort has not closed. `stopped`: closed studies with an answer while the release was stopped;
    they are not among the others, since the release judged nothing then. `tested`: by blood test or follow-up, by the
    kind of answer.
    """

    release: str
    studies: tuple[Studied, ...]
    open: int
    stopped: int
    effort: Effort
    tested: dict[str, dict[str, Tested]]


@dataclass(frozen=True)
class Told:
    """A closed study with all that was said of it until now, in time or late.

    `pneumonia_type` is the one that blind readers name, or the lead; None where they name none, or several. `shown` are
    the predictions whose images blind readers saw. `labelled`: whether anybody said what it shows, blind or not.
    """

    study: Studied
    pneumonia_type: PneumoniaType | None
    shown: frozenset[str]
    labelled: bool


def list_told(
    database: ReviewDatabase, now: datetime, scope: Scope, closed_after: timedelta = CLOSED_AFTER
) -> list[Told]:
    """The closed studies in scope, the first first, but those that were answered while their release was stopped.

    Raises:
        NoStudiesError: there are no studies, or none of that release or site; the text names those there are.
        DatabaseError: the database does not answer.
    """
    rows, said, _ = _read(database, scope)
    closing = time_text(now - closed_after)
    return [_tell(row, said) for row in rows if row.opened < closing and _STOPPED not in row.reasons.split()]


def _tell(row: Any, said: _Said) -> Told:
    labels, decided = said.labels[row.case_id], said.adjudications[row.case_id]
    blind = [each for each in first_readings(labels) if each.reading is not None and each.reading.blind]
    stating: list[Label] | list[Adjudication] = decided[-1:] or [each for each in blind if each.finding == "pneumonia"]
    types = {each.pneumonia_type for each in stating}
    return Told(
        study=_study(row, said, None),
        pneumonia_type=types.pop() if len(types) == 1 else None,
        shown=frozenset(name for each in blind for name in each.prediction_ids),
        labelled=bool(labels),
    )


def list_cohorts(
    database: ReviewDatabase, now: datetime, scope: Scope, closed_after: timedelta = CLOSED_AFTER
) -> list[Cohort]:
    """The cohorts of each release, the release that answered last first.

    Raises:
        NoStudiesError: there are no studies, or none of that release or site; the text names those there are.
        DatabaseError: the database does not answer.
    """
    rows, said, ordered = _read(database, scope)
    closing = time_text(now - closed_after)
    by_release: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_release[row.release].append(row)
    latest = sorted(by_release, key=lambda release: by_release[release][-1].opened, reverse=True)
    return [_cohort(release, by_release[release], said, ordered, closing, closed_after) for release in latest]


def _read(database: ReviewDatabase, scope: Scope) -> tuple[list[Any], _Said, Mapping[str, str]]:
    """The rows of the studies in scope, what is said of all studies, and what practitioners ordered."""
    with database.read() as connection:
        return _select(connection, scope), _Said(connection), _list_orders(connection)


def _select(connection: Connection, scope: Scope) -> list[Any]:
    """The rows of the studies in scope, the first first."""
    releases = list(connection.scalars(select(cases.c.release).distinct().order_by(cases.c.release)))
    sites: list[str] = []
    if scope.site is not None:
        callers = select(predictions.c.caller).where(predictions.c.caller.is_not(None)).distinct()
        sites = list(connection.scalars(callers.order_by(predictions.c.caller)))
    scope.check(releases, sites)
    # A radiologist's choice is no sample: what holds for flagged studies holds for no others. Of images that were
    # rejected, an answer is neither right nor wrong.
    conditions: list[ColumnElement[bool]] = [~cases.c.flagged, ~cases.c.withdrawn]
    if scope.since is not None:
        conditions.append(cases.c.opened >= scope.since.date().isoformat())
    if scope.before is not None:
        conditions.append(cases.c.opened < scope.before.date().isoformat())
    if scope.release is not None:
        conditions.append(cases.c.release == scope.release)
    if scope.site is not None:
        of = predictions.c.case_id == cases.c.case_id
        conditions.append(exists().where(of, predictions.c.caller == scope.site))
    rows = list(connection.execute(select(cases).where(*conditions).order_by(cases.c.opened, cases.c.case_id)))
    scope.check_found(bool(rows))
    return rows


class _Said:
    """What is on record of all studies, by study, the first first; and where confident answers end, by release."""

    def __init__(self, connection: Connection) -> None:
        self.labels: dict[str, list[Label]] = defaultdict(list)
        self.draws: dict[str, Draw] = {}
        self.adjudications: dict[str, list[Adjudication]] = defaultdict(list)
        self.views: dict[str, list[View]] = defaultdict(list)
        self.edges: dict[str, Edges] = {}
        self._case_of = dict(self._list_cases(connection))
        wanted = select(facts.c.body).where(facts.c.kind.in_(_KINDS)).order_by(facts.c.time, facts.c.entry_id)
        for body in connection.scalars(wanted):
            self._take(parse_entry(body.encode()))

    def _list_cases(self, connection: Connection) -> Iterable[tuple[str, str]]:
        labelled = facts.join(predictions, predictions.c.prediction_id == facts.c.prediction_id)
        wanted = select(facts.c.prediction_id, predictions.c.case_id).select_from(labelled)
        return [(row[0], row[1]) for row in connection.execute(wanted.where(facts.c.kind == "label"))]

    def _take(self, entry: object) -> None:
        match entry:
            case Label():
                case_id = self._case_of.get(entry.prediction_id)
                if case_id is not None:
                    self.labels[case_id].append(entry)
            case Draw():
                self.draws.setdefault(entry.case_id, entry)
            case Adjudication():
                self.adjudications[entry.case_id].append(entry)
            case View() if entry.page == "images":
                self.views[entry.case_id].append(entry)
            case SamplePlan():
                self.edges.setdefault(entry.release, Edges(entry.normal_below, entry.pneumonia_from))


def _list_orders(connection: Connection) -> Mapping[str, str]:
    wanted = select(alerts.c.case_id, alerts.c.ordered).where(alerts.c.ordered.is_not(None))
    return {row.case_id: row.ordered for row in connection.execute(wanted)}


def _cohort(
    release: str, rows: Sequence[Any], said: _Said, ordered: Mapping[str, str], closing: str, closed_after: timedelta
) -> Cohort:
    all_closed = [row for row in rows if row.opened < closing]
    closed = [row for row in all_closed if _STOPPED not in row.reasons.split()]
    studies = [_study(row, said, _closing_of(row.opened, closed_after)) for row in closed]
    names = {row.case_id for row in closed}
    minutes = [each for case_id in names for each in _minutes(said.labels[case_id], said.views[case_id])]
    asked = [ordered[case_id] for case_id in names if case_id in ordered]
    effort = Effort(
        read=sum(bool(first_readings(said.labels[case_id])) for case_id in names),
        readings=sum(len(first_readings(said.labels[case_id])) for case_id in names),
        minutes=median(minutes) if minutes else None,
        blood_tests=asked.count("blood_test"),
        experts=asked.count("expert"),
    )
    still_open, stopped = len(rows) - len(all_closed), len(all_closed) - len(closed)
    return Cohort(release, tuple(studies), still_open, stopped, effort, _count_tested(studies, said))


def _closing_of(opened: str, closed_after: timedelta) -> str:
    return time_text(datetime.fromisoformat(opened) + closed_after)


def _study(row: Any, said: _Said, closing: str | None) -> Studied:
    """A study by what was said of it before its closing; None: until now."""
    draw = said.draws.get(row.case_id)
    probability = 1.0 if row.referred else None if draw is None else draw.probability
    outcome: ReadingOutcome = "not_drawn"
    truth: Finding | None = None
    if probability is not None:
        labels = [each for each in said.labels[row.case_id] if closing is None or each.time < closing]
        decided = [each for each in said.adjudications[row.case_id] if closing is None or each.time < closing]
        outcome, truth = judge(labels, decided)
    return Studied(
        case_id=row.case_id,
        opened=row.opened,
        release=row.release,
        patient=row.patient,
        stratum=_stratum(row, draw, said.edges.get(row.release)),
        score=row.pneumonia_probability,
        probability=probability,
        outcome=outcome,
        truth=truth,
    )


def _stratum(row: Any, draw: Draw | None, edges: Edges | None) -> str:
    if row.referred or row.finding is None:
        return "referred"
    if draw is not None:
        return draw.stratum
    if edges is None or row.pneumonia_probability is None:
        return str(row.finding)
    return stratum_of(row.finding, row.pneumonia_probability, edges)


def judge(labels: Sequence[Label], decided: Sequence[Adjudication]) -> tuple[ReadingOutcome, Finding | None]:
    """What blind readers found of a study: a lead's decision, else what most of them say.

    Two who differ wait for a third. Readings that were not blind count for nothing.
    """
    readings = first_readings(labels)
    if not readings:
        return "unread", None
    blind = [each for each in readings if each.reading is not None and each.reading.blind]
    if not blind:
        return "not_blind", None
    if decided:
        found = decided[-1].finding
        return ("cannot_tell", None) if found is None else ("read", found)
    said = [each.finding for each in blind]
    most = max(said, key=said.count)
    if said.count(most) * 2 <= len(said):
        return "undecided", None
    return ("cannot_tell", None) if most is None else ("read", most)


def _minutes(labels: Sequence[Label], views: Sequence[View]) -> list[float]:
    """From when each reader last opened the images of a study until their verdict."""
    found = []
    for label in first_readings(labels):
        opened = [view.time for view in views if view.by == label.author and view.time <= label.time]
        if opened:
            took = datetime.fromisoformat(label.time) - datetime.fromisoformat(opened[-1])
            found.append(took.total_seconds() / 60)
    return found


def _count_tested(studies: Collection[Studied], said: _Said) -> dict[str, dict[str, Tested]]:
    """Of blood tests and follow-up: of which studies a finding is known. It says nothing of the others."""
    found: dict[str, dict[str, Tested]] = {}
    answered = Counter(study.stratum.partition("/")[0] for study in studies)
    for study in studies:
        answer = study.stratum.partition("/")[0]
        for source in ("blood_test", "follow_up"):
            known = [each.finding for each in said.labels[study.case_id] if each.source == source and each.finding]
            if known:
                before = found.setdefault(source, {}).get(answer, Tested(answered[answer], 0, 0))
                sick = before.sick + (known[-1] == "pneumonia")
                found[source][answer] = Tested(before.answered, before.tested + 1, sick)
    return found
