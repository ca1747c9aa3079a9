"""How far two readers of a study agree, as an estimate for all studies and not for those that happened to be read.

Who is read twice hangs on the first reading: of those who are found sick all are. Counted plainly, these would make
kappa look better than it is. So each study counts by one over the probability with which its second reading was asked
for, and a reading without a known probability, or one that was not blind, does not count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.tables import readings

Floats = npt.NDArray[np.float64]

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
    cells = np.array([2 * each.first + each.second for each in pairs], dtype=np.intp)
    weights = np.array([1 / each.probability for each in pairs])
    generator = np.random.default_rng(_SEED)
    # The table of all pairs, then one a resample.
    added = [_add_up(cells, weights)]
    for _ in range(_RESAMPLES if pairs else 0):
        chosen = generator.integers(len(pairs), size=len(pairs))
        added.append(_add_up(cells[chosen], weights[chosen]))
    tables = np.array(added)
    kappa, positive, negative = (_limit(figure(tables)) for figure in (_kappa, _positive, _negative))
    return Agreement(len(pairs), kappa, positive, negative, left_out or {})


def _add_up(cells: npt.NDArray[np.intp], weights: Floats) -> Floats:
    """Weights of pairs: both say well, the second alone says sick, the first alone, both say sick; shape [4]."""
    return np.bincount(cells, weights, minlength=4).astype(np.float64)


def _limit(values: Floats) -> Estimate:
    """The first of the values, with an interval by the others."""
    if np.isnan(values[0]):
        return Estimate(None, None, None)
    low, high = np.nanpercentile(values[1:], [_TAIL, 100 - _TAIL])
    return Estimate(float(values[0]), float(low), float(high))


def _kappa(tables: Floats) -> Floats:
    """Cohen 1960; of tables of shape [n, 4], as the others."""
    well, second, first, sick = tables.T
    total = tables.sum(axis=1)
    by_chance = (sick + first) * (sick + second) + (well + first) * (well + second)
    return _divide(total * (well + sick) - by_chance, total**2 - by_chance)


def _positive(tables: Floats) -> Floats:
    _, second, first, sick = tables.T
    return _divide(2 * sick, 2 * sick + first + second)


def _negative(tables: Floats) -> Floats:
    well, second, first, _ = tables.T
    return _divide(2 * well, 2 * well + first + second)


def _divide(parts: Floats, wholes: Floats) -> Floats:
    """NaN where a whole is nothing; what rounding leaves of nothing is nothing, since no weight is below 1."""
    return np.divide(parts, wholes, out=np.full_like(parts, np.nan), where=wholes > 1e-9)
