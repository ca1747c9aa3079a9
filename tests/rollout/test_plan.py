"""Plans: what is taken, and what is told of one that cannot be followed."""

from __future__ import annotations

import pytest

from pneumoserve.rollout.plan import PlanError, read_plan

GOOD = """
candidate: 00000000000b
evidence: labels
gates: {sensitivity: 0.07}
comparison: {falseAlarms: 0.01}
steps:
  - {percent: 1, minCalls: 200, minSeconds: 600}
  - {percent: 50, minCalls: 1000}
  - {percent: 100}
approval: manual
rollbackWindowSeconds: 60
"""


def test_a_plan_is_read_with_its_defaults() -> None:
    plan = read_plan(GOOD)
    assert [(step.percent, step.min_calls, step.min_seconds) for step in plan.steps] == [
        (1, 200, 600),
        (50, 1000, 0),
        (100, 0, 0),
    ]
    assert (plan.gates.sensitivity, plan.gates.specificity, plan.comparison.false_alarms) == (0.07, 0.05, 0.01)
    assert (plan.approval, plan.poll_seconds, plan.rollback_window_seconds) == ("manual", 5.0, 60)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("percent: 50", "percent: 1", "steps must rise and end with 100 percent, and are 1, 1, 100"),
        ("percent: 1,", "percent: 60,", "and are 60, 50, 100"),
        ("  - {percent: 100}\n", "", "and are 1, 50"),
        ("{percent: 100}", "{percent: 100, minCalls: 5}", "watched for rollbackWindowSeconds"),
        ("percent: 50", "percent: 0", "steps.1.percent: Input should be greater than or equal to 1"),
        ("00000000000b", "a-release", "candidate: String should match pattern"),
        ("approval", "aproval", "aproval: Extra inputs are not permitted"),
        ("evidence: labels\n", "", "evidence: Field required"),
        ("steps:", "steps: [", "The plan is no YAML"),
        (GOOD, "[]", "The plan cannot be followed"),
    ],
)
def test_what_cannot_be_followed_is_told_by_its_place(old: str, new: str, told: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_plan(GOOD.replace(old, new, 1))
    assert told in str(refused.value)
