"""The loop of a rollout on a fake cluster: where it goes, and that no end of a process leaves it astray."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pneumoserve.rollout import phases
from pneumoserve.rollout.cluster import UnreachableError
from pneumoserve.rollout.engine import RolloutEngine
from pneumoserve.rollout.errors import LeaseLostError, RolloutError
from pneumoserve.rollout.operations import active_rollout, approve, begin, request_abort
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.state import RolloutState
from tests.support.fake_rollout import (
    CANDIDATE,
    STABLE,
    FakeClock,
    FakeCluster,
    FakeEvaluator,
    Killed,
    Pods,
)

STEPS = [{"percent": 1, "minCalls": 1}, {"percent": 25, "minCalls": 50, "minSeconds": 20}, {"percent": 100}]


def plan_of(**changes: Any) -> Plan:
    given = {"candidate": CANDIDATE, "evidence": "labels", "steps": STEPS, "rollbackWindowSeconds": 60}
    return Plan.model_validate({**given, **changes})


class World:
    """A cluster, an evaluator and a clock, and processes that come and go."""

    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster(self.clock)
        self.evaluator = FakeEvaluator(self.clock)
        self.plan = plan_of(**changes)
        self.progress: list[str] = []

    def begin(self) -> RolloutState:
        return begin(self.cluster, self.evaluator, self.plan, self.clock)

    def engine(self) -> RolloutEngine:
        return RolloutEngine(self.cluster, self.evaluator, self.clock, lambda: True, self.progress.append)

    def run(self) -> RolloutState:
        self.begin()
        return self.engine().run()

    def until(self, phase: str, **wanted: Any) -> RolloutState:
        """Run until the state is so, then stop between two ticks."""
        engine = self.engine()
        for _ in range(1000):
            state = self.state
            if state.phase == phase and all(getattr(state, key) == value for key, value in wanted.items()):
                return state
            engine.tick()
        raise AssertionError(f"never {phase}, {wanted}; {self.state}")

    @property
    def state(self) -> RolloutState:
        assert self.cluster.kept is not None
        return RolloutState.model_validate_json(self.cluster.kept)

    @property
    def weights(self) -> list[dict[str, int]]:
        """The route's weights, one after the other."""
        return [weights for _, weights in self.cluster.weight_changes]

    @property
    def recorded(self) -> list[str]:
        return [event.what for event in self.evaluator.recorded]


def split(percent: int) -> dict[str, int]:
    return {STABLE: 100 - percent, CANDIDATE: percent}


def test_a_good_candidate_goes_to_100_percent_step_by_step() -> None:
    world = World()
    ended = world.run()
    assert (ended.outcome, ended.settled) == ("promoted", CANDIDATE)
    assert world.weights == [split(0), split(1), split(25), split(100), {CANDIDATE: 100}]
    assert world.recorded == ["started", "gates", "shadow", "step", "step", "promoted", "finished"]
    assert [event.number for event in world.evaluator.recorded] == [1, 2, 3, 4, 5, 6, 7]
    assert set(world.cluster.releases) == {CANDIDATE}
    assert world.cluster.owner == ""
    assert world.cluster.named == CANDIDATE
    assert world.cluster.ownership_released == [CANDIDATE]
    assert world.cluster.calls == world.plan.warm_calls
    assert not [sentence for _, sentence, bad in world.cluster.events if bad]


@pytest.mark.parametrize("before", ["", STABLE])
def test_where_nothing_was_won_the_route_is_marked_as_before(before: str) -> None:
    world = World()
    world.cluster.named = before
    world.evaluator.by_gates = "fail"
    world.begin()
    world.until("gates")
    assert world.cluster.named == STABLE
    world.engine().run()
    assert world.cluster.named == before


@pytest.mark.parametrize(("step", "seconds"), [({"minSeconds": 60}, 60), ({"minCalls": 500}, 200), ({}, 0)])
def test_a_step_lasts_for_its_calls_and_its_seconds(step: dict[str, int], seconds: int) -> None:
    world = World(steps=[{"percent": 25, **step}, {"percent": 100}], rollbackWindowSeconds=100)
    world.run()
    began, promoted, settled = [moment for moment, _ in world.cluster.weight_changes[1:4]]
    assert seconds <= (promoted - began).total_seconds() <= seconds + 5 * world.plan.poll_seconds
    assert (settled - promoted).total_seconds() >= 100


