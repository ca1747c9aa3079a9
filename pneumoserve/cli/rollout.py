"""`rollout`: trying a release beside the one that answers, on evidence and in steps."""
# ruff: noqa: PLC0415

from __future__ import annotations

import contextlib
import getpass
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

from pneumoserve.cli.app import DEFAULT_STATE, StateFolder, Trust, app
from pneumoserve.cli.output import AsJson, Failure, console, errors, print_json, told

if TYPE_CHECKING:
    from pneumoserve.rollout.engine import Clock
    from pneumoserve.rollout.judge import StoreJudge
    from pneumoserve.rollout.kubernetes import Install
    from pneumoserve.rollout.lease import Lease
    from pneumoserve.rollout.plan import Plan
    from pneumoserve.rollout.state import State

rollouts = typer.Typer(
    help="Try a release beside the one that answers, on evidence and in steps.", no_args_is_help=True
)
app.add_typer(rollouts, name="rollout")

Namespace = Annotated[str, typer.Option(help="Namespace that the chart is installed in.")]
HelmRelease = Annotated[str, typer.Option("--name", help="Name that the chart is installed under.")]
Key = Annotated[
    Path | None, typer.Option(help="Private key (PEM) to sign the rollout's records with; default: the state's.")
]
By = Annotated[str | None, typer.Option(help="Who asks, for the record; default: this machine's user.")]
_LOOK_SECONDS: Final = 2.0
_NONE: Final = "No rollout was ever started here; start one with `pneumoserve rollout start --plan FILE`."


