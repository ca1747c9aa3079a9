"""The engine on an install in Knative mode: an API server that plays KServe and Knative, faults included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pneumoserve.records import Outcome
from pneumoserve.rollout.cluster import MANAGER, OWNER, STABLE, ConflictError, UnreachableError
from pneumoserve.rollout.engine import RolloutEngine
from pneumoserve.rollout.errors import RolloutError
from pneumoserve.rollout.knative import KnativeCluster, open_cluster
from pneumoserve.rollout.operations import begin, initial_state, request_abort
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.standard import StandardCluster
from pneumoserve.rollout.state import RolloutState
from tests.support.fake_api import served
from tests.support.fake_knative import INFERENCE, MARKS, NAMESPACE, Played
from tests.support.fake_rollout import FakeClock, FakeEvaluator

EARLIER, OLD, NEW = "000000000009", "00000000000a", "00000000000b"
STEPS = [{"percent": 50, "minCalls": 1}, {"percent": 100}]


@dataclass
class SteppingClock(FakeClock):
    """Whenever somebody waits, the controllers take a step."""

    played: Any = field(default=None)

    def wait(self, seconds: float) -> None:
        super().wait(seconds)
        self.played.step()


class World:
    """An install in Knative mode in which OLD answers."""

    def __init__(self, played: Played) -> None:
        self.played = played
        self.clock = SteppingClock(played=played)
        self.evaluator = FakeEvaluator(self.clock)
        self.cluster = KnativeCluster(NAMESPACE, "pneumoserve")
        self.progress: list[str] = []

    def plan(self, candidate: str = NEW, **changes: Any) -> Plan:
        given = {"candidate": candidate, "evidence": "labels", "steps": STEPS, "rollbackWindowSeconds": 60}
        return Plan.model_validate({**given, **changes})

    def begin(self, candidate: str = NEW, **changes: Any) -> RolloutState:
        return begin(self.cluster, self.evaluator, self.plan(candidate, **changes), self.clock)

    def engine(self) -> RolloutEngine:
        return RolloutEngine(self.cluster, self.evaluator, self.clock, lambda: True, self.progress.append)

    def run(self, candidate: str = NEW, **changes: Any) -> RolloutState:
        self.begin(candidate, **changes)
        ended = self.engine().run()
        self.played.settle()
        return ended

    def until(self, phase: str) -> RolloutState:
        """Run until the rollout is in a phase, then stop between two ticks."""
        engine = self.engine()
        for _ in range(1000):
            stored = self.cluster.load()
            assert stored is not None
            state = RolloutState.of_json(stored.text)
            if state.phase == phase:
                return state
            try:
                engine.tick()
            except (ConflictError, UnreachableError):
                self.clock.wait(1)
        raise AssertionError(f"never {phase}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with served(Played(OLD), tmp_path, monkeypatch) as played:
        made = World(played)
        yield made
        made.cluster.close()


def split(percent: int) -> dict[str, int]:
    return {OLD: 100 - percent, NEW: percent}


def test_a_good_candidate_goes_to_100_percent_and_settles(world: World) -> None:
    ended = world.run()
    assert (ended.outcome, ended.settled) == ("promoted", NEW)
    assert world.played.called == [{OLD: 100}, split(50), {NEW: 100}]
    assert world.played.wanted == (NEW, 100)
    assert world.played.marks == {STABLE: NEW}
    assert [event.what for event in world.evaluator.recorded][-2:] == ["promoted", "finished"]
    assert len(world.played.ages) == 2, "a mark or a step made a revision"


@pytest.mark.parametrize("gates", ["fail", "insufficient"])
def test_a_candidate_that_is_refused_gets_no_call_and_the_stable_release_is_asked_for_again(
    world: World, gates: Outcome
) -> None:
    world.evaluator.by_gates = gates
    ended = world.run()
    assert ended.outcome in ("refused", "insufficient")
    assert world.played.called == [{OLD: 100}]
    assert world.played.wanted == (OLD, 100)
    assert OWNER not in world.played.marks
    assert world.cluster.release(NEW) is None


def test_a_candidate_that_serves_worse_is_taken_back(world: World) -> None:
    world.evaluator.comparison = lambda state: "fail"
    ended = world.run()
    assert ended.outcome == "rolled back"
    assert world.played.called == [{OLD: 100}, split(50), {OLD: 100}]
    assert world.played.wanted == (OLD, 100)


def test_one_that_is_aborted_after_it_got_all_calls_goes_back_to_the_release_before(world: World) -> None:
    world.begin(rollbackWindowSeconds=3600)
    world.until("window")
    for _ in range(4):
        world.engine().tick()
    assert world.played.called[-1] == {NEW: 100}
    request_abort(world.cluster, "the wrong one", "a.b")
    ended = world.engine().run()
    world.played.settle()
    assert ended.outcome == "aborted"
    assert world.played.called == [{OLD: 100}, split(50), {NEW: 100}, {OLD: 100}]
    assert world.played.wanted == (OLD, 100)


def test_while_kserve_still_sends_all_calls_to_one_that_was_taken_back_it_is_said_so(world: World) -> None:
    world.run(rollbackWindowSeconds=0)
    world.played.inference["spec"]["predictor"]["canaryTrafficPercent"] = 0
    world.played._kserve()
    world.played._route()
    route = world.cluster.route()
    assert route is not None
    assert (route.weights, route.accepted) == ({NEW: 100}, False)
    world.played.settle()
    route = world.cluster.route()
    assert route is not None
    assert (route.weights, route.accepted) == ({OLD: 100}, True)


def test_a_release_from_before_that_kserve_turns_to_by_mistake_is_left_again(world: World) -> None:
    """The Route follows the percent of 0 before there is a revision that it could be of."""
    assert world.run().outcome == "promoted"
    world.played.called.clear()
    world.played.hasty = True
    third = "00000000000c"
    world.begin(third)
    engine = world.engine()
    for _ in range(50):
        if world.played.called == [{NEW: 100}, {OLD: 100}]:
            break
        try:
            engine.tick()
        except (ConflictError, UnreachableError):
            world.clock.wait(1)
    else:
        raise AssertionError("the mistake was not played")
    world.played.hasty = False
    assert world.engine().run().outcome == "promoted"
    settled = {NEW: 100}
    assert world.played.called == [settled, {OLD: 100}, settled, {NEW: 50, third: 50}, {third: 100}]


def test_an_upgrades_release_that_is_not_ready_yet_is_not_what_answers(world: World) -> None:
    world.played.inference["spec"]["predictor"]["model"]["storageUri"] = f"s3://pneumoserve/releases/{EARLIER}"
    world.played.step()
    with pytest.raises(RolloutError, match="Knative has not taken the traffic"):
        world.begin()


def test_shares_that_a_person_gave_are_not_a_rollouts(world: World) -> None:
    predictor = world.played.inference["spec"]["predictor"]
    predictor["model"]["storageUri"], predictor["canaryTrafficPercent"] = f"s3://pneumoserve/releases/{EARLIER}", 10
    world.played.objects[MARKS]["metadata"]["annotations"] = {OWNER: "of the check for owners"}
    world.played.settle()
    with pytest.raises(RolloutError, match=f"{OLD}, {EARLIER}"):
        world.begin()


def test_a_patch_names_the_version_that_was_seen_and_two_fields(world: World) -> None:
    route = world.cluster.route()
    assert route is not None
    assert world.cluster.apply_candidate(OLD, NEW, 7) == 2
    world.played.settle()
    with pytest.raises(ConflictError):
        world.cluster.set_weights(split(50), "r", OLD, route.version)
    assert OWNER not in world.played.marks
    seen = world.cluster.route()
    assert seen is not None
    assert (seen.weights, seen.accepted) == ({OLD: 100}, True)
    world.cluster.set_weights(split(50), "r", OLD, seen.version)
    (path, _, marks), (second, kind, body) = world.played.of("PATCH")[-2:]
    assert path == f"{MARKS}?fieldManager={MANAGER}&force=true"
    assert marks["metadata"]["annotations"] == {STABLE: OLD, OWNER: "r"}
    assert (second, kind) == (f"{INFERENCE}?fieldManager={MANAGER}&force=true", "application/apply-patch+yaml")
    assert body["metadata"] == {
        "name": "pneumonia",
        "namespace": NAMESPACE,
        "resourceVersion": seen.version,
        "labels": {"pneumoserve_release": NEW},
    }
    model = {"storageUri": f"s3://pneumoserve/releases/{NEW}"}
    assert body["spec"] == {"predictor": {"canaryTrafficPercent": 50, "model": model}}


def test_nobody_is_a_candidate_beside_a_revision_that_kserve_has_not_noted(world: World) -> None:
    """It would give all calls to the newest, whatever the percent."""
    world.played.inference["status"] = {}
    with pytest.raises(UnreachableError, match=f"release {OLD} has all calls"):
        world.cluster.apply_candidate(OLD, NEW, 1)


def test_a_candidate_is_called_at_its_pod_past_the_share(world: World) -> None:
    world.cluster.apply_candidate(OLD, NEW, 1)
    assert world.cluster.call(NEW, b"film") == 0
    world.played.settle()
    assert world.cluster.call(NEW, b"film") == 200
    (path, kind, body), *_ = world.played.of("POST")
    assert path == f"/api/v1/namespaces/{NAMESPACE}/pods/pod:8080/proxy/v1/models/pneumonia:predict"
    assert (kind, body) == ("image/png", b"film")
    asked = [path for method, path, *_ in world.played.asked if method == "GET" and "/pods?" in path]
    assert unquote(asked[-1]).endswith("?labelSelector=serving.knative.dev/revision=pneumonia-predictor-00002")


def test_a_revision_says_how_many_pods_it_has_and_why_it_is_not_ready(world: World) -> None:
    running = world.cluster.release(OLD)
    assert running is not None
    assert (running.ready, running.pods, running.wanted) == (True, 2, 2)
    world.cluster.apply_candidate(OLD, NEW, 1)
    assert world.cluster.release(NEW) is None
    world.played.step()
    running = world.cluster.release(NEW)
    assert running is not None
    assert (running.ready, running.pods, running.why) == (False, 0, "it starts")


def test_a_candidate_is_not_gone_before_the_stable_releases_new_revision_has_all_calls(world: World) -> None:
    """Else a rollout could end between two looks with a percent that nobody raises any more."""
    world.cluster.apply_candidate(OLD, NEW, 1)
    world.played.objects[MARKS]["metadata"]["annotations"] = {OWNER: "r"}
    world.played.settle()
    world.cluster.remove(NEW)
    world.played.settle()
    assert world.played.wanted == (OLD, 0)
    assert world.cluster.release(NEW) is not None
    world.cluster.remove(NEW)
    assert world.played.wanted == (OLD, 100)
    world.played.settle()
    assert world.cluster.release(NEW) is None


def test_what_would_be_applied_is_the_one_object_with_release_and_percent(world: World) -> None:
    initial_state(world.cluster, world.evaluator, world.plan(), world.clock)
    (item,) = world.cluster.render_step(OLD, NEW, 1, split(50))
    assert item["spec"]["predictor"]["model"]["storageUri"] == f"s3://pneumoserve/releases/{NEW}"
    assert item["spec"]["predictor"]["canaryTrafficPercent"] == 50
    assert world.played.wanted == (OLD, 100)


def test_the_mode_is_that_of_what_is_installed(world: World) -> None:
    opened = open_cluster(NAMESPACE, "pneumoserve")
    assert isinstance(opened, KnativeCluster)
    opened.close()
    for change in (
        lambda metadata: metadata["annotations"].update({"serving.kserve.io/deploymentMode": "Standard"}),
        lambda metadata: metadata["labels"].update({"app.kubernetes.io/instance": "another"}),
    ):
        before = dict(world.played.inference["metadata"]["annotations"])
        change(world.played.inference["metadata"])
        opened = open_cluster(NAMESPACE, "pneumoserve")
        assert isinstance(opened, StandardCluster)
        opened.close()
        world.played.inference["metadata"]["annotations"] = before
