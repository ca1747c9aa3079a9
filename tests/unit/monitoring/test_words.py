"""What people read of figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pneumoserve.monitoring import (
    MEANINGS,
    REFERENCE,
    Figure,
    Interval,
    Tally,
    describe_figure,
    describe_value,
    measure,
)

ROOT = Path(__file__).parents[3]


def test_what_a_reader_does_to_a_figure_was_simulated() -> None:
    readers = json.loads((ROOT / "benchmarks" / "metrics.json").read_text())["readers"]
    one, rule = (each["mean_shown_sensitivity"] for each in readers[:2])
    assert f"looks like {one:.2f};".replace("0.", ".") in REFERENCE
    assert f"like {rule:.3f}.".replace("0.", ".") in REFERENCE


def test_the_benchmark_reached_its_goals() -> None:
    found = json.loads((ROOT / "benchmarks" / "metrics.json").read_text())
    assert (found["runs"], found["judged"], found["cells_below_goal"]) == (2000, 32, 0)
    assert found["smallest_coverage"] >= found["goal_coverage"] == 0.94
    assert found["smallest_naive_coverage"] < 0.5


def test_every_figure_has_a_name_and_a_sentence() -> None:
    measured = measure(Tally({}, {}), 0.01)
    assert set(measured.observed) | set(measured.at_prevalence) == set(MEANINGS)


@pytest.mark.parametrize(
    ("name", "interval", "text"),
    [
        ("product_npv", (0.99981, 0.9972, 1.0), "99.98 % (99.72 to 100.00 %)"),
        ("product_ppv", (0.081, 0.04, 0.125), "8.1 % (4.0 to 12.5 %)"),
        ("misses_per_1000", (0.2, 0.01, 1.93), "0.20 (0.01 to 1.93)"),
        ("needless_referrals_per_1000", (431.2, 420.9, 1041.0), "431 (421 to 1,041)"),
    ],
)
def test_digits_show_what_matters(name: str, interval: tuple[float, float, float], text: str) -> None:
    assert describe_figure(name, Figure(Interval(*interval))) == text
    assert describe_value(name, None) == "-"