def test_the_candidate_has_pods_for_its_share_before_it_has_calls() -> None:
    world = World()
    world.cluster.releases[STABLE] = Pods(10, 10)
    world.begin()
    world.until("serving", step=1)
    assert world.cluster.weights == split(1), "not before the state says so is written"
    assert world.cluster.releases[CANDIDATE].ready == 3
    # Load scaled the stable release meanwhile.
    world.cluster.releases[STABLE].wanted = 12
    world.until("window")
    assert world.cluster.releases[CANDIDATE].ready == 12


def test_a_failed_gate_stops_it_before_any_traffic() -> None:
    for by_gates, by_shadow in (("fail", "pass"), ("pass", "fail")):
        world = World()
        world.evaluator.by_gates, world.evaluator.by_shadow = by_gates, by_shadow  # type: ignore[assignment]
        ended = world.run()
        assert (ended.outcome, ended.settled) == ("refused", STABLE)
        assert world.weights == []
        assert set(world.cluster.releases) == {STABLE}
        (sentence,) = [sentence for reason, sentence, bad in world.cluster.events if reason == "rolled_back" and bad]
        assert "fail" in sentence
        assert [event.verdicts[0].numbers for event in world.evaluator.recorded if event.what == "rolled_back"] == [
            {"n": 1}
        ]


def test_evidence_that_could_not_show_it_allows_a_shadow_and_no_traffic() -> None:
    world = World()
    world.evaluator.by_gates = "insufficient"
    ended = world.run()
    assert ended.outcome == "insufficient"
    assert world.recorded == ["started", "gates", "shadow", "rolled_back", "finished"]
    assert world.weights == []


@pytest.mark.parametrize("at", [1, 25, 100])
def test_a_candidate_that_does_worse_has_no_traffic_one_poll_later(at: int) -> None:
    world = World()
    world.evaluator.comparison = lambda state: "fail" if state.percent == at else "pass"
    ended = world.run()
    assert (ended.outcome, ended.settled) == ("rolled back", STABLE)
    assert f"At {at} %: errors: fail." in ended.reason
    assert world.weights[-2:] == [split(0), {STABLE: 100}]
    (began,) = [moment for moment, weights in world.cluster.weight_changes if weights == split(at)]
    back = [moment for moment, weights in world.cluster.weight_changes if weights == split(0)][-1]
    assert (back - began).total_seconds() <= 3 * world.plan.poll_seconds
    # It goes once its last calls have ended, and not before.
    assert (world.cluster.weight_changes[-1][0] - back).total_seconds() >= world.plan.drain_seconds
    assert set(world.cluster.releases) == {STABLE}


def test_in_the_window_it_is_compared_with_the_last_step_in_which_both_answered() -> None:
    world = World()
    world.run()
    began = world.cluster.weight_changes[2][0]
    assert (world.evaluator.compared_since[-1] - began).total_seconds() < 20


def test_a_candidate_without_a_ready_pod_loses_its_traffic() -> None:
    world = World()
    world.begin()
    world.until("serving", step=1, pending_events=())
    world.cluster.releases[CANDIDATE].ill = True
    began = world.clock.now()
    ended = world.engine().run()
    assert ended.outcome == "rolled back"
    assert "0 pods of release" in ended.reason
    back = [moment for moment, weights in world.cluster.weight_changes if weights == split(0)][-1]
    assert (back - began).total_seconds() <= 2 * world.plan.poll_seconds


def test_a_candidate_that_never_comes_ready_or_never_answers_is_refused() -> None:
    world = World(readySeconds=60)
    world.cluster.releases[CANDIDATE] = Pods(1, ill=True)
    del world.cluster.releases[CANDIDATE]
    make = world.cluster.apply_candidate

    def ill(stable: str, candidate: str, pods: int) -> None:
        make(stable, candidate, pods)
        world.cluster.releases[candidate].ill = True

    world.cluster.apply_candidate = ill  # type: ignore[method-assign]
    assert "to be Ready (it starts)" in world.run().reason
    other = World(readySeconds=60)
    other.cluster.status = 503
    assert "which gave 503" in other.run().reason
    assert world.weights == other.weights == []


# --- ended processes, and a cluster or a store that is away


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.slow
def test_killed_at_every_point_another_process_ends_it_the_same_way(good: bool) -> None:
    def fresh() -> World:
        world = World()
        if not good:
            world.evaluator.comparison = lambda state: "fail" if state.percent == 25 else "pass"
        return world

    whole = fresh()
    ended = whole.run()
    points = whole.cluster.points
    assert points > 30
    for point in range(1, points + 1):
        world = fresh()
        world.cluster.kill_at = point
        with pytest.raises(Killed):
            world.run()
        again = world.run()
        assert (again.outcome, again.settled) == (ended.outcome, ended.settled), point
        assert world.cluster.weights == whole.cluster.weights, point
        assert set(world.cluster.releases) == {ended.settled}, point
        assert world.cluster.owner == "", point
        assert set(world.recorded) == set(whole.recorded), point


