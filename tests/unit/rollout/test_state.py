"""The state that the cluster keeps: rollouts that an earlier version began are read and written alike."""

from __future__ import annotations

import json

import pytest

from pneumoserve.rollout.cluster import Cluster, ClusterError
from pneumoserve.rollout.knative import KnativeCluster
from pneumoserve.rollout.standard import StandardCluster
from pneumoserve.rollout.state import AbortRequest, RolloutState

# As version 0.2.0 wrote it.
STORED = (
    '{"schema":"pneumoserve.rollout-state/1","rollout":"01920000-0000-7000-8000-000000000000","plan":{"candidate":"0000'
    '0000000b","evidence":"labels","gates":{"sensitivity":0.03,"specificity":0.05,"referrals":0.05,"brier":0.02},"shado'
    'w":{"films":200,"disagreeing":0.25},"comparison":{"falseAlarms":0.05,"moreErrors":0.01,"moreReferred":0.1,"slower"'
    ':1.5,"scoresApart":0.25},"steps":[{"percent":10,"minCalls":50,"minSeconds":0},{"percent":100,"minCalls":0,"minSeco'
    'nds":0}],"approval":"automatic","rollbackWindowSeconds":3600,"pollSeconds":5.0,"readySeconds":600,"drainSeconds":3'
    '0,"warmCalls":3},"stable":"00000000000a","marked":"00000000000a","pods":2,"phase":"serving","step":0,"percent":10,'
    '"since":"2026-11-26T00:00:00.000Z","serving_since":"2026-11-26T00:00:05.000Z","split_since":null,"approved":0,"cal'
    'ls":{"00000000000b":7},"waits_for":"","wish":{"kind":"abort","reason":"the wrong one","by":"a.b"},"outcome":null,"'
    'reason":"","verdicts":[{"gate":"errors","outcome":"pass","sentence":"None.","numbers":{"candidate":0}}],"noted":2,'
    '"notes":[{"number":2,"time":"2026-11-26T00:00:04.000Z","what":"step","sentence":"One in ten.","percent":10,"verdic'
    'ts":[{"gate":"errors","outcome":"pass","sentence":"None.","numbers":{"candidate":0}}],"evidence":null,"disagreemen'
    'ts":[]}]}'
)


def test_a_state_of_an_earlier_version_is_read_and_written_with_its_names() -> None:
    state = RolloutState.of_json(STORED)
    assert state.earlier_annotation == "00000000000a"
    assert state.abort_request == AbortRequest(kind="abort", reason="the wrong one", by="a.b")
    assert state.event_count == 2
    assert [event.sentence for event in state.pending_events] == ["One in ten."]
    assert set(json.loads(state.to_json())) == set(json.loads(STORED))
    assert RolloutState.of_json(state.to_json()) == state


def test_a_state_of_another_form_is_left_to_its_own_version() -> None:
    with pytest.raises(ClusterError, match="go on with that one, or end it there"):
        RolloutState.of_json(STORED.replace('"noted"', '"counted"'))


def test_a_mode_has_to_have_all_that_the_engine_asks_for() -> None:
    assert {name for name in vars(Cluster) if not name.startswith("_")} == Cluster.__abstractmethods__


@pytest.mark.parametrize("kind", [StandardCluster, KnativeCluster])
@pytest.mark.parametrize("method", sorted(Cluster.__abstractmethods__))
def test_a_mode_that_forgets_a_method_cannot_be_made(kind: type[Cluster], method: str) -> None:
    forgetful = type("Forgetful", (kind,), {method: getattr(Cluster, method)})
    with pytest.raises(TypeError, match=method):
        forgetful("pneumo", "pneumoserve")
