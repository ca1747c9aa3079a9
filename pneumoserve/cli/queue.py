"""`queue`: what a human is asked to read."""
# ruff: noqa: PLC0415

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from pneumoserve.cli.app import DEFAULT_STATE, StateFolder, app
from pneumoserve.cli.labels import COLUMNS
from pneumoserve.cli.output import AsJson, Failure, console, print_json, told

if TYPE_CHECKING:
    from pneumoserve.archive.reading import ReadingRequest
    from pneumoserve.archive.store import ObjectStore

_SHEET: Final = "labels.csv"
_ENDINGS: Final = {"jpeg": "jpeg", "png": "png", "dicom": "dcm"}


@app.command(epilog="Example: pneumoserve queue --films reading/   then   pneumoserve label --from reading/labels.csv")
def queue(
    days: Annotated[int, typer.Option(min=1, help="How many days back a request may have been made.")] = 30,
    films: Annotated[
        Path | None,
        typer.Option(help=f"New folder for the films, and for {_SHEET}, to be filled in for `label --from`."),
    ] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List the predictions whose films a radiologist is asked to read, without what the models said of them."""
    from datetime import UTC, datetime, timedelta

    from pneumoserve.archive.reading import open_requests
    from pneumoserve.cli.stores import store_of

    with told(), store_of(state) as store:
        requests = open_requests(store, datetime.now(UTC) - timedelta(days=days))
        gone = _write(store, requests, films) if films is not None else []
    if as_json:
        print_json([request.model_dump(mode="json", by_alias=True) for request in requests])
    else:
        _show(requests, films)
    if gone:
        raise Failure(f"The store no longer has the films of {', '.join(gone)}; they are not in {_SHEET} either.", 1)


def _show(requests: Sequence[ReadingRequest], films: Path | None) -> None:
    if not requests:
        console.print("nothing is asked to be read")
        return
    table = Table("prediction", "asked at", "because", "by rollout")
    for each in requests:
        table.add_row(each.prediction_id, each.time, each.reason, each.rollout_id)
    console.print(table)
    if films is None:
        console.print("with --films FOLDER you get the films; `pneumoserve label` takes what was read")
    else:
        console.print(f"fill in {films / _SHEET}, then: pneumoserve label --from {films / _SHEET}", soft_wrap=True)


def _write(store: ObjectStore, requests: Sequence[ReadingRequest], folder: Path) -> list[str]:
    """Write the films that the store has, and a sheet of their predictions; the predictions that it has no film of."""
    from pneumoserve.archive.find import find_records
    from pneumoserve.archive.store import NotFoundError

    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        # A sheet that somebody has begun to fill in is never written over.
        raise Failure(f"{folder} is there already; name a new folder.", 2) from None
    records = find_records(store, [request.prediction_id for request in requests])
    gone = []
    with (folder / _SHEET).open("x", encoding="utf-8", newline="") as text:
        sheet = csv.DictWriter(text, COLUMNS, restval="")
        sheet.writeheader()
        for request in requests:
            record = records.get(request.prediction_id)
            image = None if record is None else record.image
            try:
                film = None if image is None else store.get(image.stored_key)
            except NotFoundError:
                film = None
            if image is None or film is None:
                gone.append(request.prediction_id)
                continue
            (folder / f"{request.prediction_id}.{_ENDINGS[image.format]}").write_bytes(film)
            sheet.writerow({"prediction_id": request.prediction_id, "source": "radiologist"})
    return gone
