"""The loop of a rollout: from a candidate that nobody calls to one that answers all, or back, and never in between.

Every change of the cluster follows a state that says it should be so, and doing it twice does no harm. So whoever holds
the lease can go on from any state, wherever the one before was stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pneumoserve.rollout.clock import Clock
from pneumoserve.rollout.cluster import OWNER, Cluster, ClusterError, ConflictError, UnreachableError
from pneumoserve.rollout.errors import LeaseLostError
from pneumoserve.rollout.evaluator import Evaluator
from pneumoserve.rollout.phases import AbortRequestedError, Phases, align_route, with_outcome
from pneumoserve.rollout.state import PendingEvent, RolloutState
from pneumoserve.store import StoreError

_BACKOFF: Final = (1.0, 2.0, 5.0, 10.0)


class RolloutEngine:
    """Runs the rollout that the cluster's state describes.

    `is_held` says whether this process has the lease. `progress` gets a sentence of each thing that happens.
    """

    def __init__(
        self,
        cluster: Cluster,
        evaluator: Evaluator,
        clock: Clock,
        is_held: Callable[[], bool],
        progress: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._evaluator = evaluator
        self._clock = clock
        self._is_held = is_held
        self._progress = progress
        self._phases = Phases(cluster, evaluator, clock, self._stop_if_asked)
        self._asked = clock.now()

    def run(self) -> RolloutState:
        """Go on until the rollout has ended; returns how.

        A cluster that does not answer is asked again: until it does, the weights stay as they are.

        Raises:
            LeaseLostError: another process runs it.
            ClusterError: the cluster does not let us.
        """
        failures = 0
        while True:
            try:
                state = self.tick()
            except ConflictError:
                continue  # somebody wrote in between: look again
            except UnreachableError as error:
                delay = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
                self._progress(f"the cluster does not answer ({error}); asking again in {delay:.0f} s")
                failures += 1
                self._clock.wait(delay)
                continue
            failures = 0
            if state is not None:
                return state

    def tick(self) -> RolloutState | None:
        """Look once and take at most one step; returns the state once the rollout has ended.

        Raises:
            ConflictError: the state was changed by another hand meanwhile; nothing is lost by trying again.
            UnreachableError: the cluster does not answer.
        """
        if not self._is_held():
            raise LeaseLostError("Another process runs this rollout now; watch it with `pneumoserve rollout status`.")
        stored = self._cluster.load()
        if stored is None:
            raise ClusterError(
                "The ConfigMap with the rollout's state is gone, so nobody knows what the weights should be; "
                f"remove the annotation {OWNER} from the HTTPRoute, in Knative mode from the ConfigMap that has it, "
                "run `helm upgrade`, and start again."
            )
        state = RolloutState.of_json(stored.text)
        if state.phase != "ended":
            align_route(self._cluster, state, state.rollout)
        remaining = self._record_pending_events(state)
        if remaining is not state:
            self._cluster.save(remaining.to_json(), stored.version)
            return None
        if state.phase == "ended":
            if not state.pending_events:
                return state
            self._clock.wait(state.plan.poll_seconds)
            return None
        following = self._phases.next_state(state)
        if following == state:
            self._clock.wait(state.plan.poll_seconds)
            return None
        self._cluster.save(following.to_json(), stored.version)
        if following.waits_for and _without_digits(following.waits_for) != _without_digits(state.waits_for):
            self._progress(f"waits for {following.waits_for}")
        if (following.phase, following.step) == (state.phase, state.step):
            self._clock.wait(state.plan.poll_seconds)
        return None

    def _record_pending_events(self, state: RolloutState) -> RolloutState:
        """The state without those events that are on record now."""
        left = list(state.pending_events)
        while left:
            try:
                self._evaluator.record_event(state, left[0])
            except StoreError as error:
                self._progress(f"not on record yet ({error})")
                break
            event = left.pop(0)
            self._cluster.emit_event(state.candidate, event.what, event.sentence, _is_bad(state, event))
            self._progress(event.sentence)
        if len(left) == len(state.pending_events):
            return state
        return state.model_copy(update={"pending_events": tuple(left)})

    def _stop_if_asked(self, state: RolloutState) -> None:
        """End a long evaluation where a person has asked for an abort.

        Raises:
            AbortRequestedError: a person has, or the state is gone.
            LeaseLostError: another process runs the rollout.
        """
        if not self._is_held():
            raise LeaseLostError("Another process runs this rollout now.")
        if (self._clock.now() - self._asked).total_seconds() < state.plan.poll_seconds:
            return
        self._asked = self._clock.now()
        stored = self._cluster.load()
        if stored is None or RolloutState.of_json(stored.text).abort_request is not None:
            raise AbortRequestedError


def _without_digits(text: str) -> str:
    """A text without its figures, which change at every look."""
    return "".join(each for each in text if not each.isdigit())


def _is_bad(state: RolloutState, event: PendingEvent) -> bool:
    return bool(with_outcome(event.verdicts, "fail")) or (
        event.what in ("rolled_back", "aborted", "finished") and state.outcome != "promoted"
    )
