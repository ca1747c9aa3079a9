"""Confidence limits of weighted counts, and of shares and rates that are made of them.

A study that was drawn with probability p stands for 1/p studies. A sum of such weights is no count any more, so that
exact binomial limits do not fit; Wald's are far too narrow where few are missed. Two methods fit:

- Limits of one weighted count: Fay MP, Feuer EJ. Confidence intervals for directly standardized rates: a method based
  on the gamma distribution. Statistics in Medicine 1997; 16: 791-801.
- Limits of a function of several of them, by melding: Fay MP, Proschan MA, Brittain E. Combining one-sample confidence
  procedures for inference in the two-sample case. Biometrics 2015; 71: 146-156.

Nothing here is random: the same counts give the same limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, gammaincinv

ALPHA: Final = 0.05
# Points of a distribution where a rate is made of two shares; 400 give limits that hold to three digits.
_POINTS: Final = 400

Values = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % limits."""

    value: float
    low: float
    high: float

    def scale(self, factor: float) -> Interval:
        """The same in another unit; `factor` is positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Weighted:
    """A sum of weights, of their squares, and the largest weight that one more study could have."""

    total: float
    squares: float
    largest: float

    @classmethod
    def of(cls, weights: Iterable[tuple[float, int]], largest: float) -> Weighted:
        """Of weights, each with how many studies have it; `largest` counts where no study has any."""
        pairs = list(weights)
        total = sum(weight * count for weight, count in pairs)
        return cls(total, sum(weight * weight * count for weight, count in pairs), largest)

    def __add__(self, other: Weighted) -> Weighted:
        return Weighted(self.total + other.total, self.squares + other.squares, max(self.largest, other.largest))

    @property
    def lower(self) -> Gamma:
        """The distribution that the lower limit is a quantile of."""
        return Gamma.matching(self.total, self.squares)

    @property
    def upper(self) -> Gamma:
        """The distribution that the upper limit is a quantile of: one more study, of the largest weight, was found."""
        return Gamma.matching(self.total + self.largest, self.squares + self.largest**2)


@dataclass(frozen=True)
class Gamma:
    """A gamma distribution; shape 0 is the constant 0."""

    shape: float
    scale: float

    @classmethod
    def matching(cls, mean: float, variance: float) -> Gamma:
        """The one that has this mean and variance."""
        return cls(mean * mean / variance, variance / mean) if mean > 0 else cls(0.0, 0.0)


@dataclass(frozen=True)
class Share:
    """What share `part` is of `part` and `rest`, two weighted counts of different studies."""

    part: Weighted
    rest: Weighted

    @property
    def value(self) -> float:
        """The share itself.

        Raises:
            ZeroDivisionError: there is nothing to take a share of.
        """
        return self.part.total / (self.part.total + self.rest.total)

    @classmethod
    def of_films(cls, events: Bools, patients: npt.NDArray[np.str_], weights: Values, largest: float) -> Self:
        """Of weighted films the share of `events`; a patient's films are one unit in each count, all of shape [N].

        `largest` is the largest weight that a study may have; a patient's films may have more together.
        """
        _, owner = np.unique(patients, return_inverse=True)
        part, rest = (np.bincount(owner, weights * chosen) for chosen in (events, ~events))
        most = max(largest, float((part + rest).max()))
        return cls(*(Weighted(float(each.sum()), float((each**2).sum()), most) for each in (part, rest)))

    def lower(self, alpha: float) -> float:
        """The lower limit, which is wrong with probability `alpha` at most."""
        return float(self.quantiles(np.array([alpha]), upper=False)[0])

    def upper(self, alpha: float) -> float:
        """The same for an upper limit."""
        return float(self.quantiles(np.array([1 - alpha]), upper=True)[0])

    def quantiles(self, probabilities: Values, upper: bool) -> Values:
        """Quantiles of the share's lower or upper confidence distribution; the shape of `probabilities`.

        With G and H standard gamma variables, aG / (aG + bH) rises with the beta variable G / (G + H): its quantiles
        are those of that one, transformed.
        """
        part, rest = (self.part.upper, self.rest.lower) if upper else (self.part.lower, self.rest.upper)
        if not part.shape:
            return np.zeros_like(probabilities)
        if not rest.shape:
            return np.ones_like(probabilities)
        at = betaincinv(part.shape, rest.shape, probabilities)
        found: Values = part.scale * at / (part.scale * at + rest.scale * (1 - at))
        return found


def count_effective(weights: Iterable[float]) -> int:
    """How many whole units of one weight vary as little as these (Kish 1965): whether there are enough, no more.

    A bound by it is unsafe: where few units of a large weight could be found, it rests on those that were.
    """
    values = list(weights)
    squares = sum(weight * weight for weight in values)
    # A sum of floats may lie just below the whole number that it stands for.
    return math.floor(sum(values) ** 2 / squares + 1e-6) if squares else 0


def limit_count(count: Weighted, alpha: float = ALPHA) -> Interval:
    """A weighted count with its limits by Fay and Feuer, each wrong with probability `alpha` / 2 at most."""
    lower, upper = count.lower, count.upper
    low = lower.scale * float(gammaincinv(lower.shape, alpha / 2)) if lower.shape else 0.0
    high = upper.scale * float(gammaincinv(upper.shape, 1 - alpha / 2)) if upper.shape else 0.0
    return Interval(count.total, low, high)


def limit_share(share: Share, alpha: float = ALPHA) -> Interval:
    """A share with its melded limits, each wrong with probability `alpha` / 2 at most.

    Raises:
        ZeroDivisionError: there is nothing to take a share of.
    """
    return Interval(share.value, share.lower(alpha / 2), share.upper(alpha / 2))


def limit_rate(rate: Callable[..., Values], shares: Sequence[Share], alpha: float = ALPHA) -> Interval:
    """A rate that rises with each of some shares of different studies, with its melded limits.

    `rate` takes an array for each share, and gives one of the same shape.

    Raises:
        ZeroDivisionError: there is nothing to take a share of.
    """
    points = (np.arange(_POINTS) + 0.5) / _POINTS

    def limit(upper: bool, probability: float) -> float:
        each = [share.quantiles(points, upper) for share in shares]
        return float(np.quantile(rate(*np.meshgrid(*each, indexing="ij")), probability, method="hazen"))

    value = float(rate(*(np.array(share.value) for share in shares)))
    return Interval(value, min(value, limit(False, alpha / 2)), max(value, limit(True, 1 - alpha / 2)))
