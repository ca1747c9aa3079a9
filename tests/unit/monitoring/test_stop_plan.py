"""The stop rule of a site: which windows stop a release, and when the rule is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pneumoserve.ids import uuid7
from pneumoserve.monitoring.drift import Cause, Comparison
from pneumoserve.monitoring.drift_watch import Source, SourceDrift, Window
from pneumoserve.monitoring.plan import SitePlanError
from pneumoserve.monitoring.stop_plan import StopPlan, load_stop_plan
from pneumoserve.records import Baseline
from tests.support.entries import RELEASE

BASELINE = Baseline(
    release=RELEASE, time="2026-01-01", baseline_id=uuid7(), site="pacs", source="DX", first="2025-12-01",
    last="2026-01-01", studies=1000, by="lead", why="first",
)  # fmt: skip
CAUSES: dict[str, Cause | None] = {".": None, "i": "images", "c": "case_mix"}


def drift_of(windows: str, site: str = "pacs") -> SourceDrift:
    """A source whose windows, one a day, are each like the baseline (.), or of other images or case mix (i, c)."""
    found = [
        Window(
            f"2026-02-{day:02d}", f"2026-02-{day:02d}", 200, Comparison(1, 1, 1, letter != ".", CAUSES[letter], 0, 0)
        )
        for day, letter in enumerate(windows, 1)
    ]
    return SourceDrift(Source(site, "DX"), 1000, BASELINE, tuple(found), 0)


@pytest.mark.parametrize(
    ("windows", "rule", "days"),
    [
        (".i.i", {}, None),
        (".ii", {}, [2, 3]),
        ("ici", {}, None),
        ("ici", {"alarm": "any"}, [1, 2]),
        ("cc", {"alarm": "case_mix"}, [1, 2]),
        ("...ii", {"looks": 4}, None),
        ("..ii", {"looks": 4}, [3, 4]),
        (".i", {"windows": 1}, [2]),
        ("ii", {"site": "other"}, None),
    ],
)
def test_so_many_alarms_of_the_kind_in_a_row_within_the_looks(
    windows: str, rule: dict[str, Any], days: list[int] | None
) -> None:
    plan = StopPlan.model_validate({"alarm": "images", "windows": 2, "looks": 50, **rule})
    found = plan.find_stop([drift_of(windows)], None)
    assert (None if found is None else [int(each.first[-2:]) for each in found[1]]) == days


def test_what_a_person_saw_who_resumed_does_not_stop_it_again() -> None:
    plan = StopPlan(alarm="images", windows=2, looks=50)
    assert plan.find_stop([drift_of("iii")], "2026-02-02") is None
    assert plan.find_stop([drift_of("iiii")], "2026-02-02") is not None


def test_alarms_of_two_sources_are_no_row() -> None:
    plan = StopPlan(alarm="images", windows=2, looks=50)
    assert plan.find_stop([drift_of("i"), drift_of("i", "other")], None) is None


def test_a_plan_that_is_spent_says_so_for_its_own_site() -> None:
    plan = StopPlan(alarm="images", windows=2, looks=2, site="pacs")
    assert plan.list_spent([drift_of("..")]) == plan.list_spent([drift_of("...", "other")]) == []
    assert len(plan.list_spent([drift_of("...")])) == 1


def test_the_chance_of_a_false_stop_is_bounded_over_all_looks() -> None:
    assert StopPlan(alarm="any", windows=2, looks=50).false_stops == pytest.approx(49 * 0.02**2)
    assert StopPlan(alarm="any", windows=1, looks=100).false_stops == 1
    assert StopPlan(alarm="any", windows=3, looks=2).false_stops == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("alarm: images\nwindows: 0\nlooks: 5", "windows: Input should be greater"), ("a: [", "no YAML"),
     ("alarm: images\nwindows: 2\nlooks: 5\nmodel: other", "model: Extra inputs")],
)  # fmt: skip
def test_a_plan_that_cannot_be_followed_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "stop.yaml").write_text(text)
    with pytest.raises(SitePlanError, match=sentence):
        load_stop_plan(tmp_path / "stop.yaml")