@rollouts.command(epilog="Example: pneumoserve rollout start --plan plan.yaml --namespace pneumoserve")
def start(
    plan: Annotated[Path, typer.Option(help="The plan: a YAML file.")],
    namespace: Namespace = "default",
    name: HelmRelease = "pneumoserve",
    render: Annotated[
        bool, typer.Option("--render", help="Run the gates and print the first step's objects; change nothing.")
    ] = False,
    key: Key = None,
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Roll the plan's candidate out, and stay until it answers all calls or none.

    The same plan once more goes on with a rollout whose process was ended. 1 if the candidate was not promoted; 2 if
    the rollout cannot begin, and then nothing was changed.
    """
    from pneumoserve.rollout.engine import begin

    with _rollout_told():
        wanted = _plan(plan)
        with _cluster(namespace, name) as cluster, _judge(state, key, trust) as judge:
            if render:
                _render(cluster, judge, wanted)
                return
            with _led(cluster) as lease:
                begun = begin(cluster, judge, wanted, _clock())
                errors.print(
                    f"rollout {begun.rollout}: release {begun.candidate} beside {begun.stable}", soft_wrap=True
                )
                ended = _run(cluster, judge, lease)
    _say_end(ended)


@rollouts.command(epilog="Example: pneumoserve rollout status --namespace pneumoserve --watch")
def status(
    namespace: Namespace = "default",
    name: HelmRelease = "pneumoserve",
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show what changes, until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show where the rollout is, with the figures that decide. 1 if there never was one."""
    with _rollout_told(), _cluster(namespace, name) as cluster:
        if as_json:
            print_json(_document(cluster))
        elif watch:
            _watch(cluster)
        else:
            console.print(_tables(_document(cluster)))


@rollouts.command(epilog="Example: pneumoserve rollout promote --namespace pneumoserve")
def promote(namespace: Namespace = "default", name: HelmRelease = "pneumoserve", by: By = None) -> None:
    """Let the step that waits for approval pass, where the plan says `approval: manual`. No gate is skipped by it."""
    from pneumoserve.rollout.engine import approve

    with _rollout_told(), _cluster(namespace, name) as cluster:
        state = approve(cluster, _clock(), by or getpass.getuser())
    console.print(f"approved: the step at {state.percent} % passes")


@rollouts.command(epilog="Example: pneumoserve rollout abort --reason 'the wrong release' --namespace pneumoserve")
def abort(
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    namespace: Namespace = "default",
    name: HelmRelease = "pneumoserve",
    by: By = None,
    key: Key = None,
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Take all traffic off the candidate and remove it; the release from before answers alone.

    Who runs the rollout does that at its next poll; if nobody does any more, this command does it.
    """
    from pneumoserve.rollout.engine import ask_abort
    from pneumoserve.rollout.lease import Lease

    with _rollout_told(), _cluster(namespace, name) as cluster:
        asked = ask_abort(cluster, reason, by or getpass.getuser())
        lease = Lease(cluster, _holder())
        if lease.take():
            with _judge(state, key, trust) as judge, lease.kept():
                _run(cluster, judge, lease)
        else:
            _followed(cluster)
    console.print(f"rollout {asked.rollout} has ended: {asked.stable} answers alone")


# --- what a command works with


@contextlib.contextmanager
def _rollout_told() -> Iterator[None]:
    """Turn a rollout's errors, which have a sentence for people, into a `Failure`."""
    try:
        from pneumoserve.rollout.cluster import ClusterError, UnreachableError
        from pneumoserve.rollout.engine import LeaseLostError, RolloutError
        from pneumoserve.rollout.plan import PlanError

        with told():
            yield
    except ModuleNotFoundError as error:
        raise Failure(
            f"Rollouts need {error.name}, which is missing; install pneumoserve[rollout], in a checkout by "
            "`make install`.",
            2,
        ) from None
    except UnreachableError as error:
        raise Failure(f"The cluster does not answer ({error}); look whether its API server runs.", 1) from None
    except LeaseLostError as error:
        raise Failure(str(error), 1) from None
    except (ClusterError, RolloutError, PlanError) as error:
        raise Failure(str(error), 2) from None
    except KeyboardInterrupt:
        raise Failure(
            "Nobody runs the rollout now, and its weights stay; go on with the same `rollout start`, or end it with "
            "`rollout abort`.",
            1,
        ) from None


def _plan(path: Path) -> Plan:
    from pneumoserve.rollout.plan import load_plan

    return load_plan(path)


@contextlib.contextmanager
def _cluster(namespace: str, name: str) -> Iterator[Install]:
    from pneumoserve.rollout.knative import open_cluster

    cluster = open_cluster(namespace, name)
    try:
        yield cluster
    finally:
        cluster.close()


@contextlib.contextmanager
def _judge(state: Path, key: Path | None, trust: Path | None) -> Iterator[StoreJudge]:
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.state import State
    from pneumoserve.release.signing import load_key
    from pneumoserve.rollout.judge import StoreJudge

    where = State(state)
    if key is None or trust is None:
        where.make()
    signing = where.signing_key if key is None else load_key(key)
    with store_of(state) as store, tempfile.TemporaryDirectory(prefix="pneumoserve-rollout-") as folder:
        yield StoreJudge(store, signing, trust or where.trust, Path(folder))


def _clock() -> Clock:
    from pneumoserve.rollout.engine import SystemClock

    return SystemClock(threading.Event().wait)


def _holder() -> str:
    """A name that no other process has: pods may share a process id, machines a name."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"


@contextlib.contextmanager
def _led(cluster: Install) -> Iterator[Lease]:
    """The lease, for as long as the context lasts; a process that ends by SIGTERM gives it back."""
    from pneumoserve.rollout.lease import Lease

    lease = Lease(cluster, _holder())
    if not lease.take():
        view = cluster.lease()
        holder = "another process" if view is None else view.holder
        raise Failure(f"A rollout is run by {holder}; watch it with `pneumoserve rollout status --watch`.", 2)
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        with lease.kept():
            yield lease
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _run(cluster: Install, judge: StoreJudge, lease: Lease) -> State:
    from pneumoserve.rollout.engine import Engine

    clock = _clock()

    def tell(line: str) -> None:
        errors.print(f"{clock.now():%H:%M:%S} {line}", soft_wrap=True)

    return Engine(cluster, judge, clock, lease.held, tell).run()


def _followed(cluster: Install) -> None:
    """Wait until who runs the rollout has ended it."""
    from pneumoserve.rollout.engine import under_way

    clock = _clock()
    while under_way(cluster.load()) is not None:
        clock.wait(_LOOK_SECONDS)


def _render(cluster: Install, judge: StoreJudge, plan: Plan) -> None:
    import yaml

    from pneumoserve.rollout.engine import check_begin, pods_for

    state = check_begin(cluster, judge, plan, _clock())
    verdicts = judge.gates(state, lambda: None).verdicts
    if bad := [verdict.sentence for verdict in verdicts if verdict.outcome != "pass"]:
        raise Failure(f"Release {plan.candidate} may have no traffic: {' '.join(bad)}", 1)
    percent = plan.steps[0].percent
    weights = {state.stable: 100 - percent, plan.candidate: percent}
    objects = cluster.rendered(state.stable, plan.candidate, pods_for(state, percent), weights)
    console.print(f"# Release {plan.candidate} beside {state.stable}, which its plan's gates let pass.", soft_wrap=True)
    for step in plan.steps:
        pods = pods_for(state, step.percent)
        console.print(f"# weights {100 - step.percent} / {step.percent}: {pods} pod(s)", soft_wrap=True)
    console.out(yaml.safe_dump_all(objects, sort_keys=False, width=1000), end="")


# --- what is shown


def _document(cluster: Install) -> dict[str, Any]:
    """The state as it is, and beside it what the cluster has."""
    from pneumoserve.rollout.state import State

    stored = cluster.load()
    if stored is None:
        raise Failure(_NONE, 1)
    state = State.of_json(stored.text)
    route, lease = cluster.route(), cluster.lease()
    document = state.model_dump(mode="json", by_alias=True, exclude={"notes"})
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
    for verdict in document["verdicts"]:
        gates.add_row(verdict["gate"], verdict["outcome"], verdict["sentence"])
    calls = ", ".join(f"{count} of {release}" for release, count in document["calls"].items())
    run_by = document["run_by"] or ("nobody" if document["phase"] != "ended" else "nobody; it has ended")
    told = f"rollout {document['rollout']}; calls compared: {calls or 'none'}; run by {run_by}"
    return Group(where, gates, told)


def _watch(cluster: Install) -> None:
    clock = _clock()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            document = _document(cluster)
            live.update(_tables(document), refresh=True)
            if document["phase"] == "ended":
                return
            clock.wait(_LOOK_SECONDS)


def _say_end(state: State) -> None:
    if state.outcome != "promoted":
        raise Failure(f"Release {state.candidate} was not promoted ({state.outcome}): {state.reason}", 1)
    console.print(
        f"release {state.candidate} is promoted. Set release.id={state.candidate} with your next `helm upgrade`."
    )
