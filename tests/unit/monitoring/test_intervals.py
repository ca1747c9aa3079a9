"""Intervals: published figures, exact ones that they must equal, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, chi2

from pneumoserve.monitoring import Share, Weighted, limit_count, limit_rate, limit_share


def counted(number: int, weight: float = 1.0) -> Weighted:
    return Weighted.of([(weight, number)], weight)


@pytest.mark.parametrize("number", [0, 1, 5, 40])
def test_limits_of_equal_weights_are_the_exact_ones_of_poisson(number: int) -> None:
    """Garwood 1936, as Fay and Feuer show: 5 of weight 1 give 1.623 to 11.668."""
    found = limit_count(counted(number, 3.0))
    low = chi2.ppf(0.025, 2 * number) / 2 if number else 0.0
    assert found.low == pytest.approx(3 * low)
    assert found.high == pytest.approx(3 * chi2.ppf(0.975, 2 * number + 2) / 2)
    assert found.value == 3 * number


@pytest.mark.parametrize(("part", "rest"), [(0, 12), (5, 95), (12, 0), (300, 4)])
def test_a_share_of_equal_weights_has_the_exact_binomial_limits(part: int, rest: int) -> None:
    found = limit_share(Share(counted(part, 2.5), counted(rest, 2.5)))
    assert found.low == pytest.approx(beta.ppf(0.025, part, rest + 1) if part else 0.0)
    assert found.high == pytest.approx(beta.ppf(0.975, part + 1, rest) if rest else 1.0)


def test_a_share_is_melded_as_by_drawing_from_both_distributions() -> None:
    """Fay, Proschan and Brittain 2015 draw from the two; the quantiles here are exact."""
    share = Share(Weighted.of([(1.0, 80), (4.0, 9)], 4.0), Weighted.of([(1.0, 3), (35.0, 1)], 35.0))
    random = np.random.default_rng(1)

    def drawn(count: Weighted, upper: bool) -> np.ndarray:
        one = count.upper if upper else count.lower
        return random.gamma(one.shape, one.scale, 200_000)

    part, rest = drawn(share.part, False), drawn(share.rest, True)
    found = limit_share(share)
    assert found.low == pytest.approx(np.quantile(part / (part + rest), 0.025), abs=2e-3)
    part, rest = drawn(share.part, True), drawn(share.rest, False)
    assert found.high == pytest.approx(np.quantile(part / (part + rest), 0.975), abs=2e-3)


def test_none_missed_in_a_sample_says_little_where_each_reading_stands_for_many() -> None:
    """A Wald interval would have no width: 196 pneumonias found, none missed in 500 readings of 16,600."""
    found = limit_share(Share(counted(196), Weighted.of([], 16_600 / 500)))
    assert found.value == found.high == 1.0
    assert 0.5 < found.low < 0.7


def test_a_rate_of_one_share_has_that_shares_limits() -> None:
    share = Share(counted(12), counted(30))
    exact = limit_share(share)
    found = limit_rate(lambda one: 2 * one, [share])
    assert found.low == pytest.approx(2 * exact.low, abs=1e-4)
    assert found.high == pytest.approx(2 * exact.high, abs=1e-4)


def test_a_rate_of_two_shares_is_melded_as_by_drawing() -> None:
    first, second = Share(counted(90), counted(10)), Share(counted(400), counted(30))

    def rate(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return one * 0.01 / (one * 0.01 + (1 - two) * 0.99)

    random = np.random.default_rng(2)
    lows = [random.beta(each.part.total, each.rest.total + 1, 200_000) for each in (first, second)]
    highs = [random.beta(each.part.total + 1, each.rest.total, 200_000) for each in (first, second)]
    found = limit_rate(rate, [first, second])
    assert found.low == pytest.approx(np.quantile(rate(*lows), 0.025), rel=0.02)
    assert found.high == pytest.approx(np.quantile(rate(*highs), 0.975), rel=0.02)
    assert found.low < found.value < found.high


def test_there_is_no_share_of_nothing() -> None:
    with pytest.raises(ZeroDivisionError):
        limit_share(Share(counted(0), counted(0)))
