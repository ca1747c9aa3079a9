"""What the front counts of calls and answers."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from pneumoserve.decision import Decision
from pneumoserve.front.errors import _GRPC_CODES
from pneumoserve.front.metrics import count_decision, outcome_of


@pytest.mark.parametrize("status", _GRPC_CODES)
def test_what_is_no_fault_of_the_caller_is_told_apart(status: int) -> None:
    ours = status == 429 or status >= 500
    assert (outcome_of(status) in {"overloaded", "failed"}) == ours
    assert outcome_of(status) == "refused" or ours


def test_an_answer_a_caller_who_left_and_a_full_store_have_outcomes_of_their_own() -> None:
    assert (outcome_of(200), outcome_of(499), outcome_of(503, recorded=False)) == (
        "answered", "abandoned", "unrecorded",
    )  # fmt: skip


def test_referrals_are_counted_by_reason() -> None:
    def shown(reason: str) -> float:
        return REGISTRY.get_sample_value("pneumoserve_referrals_total", {"reason": reason}) or 0.0

    before = shown("lateral_view"), shown("outside_population")
    reasons = ("outside_population", "lateral_view")
    count_decision(Decision(finding=None, pneumonia_type=None, confidence=None, referred=True, reasons=reasons))
    count_decision(Decision(finding="normal", pneumonia_type=None, confidence=0.9, referred=False, reasons=()))
    assert (shown("lateral_view"), shown("outside_population")) == (before[0] + 1, before[1] + 1)
