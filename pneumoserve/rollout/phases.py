"""The phases of a rollout: from a state, and what the cluster and the evaluator say, to the next state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from pneumoserve.errors import PneumoserveError
from pneumoserve.ids import time_text
from pneumoserve.records import GateResult, What
from pneumoserve.rollout.clock import Clock
from pneumoserve.rollout.cluster import Cluster, RunningRelease, UnreachableError
from pneumoserve.rollout.evaluator import Evaluation, Evaluator
from pneumoserve.rollout.plan import Step
from pneumoserve.rollout.state import WAITS_FOR_APPROVAL, WITH_TRAFFIC, Outcome, Phase, RolloutState
from pneumoserve.store import StoreError

# Polls in a row without a ready pod before a candidate with traffic is given up: one may be a slow answer of a probe.
_POLLS_WITHOUT_PODS: Final = 2
# Seconds for which a candidate may have traffic that nobody can evaluate, because the store does not answer.
BLIND_SECONDS: Final = 60.0


class AbortRequestedError(PneumoserveError):
    """A person asked for an abort during a long evaluation."""


def align_route(cluster: Cluster, state: RolloutState, owner: str) -> None:
    """Make the route as the state wants it, in the name of a rollout; an empty `owner` gives it back.

    Raises:
        UnreachableError: there is no route, or the cluster does not answer.
        ConflictError: another hand changed the route meanwhile.
    """
    route = cluster.route()
    if route is None:
        raise UnreachableError("the HTTPRoute is gone; bring it back with `helm upgrade`")
    if (route.weights, route.owner, route.stable) != (state.weights, owner, state.stable_annotation):
        cluster.set_weights(state.weights, owner, state.stable_annotation, route.version)


class Phases:
    """What to do in each phase.

    `interrupt` is called with the state during long evaluations; it ends them by AbortRequestedError.
    """

    def __init__(
        self, cluster: Cluster, evaluator: Evaluator, clock: Clock, interrupt: Callable[[RolloutState], None]
    ) -> None:
        self._cluster = cluster
        self._evaluator = evaluator
        self._clock = clock
        self._interrupt = interrupt
        self._polls_without_pods = 0
        self._blind_since: datetime | None = None

    def next_state(self, state: RolloutState) -> RolloutState:
        """The state that follows; the same one where there is nothing to do but wait.

        Raises:
            ClusterError: the cluster does not answer, or does not let us.
            LeaseLostError: another process runs the rollout.
        """
        if state.abort_request is not None and state.outcome is None:
            return self._take_back(state, "aborted", f"{state.abort_request.by} ended it: {state.abort_request.reason}")
        if state.pending_events and state.outcome is None:
            # What is not on record does not go on; the way back never waits for a record.
            return self._wait_blind(state, "its records, which the store does not take")
        try:
            following = _PHASES[state.phase](self, state)
        except StoreError as error:
            return self._wait_blind(state, f"the store: {error}")
        except AbortRequestedError:
            return state
        self._blind_since = None
        return following

    # --- the phases, in their order

    def _warm_up(self, state: RolloutState) -> RolloutState:
        self._cluster.apply_candidate(state.stable, state.candidate, state.pods_for(state.plan.steps[0].percent))
        running = self._cluster.release(state.candidate)
        if running is None or not running.ready:
            why = "it has no pod" if running is None else running.why
            return self._wait_or_give_up(state, f"release {state.candidate} to be Ready ({why or 'it starts'})")
        for _ in range(state.plan.warm_calls):
            status = self._cluster.call(state.candidate, self._evaluator.warm_up_film())
            if status != 200:
                return self._wait_or_give_up(state, f"an answer of release {state.candidate}, which gave {status}")
        return self._enter(state, "gates")

    def _run_gates(self, state: RolloutState) -> RolloutState:
        found = self._evaluator.run_gates(state, partial(self._interrupt, state))
        if failed := with_outcome(found.results, "fail"):
            return self._take_back(state, "refused", _sentences(failed), found)
        # A set that is too small ends the rollout after the shadow only, which needs no traffic.
        lacking = with_outcome(found.results, "insufficient")
        sentence = f"Release {state.candidate} {'gets a shadow only' if lacking else 'passed'}: "
        entered = self._enter(state, "shadow", verdicts=found.results)
        return self._add_event(entered, "gates", sentence + _sentences(lacking or found.results), found)

    def _run_shadow(self, state: RolloutState) -> RolloutState:
        found = self._evaluator.run_shadow(state, partial(self._interrupt, state))
        if failed := with_outcome(found.results, "fail"):
            return self._take_back(state, "refused", _sentences(failed), found)
        done = self._add_event(state, "shadow", f"Shadow: {_sentences(found.results)}", found)
        if lacking := with_outcome((*state.verdicts, *found.results), "insufficient"):
            return self._take_back(done, "insufficient", _sentences(lacking))
        return self._enter(done, "scaling", verdicts=(*state.verdicts, *found.results))

    def _scale(self, state: RolloutState) -> RolloutState:
        step = state.plan.steps[state.step]
        stable = self._cluster.release(state.stable)
        # Load may have scaled it since the rollout began.
        state = state.model_copy(update={"pods": max(state.pods, 0 if stable is None else stable.wanted)})
        pods = self._cluster.apply_candidate(state.stable, state.candidate, state.pods_for(step.percent))
        running = self._cluster.release(state.candidate)
        if without_pods := self._check_pods(state, running):
            return without_pods
        if state.percent and state.split_since:
            state, _ = self._compare_since(state, state.split_since)
            if state.outcome is not None:
                return state
        if running is None or not running.ready or running.pods < pods:
            have = 0 if running is None else running.pods
            return self._wait_or_give_up(state, f"{pods} pods of release {state.candidate}, of which {have} are ready")
        if step.percent == 100:
            entered = self._enter(state, "window", percent=100)
            sentence = (
                f"Release {state.candidate} is promoted: it answers all; {state.stable} is kept for "
                f"{state.plan.rollback_window_seconds} s."
            )
            return self._add_event(entered, "promoted", sentence, Evaluation(state.verdicts))
        entered = self._enter(state, "serving", percent=step.percent)
        sentence = f"Release {state.candidate} gets {step.percent} % of the calls, with {pods} pod(s)."
        return self._add_event(entered, "step", sentence, Evaluation(state.verdicts))

    def _serve(self, state: RolloutState) -> RolloutState:
        step = state.plan.steps[state.step]
        state, found = self._compare(state)
        if found is None or state.outcome is not None:
            return state
        missing = self._missing(state, step, found)
        if not missing and state.plan.approval == "manual" and state.approved <= state.step:
            missing = WAITS_FOR_APPROVAL
        if missing:
            return state.model_copy(update={"waits_for": missing})
        return self._enter(state, "scaling", step=state.step + 1, split_since=state.serving_since)

    def _watch_window(self, state: RolloutState) -> RolloutState:
        state, found = self._compare(state)
        if found is None or state.outcome is not None:
            return state
        left = state.plan.rollback_window_seconds - self._seconds(state.serving_since or state.since)
        if left > 0:
            return state.model_copy(update={"waits_for": f"the end of the rollback window of "
                                            f"{state.plan.rollback_window_seconds} s"})  # fmt: skip
        return self._enter(state, "settling", outcome="promoted", reason=_sentences(found.results))

    def _settle(self, state: RolloutState) -> RolloutState:
        """The earlier release drains and goes."""
        if self._seconds(state.since) < state.plan.drain_seconds:
            return state.model_copy(update={"waits_for": f"the calls of release {state.stable} to end"})
        return self._remove_release(state, state.stable)

    def _drain_candidate(self, state: RolloutState) -> RolloutState:
        route = self._cluster.route()
        if self._seconds(state.since) < state.plan.drain_seconds or route is None or not route.accepted:
            return state.model_copy(update={"waits_for": f"the calls of release {state.candidate} to end"})
        return self._enter(state, "removing")

    def _remove_candidate(self, state: RolloutState) -> RolloutState:
        return self._remove_release(state, state.candidate)

    # --- what several phases do

    def _compare(self, state: RolloutState) -> tuple[RolloutState, Evaluation | None]:
        """The state with the newest figures, on its way back if one failed; None where there are none yet."""
        if without_pods := self._check_pods(state, self._cluster.release(state.candidate)):
            return without_pods, None
        if state.serving_since is None:
            route = self._cluster.route()
            if route is None or not route.accepted:
                return state.model_copy(update={"waits_for": "the gateway to take the weights"}), None
            return state.model_copy(update={"serving_since": time_text(self._clock.now())}), None
        # Once all calls are the candidate's, those of the last step are what it is compared with.
        divided = state.percent < 100
        return self._compare_since(state, state.serving_since if divided else state.split_since or state.serving_since)

    def _compare_since(self, state: RolloutState, since: str) -> tuple[RolloutState, Evaluation]:
        found = self._evaluator.compare_releases(state, datetime.fromisoformat(since))
        state = state.model_copy(update={"verdicts": found.results, "calls": found.calls})
        if failed := with_outcome(found.results, "fail"):
            return self._take_back(state, "rolled back", f"At {state.percent} %: {_sentences(failed)}", found), found
        return state, found

    def _missing(self, state: RolloutState, step: Step, found: Evaluation) -> str:
        """What a step that did not fail still lacks."""
        calls = found.calls.get(state.candidate, 0)
        left = step.min_seconds - self._seconds(state.serving_since or state.since)
        if calls < step.min_calls:
            return f"{step.min_calls} calls at {state.percent} %, of which {calls} came"
        if left > 0:
            return f"the end of the step's {step.min_seconds} s"
        return _sentences(with_outcome(found.results, "wait", "insufficient"))

    def _check_pods(self, state: RolloutState, running: RunningRelease | None) -> RolloutState | None:
        """The way back where a candidate with traffic has no ready pod: what the gateway then says is on no record."""
        if state.percent == 0 or (running is not None and running.pods > 0):
            self._polls_without_pods = 0
            return None
        self._polls_without_pods += 1
        if self._polls_without_pods < _POLLS_WITHOUT_PODS:
            return state
        result = GateResult(
            gate="ready pods",
            outcome="fail",
            sentence=f"0 pods of release {state.candidate} are ready, so the gateway answers its calls with 503.",
            numbers={"ready": 0, "polls": self._polls_without_pods},
        )
        reason = f"At {state.percent} %: {result.sentence}"
        return self._take_back(state, "rolled back", reason, Evaluation((result,)))

    def _wait_or_give_up(self, state: RolloutState, waits_for: str) -> RolloutState:
        if self._seconds(state.since) < state.plan.ready_seconds:
            return state.model_copy(update={"waits_for": waits_for})
        reason = f"After {state.plan.ready_seconds} s it still waited for {waits_for}."
        return self._take_back(state, "rolled back" if state.percent else "refused", reason)

    def _wait_blind(self, state: RolloutState, waits_for: str) -> RolloutState:
        """Weights stay while nothing can be evaluated; but a candidate is not called for long with nobody looking."""
        now = self._clock.now()
        self._blind_since = self._blind_since or now
        blind = (now - self._blind_since).total_seconds()
        if state.phase in WITH_TRAFFIC and state.percent and state.outcome is None and blind >= BLIND_SECONDS:
            return self._take_back(
                state, "rolled back", f"For {blind:.0f} s nothing could be judged; it waited for {waits_for}."
            )
        return state.model_copy(update={"waits_for": waits_for})

    def _take_back(
        self, state: RolloutState, outcome: Outcome, reason: str, found: Evaluation | None = None
    ) -> RolloutState:
        """One patch takes all traffic off the candidate; it is gone once its last calls have ended."""
        update: dict[str, Any] = {"outcome": outcome, "reason": reason, "percent": 0}
        if found is not None:
            update["verdicts"] = found.results
        entered = self._enter(state, "returning" if state.percent else "removing", **update)
        what: What = "aborted" if outcome == "aborted" else "rolled_back"
        return self._add_event(entered, what, f"Release {state.stable} answers alone. {reason}", found)

    def _remove_release(self, state: RolloutState, release: str) -> RolloutState:
        self._cluster.remove(release)
        if self._cluster.release(release) is not None:
            return state.model_copy(update={"waits_for": f"release {release} to go"})
        ended = self._enter(state, "ended")
        # Before it is written that all is over: nobody comes back after that.
        align_route(self._cluster, ended, "")
        self._cluster.release_ownership(ended.settled)
        sentence = f"{release} is gone and {ended.settled} answers alone: {state.outcome}."
        return self._add_event(ended, "finished", sentence)

    def _enter(self, state: RolloutState, phase: Phase, **update: Any) -> RolloutState:
        now = time_text(self._clock.now())
        fresh: dict[str, Any] = {"phase": phase, "since": now, "serving_since": None, "waits_for": "", "calls": {}}
        return state.model_copy(update={**fresh, **update})

    def _add_event(
        self, state: RolloutState, what: What, sentence: str, found: Evaluation | None = None
    ) -> RolloutState:
        found = found or Evaluation(())
        return state.with_event(
            self._clock.now(),
            what,
            sentence,
            verdicts=found.results,
            evidence=found.evidence,
            disagreements=found.disagreements,
        )

    def _seconds(self, since: str) -> float:
        return (self._clock.now() - datetime.fromisoformat(since)).total_seconds()


def with_outcome(results: Sequence[GateResult], *outcomes: str) -> tuple[GateResult, ...]:
    """The results that have one of these outcomes."""
    return tuple(result for result in results if result.outcome in outcomes)


def _sentences(results: Sequence[GateResult]) -> str:
    return " ".join(result.sentence for result in results)


_PHASES: Final[dict[Phase, Callable[[Phases, RolloutState], RolloutState]]] = {
    "warming": Phases._warm_up,
    "gates": Phases._run_gates,
    "shadow": Phases._run_shadow,
    "scaling": Phases._scale,
    "serving": Phases._serve,
    "window": Phases._watch_window,
    "settling": Phases._settle,
    "returning": Phases._drain_candidate,
    "removing": Phases._remove_candidate,
}
