"""The loop of a rollout: from a candidate that nobody calls to one that answers all, or back, and never in between.

Every change of the cluster follows a state that says it should be so, and doing it twice does no harm. So whoever holds
the lease can go on from any state, wherever the one before was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pneumoserve.archive.store import StoreError
from pneumoserve.ids import time_text, uuid7
from pneumoserve.rollout.cluster import OWNER, Cluster, ClusterError, ConflictError, Running, Stored, UnreachableError
from pneumoserve.rollout.plan import Plan, Step
from pneumoserve.rollout.records import What
from pneumoserve.rollout.state import WITH_TRAFFIC, Note, Outcome, Phase, State, Wish
from pneumoserve.rollout.verdict import Verdict

# Polls in a row without a ready pod before a candidate with traffic is given up: one may be a slow answer of a probe.
_DARK_POLLS: Final = 2
# Seconds for which a candidate may have traffic that cannot be judged, because the store does not answer.
BLIND_SECONDS: Final = 60.0
_BACKOFF: Final = (1.0, 2.0, 5.0, 10.0)


class RolloutError(Exception):
    """A rollout that was refused; nothing was changed. The sentence says what to do."""


class LeaseLostError(Exception):
    """Another process runs the rollout now."""


@dataclass(frozen=True)
class Judgement:
    """Verdicts and what they rest on: the digest of the adjudicated set, or predictions that were decided otherwise.

    `calls`: those of each release that a comparison saw.
    """

    verdicts: tuple[Verdict, ...]
    evidence: str | None = None
    disagreements: tuple[str, ...] = ()
    calls: dict[str, int] = field(default_factory=dict)


class Judge(Protocol):
    """Who says whether a candidate is good enough, and keeps the minutes.

    All may raise StoreError; what the candidate itself is guilty of is a verdict.
    """

    def check(self, plan: Plan, stable: str) -> None:
        """Raise RolloutError where a release or the evidence is not there."""

    def gates(self, state: State, progress: Callable[[], None]) -> Judgement: ...

    def shadow(self, state: State, progress: Callable[[], None]) -> Judgement: ...

    def compare(self, state: State, since: datetime) -> Judgement: ...

    def record(self, state: State, note: Note) -> None: ...

    def film(self) -> bytes:
        """A film to warm a candidate with."""


class Clock(Protocol):
    """The time, and waiting."""

    def now(self) -> datetime: ...

    def wait(self, seconds: float) -> None: ...


def under_way(stored: Stored | None) -> State | None:
    """The rollout that a cluster is in the middle of."""
    if stored is None:
        return None
    state = State.of_json(stored.text)
    # One whose last words are not on record yet is not over.
    return None if state.phase == "ended" and not state.notes else state


def begin(cluster: Cluster, judge: Judge, plan: Plan, clock: Clock) -> State:
    """Write down that a rollout begins, or go on with the one that began with the same plan.

    Raises:
        RolloutError: it cannot begin, or another one is under way; nothing was changed.
        ClusterError: the cluster does not answer, or does not let us.
    """
    stored = cluster.load()
    running = under_way(stored)
    if running is not None:
        if running.plan != plan:
            raise _busy(running)
        return running
    if stored is not None and (done := _promoted(cluster, stored, plan)):
        return done
    state = check_begin(cluster, judge, plan, clock)
    state = _noted(state, clock, "started", f"Release {plan.candidate} is tried beside {state.stable}.")
    try:
        cluster.save(state.to_json(), None if stored is None else stored.version)
    except ConflictError:
        raise RolloutError("Another rollout began a moment ago; see `pneumoserve rollout status`.") from None
    return state


def _promoted(cluster: Cluster, stored: Stored, plan: Plan) -> State | None:
    """The rollout that this plan asks for, where it has been done: a process may end after its last word."""
    state = State.of_json(stored.text)
    route = cluster.route()
    if route is None or state.plan != plan or state.outcome != "promoted":
        return None
    return state if route.weights == state.weights else None


def check_begin(cluster: Cluster, judge: Judge, plan: Plan, clock: Clock) -> State:
    """The state with which a rollout by this plan begins.

    Raises:
        RolloutError: it may not; the sentence says what to do.
    """
    route = cluster.route()
    if route is None:
        raise RolloutError(
            "There is no HTTPRoute of this install, so there is nothing to turn; set route.enabled=true and release.id."
        )
    if not route.accepted:
        raise RolloutError(route.why)
    answering = [release for release, weight in route.weights.items() if weight]
    if len(answering) != 1:
        raise RolloutError(
            f"The route is divided between releases {', '.join(answering) or 'none'} by another hand; give one of them "
            "all the weight first."
        )
    (stable,) = answering
    if plan.candidate == stable:
        raise RolloutError(f"Release {stable} answers already; name another one as the plan's candidate.")
    running = cluster.release(stable)
    if running is None or not running.ready:
        raise RolloutError(
            f"Release {stable}, which answers, is not Ready, so there is nothing to go back to; repair it first."
        )
    if cluster.release(plan.candidate) is not None:
        raise RolloutError(
            f"Release {plan.candidate} runs already, made by another hand; take it out of release.standby, or delete "
            f"its InferenceService, and start again."
        )
    judge.check(plan, stable)
    return State(
        rollout=uuid7(),
        plan=plan,
        stable=stable,
        marked=route.stable,
        pods=max(1, running.wanted),
        since=time_text(clock.now()),
    )


def ask_abort(cluster: Cluster, reason: str, by: str) -> State:
    """Write down that the rollout under way is to be given up; who runs it sees that at its next poll.

    Raises:
        RolloutError: none is under way.
    """
    return _ask(cluster, lambda state: state.model_copy(update={"wish": Wish(kind="abort", reason=reason, by=by)}))


def approve(cluster: Cluster, clock: Clock, by: str) -> State:
    """Let the step that waits for approval pass. No gate is skipped by it.

    Raises:
        RolloutError: nothing waits for approval.
    """

    def approved(state: State) -> State:
        if state.plan.approval != "manual":
            raise RolloutError("The plan approves its steps by itself; see `pneumoserve rollout status`.")
        if state.phase != "serving" or state.approved > state.step or state.waits_for != _APPROVAL:
            raise RolloutError(
                f"No step waits for approval: the rollout is {told_phase(state)}; see `pneumoserve rollout status`."
            )
        sentence = f"{by} approved the step at {state.percent} %."
        return _noted(state.model_copy(update={"approved": state.step + 1}), clock, "approved", sentence)

    return _ask(cluster, approved)


_APPROVAL: Final = "approval: pneumoserve rollout promote"


def told_phase(state: State) -> str:
    """Where a rollout is, for people."""
    match state.phase:
        case "scaling" | "serving":
            return f"at step {state.step + 1} of {len(state.plan.steps)}, {state.percent} %"
        case "window":
            return "promoted, with the earlier release kept"
        case _:
            return state.phase


def _ask(cluster: Cluster, change: Callable[[State], State]) -> State:
    while True:
        stored = cluster.load()
        state = under_way(stored)
        if stored is None or state is None:
            raise RolloutError("No rollout is under way; start one with `pneumoserve rollout start --plan FILE`.")
        wanted = change(state)
        try:
            cluster.save(wanted.to_json(), stored.version)
        except ConflictError:
            continue
        return wanted


def _busy(running: State) -> RolloutError:
    return RolloutError(
        f"A rollout of release {running.candidate} is under way, {told_phase(running)}; wait for it, or end it with "
        "`pneumoserve rollout abort --reason …`."
    )


def _noted(state: State, clock: Clock, what: What, sentence: str, judged: Judgement | None = None) -> State:
    judged = judged or Judgement(())
    note = Note(
        number=state.noted + 1,
        time=time_text(clock.now()),
        what=what,
        sentence=sentence,
        percent=state.percent,
        verdicts=judged.verdicts,
        evidence=judged.evidence,
        disagreements=judged.disagreements,
    )
    return state.model_copy(update={"noted": note.number, "notes": (*state.notes, note)})


class _WishSeenError(Exception):
    """A person asked for something while a long judgement was made."""


class Engine:
    """Runs the rollout that the cluster's state describes; `held` tells whether this process has the lease."""

    def __init__(
        self, cluster: Cluster, judge: Judge, clock: Clock, held: Callable[[], bool], tell: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._judge = judge
        self._clock = clock
        self._held = held
        self._tell = tell
        self._dark = 0
        self._blind_since: datetime | None = None
        self._asked = clock.now()

    def run(self) -> State:
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
                self._tell(f"the cluster does not answer ({error}); asking again in {delay:.0f} s")
                failures += 1
                self._clock.wait(delay)
                continue
            failures = 0
            if state is not None:
                return state

    def tick(self) -> State | None:
        """One look and at most one step; returns the state once the rollout has ended.

        Raises:
            ConflictError: the state was changed by another hand meanwhile; nothing is lost by trying again.
            UnreachableError: the cluster does not answer.
        """
        if not self._held():
            raise LeaseLostError("Another process runs this rollout now; watch it with `pneumoserve rollout status`.")
        stored = self._cluster.load()
        if stored is None:
            raise ClusterError(
                "The ConfigMap with the rollout's state is gone, so nobody knows what the weights should be; "
                f"remove the annotation {OWNER} from the HTTPRoute, in Knative mode from the ConfigMap that has it, "
                "run `helm upgrade`, and start again."
            )
        state = State.of_json(stored.text)
        if state.phase != "ended":
            self._turned(state, state.rollout)
        flushed = self._flushed(state)
        if flushed is not state:
            self._cluster.save(flushed.to_json(), stored.version)
            return None
        if state.phase == "ended":
            if not state.notes:
                return state
            self._clock.wait(state.plan.poll_seconds)
            return None
        following = self._following(state)
        if following == state:
            self._clock.wait(state.plan.poll_seconds)
            return None
        self._cluster.save(following.to_json(), stored.version)
        if following.waits_for and _words(following.waits_for) != _words(state.waits_for):
            self._tell(f"waits for {following.waits_for}")
        if (following.phase, following.step) == (state.phase, state.step):
            self._clock.wait(state.plan.poll_seconds)
        return None

    def _turned(self, state: State, owner: str) -> None:
        """The route as the state wants it."""
        route = self._cluster.route()
        if route is None:
            raise UnreachableError("the HTTPRoute is gone; bring it back with `helm upgrade`")
        if (route.weights, route.owner, route.stable) != (state.weights, owner, state.mark):
            self._cluster.turn(state.weights, owner, state.mark, route.version)

    def _flushed(self, state: State) -> State:
        """The state without those notes that are on record now."""
        left = list(state.notes)
        while left:
            try:
                self._judge.record(state, left[0])
            except StoreError as error:
                self._tell(f"not on record yet ({error})")
                break
            note = left.pop(0)
            self._cluster.event(state.candidate, note.what, note.sentence, _is_bad(state, note))
            self._tell(note.sentence)
        return state if len(left) == len(state.notes) else state.model_copy(update={"notes": tuple(left)})

    def _following(self, state: State) -> State:
        if state.wish is not None and state.outcome is None:
            return self._back(state, "aborted", f"{state.wish.by} ended it: {state.wish.reason}")
        if state.notes and state.outcome is None:
            # What is not on record does not go on; the way back never waits for a record.
            return self._unjudged(state, "its records, which the store does not take")
        try:
            following = _PHASES[state.phase](self, state)
        except StoreError as error:
            return self._unjudged(state, f"the store: {error}")
        except _WishSeenError:
            return state
        self._blind_since = None
        return following

    # --- the phases, in their order

    def _warming(self, state: State) -> State:
        self._cluster.make(state.stable, state.candidate, pods_for(state, state.plan.steps[0].percent))
        running = self._cluster.release(state.candidate)
        if running is None or not running.ready:
            why = "it has no pod" if running is None else running.why
            return self._unless_late(state, f"release {state.candidate} to be Ready ({why or 'it starts'})")
        for _ in range(state.plan.warm_calls):
            status = self._cluster.call(state.candidate, self._judge.film())
            if status != 200:
                return self._unless_late(state, f"an answer of release {state.candidate}, which gave {status}")
        return self._entered(state, "gates")

    def _unless_late(self, state: State, waits_for: str) -> State:
        if self._seconds(state.since) < state.plan.ready_seconds:
            return state.model_copy(update={"waits_for": waits_for})
        reason = f"After {state.plan.ready_seconds} s it still waited for {waits_for}."
        return self._back(state, "rolled back" if state.percent else "refused", reason)

    def _gates(self, state: State) -> State:
        judged = self._judge.gates(state, self._progress(state))
        if failed := _of(judged.verdicts, "fail"):
            return self._back(state, "refused", _said(failed), judged)
        # What the set could not have shown is told after the shadow, which needs no traffic.
        lacking = _of(judged.verdicts, "insufficient")
        sentence = f"Release {state.candidate} {'gets a shadow only' if lacking else 'passed'}: "
        entered = self._entered(state, "shadow", verdicts=judged.verdicts)
        return _noted(entered, self._clock, "gates", sentence + _said(lacking or judged.verdicts), judged)

    def _shadow(self, state: State) -> State:
        judged = self._judge.shadow(state, self._progress(state))
        if failed := _of(judged.verdicts, "fail"):
            return self._back(state, "refused", _said(failed), judged)
        noted = _noted(state, self._clock, "shadow", f"Shadow: {_said(judged.verdicts)}", judged)
        if lacking := _of((*state.verdicts, *judged.verdicts), "insufficient"):
            return self._back(noted, "insufficient", _said(lacking))
        return self._entered(noted, "scaling", verdicts=(*state.verdicts, *judged.verdicts))

    def _scaling(self, state: State) -> State:
        step = state.plan.steps[state.step]
        stable = self._cluster.release(state.stable)
        # Load may have scaled it since the rollout began.
        state = state.model_copy(update={"pods": max(state.pods, 0 if stable is None else stable.wanted)})
        pods = self._cluster.make(state.stable, state.candidate, pods_for(state, step.percent))
        running = self._cluster.release(state.candidate)
        if gone := self._dark_candidate(state, running):
            return gone
        if state.percent and state.split_since:
            state, _ = self._judged_since(state, state.split_since)
            if state.outcome is not None:
                return state
        if running is None or not running.ready or running.pods < pods:
            have = 0 if running is None else running.pods
            return self._unless_late(state, f"{pods} pods of release {state.candidate}, of which {have} are ready")
        if step.percent == 100:
            entered = self._entered(state, "window", percent=100)
            sentence = (
                f"Release {state.candidate} is promoted: it answers all; {state.stable} is kept for "
                f"{state.plan.rollback_window_seconds} s."
            )
            return _noted(entered, self._clock, "promoted", sentence, Judgement(state.verdicts))
        entered = self._entered(state, "serving", percent=step.percent)
        sentence = f"Release {state.candidate} gets {step.percent} % of the calls, with {pods} pod(s)."
        return _noted(entered, self._clock, "step", sentence, Judgement(state.verdicts))

    def _serving(self, state: State) -> State:
        step = state.plan.steps[state.step]
        state, compared = self._compared(state)
        if compared is None or state.outcome is not None:
            return state
        short = self._short_of(state, step, compared)
        if not short and state.plan.approval == "manual" and state.approved <= state.step:
            short = _APPROVAL
        if short:
            return state.model_copy(update={"waits_for": short})
        return self._entered(state, "scaling", step=state.step + 1, split_since=state.serving_since)

    def _short_of(self, state: State, step: Step, compared: Judgement) -> str:
        """What a step that did not fail still lacks."""
        calls = compared.calls.get(state.candidate, 0)
        left = step.min_seconds - self._seconds(state.serving_since or state.since)
        if calls < step.min_calls:
            return f"{step.min_calls} calls at {state.percent} %, of which {calls} came"
        if left > 0:
            return f"the end of the step's {step.min_seconds} s"
        return _said(_of(compared.verdicts, "wait", "insufficient"))

    def _window(self, state: State) -> State:
        state, compared = self._compared(state)
        if compared is None or state.outcome is not None:
            return state
        left = state.plan.rollback_window_seconds - self._seconds(state.serving_since or state.since)
        if left > 0:
            return state.model_copy(update={"waits_for": f"the end of the rollback window of "
                                            f"{state.plan.rollback_window_seconds} s"})  # fmt: skip
        return self._entered(state, "settling", outcome="promoted", reason=_said(compared.verdicts))

    def _compared(self, state: State) -> tuple[State, Judgement | None]:
        """The state with the newest figures, on its way back if one failed; None where there are none yet."""
        if gone := self._dark_candidate(state, self._cluster.release(state.candidate)):
            return gone, None
        if state.serving_since is None:
            route = self._cluster.route()
            if route is None or not route.accepted:
                return state.model_copy(update={"waits_for": "the gateway to take the weights"}), None
            return state.model_copy(update={"serving_since": time_text(self._clock.now())}), None
        # Once all calls are the candidate's, those of the last step are what it is compared with.
        divided = state.percent < 100
        return self._judged_since(state, state.serving_since if divided else state.split_since or state.serving_since)

    def _judged_since(self, state: State, since: str) -> tuple[State, Judgement]:
        judged = self._judge.compare(state, datetime.fromisoformat(since))
        state = state.model_copy(update={"verdicts": judged.verdicts, "calls": judged.calls})
        if failed := _of(judged.verdicts, "fail"):
            return self._back(state, "rolled back", f"At {state.percent} %: {_said(failed)}", judged), judged
        return state, judged

    def _dark_candidate(self, state: State, running: Running | None) -> State | None:
        """The way back where a candidate with traffic has no ready pod: what the gateway then says is on no record."""
        if state.percent == 0 or (running is not None and running.pods > 0):
            self._dark = 0
            return None
        self._dark += 1
        if self._dark < _DARK_POLLS:
            return state
        verdict = Verdict(
            gate="ready pods",
            outcome="fail",
            sentence=f"0 pods of release {state.candidate} are ready, so the gateway answers its calls with 503.",
            numbers={"ready": 0, "polls": self._dark},
        )
        return self._back(state, "rolled back", f"At {state.percent} %: {verdict.sentence}", Judgement((verdict,)))

    def _settling(self, state: State) -> State:
        """The earlier release drains and goes."""
        if self._seconds(state.since) < state.plan.drain_seconds:
            return state.model_copy(update={"waits_for": f"the calls of release {state.stable} to end"})
        return self._without(state, state.stable)

    def _returning(self, state: State) -> State:
        route = self._cluster.route()
        if self._seconds(state.since) < state.plan.drain_seconds or route is None or not route.accepted:
            return state.model_copy(update={"waits_for": f"the calls of release {state.candidate} to end"})
        return self._entered(state, "removing")

    def _removing(self, state: State) -> State:
        return self._without(state, state.candidate)

    def _without(self, state: State, release: str) -> State:
        self._cluster.remove(release)
        if self._cluster.release(release) is not None:
            return state.model_copy(update={"waits_for": f"release {release} to go"})
        ended = self._entered(state, "ended")
        # Before it is written that all is over: nobody comes back after that.
        self._turned(ended, "")
        self._cluster.let_go(ended.settled)
        sentence = f"{release} is gone and {ended.settled} answers alone: {state.outcome}."
        return _noted(ended, self._clock, "finished", sentence)

    # --- helpers

    def _back(self, state: State, outcome: Outcome, reason: str, judged: Judgement | None = None) -> State:
        """One patch takes all traffic off the candidate; it is gone once its last calls have ended."""
        update: dict[str, Any] = {"outcome": outcome, "reason": reason, "percent": 0}
        if judged is not None:
            update["verdicts"] = judged.verdicts
        entered = self._entered(state, "returning" if state.percent else "removing", **update)
        what: What = "aborted" if outcome == "aborted" else "rolled_back"
        return _noted(entered, self._clock, what, f"Release {state.stable} answers alone. {reason}", judged)

    def _entered(self, state: State, phase: Phase, **update: Any) -> State:
        now = time_text(self._clock.now())
        fresh: dict[str, Any] = {"phase": phase, "since": now, "serving_since": None, "waits_for": "", "calls": {}}
        return state.model_copy(update={**fresh, **update})

    def _unjudged(self, state: State, waits_for: str) -> State:
        """Weights stay while nothing can be judged; but a candidate is not called for long with nobody looking."""
        now = self._clock.now()
        self._blind_since = self._blind_since or now
        blind = (now - self._blind_since).total_seconds()
        if state.phase in WITH_TRAFFIC and state.percent and state.outcome is None and blind >= BLIND_SECONDS:
            return self._back(
                state, "rolled back", f"For {blind:.0f} s nothing could be judged; it waited for {waits_for}."
            )
        return state.model_copy(update={"waits_for": waits_for})

    def _seconds(self, since: str) -> float:
        return (self._clock.now() - datetime.fromisoformat(since)).total_seconds()

    def _progress(self, state: State) -> Callable[[], None]:
        """To be called during long judgements: ends them where a person has asked for another thing."""

        def look() -> None:
            if not self._held():
                raise LeaseLostError("Another process runs this rollout now.")
            if (self._clock.now() - self._asked).total_seconds() < state.plan.poll_seconds:
                return
            self._asked = self._clock.now()
            stored = self._cluster.load()
            if stored is None or State.of_json(stored.text).wish is not None:
                raise _WishSeenError

        return look


def pods_for(state: State, percent: int) -> int:
    """Pods for a share of the calls that the stable release's pods take."""
    return max(1, math.ceil(state.pods * percent / 100))


def _of(verdicts: Sequence[Verdict], *outcomes: str) -> tuple[Verdict, ...]:
    return tuple(verdict for verdict in verdicts if verdict.outcome in outcomes)


def _said(verdicts: Sequence[Verdict]) -> str:
    return " ".join(verdict.sentence for verdict in verdicts)


def _words(text: str) -> str:
    """A text without its figures, which change at every look."""
    return "".join(each for each in text if not each.isdigit())


def _is_bad(state: State, note: Note) -> bool:
    return bool(_of(note.verdicts, "fail")) or (
        note.what in ("rolled_back", "aborted", "finished") and state.outcome != "promoted"
    )


class SystemClock:
    """The machine's."""

    def __init__(self, wait: Callable[[float], object]) -> None:
        self._wait = wait

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        self._wait(seconds)


_PHASES: Final[dict[Phase, Callable[[Engine, State], State]]] = {
    "warming": Engine._warming,
    "gates": Engine._gates,
    "shadow": Engine._shadow,
    "scaling": Engine._scaling,
    "serving": Engine._serving,
    "window": Engine._window,
    "settling": Engine._settling,
    "returning": Engine._returning,
    "removing": Engine._removing,
}
