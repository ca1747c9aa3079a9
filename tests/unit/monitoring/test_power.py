"""What bounds, looks and power say of plans."""

from __future__ import annotations

import pytest

from pneumoserve.monitoring.power import level_of_look, lower_bound, patients_needed, power, upper_bound


@pytest.mark.parametrize(
    ("truth", "patients", "expected"),
    [(0.98, 150, 0.42), (0.98, 200, 0.63), (0.98, 300, 0.85), (0.99, 93, 0.76), (0.99, 150, 0.81)],
)
def test_power_to_show_a_sensitivity_of_95_percent(truth: float, patients: int, expected: float) -> None:
    """Computed independently, by simulation, before this code was."""
    assert power(0.95, truth, patients, 0.05) == pytest.approx(expected, abs=0.005)


def test_too_few_patients_have_no_power_at_all() -> None:
    assert power(0.95, 1.0, 58, 0.05) == 0.0
    assert power(0.95, 1.0, 59, 0.05) == 1.0


def test_bounds_are_the_exact_ones() -> None:
    assert lower_bound(1.0, 59, 0.05) == pytest.approx(0.95, abs=0.0005)
    assert upper_bound(0.0, 59, 0.05) == pytest.approx(0.05, abs=0.0005)
    assert lower_bound(0.0, 59, 0.05) == 0.0
    assert upper_bound(0.1, 100, 0.05) == pytest.approx(0.1637, abs=0.0005)
    # All that there are, or none: nothing is excluded.
    assert upper_bound(1.0, 59, 0.05) == upper_bound(0.0, 0, 0.05) == 1.0
    assert lower_bound(0.0, 0, 0.05) == 0.0


@pytest.mark.parametrize("looks", [1, 2, 3, 10])
def test_looks_spend_alpha_and_no_more(looks: int) -> None:
    levels = [level_of_look(0.05, looks, look) for look in range(1, looks + 1)]
    assert sum(levels) == pytest.approx(0.05)
    assert levels == sorted(levels)
    assert min(levels) >= 0


def test_the_first_of_two_looks_spends_little() -> None:
    """2 - 2 Φ(1.960 / √.5), as in the table of Lan & DeMets."""
    assert level_of_look(0.05, 2, 1) == pytest.approx(0.0056, abs=0.0001)
    with pytest.raises(ValueError, match="number of looks"):
        level_of_look(0.05, 2, 3)


def test_how_many_patients_a_rate_takes() -> None:
    needed = patients_needed(0.95, 0.98, 0.05)
    assert needed is not None
    assert lower_bound(0.98, needed, 0.05) >= 0.95 > lower_bound(0.98, needed - 1, 0.05)
    assert patients_needed(0.95, 0.95, 0.05) is None
    assert patients_needed(0.95, 0.9501, 0.05) is None
