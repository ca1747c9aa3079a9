"""Following the archive while calls come in: the records of one release since a moment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from pneumoserve.ids import time_text
from pneumoserve.ledger import Reader, Segment
from pneumoserve.records import Record, parse_entry


class Tail:
    """The records of one release since a moment; each look reads what is new."""

    def __init__(self, reader: Reader, release: str, since: datetime) -> None:
        self._first = time_text(since.astimezone(UTC))
        self._follower = reader.follow(release, since)
        self._records: list[Record] = []

    def read(self) -> list[Record]:
        """All of them so far.

        Raises:
            StoreError: the store does not answer; the next look reads what this one did not.
            ValueError: an entry is of a form that this version does not read.
        """
        for segments in self._follower.look():
            self._records += self._records_in(segments)
        return list(self._records)

    def _records_in(self, segments: Iterable[Segment]) -> list[Record]:
        entries = (parse_entry(line) for segment in segments for line in segment.lines)
        return [entry for entry in entries if isinstance(entry, Record) and entry.time >= self._first]
