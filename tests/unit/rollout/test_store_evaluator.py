"""The evaluator on a store in memory: what it records, and what becomes of evidence and releases that are not there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.imaging.prepare import prepare
from pneumoserve.records import GateResult, append
from pneumoserve.rollout.errors import RolloutError
from pneumoserve.rollout.events import events_of
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.state import RolloutState
from pneumoserve.rollout.store_evaluator import StoreEvaluator
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.entries import prediction

KEY = Ed25519PrivateKey.generate()
STABLE, CANDIDATE = "00000000000a", "00000000000b"
SINCE = datetime.now(UTC) - timedelta(minutes=1)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def evaluator(store: MemoryStore, tmp_path: Path) -> StoreEvaluator:
    return StoreEvaluator(reader_of(store, KEY), KEY, tmp_path / "trust", tmp_path / "releases")


def state_of(evidence: str = "labels") -> RolloutState:
    plan = Plan.model_validate(
        {"candidate": CANDIDATE, "evidence": evidence, "steps": [{"percent": 10}, {"percent": 100}]}
    )
    return RolloutState(rollout="r", plan=plan, stable=STABLE, pods=1, since=SINCE.isoformat())


def with_releases(evaluator: StoreEvaluator) -> None:
    """As if both releases had been fetched."""
    found: Any = SimpleNamespace(id=STABLE)
    evaluator._releases.update({STABLE: found, CANDIDATE: found})


def test_without_the_release_a_rollout_does_not_begin(evaluator: StoreEvaluator) -> None:
    with pytest.raises(RolloutError, match=STABLE):
        evaluator.check_plan(state_of().plan, STABLE)


@pytest.mark.parametrize(
    ("evidence", "sentence"),
    [
        ("labels", "No prediction has a label of a reader; record some with `pneumoserve label`, or name a dataset."),
        ("datasets/none.json", "The store has no adjudicated set datasets/none.json; copy one there"),
    ],
)
def test_without_evidence_no_rollout_begins_and_no_gate_passes(
    evaluator: StoreEvaluator, evidence: str, sentence: str
) -> None:
    with_releases(evaluator)
    state = state_of(evidence)
    with pytest.raises(RolloutError, match=sentence):
        evaluator.check_plan(state.plan, STABLE)
    found = evaluator.run_gates(state, lambda: None)
    ((gate, outcome, why),) = [(each.gate, each.outcome, each.sentence) for each in found.results]
    assert (gate, outcome) == ("evidence", "fail")
    assert why.startswith(sentence)


def test_calls_of_both_releases_are_compared_from_the_beginning_of_a_step(
    evaluator: StoreEvaluator, store: MemoryStore
) -> None:
    append(store, KEY, [prediction(release=STABLE) for _ in range(8)], "front")
    append(store, KEY, [prediction(release=CANDIDATE) for _ in range(5)], "front")
    found = evaluator.compare_releases(state_of(), SINCE)
    assert found.calls == {STABLE: 8, CANDIDATE: 5}
    assert {each.gate for each in found.results} == {"errors", "latency", "referrals", "scores"}
    append(store, KEY, [prediction(release=CANDIDATE)], "front")
    assert evaluator.compare_releases(state_of(), SINCE).calls[CANDIDATE] == 6
    later = evaluator.compare_releases(state_of(), datetime.now(UTC) + timedelta(minutes=1))
    assert later.calls == {STABLE: 0, CANDIDATE: 0}
    assert [each.outcome for each in later.results] == ["wait"]


def test_an_event_is_on_record_with_its_results(evaluator: StoreEvaluator, store: MemoryStore) -> None:
    result = GateResult(gate="errors", outcome="fail", sentence="Many.", numbers={"candidate": 7})
    now = datetime.now(UTC)
    state = state_of().with_event(now, "gates", "It failed.", verdicts=(result,), evidence="e" * 64)
    evaluator.record_event(state, state.pending_events[0])
    (event,) = events_of(reader_of(store, KEY), SINCE, "r")
    assert (event.number, event.what, event.why, event.verdicts) == (1, "gates", "It failed.", (result,))
    assert (event.release, event.stable, event.evidence) == (CANDIDATE, STABLE, "e" * 64)


def test_the_film_to_warm_up_with_can_be_read(evaluator: StoreEvaluator) -> None:
    assert prepare(evaluator.warm_up_film()).format == "png"
