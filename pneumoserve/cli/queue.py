"""`queue`: what people are asked to read."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, print_json

if TYPE_CHECKING:
    from pneumoserve.review import Waiting


@app.command(epilog="Example: pneumoserve queue --films reading/   then   pneumoserve label --from reading/labels.csv")
def queue(
    films: Annotated[
        Path | None,
        typer.Option(help="New folder for the films, and for labels.csv, to be filled in for `label --from`."),
    ] = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List the studies that wait to be read, flagged ones first, then by when they are due."""
    from datetime import UTC, datetime

    from pneumoserve.cli.reviews import review_of
    from pneumoserve.records import write_reading_folder
    from pneumoserve.review import list_waiting

    with review_of(state, database, archive_trust, sealer_trust) as review:
        waiting = list_waiting(review.database, datetime.now(UTC))
        free = [each.prediction_ids for each in waiting if not each.claimed]
        try:
            gone = [] if films is None else write_reading_folder(review.reader, free, films)
        except FileExistsError:
            raise Failure(f"{films} is there already; name a new folder.", 2) from None
    if as_json:
        print_json([asdict(each) for each in waiting])
    else:
        _show(waiting, films)
    if gone:
        raise Failure(f"The store no longer has the films of {', '.join(gone)}; they are not in labels.csv either.", 1)


def _show(waiting: Sequence[Waiting], films: Path | None) -> None:
    from pneumoserve.records import READING_SHEET

    if not waiting:
        console.print("nothing is asked to be read")
        return
    table = Table("", "study", "images", "")
    for number, each in enumerate(waiting, 1):
        claimed = "somebody reads it" if each.claimed else ""
        table.add_row(str(number), each.prediction_ids[0], str(len(each.prediction_ids)), claimed)
    console.print(table)
    if films is None:
        console.print("with --films FOLDER you get the films; `pneumoserve label` takes what was read")
    else:
        console.print(
            f"fill in {films / READING_SHEET}, then: pneumoserve label --from {films / READING_SHEET}", soft_wrap=True
        )
