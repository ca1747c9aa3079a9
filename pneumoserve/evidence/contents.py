"""What evidence consists of: a period, and parts that have words, tables, pictures, and the same for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any


@dataclass(frozen=True)
class Period:
    """Days (UTC), both inclusive; without `since` from the beginning of the archive."""

    since: date | None
    until: date

    @property
    def end(self) -> datetime:
        """The moment after its last day."""
        return datetime.combine(self.until + timedelta(days=1), time(), UTC)

    def holds(self, moment: str) -> bool:
        """Whether a moment (RFC 3339, UTC) is in it."""
        return not self.is_before(moment) and not self.is_after(moment)

    def is_before(self, moment: str) -> bool:
        """Whether a moment is earlier."""
        return self.since is not None and moment[:10] < self.since.isoformat()

    def is_after(self, moment: str) -> bool:
        """Whether a moment is later."""
        return moment[:10] > self.until.isoformat()

    @property
    def words(self) -> str:
        """Both days."""
        return f"{'the beginning' if self.since is None else self.since.isoformat()} to {self.until.isoformat()} (UTC)"


@dataclass(frozen=True)
class Table:
    """Rows under a head; `empty` is what it says where there are none."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = "Nothing is on record."


@dataclass(frozen=True)
class Part:
    """A subject: `lines` and `tables` for people, `pictures` as SVG, `data` for machines.

    `name` is that of its file, `asks` says in a sentence what the part answers.
    """

    name: str
    title: str
    asks: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[str] = ()
    data: dict[str, Any] = field(default_factory=dict)
