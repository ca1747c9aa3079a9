"""What a person does with a rollout: begin it, approve a step of it, end it. The engine does the rest."""

from __future__ import annotations

from collections.abc import Callable

from pneumoserve.ids import time_text, uuid7
from pneumoserve.rollout.clock import Clock
from pneumoserve.rollout.cluster import Cluster, ConflictError, StoredText
from pneumoserve.rollout.errors import RolloutError
from pneumoserve.rollout.evaluator import Evaluator
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.state import WAITS_FOR_APPROVAL, AbortRequest, RolloutState


def active_rollout(stored: StoredText | None) -> RolloutState | None:
    """The rollout that a cluster is in the middle of."""
    if stored is None:
        return None
    state = RolloutState.of_json(stored.text)
    # One whose last words are not on record yet is not over.
    return None if state.phase == "ended" and not state.pending_events else state


def begin(cluster: Cluster, evaluator: Evaluator, plan: Plan, clock: Clock) -> RolloutState:
    """Write down that a rollout begins, or go on with the one that began with the same plan.

    Raises:
        RolloutError: it cannot begin, or another one is under way; nothing was changed.
        ClusterError: the cluster does not answer, or does not let us.
    """
    stored = cluster.load()
    running = active_rollout(stored)
    if running is not None:
        if running.plan != plan:
            raise _under_way_error(running)
        return running
    if stored is not None and (done := _finished_rollout(cluster, stored, plan)):
        return done
    state = initial_state(cluster, evaluator, plan, clock)
    state = state.with_event(clock.now(), "started", f"Release {plan.candidate} is tried beside {state.stable}.")
    try:
        cluster.save(state.to_json(), None if stored is None else stored.version)
    except ConflictError:
        raise RolloutError("Another rollout began a moment ago; see `pneumoserve rollout status`.") from None
    return state


def _finished_rollout(cluster: Cluster, stored: StoredText, plan: Plan) -> RolloutState | None:
    """The rollout that this plan asks for, where it is done already: a process may end after its last word."""
    state = RolloutState.of_json(stored.text)
    route = cluster.route()
    if route is None or state.plan != plan or state.outcome != "promoted":
        return None
    return state if route.weights == state.weights else None


def initial_state(cluster: Cluster, evaluator: Evaluator, plan: Plan, clock: Clock) -> RolloutState:
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
    evaluator.check_plan(plan, stable)
    return RolloutState(
        rollout=uuid7(),
        plan=plan,
        stable=stable,
        earlier_annotation=route.stable,
        pods=max(1, running.wanted),
        since=time_text(clock.now()),
    )


def request_abort(cluster: Cluster, reason: str, by: str) -> RolloutState:
    """Write down that the rollout under way is to be given up; who runs it sees that at its next poll.

    Raises:
        RolloutError: none is under way.
    """
    request = AbortRequest(kind="abort", reason=reason, by=by)
    return _change(cluster, lambda state: state.model_copy(update={"abort_request": request}))


def approve(cluster: Cluster, clock: Clock, by: str) -> RolloutState:
    """Let the step that waits for approval pass. No gate is skipped by it.

    Raises:
        RolloutError: nothing waits for approval.
    """

    def approve_step(state: RolloutState) -> RolloutState:
        if state.plan.approval != "manual":
            raise RolloutError("The plan approves its steps by itself; see `pneumoserve rollout status`.")
        if state.phase != "serving" or state.approved > state.step or state.waits_for != WAITS_FOR_APPROVAL:
            raise RolloutError(
                f"No step waits for approval: the rollout is {_describe_phase(state)}; "
                "see `pneumoserve rollout status`."
            )
        sentence = f"{by} approved the step at {state.percent} %."
        return state.model_copy(update={"approved": state.step + 1}).with_event(clock.now(), "approved", sentence)

    return _change(cluster, approve_step)


def _describe_phase(state: RolloutState) -> str:
    """Where a rollout is, for people."""
    match state.phase:
        case "scaling" | "serving":
            return f"at step {state.step + 1} of {len(state.plan.steps)}, {state.percent} %"
        case "window":
            return "promoted, with the earlier release kept"
        case _:
            return state.phase


def _change(cluster: Cluster, change: Callable[[RolloutState], RolloutState]) -> RolloutState:
    while True:
        stored = cluster.load()
        state = active_rollout(stored)
        if stored is None or state is None:
            raise RolloutError("No rollout is under way; start one with `pneumoserve rollout start --plan FILE`.")
        wanted = change(state)
        try:
            cluster.save(wanted.to_json(), stored.version)
        except ConflictError:
            continue
        return wanted


def _under_way_error(running: RolloutState) -> RolloutError:
    return RolloutError(
        f"A rollout of release {running.candidate} is under way, {_describe_phase(running)}; wait for it, or end it "
        "with `pneumoserve rollout abort --reason …`."
    )
