"""The studies of an export as drift compares them: the same as those of the archive, for more than it reads at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pneumoserve.decision import Policy, Scores, decide, logit_of
from pneumoserve.ids import time_text
from pneumoserve.imaging import Facts
from pneumoserve.ledger import Reader
from pneumoserve.monitoring.drift_watch import History, Source, Study, make_history
from pneumoserve.monitoring.exported import MEMORY, ask, make_asked_row, open_export, read_query
from pneumoserve.records import REVIEW_WRITERS, Entry, Scope, id_of, parse_entry, read_entries

# What was said since the export is read from a day before its last entry on.
_DAY: Final = timedelta(days=1)
_LAST: Final = (
    "SELECT max(unix_millis(time)) FROM (SELECT time FROM predictions UNION ALL SELECT time FROM reviews) AS entries"
)
_Place = tuple[str, str, str]


def read_exported_history(
    folder: Path,
    reader: Reader,
    release: str,
    policy: Policy,
    site: str | None = None,
    since: datetime | None = None,
    memory: str = MEMORY,
) -> History:
    """What `read_history` finds of the archive's entries from `since` on, of an export and what was said after it.

    Baselines, windows and incidents that are newer than the export come from the archive, so that none goes on record
    twice.

    Raises:
        ExportedError: the folder holds no export, or one of an earlier version.
        StoreError: the store does not answer.
        ModuleNotFoundError: DuckDB is not installed.
    """
    with open_export(folder, memory) as database:
        asked = make_asked_row(Scope(since, release, site), datetime.now(UTC), timedelta(0))
        database.executemany("INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?)", [asked])
        database.execute(f"CREATE VIEW drift_images AS {read_query('drift_images')}")
        referred = _find_referred(ask(database, read_query("drift_stopped")), policy)
        studies: dict[Source, list[Study]] = defaultdict(list)
        for *place, moment, person, probability, chest, without_chest, answered in ask(
            database, read_query("drift_studies")
        ):
            key: _Place = (place[0], place[1], place[2])
            studies[Source(key[0], key[1])].append(
                Study(
                    time=_text(moment),
                    person=person,
                    logit=logit_of(probability),
                    chest=_least_chest(chest, without_chest),
                    referred=bool(answered) or key in referred,
                )
            )
        rows = ask(database, "SELECT entry FROM reviews JOIN asked ON release = one_release")
        ((last,),) = ask(database, _LAST)
    newer = () if last is None else read_entries(reader, _moment(last) - _DAY, release, (REVIEW_WRITERS,))
    said: dict[str | None, Entry] = {}
    for entry in chain((parse_entry(entry.encode()) for (entry,) in rows), newer):
        if since is None or datetime.fromisoformat(entry.time) >= since:
            said[id_of(entry)] = entry
    return make_history(release, studies, said.values())


def _find_referred(images: Iterable[Sequence[Any]], policy: Policy) -> set[_Place]:
    """Studies that a stopped release would have referred, by what is on record of their images."""
    found = set()
    for site, source, case_id, image_format, *rest in images:
        facts, scores = Facts(*rest[:5]), Scores(*rest[5:])
        if decide(policy, facts, image_format == "dicom", scores).referred:
            found.add((site, source, case_id))
    return found


def _least_chest(chest: float | None, without: int) -> float:
    """The logit of the image least like a chest film; one without a gate's probability counts as 0."""
    known = [] if chest is None else [logit_of(chest)]
    return min(known + [0.0] * bool(without))


def _moment(millis: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=millis)


def _text(millis: int) -> str:
    return time_text(_moment(millis))
