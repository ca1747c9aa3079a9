"""Plans: what is taken, and what is said of one that cannot be followed."""

from __future__ import annotations

import pytest

from pneumoserve.records import GateResult, RolloutEvent, parse_entry
from pneumoserve.rollout.plan import PlanError, read_plan
from pneumoserve.rollout.state import RolloutState

GOOD = """
candidate: 00000000000b
evidence: labels
gates: {missedPneumonia: 0.07}
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
    margins = (plan.gates.missed_pneumonia, plan.gates.false_alarm)
    assert (margins, plan.comparison.false_alarms) == ((0.07, 0.05), 0.01)
    assert (plan.approval, plan.poll_seconds, plan.rollback_window_seconds) == ("manual", 5.0, 60)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("percent: 50", "percent: 1", "steps must rise and end with 100 percent, and are 1, 1, 100"),
        ("percent: 1,", "percent: 60,", "and are 60, 50, 100"),
        ("  - {percent: 100}\n", "", "and are 1, 50"),
        ("{percent: 100}", "{percent: 100, minCalls: 5}", "watched for rollbackWindowSeconds"),
        ("missedPneumonia: 0.07", "missedPneumonia: 7", "gates.missedPneumonia: Input should be less than 1"),
        ("missedPneumonia: 0.07", "missed: 0.07", "gates.missed: Extra inputs are not permitted"),
        ("{missedPneumonia: 0.07}", "0.07", "gates: Input should be a valid dictionary"),
        (
            "missedPneumonia: 0.07",
            "sensitivity: 0.07, specificity: 0.1",
            "rename gates.sensitivity to gates.missedPneumonia and gates.specificity to gates.falseAlarm",
        ),
        (
            "missedPneumonia: 0.07",
            "missedPneumonia: 0.07, specificity: 0.1",
            "rename gates.specificity to gates.falseAlarm",
        ),
        ("percent: 50", "percent: 0", "steps.1.percent: Input should be greater than or equal to 1"),
        ("00000000000b", "a-release", "candidate: String should match pattern"),
        ("approval", "aproval", "aproval: Extra inputs are not permitted"),
        ("evidence: labels\n", "", "evidence: Field required"),
        ("steps:", "steps: [", "The plan is no YAML"),
        (GOOD, "[]", "The plan has no names with values"),
    ],
)
def test_what_cannot_be_followed_is_named_by_its_place(old: str, new: str, fault: str) -> None:
    with pytest.raises(PlanError) as refused:
        read_plan(GOOD.replace(old, new, 1))
    assert fault in str(refused.value)


def test_a_rollout_that_began_with_the_earlier_names_goes_on() -> None:
    plan = read_plan(GOOD.replace("0.07", "0.07, falseAlarm: 0.11"))
    state = RolloutState(rollout="r", plan=plan, stable="00000000000a", pods=1, since="2026-11-01T00:00:00.000Z")
    text = state.to_json()
    earlier = text.replace('"missedPneumonia":0.07', '"sensitivity":0.07').replace('"falseAlarm":', '"specificity":')
    assert earlier.count("sensitivity") == earlier.count("specificity") == 1
    assert RolloutState.of_json(earlier) == RolloutState.of_json(text) == state


def test_records_of_gates_by_the_earlier_names_are_read() -> None:
    result = GateResult(gate="sensitivity", outcome="pass", sentence="Of 88, none.", numbers={"films": 88})
    event = RolloutEvent(
        event_id="e", rollout_id="r", number=1, time="2026-11-01T00:00:00.000Z", release="00000000000b",
        stable="00000000000a", what="gates", percent=0, verdicts=(result,),
    )  # fmt: skip
    assert parse_entry(event.model_dump_json(by_alias=True).encode()) == event
