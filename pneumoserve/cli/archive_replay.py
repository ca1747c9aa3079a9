"""`archive replay`: what recorded calls would be answered now."""
# ruff: noqa: PLC0415

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pneumoserve.cli.app import archive
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder, Trust
from pneumoserve.cli.output import AsJson, Failure, console, mark, needs, print_json, show_progress

if TYPE_CHECKING:
    from pneumoserve.ledger import Reader
    from pneumoserve.local.state import State
    from pneumoserve.release import Release
    from pneumoserve.replay import Compared, Report
    from pneumoserve.store import Store

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
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Put recorded films through a release once more, in this process.

    Its own predictions must come out as recorded: bit for bit within an execution profile, else within a tolerance;
    1 if one does not, or if a record's image is missing or not what it was. Of other releases it shows what changed.
    """
    from pneumoserve.cli.stores import reader_of, store_of
    from pneumoserve.local.state import State

    moment = _moment(since)
    with store_of(state) as store, tempfile.TemporaryDirectory(prefix="pneumoserve-release-") as temporary:
        found = _find_release(State(state), release, trust, store, Path(temporary))
        reader = reader_of(store, state, archive_trust, sealer_trust)
        report, seconds = replay_records(reader, found, moment, of, sample, seed)
    show_report(report, seconds, as_json, {})
    if not report.predictions:
        raise Failure("Nothing was replayed: the archive has no such prediction; check --of and --since.", 1)
    if not report.ok:
        raise typer.Exit(1)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(f"{text} is no date; give one such as 2026-11-01 or 2026-11-01T06:30:00Z.", 2) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _find_release(state: State, wanted: str | None, trust: Path | None, store: Store, out: Path) -> Release:
    """The release to replay through, verified; fetched into `out` where it is only in the store."""
    from pneumoserve.local.stack import find_release, release_folder
    from pneumoserve.release import verify
    from pneumoserve.release.fetch import fetch
    from pneumoserve.release.verify import stated_id

    trusted = trust or state.trust
    announced = state.running()
    if wanted is not None:
        folder = release_folder(state, wanted)
        if folder is None:
            return fetch(store, wanted, out, trusted)
        return verify(folder.resolve(), trusted, stated_id(folder))
    if announced is not None:
        return verify(Path(announced["release_folder"]), trusted)
    state.make()
    return find_release(state, None)


def replay_records(
    reader: Reader, release: Release, since: datetime | None, of: str | None, sample: int | None, seed: int
) -> tuple[Report, float]:
    """The report, and how long its predictions took in seconds."""
    from pneumoserve.models.inprocess import load_scorers
    from pneumoserve.replay import replay as run
    from pneumoserve.replay import select_predictions

    missing = (
        "Replay runs the models in this process ({} is missing); install pneumoserve[models], in a checkout by "
        "`make install`."
    )
    with needs(missing), load_scorers(release) as scorers:
        records = select_predictions(reader, since, of, sample, seed)
        total = {"predictions": len(records)} if isinstance(records, list) else {}
        started = time.perf_counter()
        with show_progress(**total) as progress:
            report = run(reader.store, release, scorers, records, progress)
        return report, time.perf_counter() - started


def show_report(report: Report, seconds: float, as_json: bool, more: dict[str, object]) -> None:
    """Show a report, `more` beside it in JSON."""
    from pneumoserve.replay import QUANTILES, TOLERANCE

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
        console.print(mark("  mismatch", "red", f" {mismatch.prediction_id}: {', '.join(mismatch.differs)} differ"))
    for bad in report.bad_evidence:
        console.print(mark("  bad evidence", "red", f" {bad.prediction_id}: {bad.fault}"))
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
