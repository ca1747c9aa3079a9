"""Fakes of what a rollout runs on: a cluster in memory, an evaluator with given answers, a clock that jumps.

The cluster checks after every change what must always hold, and can end the process (`Killed`) at any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pneumoserve.records import GateResult, Outcome
from pneumoserve.rollout.cluster import (
    Cluster,
    ConflictError,
    LeaseView,
    Route,
    RunningRelease,
    StoredText,
    UnreachableError,
)
from pneumoserve.rollout.errors import RolloutError
from pneumoserve.rollout.evaluator import Evaluation, Evaluator
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.state import PendingEvent, RolloutState
from pneumoserve.store import StoreError

STABLE = "00000000000a"
CANDIDATE = "00000000000b"


class Killed(BaseException):
    """The process is no more: nothing catches this."""


@dataclass
class FakeClock:
    """Waiting takes no time here."""

    moment: datetime = datetime(2026, 11, 26, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def wait(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class Pods:
    """A release that runs. New pods are ready at the third look."""

    wanted: int
    ready: int = 0
    looks: int = 0
    ill: bool = False


@dataclass
class FakeCluster(Cluster):
    """One install with a route to `STABLE`."""

    clock: FakeClock
    releases: dict[str, Pods] = field(default_factory=lambda: {STABLE: Pods(2, 2)})
    weights: dict[str, int] = field(default_factory=lambda: {STABLE: 100})
    owner: str = ""
    named: str = ""
    version: int = 1
    kept: str | None = None
    kept_version: int = 0
    has_route: bool = True
    accepts: bool = True
    fresh: int = 0
    status: int = 200
    holder: str = ""
    renewals: int = 0
    kill_at: int = -1
    points: int = 0
    away_for: int = 0
    history: list[dict[str, int]] = field(default_factory=list)
    weight_changes: list[tuple[datetime, dict[str, int]]] = field(default_factory=list)
    events: list[tuple[str, str, bool]] = field(default_factory=list)
    calls: int = 0
    ownership_released: list[str] = field(default_factory=list)

    def _point(self) -> None:
        """A moment at which the process may end: before a change, and after it."""
        self.points += 1
        if self.points == self.kill_at:
            raise Killed

    def _check(self) -> None:
        """What must hold at every moment."""
        assert sum(self.weights.values()) == 100, self.weights
        assert len(set(self.releases) - {STABLE}) <= 1, self.releases
        called = {release for release, weight in self.weights.items() if weight}
        assert called <= set(self.releases), f"{called} are called, {set(self.releases)} run"
        if self.kept is not None:
            state = RolloutState.model_validate_json(self.kept)
            intended = self.weights.get(CANDIDATE, 0) in {0, state.percent, state.weights.get(CANDIDATE, 0)}
            before = state.outcome is not None or state.phase in {"serving", "window"}
            assert intended or before, f"a weight that no state has named: {self.weights} in {state.phase}"
            if len(called) > 1:
                assert self.owner == state.rollout, "weights without an owner"

    def _answers(self) -> None:
        if self.away_for > 0:
            self.away_for -= 1
            raise UnreachableError("away")

    def load(self) -> StoredText | None:
        self._answers()
        return None if self.kept is None else StoredText(self.kept, str(self.kept_version))

    def save(self, text: str, version: str | None) -> None:
        self._answers()
        self._point()
        if (None if self.kept is None else str(self.kept_version)) != version:
            raise ConflictError("another version")
        self.kept, self.kept_version = text, self.kept_version + 1
        self._check()
        self._point()

    def lease(self) -> LeaseView | None:
        self._answers()
        return LeaseView(self.holder, str(self.renewals), str(self.renewals)) if self.renewals else None

    def take_lease(self, holder: str, seconds: int, version: str | None) -> str:
        self._answers()
        if version != (str(self.renewals) if self.renewals else None):
            raise ConflictError("another holder")
        self.holder, self.renewals = holder, self.renewals + 1
        return str(self.renewals)

    def route(self) -> Route | None:
        self._answers()
        if not self.has_route:
            return None
        self.fresh -= 1
        taken = self.accepts and self.fresh < 0
        return Route(
            dict(self.weights),
            self.owner,
            self.named,
            taken,
            str(self.version),
            "No gateway has accepted the HTTPRoute.",
        )

    def set_weights(self, weights: Mapping[str, int], owner: str, stable: str, version: str) -> None:
        self._answers()
        self._point()
        if version != str(self.version):
            raise ConflictError("another version")
        if dict(weights) != self.weights:
            self.weight_changes.append((self.clock.now(), dict(weights)))
            self.fresh = 1
        self.weights, self.owner, self.named, self.version = dict(weights), owner, stable, self.version + 1
        self._check()
        self._point()

    def release(self, release: str) -> RunningRelease | None:
        self._answers()
        pods = self.releases.get(release)
        if pods is None:
            return None
        pods.looks += 1
        if pods.looks >= 3:
            pods.ready = 0 if pods.ill else pods.wanted
        return RunningRelease(release, pods.ready > 0, pods.ready, pods.wanted, "" if pods.ready else "it starts")

    def apply_candidate(self, stable: str, candidate: str, pods: int) -> int:
        self._answers()
        self._point()
        running = self.releases.setdefault(candidate, Pods(pods))
        if running.wanted != pods:
            running.wanted, running.looks = pods, 0
        self._check()
        self._point()
        return pods

    def remove(self, release: str) -> None:
        self._answers()
        self._point()
        assert not self.weights.get(release), "a release with traffic was removed"
        self.releases.pop(release, None)
        self._check()
        self._point()

    def release_ownership(self, release: str) -> None:
        self._answers()
        self._point()
        self.ownership_released.append(release)
        self._point()

    def call(self, release: str, film: bytes) -> int:
        self.calls += 1
        return self.status

    def emit_event(self, release: str, reason: str, sentence: str, bad: bool) -> None:
        self._answers()
        self._point()
        self.events.append((reason, sentence, bad))
        self._point()


def gate_result(outcome: Outcome, gate: str = "gate") -> GateResult:
    return GateResult(gate=gate, outcome=outcome, sentence=f"{gate}: {outcome}.", numbers={"n": 1})


@dataclass
class FakeEvaluator(Evaluator):
    """Gives the outcomes that are set; callers call ten times a second."""

    clock: FakeClock
    by_gates: Outcome = "pass"
    by_shadow: Outcome = "pass"
    comparison: Callable[[RolloutState], Outcome] = lambda state: "pass"
    refusal: str = ""
    store_away: bool = False
    recorded: list[PendingEvent] = field(default_factory=list)
    compared_since: list[datetime] = field(default_factory=list)
    gates_run: int = 0
    during_gates: Callable[[], None] = lambda: None

    def check_plan(self, plan: Plan, stable: str) -> None:
        if self.refusal:
            raise RolloutError(self.refusal)

    def run_gates(self, state: RolloutState, progress: Callable[[], None]) -> Evaluation:
        self._answers()
        self.during_gates()
        self.clock.wait(state.plan.poll_seconds)
        progress()
        self.gates_run += 1
        return Evaluation((gate_result(self.by_gates),), evidence="e" * 64)

    def run_shadow(self, state: RolloutState, progress: Callable[[], None]) -> Evaluation:
        self._answers()
        progress()
        return Evaluation((gate_result(self.by_shadow, "shadow"),), disagreements=("p1",))

    def compare_releases(self, state: RolloutState, since: datetime) -> Evaluation:
        self._answers()
        self.compared_since.append(since)
        seconds = (self.clock.now() - since).total_seconds()
        calls = {state.candidate: int(seconds * state.percent / 10), state.stable: int(seconds * 10)}
        return Evaluation((gate_result(self.comparison(state), "errors"),), calls=calls)

    def record_event(self, state: RolloutState, event: PendingEvent) -> None:
        self._answers()
        self.recorded.append(event)

    def warm_up_film(self) -> bytes:
        return b"film"

    def _answers(self) -> None:
        if self.store_away:
            raise StoreError("the store is away")
