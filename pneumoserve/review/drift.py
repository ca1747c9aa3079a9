"""The drift of each release and source, by what `pneumoserve drift` has put on record."""

from __future__ import annotations

from dataclasses import dataclass

from pneumoserve.records import Baseline, DriftWindow
from pneumoserve.review.database import ReviewDatabase

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
    baselines: dict[_Place, Baseline] = {}
    windows: dict[str, dict[str, DriftWindow]] = {}
    for entry in database.list_said("baseline", "drift"):
        if isinstance(entry, Baseline):
            baselines[entry.release, entry.site or "", entry.source] = entry
        elif isinstance(entry, DriftWindow):
            # Two runs at once both put a window on record: the first counts.
            windows.setdefault(entry.baseline_id, {}).setdefault(entry.first, entry)
    return [
        WatchedSource(baseline, tuple(of for _, of in sorted(windows.get(baseline.baseline_id, {}).items())))
        for _, baseline in sorted(baselines.items())
    ]
