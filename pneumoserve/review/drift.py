"""The drift of each release and source, by what `pneumoserve drift` has put on record."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from pneumoserve.records import Baseline, DriftWindow, parse_entry
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.tables import facts

_Place = tuple[str, str, str]


@dataclass(frozen=True)
class WatchedSource:
    """A source beside its last baseline: the windows after it, the first first."""

    baseline: Baseline
    windows: tuple[DriftWindow, ...]


def list_watched(database: ReviewDatabase) -> list[WatchedSource]:
    """Every source that has a baseline, by release and name.

    Raises:
        DatabaseError: the database does not answer.
    """
    wanted = select(facts.c.body).where(facts.c.kind.in_(("baseline", "drift"))).order_by(facts.c.time)
    with database.read() as connection:
        said = [parse_entry(body.encode()) for body in connection.scalars(wanted)]
    baselines: dict[_Place, Baseline] = {}
    windows: dict[str, dict[str, DriftWindow]] = {}
    for entry in said:
        if isinstance(entry, Baseline):
            baselines[entry.release, entry.site or "", entry.source] = entry
        elif isinstance(entry, DriftWindow):
            # Two runs at once both put a window on record: the first counts.
            windows.setdefault(entry.baseline_id, {}).setdefault(entry.first, entry)
    return [
        WatchedSource(baseline, tuple(of for _, of in sorted(windows.get(baseline.baseline_id, {}).items())))
        for _, baseline in sorted(baselines.items())
    ]
