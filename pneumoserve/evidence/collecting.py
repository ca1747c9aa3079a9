"""Going through archive, database and releases for all that evidence is made of, and making its files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from cryptography.x509 import Certificate

from pneumoserve.canonical import canonical_json
from pneumoserve.evidence.archive_reading import Reading, read_archive
from pneumoserve.evidence.contents import Period
from pneumoserve.evidence.page import render_page
from pneumoserve.evidence.parts import Found, Trusts, build_parts
from pneumoserve.evidence.releases import ReleaseFacts, read_release
from pneumoserve.ledger import Reader, verify
from pneumoserve.monitoring import Counted, Metrics, count_cohorts, measure
from pneumoserve.progress import Progress
from pneumoserve.records import NoStudiesError, Scope, open_ledger
from pneumoserve.review import ReviewDatabase, list_cohorts


def collect_evidence(
    reader: Reader,
    database: ReviewDatabase,
    releases: Path,
    trusts: Trusts,
    period: Period,
    authorities: Sequence[Certificate],
    progress: Progress,
) -> Found:
    """Read the archive once, verify it whole, and measure what its readings show.

    Raises:
        StoreError, DatabaseError: one of them does not answer.
    """
    reading = read_archive(reader, period, progress)
    facts = {name: read_release(name, releases, reader.store, trusts.approvers) for name in _list_releases(reading)}
    measured = _measure(database, period, facts)
    ledger = open_ledger(reader.store, trusts.writers, trusts.sealers)
    report = verify(ledger, datetime.now(UTC), progress, authorities=authorities)
    return Found(reading, facts, measured, report, trusts)


def _list_releases(reading: Reading) -> list[str]:
    listed = {each.entry.release for placed in reading.listed.values() for each in placed}
    return sorted(listed | {release for release, use in reading.uses.items() if use.first is not None})


def _measure(database: ReviewDatabase, period: Period, facts: dict[str, ReleaseFacts]) -> list[tuple[Counted, Metrics]]:
    """The figures of studies of the period whose cohorts had closed by its end, as far as that has come."""
    midnight = datetime.combine(datetime.now(UTC).date(), time(), UTC)
    since = None if period.since is None else datetime.combine(period.since, time(), UTC)

    def find_threshold(release: str) -> float | None:
        manifest = facts[release].manifest if release in facts else None
        return None if manifest is None else manifest.policy.detector_threshold

    try:
        cohorts = list_cohorts(database, min(period.end, midnight), Scope(since=since, before=period.end))
    except NoStudiesError:
        return []
    return [(each, measure(each.tally)) for each in count_cohorts(cohorts, find_threshold)]


def build_files(found: Found, software: str) -> dict[str, bytes]:
    """The files of evidence by name: the page, a JSON document a part, and the documents of each release."""
    parts = build_parts(found)
    period: dict[str, Any] = {
        "since": None if found.period.since is None else found.period.since.isoformat(),
        "until": found.period.until.isoformat(),
    }
    return {
        "index.html": render_page(parts, found.period, software).encode(),
        **{f"{part.name}.json": canonical_json({"part": part.name, "period": period, **part.data}) for part in parts},
        **{
            f"releases/{facts.id}/{name}": document
            for facts in found.releases.values()
            for name, document in facts.documents.items()
        },
    }
