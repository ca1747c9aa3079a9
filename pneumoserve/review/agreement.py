"""How far two readers of a study agree, as an estimate for all studies and not for those that happened to be read.

Who is read twice hangs on the first reading: of those who are found sick all are. Counted plainly, these would make
kappa look better than it is. So each study counts by one over the probability with which its second reading was asked
for, and a reading without a known probability, or one that was not blind, does not count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.tables import readings

_RESAMPLES: Final = 2000
_SEED: Final = 20_261_130
_TAIL: Final = 2.5


@dataclass(frozen=True)
class Pair:
    """What two readers of one study found (whether pneumonia), and the probability that both were asked."""

    first: bool
    second: bool
    probability: float


@dataclass(frozen=True)
class Estimate:
    """A figure, and a 95 % interval by resampling studies; None where the figure is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """How far readers agree. `left_out` counts studies that were read twice and do not count, by reason."""

    studies: int
    kappa: Estimate
    positive: Estimate
    negative: Estimate
    left_out: dict[str, int]


def measure_agreement(database: ReviewDatabase) -> Agreement:
    """The agreement of first and second readers in the reading room.

    Raises:
        DatabaseError: the database does not answer.
    """
    by_case: dict[str, list[Any]] = defaultdict(list)
    with database.read() as connection:
        wanted = select(readings).where(readings.c.number <= 2).order_by(readings.c.case_id, readings.c.number)
        for row in connection.execute(wanted):
            by_case[row.case_id].append(row)
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for both in (rows for rows in by_case.values() if len(rows) == 2):
        reason = _reason_to_leave_out(*both)
        if reason is None:
            first, second = both
            pairs.append(Pair(first.finding == "pneumonia", second.finding == "pneumonia", second.probability))
        else:
            left_out[reason] += 1
    return estimate_agreement(pairs, dict(sorted(left_out.items())))


def _reason_to_leave_out(first: Any, second: Any) -> str | None:
    checks = (
        (first.blind and second.blind, "not blind"),
        (second.probability is not None, "unknown probability"),
        (first.finding is not None and second.finding is not None, "could not tell"),
    )
    return next((reason for holds, reason in checks if not holds), None)


def estimate_agreement(pairs: Sequence[Pair], left_out: dict[str, int] | None = None) -> Agreement:
    """Cohen's kappa of weighted pairs, and agreement on sick and on well ones: kappa collapses where few are sick."""
    table = np.array([[each.first, each.second] for each in pairs], dtype=bool).reshape(-1, 2)
    weights = np.array([1 / each.probability for each in pairs])
    generator = np.random.default_rng(_SEED)
    chosen = [generator.integers(len(pairs), size=len(pairs)) for _ in range(_RESAMPLES)] if pairs else []

    def estimate(figure: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.float64]], float]) -> Estimate:
        value = figure(table, weights)
        if np.isnan(value):
            return Estimate(None, None, None)
        spread = np.array([figure(table[each], weights[each]) for each in chosen])
        low, high = np.nanpercentile(spread, [_TAIL, 100 - _TAIL])
        return Estimate(value, float(low), float(high))

    return Agreement(len(pairs), estimate(_kappa), estimate(_positive), estimate(_negative), left_out or {})


def _shares(table: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """The weighted shares of studies: both say sick, both say well, they differ; all 0 of none."""
    total = float(weights.sum()) or 1.0
    sick, well = table.all(axis=1), ~table.any(axis=1)
    both, none = float(weights[sick].sum()) / total, float(weights[well].sum()) / total
    return both, none, float(weights[~sick & ~well].sum()) / total


def _kappa(table: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]) -> float:
    if not len(table):
        return float("nan")
    both, none, _ = _shares(table, weights)
    first, second = (float(weights[table[:, column]].sum() / weights.sum()) for column in (0, 1))
    by_chance = first * second + (1 - first) * (1 - second)
    return _ratio(both + none - by_chance, 1 - by_chance)


def _positive(table: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]) -> float:
    both, _, differ = _shares(table, weights)
    return _ratio(2 * both, 2 * both + differ)


def _negative(table: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]) -> float:
    _, none, differ = _shares(table, weights)
    return _ratio(2 * none, 2 * none + differ)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
