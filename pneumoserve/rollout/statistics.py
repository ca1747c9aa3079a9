"""The statistics that gates decide by: paired differences before traffic, confidence bounds per arm during it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

ONE_SIDED: Final = 0.05
_BISECTIONS: Final = 60


# --- paired proportions, one film of each patient judged by both releases


def tango_z(lost: int, gained: int, pairs: int, margin: float) -> float:
    """The score statistic of H0: p(lost) - p(gained) = margin; small where the true difference is below `margin`.

    `lost` counts pairs in which the stable release was right and the candidate was not, `gained` the reverse. The
    nuisance parameter is estimated under H0 (Tango T. Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design. Statistics in Medicine 1998; 17: 891-908).

    Raises:
        ValueError: there are no pairs, or the margin does not lie between -1 and 1.
    """
    if pairs < 1 or lost + gained > pairs or not -1 < margin < 1:
        raise ValueError("a paired difference takes at least one pair, and a margin between -1 and 1")
    a = 2 * pairs
    b = -lost - gained + (2 * pairs - lost + gained) * margin
    c = -gained * margin * (1 - margin)
    restricted = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = pairs * (2 * restricted + margin * (1 - margin))
    distance = lost - gained - pairs * margin
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def tango_p(lost: int, gained: int, pairs: int, margin: float) -> float:
    """The one-sided p-value of H0: the loss is at least `margin`."""
    return NormalDist().cdf(tango_z(lost, gained, pairs, margin))


def tango_upper(lost: int, gained: int, pairs: int, alpha: float = ONE_SIDED) -> float:
    """The upper confidence bound (one-sided, 1 - `alpha`) of the loss p(lost) - p(gained)."""
    z = NormalDist().inv_cdf(alpha)
    low, high = (lost - gained) / pairs, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle < 1 and tango_z(lost, gained, pairs, middle) > z:
            low = middle
        else:
            high = middle
    return high


def pairs_needed(margin: float, alpha: float = ONE_SIDED) -> int:
    """The fewest pairs that can show a loss below `margin`, namely where not one of them differs.

    Then Tango's statistic is -sqrt(n * margin / (1 - margin)).
    """
    z = NormalDist().inv_cdf(1 - alpha)
    return math.ceil(z * z * (1 - margin) / margin - 1e-9)


def mean_upper(differences: npt.NDArray[np.float64], alpha: float = ONE_SIDED) -> float:
    """An upper confidence bound of a mean of paired differences, by the normal approximation.

    Shape [n]; for the films of an evidence set, dozens at least.
    """
    spread = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return float(differences.mean()) + NormalDist().inv_cdf(1 - alpha) * spread


# --- two arms that get different calls


def binomial_bounds(events: int, trials: int, alpha: float) -> tuple[float, float]:
    """The exact lower and upper bound of a proportion, each wrong with probability `alpha` at most.

    Clopper C, Pearson E. The use of confidence or fiducial limits. Biometrika 1934; 26: 404-413.
    """
    if trials == 0:
        return 0.0, 1.0
    low = 0.0 if events == 0 else _where(lambda p: _at_least(events, trials, p) >= alpha)
    high = 1.0 if events == trials else 1 - _where(lambda p: _at_least(trials - events, trials, p) >= alpha)
    return low, high


def quantile_bounds(values: npt.NDArray[np.float64], quantile: float, alpha: float) -> tuple[float, float]:
    """The lower and upper bound of a quantile, each wrong with probability `alpha` at most, whatever the distribution.

    They are order statistics (David HA, Nagaraja HN. Order Statistics, 3rd ed., 7.1); -inf or inf where there are too
    few values for a bound.
    """
    ordered = np.sort(values)
    n = len(ordered)
    # P(k-th value > quantile) = P(fewer than k of n lie at or below it).
    below = _cumulative(n, quantile)
    lower = int(np.searchsorted(below, alpha, side="right"))
    upper = int(np.searchsorted(below, 1 - alpha, side="left")) + 1
    return (
        float(ordered[lower - 1]) if lower else -math.inf,
        float(ordered[upper - 1]) if upper <= n else math.inf,
    )


def distance_bound(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], alpha: float) -> float:
    """A lower bound, wrong with probability `alpha` at most, of the largest distance of two distribution functions.

    The Kolmogorov distance of the samples less the band of each (Massart P. The tight constant in the
    Dvoretzky-Kiefer-Wolfowitz inequality. Annals of Probability 1990; 18: 1269-1283), `alpha` shared by both.
    """
    if not len(first) or not len(second):
        return 0.0
    band = sum(math.sqrt(math.log(4 / alpha) / (2 * len(values))) for values in (first, second))
    return max(0.0, kolmogorov(first, second) - band)


def kolmogorov(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """The largest distance of two samples' distribution functions."""
    points = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(values), points, side="right") / len(values) for values in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _cumulative(trials: int, p: float) -> npt.NDArray[np.float64]:
    """P(X <= k) of a binomial X for k = 0 … trials."""
    k = np.arange(trials + 1)
    shares: npt.NDArray[np.float64] = np.exp(
        _log_combinations(trials) + k * math.log(p) + (trials - k) * math.log1p(-p)
    )
    return np.minimum(np.cumsum(shares), 1.0, dtype=np.float64)


@lru_cache(maxsize=64)
def _log_combinations(trials: int) -> npt.NDArray[np.float64]:
    """log of (trials over k) for k = 0 … trials."""
    factorials = np.cumsum(np.log(np.maximum(np.arange(trials + 1), 1)))
    return np.asarray(factorials[-1] - factorials - factorials[::-1])


def _at_least(events: int, trials: int, p: float) -> float:
    """P(X >= events) of a binomial X."""
    if p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    return float(max(0.0, 1 - _cumulative(trials, p)[events - 1])) if events < trials else p**trials


def _where(reached: Callable[[float], bool]) -> float:
    """The smallest p in [0, 1] at which a growing condition holds."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return low
