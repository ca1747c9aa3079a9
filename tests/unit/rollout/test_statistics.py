"""The statistics against published values, other programs, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pneumoserve.rollout.statistics import (
    ONE_SIDED,
    binomial_bounds,
    distance_bound,
    kolmogorov_distance,
    mean_upper,
    pairs_needed,
    quantile_bounds,
    tango_p,
    tango_upper,
)


@pytest.mark.parametrize(
    ("only_first", "only_second", "pairs", "low", "high"),
    [
        # Fagerland MW, Lydersen S, Laake P. Recommended tests and confidence intervals for paired binomial proportions.
        # Statistics in Medicine 2014; 33: 2850-2875: airway hyper-responsiveness before and after transplantation.
        (1, 7, 21, -0.517, -0.026),
        # The same authors' Statistical Analysis of Contingency Tables, 2017: complete response before and after.
        (6, 16, 161, -0.124, -0.0054),
    ],
)
def test_tangos_interval_is_that_of_the_literature(
    only_first: int, only_second: int, pairs: int, low: float, high: float
) -> None:
    assert -tango_upper(only_second, only_first, pairs, 0.025) == pytest.approx(low, abs=6e-4)
    assert tango_upper(only_first, only_second, pairs, 0.025) == pytest.approx(high, abs=6e-4)


def test_the_fewest_pairs_of_a_margin() -> None:
    assert [pairs_needed(margin) for margin in (0.02, 0.03, 0.05)] == [133, 88, 52]
    for margin in (0.02, 0.03, 0.05, 0.07):
        needed = pairs_needed(margin)
        assert tango_p(0, 0, needed, margin) <= ONE_SIDED < tango_p(0, 0, needed - 1, margin)
        assert tango_upper(0, 0, needed) <= margin < tango_upper(0, 0, needed - 1)


def test_bound_and_p_value_agree() -> None:
    for lost, gained in ((0, 0), (1, 0), (3, 1), (2, 6), (10, 0)):
        for margin in (0.01, 0.03, 0.1):
            assert (tango_p(lost, gained, 150, margin) <= ONE_SIDED) == (tango_upper(lost, gained, 150) <= margin)


def test_a_candidate_that_loses_the_margin_passes_rarely() -> None:
    """At the margin itself 5 % of candidates pass, by the definition of the test; a score test comes near to that."""
    random = np.random.default_rng(7)
    margin, pairs, trials = 0.05, 300, 20_000
    drawn = random.multinomial(pairs, [0.07, 0.02, 0.91], trials)
    passed = np.mean([tango_p(lost, gained, pairs, margin) <= ONE_SIDED for lost, gained, _ in drawn])
    assert 0.03 < passed < 0.06


@pytest.mark.parametrize(("events", "trials"), [(0, 5), (5, 5), (4, 20), (81, 263), (1, 600)])
@pytest.mark.parametrize("alpha", [0.025, 1e-4, 1e-6])
def test_binomial_bounds_are_those_of_clopper_and_pearson(events: int, trials: int, alpha: float) -> None:
    low, high = binomial_bounds(events, trials, alpha)
    expected = scipy.stats.binomtest(events, trials).proportion_ci(1 - 2 * alpha, "exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("quantile", "values"), [(0.95, 40), (0.95, 400), (0.5, 9)])
def test_quantile_bounds_are_rarely_wrong_and_not_idle(quantile: float, values: int) -> None:
    random = np.random.default_rng(11)
    alpha, truth = 0.05, -np.log(1 - quantile)
    bounds = np.array([quantile_bounds(random.exponential(size=values), quantile, alpha) for _ in range(2000)])
    assert np.mean(bounds[:, 0] > truth) <= alpha + 0.015
    assert np.mean(bounds[:, 1] < truth) <= alpha + 0.015
    assert np.isfinite(bounds[:, 0]).all()


def test_too_few_values_bound_nothing() -> None:
    assert quantile_bounds(np.array([1.0, 2.0]), 0.95, 0.01)[1] == np.inf
    assert quantile_bounds(np.array([1.0, 2.0]), 0.05, 0.01)[0] == -np.inf


def test_kolmogorovs_distance() -> None:
    # At 2 the first sample has two of three behind it, the second none.
    assert kolmogorov_distance(np.array([1.0, 2.0, 3.0]), np.array([2.5, 4.0])) == pytest.approx(2 / 3)
    assert kolmogorov_distance(np.array([]), np.array([2.5, 4.0])) == 0.0


def test_the_bound_of_a_distance_is_rarely_wrong_and_not_idle() -> None:
    assert distance_bound(1.0, (200, 200), 0.01) > 0.7
    assert distance_bound(1.0, (0, 200), 0.01) == 0.0
    random = np.random.default_rng(3)
    # Uniform on [0, 1] and on [.2, 1.2]: their distribution functions are .2 apart.
    samples = [(random.random(300), random.random(300) + 0.2) for _ in range(500)]
    bounds = [distance_bound(kolmogorov_distance(*each), (300, 300), 0.05) for each in samples]
    assert np.mean(np.array(bounds) > 0.2) <= 0.05
    assert np.mean(bounds) > 0


def test_the_bound_of_a_mean_covers_it() -> None:
    random = np.random.default_rng(5)
    means = [mean_upper(random.uniform(-1, 1, 60)) for _ in range(4000)]
    assert np.mean(np.array(means) < 0) == pytest.approx(ONE_SIDED, abs=0.012)
