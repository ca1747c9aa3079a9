"""The stop rules of a site: what stops a release, when looks are due, and when a rule is spent."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.ids import uuid7
from pneumoserve.monitoring.drift import Cause, Comparison
from pneumoserve.monitoring.drift_watch import Source, SourceDrift, Window
from pneumoserve.monitoring.plan import SitePlanError
from pneumoserve.monitoring.stop_plan import DriftRule, Limits, MetricsRule, StopPlan, load_stop_plan
from pneumoserve.records import Baseline
from tests.support.entries import RELEASE

BASELINE = Baseline(
    release=RELEASE, time="2026-01-01", baseline_id=uuid7(), site="pacs", source="DX", first="2025-12-01",
    last="2026-01-01", studies=1000, by="lead", why="first",
)  # fmt: skip
METRICS = "since: 2026-11-01\n  days: 28\n  looks: 12\n  limits: {missesPer1000: 2}"
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


def rule_of(**changes: Any) -> DriftRule:
    return DriftRule.model_validate({"alarm": "images", "windows": 2, "looks": 50, **changes})


@pytest.mark.parametrize(
    ("windows", "changes", "days"),
    [
        (".i.i", {}, None),
        (".ii", {}, [2, 3]),
        ("ici", {}, None),
        ("ici", {"alarm": "any"}, [1, 2]),
        ("cc", {"alarm": "case_mix"}, [1, 2]),
        ("...ii", {"looks": 4}, None),
        ("..ii", {"looks": 4}, [3, 4]),
        (".i", {"windows": 1}, [2]),
    ],
)
def test_so_many_alarms_of_the_kind_in_a_row_within_the_looks(
    windows: str, changes: dict[str, Any], days: list[int] | None
) -> None:
    found = rule_of(**changes).find_stop([drift_of(windows)], None)
    assert (None if found is None else [int(each.first[-2:]) for each in found[1]]) == days


def test_what_a_person_saw_who_resumed_does_not_stop_it_again() -> None:
    rule = rule_of()
    assert rule.find_stop([drift_of("iii")], "2026-02-02") is None
    assert rule.find_stop([drift_of("iiii")], "2026-02-02") is not None


def test_alarms_of_two_sources_are_no_row() -> None:
    assert rule_of().find_stop([drift_of("i"), drift_of("i", "other")], None) is None


def test_a_plan_that_is_spent_says_so_for_its_own_site() -> None:
    rule = rule_of(looks=2)
    plan = StopPlan(site="pacs", drift=rule)
    sources = [drift_of(".."), drift_of("...", "other"), drift_of("...")]
    assert rule.list_spent(plan.select(sources)) == [sources[2]]


def test_the_chance_of_a_false_stop_is_bounded_over_all_looks() -> None:
    assert rule_of().false_stops == pytest.approx(49 * 0.02**2)
    assert rule_of(windows=1, looks=100).false_stops == 1
    assert rule_of(windows=3, looks=2).false_stops == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("drift:\n  alarm: images\n  windows: 0\n  looks: 5", "windows: Input should be greater"),
        ("a: [", "no YAML"),
        ("drift:\n  alarm: images\n  windows: 2\n  looks: 5\n  model: other", "model: Extra inputs"),
        ("site: pacs", "it must have a rule, drift or metrics"),
        (f"metrics:\n  {METRICS.replace('missesPer1000: 2', '')}", "limits must name a figure"),
        (f"metrics:\n  {METRICS.replace('missesPer1000', 'sensitivity')}", "sensitivity: Extra inputs"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "stop.yaml").write_text(text)
    with pytest.raises(SitePlanError, match=sentence):
        load_stop_plan(tmp_path / "stop.yaml")


def test_a_rule_that_the_plan_has_not_is_said(tmp_path: Path) -> None:
    (tmp_path / "stop.yaml").write_text(f"metrics:\n  {METRICS}")
    plan = load_stop_plan(tmp_path / "stop.yaml")
    assert plan.rule_of_metrics().limits.named == {"misses_per_1000": 2}
    with pytest.raises(SitePlanError, match="no rule of drift"):
        plan.rule_of_drift()
    with pytest.raises(SitePlanError, match="no rule of metrics"):
        StopPlan(drift=rule_of()).rule_of_metrics()


def test_looks_of_metrics_are_due_once_their_studies_count_and_share_alpha() -> None:
    limits = Limits(product_sensitivity=0.9, referral_rate=0.3)
    rule = MetricsRule(since=date(2026, 1, 1), days=10, looks=3, closed_after=5, limits=limits)
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (15, 16, 26)]
    assert [rule.list_due(day) for day in days] == [[], [1], [1, 2]]
    assert rule.end_of(3) == datetime(2026, 1, 31, tzinfo=UTC)
    # Over all looks and both limits.
    assert 2 * sum(rule.level(look) for look in (1, 2, 3)) == pytest.approx(rule.alpha)
