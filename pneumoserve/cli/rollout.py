"""`rollout`: trying a release beside the one that answers, on evidence and in steps."""
# ruff: noqa: PLC0415

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder, Trust
from pneumoserve.cli.output import AsJson, Failure, console, errors, needs, print_json
from pneumoserve.logs import log_event, set_up_logs, wants_json

if TYPE_CHECKING:
    from pneumoserve.rollout import Clock, Install, Lease, Plan, RolloutState, StoreEvaluator

rollouts = typer.Typer(
    help="Try a release beside the one that answers, on evidence and in steps.", no_args_is_help=True
)
app.add_typer(rollouts, name="rollout")

Namespace = Annotated[str, typer.Option(help="Namespace that the chart is installed in.")]
HelmRelease = Annotated[
    str, typer.Option("--name", help="Name that the chart is installed under, or its fullnameOverride.")
]
Key = Annotated[
    Path | None, typer.Option(help="Private key (PEM) to sign the rollout's records with; default: the state's.")
]
By = Annotated[str | None, typer.Option(help="Who asks, for the record; default: this machine's user.")]
_LOOK_SECONDS: Final = 2.0
_NONE: Final = "No rollout was ever started here; start one with `pneumoserve rollout start --plan FILE`."


@rollouts.command(epilog="Example: pneumoserve rollout start --plan plan.yaml --namespace pneumoserve")
def start(  # noqa: PLR0913, PLR0917 - each is an option of the command
    plan: Annotated[Path, typer.Option(help="The plan: a YAML file.")],
    namespace: Namespace = "default",
    name: HelmRelease = "pneumoserve",
    render: Annotated[
        bool, typer.Option("--render", help="Run the gates and print the first step's objects; change nothing.")
    ] = False,
    key: Key = None,
    trust: Trust = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Roll the plan's candidate out, and stay until it answers all calls or none.

    The same plan once more goes on with a rollout whose process was ended. 1 if the candidate was not promoted; 2 if
    the rollout cannot begin, and then nothing was changed.
    """
    with _explain_failures():
        from pneumoserve.rollout import begin

        wanted = _plan(plan)
        believed = (archive_trust, sealer_trust)
        with _cluster(namespace, name) as cluster, _evaluator(state, key, trust, believed) as evaluator:
            if render:
                _render(cluster, evaluator, wanted)
                return
            with _hold_lease(cluster) as lease:
                begun = begin(cluster, evaluator, wanted, _clock())
                errors.print(
                    f"rollout {begun.rollout}: release {begun.candidate} beside {begun.stable}", soft_wrap=True
                )
                ended = _run(cluster, evaluator, lease)
    _say_end(ended)


@rollouts.command(epilog="Example: pneumoserve rollout status --namespace pneumoserve --watch")
def status(
    namespace: Namespace = "default",
    name: HelmRelease = "pneumoserve",
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show what changes, until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show where the rollout is, with the figures that decide. 1 if there never was one."""
    with _explain_failures(), _cluster(namespace, name) as cluster:
        if as_json:
            print_json(_document(cluster))
        elif watch:
            _watch(cluster)
        else:
            console.print(_tables(_document(cluster)))


@rollouts.command(epilog="Example: pneumoserve rollout promote --namespace pneumoserve")
def promote(namespace: Namespace = "default", name: HelmRelease = "pneumoserve", by: By = None) -> None:
    """Let the step that waits for approval pass, where the plan says `approval: manual`. No gate is skipped by it."""
    with _explain_failures(), _cluster(namespace, name) as cluster:
        from pneumoserve.rollout import approve

        state = approve(cluster, _clock(), by or getpass.getuser())
    console.print(f"approved: the step at {state.percent} % passes")


@rollouts.command(epilog="Example: pneumoserve rollout abort --reason 'the wrong release' --namespace pneumoserve")
def abort(  # noqa: PLR0913, PLR0917 - each is an option of the command
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    namespace: Namespace = "default",
    name: HelmRelease = "pneumoserve",
    by: By = None,
    key: Key = None,
    trust: Trust = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Take all traffic off the candidate and remove it; the release from before answers alone.

    Who runs the rollout does that at its next poll; if nobody does any more, this command does it.
    """
    with _explain_failures(), _cluster(namespace, name) as cluster:
        from pneumoserve.rollout import Lease, request_abort

        asked = request_abort(cluster, reason, by or getpass.getuser())
        lease = Lease(cluster, _holder())
        if lease.take():
            with _evaluator(state, key, trust, (archive_trust, sealer_trust)) as evaluator, lease.keep():
                _run(cluster, evaluator, lease)
        else:
            _wait_for_the_end(cluster)
    console.print(f"rollout {asked.rollout} has ended: {asked.stable} answers alone")


# --- what a command works with


@contextlib.contextmanager
def _explain_failures() -> Iterator[None]:
    """Say what to do where packages are missing, the cluster does not answer, or a person interrupts."""
    missing = "Rollouts need {}, which is missing; install pneumoserve[rollout], in a checkout by `make install`."
    with needs(missing):
        from pneumoserve.rollout import UnreachableError
    try:
        with needs(missing):
            yield
    except UnreachableError as error:
        raise Failure(f"The cluster does not answer ({error}); look whether its API server runs.", 1) from None
    except KeyboardInterrupt:
        raise Failure(
            "Nobody runs the rollout now, and its weights stay; go on with the same `rollout start`, or end it with "
            "`rollout abort`.",
            1,
        ) from None


def _plan(path: Path) -> Plan:
    from pneumoserve.rollout import load_plan

    return load_plan(path)


@contextlib.contextmanager
def _cluster(namespace: str, name: str) -> Iterator[Install]:
    from pneumoserve.rollout import open_cluster

    cluster = open_cluster(namespace, name)
    try:
        yield cluster
    finally:
        cluster.close()


@contextlib.contextmanager
def _evaluator(
    state: Path, key: Path | None, trust: Path | None, believed: tuple[Path | None, Path | None]
) -> Iterator[StoreEvaluator]:
    """The evaluator; `believed` are the folders of the writers' and the sealers' public keys."""
    from pneumoserve.cli.stores import reader_of, store_of
    from pneumoserve.local.state import State
    from pneumoserve.rollout import StoreEvaluator
    from pneumoserve.signing import load_key

    where = State(state)
    if key is None or trust is None:
        where.make()
    signing = where.signing_key if key is None else load_key(key)
    with store_of(state) as store, tempfile.TemporaryDirectory(prefix="pneumoserve-rollout-") as folder:
        yield StoreEvaluator(reader_of(store, state, *believed), signing, trust or where.trust, Path(folder))


def _clock() -> Clock:
    from pneumoserve.rollout import SystemClock

    return SystemClock(threading.Event().wait)


def _holder() -> str:
    """A name that no other process has: pods may share a process id, machines a name."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"


@contextlib.contextmanager
def _hold_lease(cluster: Install) -> Iterator[Lease]:
    """The lease, for as long as the context lasts; a process that ends by SIGTERM gives it back."""
    from pneumoserve.rollout import Lease

    lease = Lease(cluster, _holder())
    if not lease.take():
        view = cluster.lease()
        holder = "another process" if view is None else view.holder
        raise Failure(f"A rollout is run by {holder}; watch it with `pneumoserve rollout status --watch`.", 2)
    before = signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        with lease.keep():
            yield lease
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _run(cluster: Install, evaluator: StoreEvaluator, lease: Lease) -> RolloutState:
    from pneumoserve.rollout import RolloutEngine

    clock = _clock()
    in_json = wants_json()
    if in_json:
        set_up_logs()

    def progress(line: str) -> None:
        if in_json:
            log_event(logging.getLogger("pneumoserve.rollout"), line)
        else:
            errors.print(f"{clock.now():%H:%M:%S} {line}", soft_wrap=True)

    return RolloutEngine(cluster, evaluator, clock, lease.is_held, progress).run()


def _wait_for_the_end(cluster: Install) -> None:
    """Wait until who runs the rollout has ended it."""
    from pneumoserve.rollout import active_rollout

    clock = _clock()
    while active_rollout(cluster.load()) is not None:
        clock.wait(_LOOK_SECONDS)


def _render(cluster: Install, evaluator: StoreEvaluator, plan: Plan) -> None:
    import yaml

    from pneumoserve.rollout import initial_state

    state = initial_state(cluster, evaluator, plan, _clock())
    results = evaluator.run_gates(state, lambda: None).results
    if bad := [result.sentence for result in results if result.outcome != "pass"]:
        raise Failure(f"Release {plan.candidate} may have no traffic: {' '.join(bad)}", 1)
    percent = plan.steps[0].percent
    weights = {state.stable: 100 - percent, plan.candidate: percent}
    objects = cluster.render_step(state.stable, plan.candidate, state.pods_for(percent), weights)
    console.print(f"# Release {plan.candidate} beside {state.stable}, which its plan's gates let pass.", soft_wrap=True)
    for step in plan.steps:
        pods = state.pods_for(step.percent)
        console.print(f"# weights {100 - step.percent} / {step.percent}: {pods} pod(s)", soft_wrap=True)
    console.out(yaml.safe_dump_all(objects, sort_keys=False, width=1000), end="")


# --- what is shown


def _document(cluster: Install) -> dict[str, Any]:
    """The state as it is, and beside it what the cluster has."""
    from pneumoserve.rollout import RolloutState

    stored = cluster.load()
    if stored is None:
        raise Failure(_NONE, 1)
    state = RolloutState.of_json(stored.text)
    route, lease = cluster.route(), cluster.lease()
    document = state.model_dump(mode="json", by_alias=True, exclude={"pending_events"})
    live = {} if route is None else {"weights": route.weights, "accepted": route.accepted}
    return {**document, "route": live, "run_by": "" if lease is None else lease.holder}


def _tables(document: dict[str, Any]) -> Group:
    where = Table("release", "beside", "phase", "route", "waits for")
    weights = ", ".join(f"{release}: {weight}" for release, weight in document["route"].get("weights", {}).items())
    plan = document["plan"]
    phase = document["phase"]
    if phase in {"scaling", "serving"}:
        phase = f"{phase}, step {document['step'] + 1} of {len(plan['steps'])}"
    if document["outcome"]:
        phase = f"{phase}: {document['outcome']}"
    waits = document["waits_for"] or document["reason"]
    where.add_row(plan["candidate"], document["stable"], phase, weights, waits)
    gates = Table("gate", "outcome", "figures")
    for result in document["verdicts"]:
        gates.add_row(result["gate"], result["outcome"], result["sentence"])
    calls = ", ".join(f"{count} of {release}" for release, count in document["calls"].items())
    run_by = document["run_by"] or ("nobody" if document["phase"] != "ended" else "nobody; it has ended")
    summary = f"rollout {document['rollout']}; calls compared: {calls or 'none'}; run by {run_by}"
    return Group(where, gates, summary)


def _watch(cluster: Install) -> None:
    clock = _clock()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            document = _document(cluster)
            live.update(_tables(document), refresh=True)
            if document["phase"] == "ended":
                return
            clock.wait(_LOOK_SECONDS)


def _say_end(state: RolloutState) -> None:
    if state.outcome != "promoted":
        raise Failure(f"Release {state.candidate} was not promoted ({state.outcome}): {state.reason}", 1)
    console.print(
        f"release {state.candidate} is promoted. Set release.id={state.candidate} with your next `helm upgrade`."
    )
