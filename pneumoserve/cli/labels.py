"""`label`: putting on record what became known of a prediction."""
# ruff: noqa: PLC0415

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, get_args

import typer

from pneumoserve.archive.label import Label, Source
from pneumoserve.cli.app import DEFAULT_STATE, StateFolder, app
from pneumoserve.cli.output import AsJson, Failure, console, print_json, told
from pneumoserve.decision import Finding, PneumoniaType

if TYPE_CHECKING:
    from pneumoserve.archive.store import ObjectStore

_SOURCES: Final = get_args(Source)
_FINDINGS: Final = (*get_args(Finding), "unknown")
_TYPES: Final = get_args(PneumoniaType)
_AUTHOR: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
COLUMNS: Final = ("prediction_id", "source", "finding", "pneumonia_type", "author")


@dataclass(frozen=True)
class Statement:
    """A label as it was typed; `pneumonia_type` is empty where none is stated."""

    prediction_id: str
    source: str
    finding: str
    pneumonia_type: str
    author: str

    @property
    def problem(self) -> str | None:
        """What is wrong with it, None where nothing is. No text of it is repeated: it may hold anything."""
        from pneumoserve.ids import time_of

        checks = (
            (self.source in _SOURCES, f"The source is one of {', '.join(_SOURCES)}."),
            (self.finding in _FINDINGS, f"The finding is one of {', '.join(_FINDINGS)}."),
            (self.pneumonia_type in {"", *_TYPES}, f"The type is {' or '.join(_TYPES)}, or is not given."),
            (not self.pneumonia_type or self.finding == "pneumonia", "Only pneumonia has a type; leave it out."),
            (
                _AUTHOR.fullmatch(self.author) is not None,
                "The author is a staff id or role of up to 64 letters, digits and . _ @ -; it must not name a patient.",
            ),
        )
        try:
            time_of(self.prediction_id)
        except ValueError as error:
            return str(error)
        return next((said for holds, said in checks if not holds), None)


@app.command(
    epilog="Example: pneumoserve label 01890a5d-ac96-774b-bcce-b302099a8057 --source radiologist "
    "--finding pneumonia --type viral --author r.17"
)
def label(  # noqa: PLR0913, PLR0917 - each is an option of the command
    prediction_id: Annotated[str | None, typer.Argument(help="The id an answer came with.")] = None,
    source: Annotated[str, typer.Option(help=f"How it became known: {', '.join(_SOURCES)}.")] = "",
    finding: Annotated[str, typer.Option(help=f"What it was: {', '.join(_FINDINGS)}.")] = "",
    pneumonia_type: Annotated[str, typer.Option("--type", help=f"{' or '.join(_TYPES)}, of pneumonia.")] = "",
    author: Annotated[
        str, typer.Option(help="Who says so: a staff id or role. It is kept as it is: never name a patient.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--from", help=f"CSV of many instead, with the columns {', '.join(COLUMNS)}.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign with; default: the state's.")] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Put on record what a prediction's film or patient turned out to be. Labels add up; none is ever changed."""
    from pneumoserve.archive.append import append
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.state import State
    from pneumoserve.release.signing import load_key

    if (prediction_id is None) == (file is None):
        raise Failure("Give the id of one prediction, or --from FILE.csv for many.", 2)
    with told():
        if file is None:
            statements = {"": Statement(prediction_id or "", source, finding, pneumonia_type, author)}
        else:
            statements = _read(file)
        _refuse({where: problem for where, each in statements.items() if (problem := each.problem)}, 2)
        with store_of(state) as store:
            # The state has its keys once its store has run.
            signing = State(state).archive_key if key is None else load_key(key)
            labels = _labels(store, statements)
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


def _read(file: Path) -> dict[str, Statement]:
    """The statements of a CSV file, by `line N: `."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            if sorted(reader.fieldnames or ()) != sorted(COLUMNS):
                raise Failure(f"The first line of the file names the columns {','.join(COLUMNS)}; correct it.", 2)
            rows = {f"line {reader.line_num}: ": row for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Failure(f"The file cannot be read as CSV in UTF-8 ({type(error).__name__}).", 2) from None
    if not rows:
        raise Failure("The file has no labels, only its first line.", 2)
    # A line that is too short has None, one that is too long a list under None.
    _refuse({where: "It has too few or too many fields." for where, row in rows.items() if _uneven(row)}, 2)
    return {where: Statement(**{name: row[name].strip() for name in COLUMNS}) for where, row in rows.items()}


def _uneven(row: Mapping[str | None, object]) -> bool:
    return None in row or None in row.values()


def _labels(store: ObjectStore, statements: dict[str, Statement]) -> list[Label]:
    """The labels, those of one release together, so that they share segments."""
    from pneumoserve.archive.chain import now_text
    from pneumoserve.archive.find import find_records
    from pneumoserve.cli.stores import NO_RECORD
    from pneumoserve.ids import uuid7

    records = find_records(store, {each.prediction_id for each in statements.values()})
    problems: dict[str, str] = {}
    labels: list[Label] = []
    for where, each in statements.items():
        record = records.get(each.prediction_id)
        if record is None:
            problems[where] = NO_RECORD
        elif record.kind != "prediction":
            problems[where] = (
                f"That call got no prediction (it is on record as a {record.kind}): there is nothing to label."
            )
        else:
            statement = {
                "label_id": uuid7(),
                "time": now_text(),
                "release": record.release,
                "finding": None if each.finding == "unknown" else each.finding,
                "pneumonia_type": each.pneumonia_type or None,
            }
            labels.append(
                Label.model_validate(
                    {"prediction_id": each.prediction_id, "source": each.source, "author": each.author, **statement}
                )
            )
    _refuse(problems, 1)
    return sorted(labels, key=lambda made: (made.time[:10], made.release))


def _refuse(problems: dict[str, str], code: int) -> None:
    """End where there are problems, and name each place."""
    if problems:
        note = "" if "" in problems else "\nNothing was written; correct the file."
        raise Failure("\n".join(where + problem for where, problem in problems.items()) + note, code)
