"""The random check: confident answers that chance chooses to be read, more of them near the thresholds.

A stratum is a finding and how far the score lies from where that finding is not confident any more. Each stratum of a
release has one probability, which a plan on record fixes. A keyed hash of the study is compared with it: which study is
drawn hangs on nothing else, neither on the day nor on how often the draw is run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, case, func, select

from pneumoserve.decision import Policy, logit_of
from pneumoserve.ids import time_text, uuid7
from pneumoserve.records import Draw, SamplePlan, parse_entry
from pneumoserve.review.archive import Commit
from pneumoserve.review.chance import Chance
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.errors import ReviewError
from pneumoserve.review.following import list_predictions, put_on_record
from pneumoserve.review.tables import cases, facts

# Logits from where a finding is not confident any more, and how much likelier than a far one a study is drawn.
_BANDS: Final = (("near", 1.0, 4.0), ("middle", 3.0, 2.0), ("far", math.inf, 1.0))
# Of so many days a plan is made; fewer would make its probabilities hang on a Sunday.
_PLAN_DAYS: Final = 7
# A day of which the plan would draw more than so many times the capacity is drawn from with lower probabilities.
_OVERFLOW: Final = 2.0
GOAL_SENSITIVITY: Final = 0.95
_LEAST: Final = 1e-6
_BISECTIONS: Final = 100


@dataclass(frozen=True)
class Sampled:
    """What a run did with the confident studies of a day.

    `drawn` are new, `before` were drawn already, `unknown` are of releases whose policy nobody knows. So many confident
    normals must be read without one miss before a sensitivity of .95 is shown: `needed`; None where no study was seen.
    """

    plans: tuple[SamplePlan, ...]
    drawn: tuple[Draw, ...]
    confident: int
    before: int
    unknown: int
    needed: int | None


@dataclass(frozen=True)
class Edges:
    """Between which probabilities of pneumonia an answer is not confident."""

    normal_below: float
    pneumonia_from: float


def edges_of(policy: Policy) -> Edges:
    """Where a release's answers cease to be confident: at its threshold, or at the ends of its referral band."""
    band, threshold = policy.detector_band, policy.detector_threshold
    if band.low == band.high:
        return Edges(threshold, threshold)
    return Edges(min(threshold, band.low), max(threshold, band.high))


def stratum_of(finding: str, probability: float, edges: Edges) -> str:
    """The stratum of a confident answer, by its finding and its probability of pneumonia."""
    edge = edges.normal_below if finding == "normal" else edges.pneumonia_from
    distance = abs(logit_of(probability) - logit_of(edge))
    return f"{finding}/{next(name for name, end, _ in _BANDS if distance < end)}"


def choose_probabilities(counted: Mapping[str, int], days: int, capacity: float) -> dict[str, float]:
    """A probability for each stratum, so that an average day draws as many studies as there is capacity for.

    They are in the ratio of the strata's weights, up to 1. With no study counted, each is 1.
    """
    weights = {f"{finding}/{name}": weight for finding in ("normal", "pneumonia") for name, _, weight in _BANDS}

    def count_drawn(scale: float) -> float:
        return sum(counted.get(name, 0) / days * min(1.0, scale * weight) for name, weight in weights.items())

    low, high = 0.0, 1.0
    if count_drawn(high) > capacity:
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if count_drawn(middle) < capacity else (low, middle)
    return {name: min(1.0, high * weight) for name, weight in weights.items()}


def readings_needed(prevalence: float, sensitivity: float, confident_normal: float, alpha: float = 0.05) -> int:
    """How many confident normals must be read without one miss before a sensitivity is shown, wrong with `alpha`.

    What the product misses stands among confident normals, which are a share `confident_normal` of all studies. With a
    lower sensitivity than this, a simple random sample of that many holds a miss with a probability of 1 - `alpha`.

    Raises:
        ValueError: a share is not between 0 and 1.
    """
    if not all(0 < share < 1 for share in (prevalence, sensitivity, alpha)) or not 0 < confident_normal <= 1:
        raise ValueError("shares lie between 0 and 1")
    missed = min((1 - sensitivity) * prevalence / confident_normal, 1 - _LEAST)
    return math.ceil(math.log(alpha) / math.log1p(-missed))


