"""Browsing the archive: its records page by page, the newest first."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, get_args

import orjson

from pneumoserve.ledger import Reader, Segment
from pneumoserve.records.record import Record, RecordKind

_VERSIONS: Final = get_args(Record.model_fields["schema_"].annotation)
_SCHEMA: Final = re.compile("|".join(f'"schema":"{re.escape(each)}"' for each in _VERSIONS).encode())


@dataclass(frozen=True)
class Selection:
    """Which records are wanted; None of a field means any.

    Days are those of the records' times in UTC, both inclusive. `finding` "none" is that of answers that state none.
    """

    kind: RecordKind = "prediction"
    since: date | None = None
    until: date | None = None
    release: str | None = None
    finding: str | None = None
    referred: bool | None = None
    reason: str | None = None

    def holds(self, record: dict[str, Any]) -> bool:
        """Whether a record of the days and the release, as its line of JSON says it, is among them."""
        decision = record.get("decision") or {}
        return (
            record["kind"] == self.kind
            and self.finding in (None, decision.get("finding") or ("none" if decision else None))
            and self.referred in (None, decision.get("referred"))
            and (self.reason is None or self.reason in decision.get("reasons", ()))
        )


def browse(reader: Reader, selection: Selection, limit: int, after: Record | None = None) -> list[Record]:
    """The newest `limit` records of a selection; those that come after a record, where one is given.

    No more is read than the days on which they were made, and no more is held than a page.

    Raises:
        StoreError: the store does not answer.
    """
    until = selection.until
    if after is not None:
        made = date.fromisoformat(after.time[:10])
        until = made if until is None else min(made, until)
    # A segment without it, such as a label's, need not even be verified.
    kind = b'"kind":"%b"' % selection.kind.encode()
    found: list[Record] = []
    by_day = reader.by_day()
    for day in by_day.days(selection.since, until):
        segments = by_day.segments(day, selection.release, lambda body: kind in body)
        lines = (placed for segment in segments for placed in _select(segment, selection, after))
        found += [Record.model_validate_json(line) for *_, line in heapq.nlargest(limit - len(found), lines)]
        if len(found) == limit:
            break
    return found


def _select(segment: Segment, selection: Selection, after: Record | None) -> Iterator[tuple[str, str, bytes]]:
    """The lines of wanted records, each behind what it is sorted by: its time and its id."""
    last = None if after is None else (after.time, after.prediction_id)
    for line in segment.lines:
        # A record of another version is left out, as wherever records are looked for; that it is whole is signed.
        if _SCHEMA.search(line) and selection.holds(record := orjson.loads(line)):
            place = record["time"], record["prediction_id"]
            if last is None or place < last:
                yield *place, line