@pytest.mark.slow
def test_killed_at_every_point_it_can_be_aborted() -> None:
    points = [point for point in range(1, 200) if _killed_then_aborted(point)]
    assert len(points) > 30


def _killed_then_aborted(point: int) -> bool:
    world = World()
    world.cluster.kill_at = point
    try:
        world.run()
    except Killed:
        pass
    else:
        return False
    if active_rollout(world.cluster.load()) is None:
        return True
    request_abort(world.cluster, "no more", "a person")
    ended = world.engine().run()
    # What was decided before it was asked stands.
    assert ended.outcome in {"aborted", "promoted"}, point
    assert world.cluster.weights == {ended.settled: 100}
    assert set(world.cluster.releases) == {ended.settled}
    return True


def test_a_cluster_that_is_away_keeps_its_weights_and_goes_on() -> None:
    world = World()
    world.begin()
    world.until("serving", step=1)
    before = len(world.weights)
    world.cluster.away_for = 25
    engine = world.engine()
    for _ in range(25):
        with pytest.raises(UnreachableError):
            engine.tick()
    assert len(world.weights) == before
    world.cluster.away_for = 7
    assert engine.run().outcome == "promoted"
    assert any("the cluster does not answer" in line for line in world.progress)


def test_without_the_store_weights_stay_and_not_for_long() -> None:
    world = World()
    world.begin()
    world.until("serving", step=1, pending_events=())
    world.evaluator.store_away = True
    began = world.clock.now()
    engine = world.engine()
    while world.state.phase == "serving":
        engine.tick()
    seconds = (world.clock.now() - began).total_seconds()
    assert phases.BLIND_SECONDS <= seconds <= phases.BLIND_SECONDS + 3 * world.plan.poll_seconds
    assert "nothing could be judged" in world.state.reason
    world.evaluator.store_away = False
    assert engine.run().outcome == "rolled back"


def test_a_store_that_is_away_for_a_moment_ends_nothing() -> None:
    world = World()
    world.begin()
    world.until("serving", step=1, pending_events=())
    world.evaluator.store_away = True
    engine = world.engine()
    for _ in range(8):
        engine.tick()
    assert world.state.phase == "serving"
    assert "the store is away" in world.state.waits_for
    world.evaluator.store_away = False
    assert engine.run().outcome == "promoted"


def test_nothing_goes_forward_that_is_not_on_record() -> None:
    world = World()
    world.evaluator.store_away = True
    world.begin()
    engine = world.engine()
    for _ in range(20):
        engine.tick()
    assert world.state.phase == "warming"
    assert world.cluster.releases.keys() == {STABLE}


def test_weights_that_another_hand_moved_are_put_right() -> None:
    world = World()
    world.begin()
    world.until("serving", step=1, pending_events=())
    world.cluster.weights = {STABLE: 0, CANDIDATE: 100}
    world.engine().tick()
    assert world.cluster.weights == split(25)


def test_a_process_without_the_lease_changes_nothing() -> None:
    world = World()
    world.begin()
    points = world.cluster.points
    with pytest.raises(LeaseLostError):
        RolloutEngine(world.cluster, world.evaluator, world.clock, lambda: False, world.progress.append).run()
    assert world.cluster.points == points


# --- what people ask for


@pytest.mark.parametrize("phase", ["warming", "gates", "shadow", "scaling", "serving", "window"])
def test_a_rollout_is_aborted_wherever_it_is(phase: str) -> None:
    world = World()
    world.begin()
    world.until(phase)
    request_abort(world.cluster, "it was the wrong one", "a.b")
    began = world.clock.now()
    ended = world.engine().run()
    assert (ended.outcome, ended.reason) == ("aborted", "a.b ended it: it was the wrong one")
    assert world.cluster.weights == {STABLE: 100}
    assert set(world.cluster.releases) == {STABLE}
    if zeroed := [
        moment for moment, weights in world.cluster.weight_changes if weights == split(0) and moment >= began
    ]:
        assert (zeroed[0] - began).total_seconds() <= world.plan.poll_seconds


