"""Exact one-sided limits of a proportion: the one place for all that bounds a rate."""

from __future__ import annotations

from scipy.stats import beta


def lower_limit(events: float, trials: float, alpha: float) -> float:
    """The exact lower limit of a proportion, wrong with probability `alpha` at most; 0 where there are no events.

    Clopper C, Pearson E. The use of confidence or fiducial limits. Biometrika 1934; 26: 404-413. As quantiles of beta
    distributions they take a twentieth of the time of scipy's `binomtest`, which searches for them. Events need not be
    whole: a mean of shares varies less than zeros and ones do, so its limit is no higher than it may be.
    """
    return float(beta.ppf(alpha, events, trials - events + 1)) if events > 0 else 0.0


def upper_limit(events: float, trials: float, alpha: float) -> float:
    """The exact upper limit, as above; 1 where all trials are events, or there are none."""
    return float(beta.ppf(1 - alpha, events + 1, trials - events)) if events < trials else 1.0
