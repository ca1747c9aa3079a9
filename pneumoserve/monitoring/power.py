"""Bounds of rates by patient, how looks share alpha, and what a plan can show."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from scipy import stats

from pneumoserve.binomial import lower_limit, upper_limit

_MOST_PATIENTS: Final = 20_000


def lower_bound(rate: float, patients: int, alpha: float) -> float:
    """One-sided lower bound, at level 1 - `alpha`, of a rate among so many patients.

    A patient's images are one observation, whose value is their share (see `binomial.lower_limit`).
    """
    return lower_limit(rate * patients, patients, alpha)


def upper_bound(rate: float, patients: int, alpha: float) -> float:
    """The same for an upper bound."""
    return upper_limit(rate * patients, patients, alpha)


def level_of_look(alpha: float, looks: int, look: int) -> float:
    """The level of the bounds of one look of several, the first of which is 1.

    The spending function is that of Lan & DeMets (1983) which resembles O'Brien & Fleming's boundary, 2 - 2 Φ(z / √t)
    with z the quantile of 1 - alpha / 2 and t the share of the looks. Each look gets what is spent between it and the
    one before. Added up over looks that is alpha, so that by Bonferroni the levels hold however the looks depend on
    each other.

    Raises:
        ValueError: there is no such look.
    """
    if not 1 <= look <= looks:
        raise ValueError("a look has a number from 1 to the number of looks")
    return _spent(alpha, look / looks) - _spent(alpha, (look - 1) / looks)


def _spent(alpha: float, share: float) -> float:
    normal = NormalDist()
    return 2 - 2 * normal.cdf(normal.inv_cdf(1 - alpha / 2) / math.sqrt(share)) if share else 0.0


def power(least: float, truth: float, patients: int, alpha: float) -> float:
    """How probable it is that the lower bound of so many patients is at least `least`, where the rate is `truth`.

    Each patient has one image: the exact binomial.
    """
    if lower_bound(1.0, patients, alpha) < least:
        return 0.0
    fewest, most = 1, patients
    while fewest < most:
        middle = (fewest + most) // 2
        if lower_bound(middle / patients, patients, alpha) >= least:
            most = middle
        else:
            fewest = middle + 1
    return float(stats.binom.sf(fewest - 1, patients, truth))


def patients_needed(least: float, rate: float, alpha: float) -> int | None:
    """The fewest patients with whom a rate, seen as it is, would have a lower bound of `least`.

    None where 20,000 would not do.
    """
    if rate <= least or lower_bound(rate, _MOST_PATIENTS, alpha) < least:
        return None
    fewest, most = 1, _MOST_PATIENTS
    while fewest < most:
        middle = (fewest + most) // 2
        if lower_bound(rate, middle, alpha) >= least:
            most = middle
        else:
            fewest = middle + 1
    return fewest