def test_an_abort_ends_a_long_evaluation() -> None:
    world = World()
    world.begin()
    world.until("gates")
    world.evaluator.during_gates = lambda: request_abort(world.cluster, "stop", "a.b") and None
    assert world.engine().run().outcome == "aborted"
    assert world.evaluator.gates_run == 0


def test_a_manual_step_waits_for_a_person_and_no_gate_is_skipped() -> None:
    world = World(approval="manual")
    world.begin()
    with pytest.raises(RolloutError, match="No step waits for approval: the rollout is warming"):
        approve(world.cluster, world.clock, "a.b")
    waiting = world.until("serving", step=0, waits_for="approval: pneumoserve rollout promote")
    engine = world.engine()
    for _ in range(50):
        engine.tick()
    assert (world.state.phase, world.state.step) == ("serving", waiting.step)
    approve(world.cluster, world.clock, "a.b")
    with pytest.raises(RolloutError, match="No step waits"):
        approve(world.cluster, world.clock, "a.b")
    world.until("serving", step=1, waits_for="approval: pneumoserve rollout promote")
    # An approval does not overrule what is seen later.
    world.evaluator.comparison = lambda state: "fail"
    assert engine.run().outcome == "rolled back"
    assert world.recorded.count("approved") == 1


def test_a_second_rollout_is_refused_and_the_same_plan_goes_on() -> None:
    world = World()
    first = world.begin()
    world.until("serving")
    assert world.begin().rollout == first.rollout
    points = world.cluster.points
    with pytest.raises(RolloutError, match=r"A rollout of release 00000000000b is under way, at step 1 of 3, 1 %"):
        begin(world.cluster, world.evaluator, plan_of(pollSeconds=2), world.clock)
    assert world.cluster.points == points


def test_the_loser_of_two_that_begin_at_once_learns_it() -> None:
    world = World()

    class Beaten(FakeEvaluator):
        def check_plan(self, plan: Plan, stable: str) -> None:
            world.begin()

    with pytest.raises(RolloutError, match="Another rollout began a moment ago"):
        begin(world.cluster, Beaten(world.clock), world.plan, world.clock)


def test_going_back_to_an_earlier_release_is_another_rollout() -> None:
    world = World()
    world.run()
    world.plan = plan_of(candidate=STABLE)
    # The fake's checks are about STABLE as the one that was there first.
    world.cluster._check = lambda: None  # type: ignore[method-assign]
    ended = world.run()
    assert (ended.outcome, ended.settled) == ("promoted", STABLE)
    assert world.cluster.weights == {STABLE: 100}


def test_without_a_rollout_nothing_can_be_asked() -> None:
    world = World()
    for ask in (lambda: request_abort(world.cluster, "x", "y"), lambda: approve(world.cluster, world.clock, "y")):
        with pytest.raises(RolloutError, match="No rollout is under way"):
            ask()


def _divided(world: World) -> None:
    world.cluster.weights = {STABLE: 50, "0000000000cc": 50}


def _no_route(world: World) -> None:
    world.cluster.has_route = False


def _not_accepted(world: World) -> None:
    world.cluster.accepts = False


def _stable_ill(world: World) -> None:
    world.cluster.releases[STABLE] = Pods(2, 0)


def _runs_already(world: World) -> None:
    world.cluster.releases[CANDIDATE] = Pods(1, 1)


def _no_evidence(world: World) -> None:
    world.evaluator.refusal = "No prediction has a label."


def _itself(world: World) -> None:
    world.plan = plan_of(candidate=STABLE)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_divided, "divided between releases 00000000000a, 0000000000cc"),
        (_no_route, "set route.enabled=true"),
        (_not_accepted, "No gateway has accepted the HTTPRoute"),
        (_stable_ill, "is not Ready, so there is nothing to go back to"),
        (_runs_already, "take it out of release.standby"),
        (_no_evidence, "No prediction has a label."),
        (_itself, "answers already"),
    ],
)
def test_a_rollout_that_cannot_begin_changes_nothing(change: Any, sentence: str) -> None:
    world = World()
    change(world)
    with pytest.raises(RolloutError, match=sentence):
        world.begin()
    assert world.cluster.points == 0


def test_weights_sum_to_100_in_every_state() -> None:
    world = World()
    state = world.begin()
    phases = (
        "warming",
        "gates",
        "shadow",
        "scaling",
        "serving",
        "window",
        "settling",
        "returning",
        "removing",
        "ended",
    )
    for phase, percent in itertools.product(phases, (0, 1, 50, 100)):
        assert sum(state.model_copy(update={"phase": phase, "percent": percent}).weights.values()) == 100