class Sampler:
    """Draws studies; `policies` knows the policy of a release by its id, and None of one that it cannot find."""

    def __init__(
        self,
        database: ReviewDatabase,
        commit: Commit,
        chance: Chance,
        policies: Callable[[str], Policy | None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._commit = commit
        self._chance = chance
        self._policies = policies
        self._now = now

    def sample(self, day: date, capacity: float) -> Sampled:
        """Draw from the confident answers of a day (UTC), and put on record what is drawn; nothing is drawn twice.

        The first draw of a release makes its plan. Another capacity or key makes a new one, for studies of tomorrow
        and later: a day whose draws are on record keeps its probabilities.

        Raises:
            ReviewError: there is no capacity, the day has not begun, or it is drawn from with another key.
            StoreError: the archive did not take it; nothing is drawn.
            DatabaseError: the database does not answer.
        """
        if not 0 < capacity < math.inf:
            raise ReviewError("The capacity is how many studies are read on an average day; give more than 0.")
        if day > self._now().date():
            raise ReviewError("That day has not begun; draw from one that has.")
        with self._database.write() as connection:
            rows = _confident(connection, day, day)
            made, plans = [], {}
            for release, _ in Counter(row.release for row in rows).most_common():
                plan, new = self._plans(connection, release, day, capacity)
                made += new
                if plan is not None:
                    plans[release] = plan
            known = [row for row in rows if row.release in plans]
            drawn = self._draw(connection, known, plans, capacity)
            for entries in (made, drawn):
                if entries:
                    put_on_record(connection, self._commit, entries)
            needed = self._count_needed(connection, day, next(iter(plans), None))
        before = sum(bool(row.drawn) for row in rows)
        return Sampled(tuple(made), tuple(drawn), len(rows), before, len(rows) - len(known), needed)

    def _plans(
        self, connection: Connection, release: str, day: date, capacity: float
    ) -> tuple[SamplePlan | None, list[SamplePlan]]:
        """The plan for a release's studies of a day, None where nobody knows its policy; and what plan is new."""
        found = select(facts.c.body).where(facts.c.kind == "sample_plan").order_by(facts.c.time, facts.c.entry_id)
        entries = (parse_entry(body.encode()) for body in connection.scalars(found))
        plans = [plan for plan in entries if isinstance(plan, SamplePlan) and plan.release == release]
        policy = None
        new: list[SamplePlan] = []
        if not plans or (plans[-1].capacity, plans[-1].key_id) != (capacity, self._chance.key_id):
            policy = self._policies(release)
        if policy is not None:
            first = self._now().date() + timedelta(days=1) if plans else day
            new.append(self._plan(connection, release, first, day, capacity, edges_of(policy)))
        plans = [*plans, *new]
        if not plans:
            return None, []
        plan = next((each for each in reversed(plans) if each.first_day <= day.isoformat()), plans[0])
        if plan.key_id != self._chance.key_id:
            raise ReviewError(
                "Studies of that day are drawn with another key; give that one, or draw from tomorrow on."
            )
        return plan, new

    def _plan(
        self, connection: Connection, release: str, first: date, day: date, capacity: float, edges: Edges
    ) -> SamplePlan:
        rows = _confident(connection, day - timedelta(days=_PLAN_DAYS - 1), day)
        days = len({row.opened[:10] for row in rows})
        counted = Counter(
            stratum_of(row.finding, row.pneumonia_probability, edges) for row in rows if row.release == release
        )
        # Releases share the readers: each gets its part of the capacity by the studies that it answers.
        share = capacity * counted.total() / len(rows)
        return SamplePlan(
            plan_id=uuid7(),
            first_day=first.isoformat(),
            time=time_text(self._now()),
            release=release,
            key_id=self._chance.key_id,
            capacity=capacity,
            days=days,
            normal_below=edges.normal_below,
            pneumonia_from=edges.pneumonia_from,
            counted=dict(sorted(counted.items())),
            probabilities=choose_probabilities(counted, days, share),
        )

    def _draw(
        self, connection: Connection, rows: Sequence[Any], plans: Mapping[str, SamplePlan], capacity: float
    ) -> list[Draw]:
        strata = [
            stratum_of(row.finding, row.pneumonia_probability, Edges(plan.normal_below, plan.pneumonia_from))
            for row in rows
            for plan in (plans[row.release],)
        ]
        expected = sum(plans[row.release].probabilities[stratum] for row, stratum in zip(rows, strata, strict=True))
        # By the number of studies alone, not by which of them are drawn: the probability stays known.
        scale = min(1.0, _OVERFLOW * capacity / expected) if expected else 1.0
        drawn = []
        for row, stratum in zip(rows, strata, strict=True):
            plan = plans[row.release]
            probability = scale * plan.probabilities[stratum]
            if row.drawn or not self._chance.draws("sample", row.case_id, probability):
                continue
            drawn.append(
                Draw(
                    draw_id=uuid7(),
                    case_id=row.case_id,
                    time=time_text(self._now()),
                    release=row.release,
                    prediction_ids=tuple(list_predictions(connection, row.case_id)),
                    plan_id=plan.plan_id,
                    stratum=stratum,
                    probability=probability,
                    key_id=plan.key_id,
                )
            )
        return drawn

    def _count_needed(self, connection: Connection, day: date, release: str | None) -> int | None:
        """What a run can tell people about how long it takes, by the prevalence that the release assumes."""
        policy = None if release is None else self._policies(release)
        if policy is None:
            return None
        since = (day - timedelta(days=_PLAN_DAYS - 1)).isoformat()
        normal = case((and_(~cases.c.referred, cases.c.finding == "normal"), 1), else_=0)
        row = connection.execute(
            select(func.count(), func.sum(normal)).where(cases.c.opened >= since, ~cases.c.flagged, ~cases.c.withdrawn)
        ).one()
        return readings_needed(policy.assumed_prevalence, GOAL_SENSITIVITY, row[1] / row[0]) if row[1] else None


def _confident(connection: Connection, first: date, last: date) -> list[Any]:
    """Studies of days from `first` to `last` that nobody else is asked to look at, the first first."""
    until = (last + timedelta(days=1)).isoformat()
    found = select(cases).where(
        cases.c.opened >= first.isoformat(),
        cases.c.opened < until,
        ~cases.c.referred,
        ~cases.c.flagged,
        ~cases.c.withdrawn,
        cases.c.finding.is_not(None),
        cases.c.pneumonia_probability.is_not(None),
    )
    return list(connection.execute(found.order_by(cases.c.opened, cases.c.case_id)))
