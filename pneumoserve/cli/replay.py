"""`archive replay` and `release redeploy`."""
# ruff: noqa: PLC0415

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pneumoserve.cli.app import DEFAULT_STATE, StateFolder, Trust, archive, releases
from pneumoserve.cli.output import AsJson, Failure, console, errors, print_json, told

if TYPE_CHECKING:
    from pneumoserve.archive.replay import Compared, Report
    from pneumoserve.archive.store import ObjectStore
    from pneumoserve.local.state import State
    from pneumoserve.release import Release

_SHOWN_IDS = 5


@archive.command(epilog="Example: pneumoserve archive replay --release 0123456789ab --since 2026-11-01 --sample 1000")
def replay(  # noqa: PLR0913, PLR0917 - each is an option of the command
    release: Annotated[
        str | None,
        typer.Option(help="Id or folder of the release to replay through; default: the one that `serve` serves."),
    ] = None,
    of: Annotated[str | None, typer.Option(help="Take only predictions that the release of this id made.")] = None,
    since: Annotated[str | None, typer.Option(help="Take those from this date, or RFC 3339 moment, on (UTC).")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Take so many at random; default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Put recorded films through a release once more, in this process.

    Its own predictions must come out as recorded: bit for bit within an execution profile, else within a tolerance;
    1 if one does not, or if a record's image is missing or not what it was. Of other releases it tells what changed.
    """
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.state import State

    moment = _moment(since)
    with told(), store_of(state) as store, tempfile.TemporaryDirectory(prefix="pneumoserve-release-") as temporary:
        found = _wanted(State(state), release, trust, store, Path(temporary))
        report, seconds = _replayed(store, found, moment, of, sample, seed)
    _show(report, seconds, as_json, {})
    if not report.predictions:
        raise Failure("Nothing was replayed: the archive has no such prediction; check --of and --since.", 1)
    if not report.ok:
        raise typer.Exit(1)


@releases.command(epilog="Example: pneumoserve release redeploy 0123456789ab")
def redeploy(
    release: Annotated[str, typer.Argument(help="Id of a release, in the state folder or in the store.")],
    sample: Annotated[int, typer.Option(min=1, help="How many of its recorded predictions to replay.")] = 50,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Let the local stack serve an earlier release, and replay a sample of its own recorded predictions.

    Calls are refused for the seconds it takes. 1 if the release does not start (what was served before goes on), or
    does not answer as it did.
    """
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.redeploy import RedeployError
    from pneumoserve.local.redeploy import redeploy as go_over
    from pneumoserve.local.state import State

    where = State(state)
    with told(), store_of(state) as store:
        where.make()
        found = _of_id(where, release, store)
        try:
            with errors.status(f"release {found.id} takes over"):
                running = go_over(where, found)
        except RedeployError as error:
            raise Failure(str(error), 1) from None
        report, seconds = _replayed(store, found, None, found.id, sample, 0)
    if not as_json:
        served = "the stack serves it" if running else "no stack runs; the next `pneumoserve serve` serves it"
        console.print(f"release {found.id} is deployed: {served}")
    _show(report, seconds, as_json, {"running": running})
    if not report.predictions:
        raise Failure("It has no prediction on record, so nothing shows that it answers as it did.", 1)
    if not report.ok:
        raise typer.Exit(1)
    if not as_json:
        console.print(f"release {found.id} answers as it did")


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(f"{text} is no date; give one such as 2026-11-01 or 2026-11-01T06:30:00Z.", 2) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _wanted(state: State, wanted: str | None, trust: Path | None, store: ObjectStore, out: Path) -> Release:
    """The release to replay through, verified; fetched into `out` where it is only in the store."""
    from pneumoserve.local.stack import find_release, release_folder
    from pneumoserve.release import verify
    from pneumoserve.release.fetch import fetch

    trusted = trust or state.trust
    announced = state.running()
    if wanted is not None:
        folder = release_folder(state, wanted)
        return fetch(store, wanted, out, trusted) if folder is None else verify(folder.resolve(), trusted)
    if announced is not None:
        return verify(Path(announced["release_folder"]), trusted)
    state.make()
    return find_release(state, None)


def _of_id(state: State, release_id: str, store: ObjectStore) -> Release:
    """A release of the state folder, where it is put if only the store has it."""
    from pneumoserve.release import ReleaseError, verify
    from pneumoserve.release.fetch import fetch

    folder = state.releases / release_id
    if not (folder / "release.json").is_file():
        return fetch(store, release_id, state.releases, state.trust)
    found = verify(folder.resolve(), state.trust)
    if found.id != release_id:
        raise ReleaseError("altered", f"The state's releases/{release_id} holds {found.id}; remove it.")
    return found


def _replayed(
    store: ObjectStore, release: Release, since: datetime | None, of: str | None, sample: int | None, seed: int
) -> tuple[Report, float]:
    """The report, and how long its predictions took in seconds."""
    from pneumoserve.archive.replay import ReplayError, recorded
    from pneumoserve.archive.replay import replay as run
    from pneumoserve.models.inprocess import loaded

    try:
        with loaded(release) as scorers, _bar() as bar:
            records = recorded(store, since, of, sample, seed)
            total = len(records) if isinstance(records, list) else None
            task = bar.add_task(f"replaying through {release.id}", total=total)
            started = time.perf_counter()
            report = run(store, release, scorers, records, lambda: bar.advance(task))
            return report, time.perf_counter() - started
    except ModuleNotFoundError as error:
        raise Failure(
            f"Replay runs the models in this process ({error.name} is missing); install pneumoserve[models], in a "
            "checkout by `make install`.",
            2,
        ) from None
    except ReplayError as error:
        raise Failure(str(error), 1) from None


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        yield bar


def _show(report: Report, seconds: float, as_json: bool, more: dict[str, object]) -> None:
    from pneumoserve.archive.replay import QUANTILES, TOLERANCE

    if as_json:
        document = {**more, **asdict(report), "ok": report.ok and report.predictions > 0, "tolerance": TOLERANCE}
        print_json({**document, "quantiles": QUANTILES, "seconds": round(seconds, 3)})
        return
    console.print(f"{report.predictions} predictions through release {report.release} in {seconds:.1f} s")
    repeated = report.repeated
    if own := repeated.bit_for_bit + repeated.by_tolerance + len(repeated.mismatches):
        largest = f" (by at most {repeated.largest_difference:.1e})" if repeated.largest_difference else ""
        console.print(
            f"  {own} are its own: {repeated.bit_for_bit} equal bit for bit, {repeated.by_tolerance} within "
            f"{TOLERANCE:g}{largest}, {len(repeated.mismatches)} mismatches"
        )
    for mismatch in repeated.mismatches:
        console.print(f"  [red]mismatch[/red] {mismatch.prediction_id}: {', '.join(mismatch.differs)} differ")
    for bad in report.bad_evidence:
        console.print(f"  [red]bad evidence[/red] {bad.prediction_id}: {bad.fault}")
    for other in report.compared:
        _show_compared(other)


def _show_compared(other: Compared) -> None:
    console.print(
        f"  {other.predictions} are of release {other.release}: {other.agreeing} of {other.decisions} decisions agree"
    )
    changes = Table("change", "films", "prediction ids")
    for change, ids in other.changes.items():
        if ids:
            rest = f" and {len(ids) - _SHOWN_IDS} more (--json)" if len(ids) > _SHOWN_IDS else ""
            changes.add_row(change.replace("_", " "), str(len(ids)), "\n".join(ids[:_SHOWN_IDS]) + rest)
    if changes.row_count:
        console.print(changes)
    scores = Table("score", "films", "mean change", "largest", "5 %, 25 %, 50 %, 75 %, 95 %")
    for model, score in other.scores.items():
        quantiles = ", ".join(f"{value:+.4f}" for value in score.quantiles)
        scores.add_row(model, str(score.count), f"{score.mean:+.4f}", f"{score.largest:.4f}", quantiles)
    console.print(scores)
