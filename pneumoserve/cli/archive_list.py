"""`archive list`: what is on record, page by page."""
# ruff: noqa: PLC0415

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer
from rich.table import Table

from pneumoserve.cli.app import archive
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder
from pneumoserve.cli.output import Failure, console

if TYPE_CHECKING:
    from pneumoserve.records import Record


@archive.command("list", epilog="Example: pneumoserve archive list --day 2026-11-30 --referred --limit 50")
def list_records(  # noqa: PLR0913, PLR0917 - each is an option of the command
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only of this day (UTC).")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day (UTC).")] = None,
    release: Annotated[str | None, typer.Option(metavar="ID", help="Only of this release.")] = None,
    finding: Annotated[
        Literal["normal", "pneumonia", "none"] | None, typer.Option(help="Only of this finding; none: none is stated.")
    ] = None,
    referred: Annotated[
        bool | None, typer.Option("--referred/--not-referred", help="Only what was or was not.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only what was referred for this reason.")] = None,
    kind: Annotated[
        Literal["prediction", "refusal", "failure"], typer.Option(help="Calls with an answer, or those without.")
    ] = "prediction",
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after the last one of a page.")] = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one record a line as JSON, for machines.")] = False,
) -> None:
    """List what was asked and answered, the newest first. Only what trusted keys signed is listed."""
    from pneumoserve.cli.stores import reader_of, record_of, store_of
    from pneumoserve.records import Selection, browse

    selection = Selection(kind, *_days(day, since, until), _release(release), finding, referred, _reason(reason))
    with store_of(state) as store:
        reader = reader_of(store, state, archive_trust, sealer_trust)
        last = None if after is None else record_of(reader, after)
        # One more says whether there is another page.
        found = browse(reader, selection, limit + 1, last)
    if as_json:
        for record in found[:limit]:
            typer.echo(record.model_dump_json(by_alias=True))
        return
    _show(found[:limit])
    if len(found) > limit:
        console.print(f"there are more: add --after {found[limit - 1].prediction_id}", soft_wrap=True)


def _days(day: datetime | None, since: datetime | None, until: datetime | None) -> tuple[date | None, date | None]:
    if day is not None and (since or until):
        raise Failure("Give either --day, or --since and --until.", 2)
    if since and until and since > until:
        raise Failure("--since is a day after --until; exchange them.", 2)
    first, last = day or since, day or until
    return first.date() if first else None, last.date() if last else None


def _release(text: str | None) -> str | None:
    if text is not None and not re.fullmatch("[0-9a-f]{12}", text):
        raise Failure("--release is the id of a release, 12 hex digits, as an answer states it.", 2)
    return text


def _reason(text: str | None) -> str | None:
    from pneumoserve.decision import Reason

    if text is not None and text not in get_args(Reason):
        raise Failure(f"--reason is one of {', '.join(get_args(Reason))}.", 2)
    return text


def _show(records: Sequence[Record]) -> None:
    if not records:
        console.print("the archive has no such record")
        return
    # An id is 36 characters wide: with each record on several lines all of it fits into 80 columns.
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("time (UTC), id", "answer, confidence", "release, referred", style="bold")
    for record in records:
        moment = f"{record.time[:10]} {record.time[11:19]}{' in shadow' if record.arm == 'shadow' else ''}"
        table.add_row(f"{moment}\n{record.prediction_id}", _answer(record), "\n".join(_referral(record)))
    console.print(table)


def _answer(record: Record) -> str:
    from pneumoserve.cli.words import describe_outcome, read_decision
    from pneumoserve.local.answers import describe_confidence

    decision = read_decision(record)
    lines = describe_outcome(record).replace("; ", ", ").split(", ")
    if decision is not None:
        lines.append(describe_confidence(decision))
    return "\n".join(line for line in lines if line)


def _referral(record: Record) -> tuple[str, ...]:
    if record.decision is None:
        return (record.release,)
    return (record.release, *(record.decision.reasons if record.decision.referred else ("not referred",)))
