"""The statistics that gates decide by: paired differences before traffic, confidence bounds per arm during it."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, ks_2samp

from pneumoserve.binomial import lower_limit, upper_limit

ONE_SIDED: Final = 0.05
_BISECTIONS: Final = 60


# --- paired proportions, one film of each patient, on which both releases answer


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
    """The exact lower and upper bound of a proportion, each wrong with probability `alpha` at most."""
    return lower_limit(events, trials, alpha), upper_limit(events, trials, alpha)


def quantile_bounds(values: npt.NDArray[np.float64], quantile: float, alpha: float) -> tuple[float, float]:
    """The lower and upper bound of a quantile, each wrong with probability `alpha` at most, whatever the distribution.

    They are order statistics (David HA, Nagaraja HN. Order Statistics, 3rd ed., 7.1); -inf or inf where there are too
    few values for a bound.
    """
    ordered = np.sort(values)
    n = len(ordered)
    # P(k-th value > quantile) = P(fewer than k of n lie at or below it).
    lower, upper = int(binom.ppf(alpha, n, quantile)), int(binom.ppf(1 - alpha, n, quantile)) + 1
    return (
        float(ordered[lower - 1]) if lower else -math.inf,
        float(ordered[upper - 1]) if upper <= n else math.inf,
    )


def distance_bound(distance: float, sizes: tuple[int, int], alpha: float) -> float:
    """A lower bound, wrong with probability `alpha` at most, of the largest distance of two distribution functions.

    The Kolmogorov distance of two samples of these sizes less the band of each (Massart P. The tight constant in the
    Dvoretzky-Kiefer-Wolfowitz inequality. Annals of Probability 1990; 18: 1269-1283), `alpha` shared by both.
    """
    if not all(sizes):
        return 0.0
    band = sum(math.sqrt(math.log(4 / alpha) / (2 * size)) for size in sizes)
    return max(0.0, distance - band)


def kolmogorov_distance(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """The largest distance of two samples' distribution functions; 0 where one sample is empty."""
    if not len(first) or not len(second):
        return 0.0
    # The p-value is not used, so it need not be the exact one, which is slow.
    return float(ks_2samp(first, second, method="asymp").statistic)
