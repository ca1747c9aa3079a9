"""Labels as people state them: one by one, or many in a CSV file; checked before any is on record."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumoserve.errors import PneumoserveError
from pneumoserve.ids import time_of, uuid7
from pneumoserve.ledger import Reader, now_text
from pneumoserve.records.find import find_records
from pneumoserve.records.label import LABEL_COLUMNS, LABEL_FINDINGS, LABEL_SOURCES, LABEL_TYPES, Label

NO_RECORD: Final = "The archive has no such record; check the id, and that this is the archive it was made in."
_AUTHOR: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class LabelError(PneumoserveError):
    """Labels of predictions that cannot have any; the text names each place."""


class LabelFormatError(LabelError):
    """Labels that are stated wrongly; the text names each place, and repeats nothing of what was typed."""

    exit_code = 2


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
        checks = (
            (self.source in LABEL_SOURCES, f"The source is one of {', '.join(LABEL_SOURCES)}."),
            (self.finding in LABEL_FINDINGS, f"The finding is one of {', '.join(LABEL_FINDINGS)}."),
            (self.pneumonia_type in {"", *LABEL_TYPES}, f"The type is {' or '.join(LABEL_TYPES)}, or is not given."),
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
        return next((sentence for holds, sentence in checks if not holds), None)


def read_statements(file: Path) -> dict[str, Statement]:
    """The statements of a CSV file, by `line N: `.

    Raises:
        LabelFormatError: it is no such file.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            if sorted(reader.fieldnames or ()) != sorted(LABEL_COLUMNS):
                raise LabelFormatError(
                    f"The first line of the file names the columns {','.join(LABEL_COLUMNS)}; correct it."
                )
            rows = {f"line {reader.line_num}: ": row for row in reader}
    except FileNotFoundError:
        raise LabelFormatError(f"There is no file {file.name}; give the one to read labels from.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelFormatError(f"The file cannot be read as CSV in UTF-8 ({type(error).__name__}).") from None
    if not rows:
        raise LabelFormatError("The file has no labels, only its first line.")
    # A line that is too short has None, one that is too long a list under None.
    uneven = {where: "It has too few or too many fields." for where, row in rows.items() if _is_uneven(row)}
    _refuse(uneven, LabelFormatError)
    return {where: Statement(**{name: row[name].strip() for name in LABEL_COLUMNS}) for where, row in rows.items()}


def _is_uneven(row: Mapping[str | None, object]) -> bool:
    return None in row or None in row.values()


def check_statements(statements: Mapping[str, Statement]) -> None:
    """See that statements, by the places where they stand, are what a label may say.

    Raises:
        LabelFormatError: one is not.
    """
    problems = {where: problem for where, each in statements.items() if (problem := each.problem)}
    _refuse(problems, LabelFormatError)


def make_labels(reader: Reader, statements: Mapping[str, Statement]) -> list[Label]:
    """The labels of checked statements; those of one release stand together, so that they share segments.

    Raises:
        LabelError: the archive has no prediction that one is of.
        StoreError: the store does not answer.
    """
    records = find_records(reader, {each.prediction_id for each in statements.values()})
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
            labels.append(_make_label(each, record.release))
    _refuse(problems, LabelError)
    return sorted(labels, key=lambda made: (made.time[:10], made.release))


def _make_label(statement: Statement, release: str) -> Label:
    return Label.model_validate(
        {
            "label_id": uuid7(),
            "prediction_id": statement.prediction_id,
            "time": now_text(),
            "release": release,
            "source": statement.source,
            "author": statement.author,
            "finding": None if statement.finding == "unknown" else statement.finding,
            "pneumonia_type": statement.pneumonia_type or None,
        }
    )


def _refuse(problems: Mapping[str, str], kind: type[LabelError]) -> None:
    """Raise where there are problems, and name each place."""
    if problems:
        note = "" if "" in problems else "\nNothing was written; correct the file."
        raise kind("\n".join(where + problem for where, problem in problems.items()) + note)
