"""`label`: putting on record what became known of a prediction."""
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, print_json
from pneumoserve.records import LABEL_COLUMNS, LABEL_FINDINGS, LABEL_SOURCES, LABEL_TYPES


@app.command(
    epilog="Example: pneumoserve label 01890a5d-ac96-774b-bcce-b302099a8057 --source radiologist "
    "--finding pneumonia --type viral --author r.17"
)
def label(  # noqa: PLR0913, PLR0917 - each is an option of the command
    prediction_id: Annotated[str | None, typer.Argument(help="The id an answer came with.")] = None,
    source: Annotated[str, typer.Option(help=f"How it became known: {', '.join(LABEL_SOURCES)}.")] = "",
    finding: Annotated[str, typer.Option(help=f"What it was: {', '.join(LABEL_FINDINGS)}.")] = "",
    pneumonia_type: Annotated[str, typer.Option("--type", help=f"{' or '.join(LABEL_TYPES)}, of pneumonia.")] = "",
    author: Annotated[
        str, typer.Option(help="Who says so: a staff id or role. It is kept as it is: never name a patient.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--from", help=f"CSV of many instead, with the columns {', '.join(LABEL_COLUMNS)}.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign with; default: the state's.")] = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Put on record what a prediction's film or patient turned out to be. Labels add up; none is ever changed."""
    from pneumoserve.cli.stores import reader_of, signing_key_of, store_of
    from pneumoserve.records import Statement, append, check_statements, make_labels, read_statements

    if (prediction_id is None) == (file is None):
        raise Failure("Give the id of one prediction, or --from FILE.csv for many.", 2)
    if file is None:
        statements = {"": Statement(prediction_id or "", source, finding, pneumonia_type, author)}
    else:
        statements = read_statements(file)
    check_statements(statements)
    with store_of(state) as store:
        signing = signing_key_of(state, key)
        labels = make_labels(reader_of(store, state, archive_trust, sealer_trust), statements)
        receipts = append(store, signing, labels, "label")
    if as_json:
        print_json(
            [
                {"label": made.model_dump(mode="json", by_alias=True), "receipt": receipt.model_dump(mode="json")}
                for made, receipt in zip(labels, receipts, strict=True)
            ]
        )
        return
    for made, receipt in zip(labels, receipts, strict=True):
        where = f"segment {receipt.sequence} of {receipt.writer}"
        console.print(f"label {made.label_id} of {made.prediction_id} is on record in {where}")
