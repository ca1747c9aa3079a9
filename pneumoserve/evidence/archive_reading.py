"""One pass over the archive: what is listed is kept, all else is counted as it goes by.

What is held grows with people, writers, days and what is listed, not with the records of calls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson
from pydantic import BaseModel

from pneumoserve.canonical import digest_of
from pneumoserve.evidence.contents import Period
from pneumoserve.evidence.listings import find_listing
from pneumoserve.ledger import Header, Reader, Segment
from pneumoserve.progress import Progress
from pneumoserve.records import (
    ACCEPTANCE_WRITERS,
    LABEL_WRITERS,
    READING_WRITERS,
    REVIEW_WRITERS,
    SITE_WRITERS,
    Adjudication,
    Alert,
    AlertEvent,
    Baseline,
    EntryPlace,
    Incident,
    Label,
    View,
    parse_entry,
)

# Writers of other roles begin with these; the front's have none.
_ROLES: Final = (
    LABEL_WRITERS, REVIEW_WRITERS, f"{READING_WRITERS}-", f"{ACCEPTANCE_WRITERS}-", f"{SITE_WRITERS}-", "rollout-",
)  # fmt: skip
_HOUR: Final = len("2026-12-01T00")


class Placed(NamedTuple):
    """An entry, where it stands, and the number of its line there."""

    entry: Any
    place: EntryPlace
    line: int

    @property
    def order(self) -> tuple[str, str, int, int]:
        """By time; what has the same, as it was written."""
        return self.entry.time, self.place.writer, self.place.sequence, self.line


@dataclass
class Written:
    """From which segments of one writer entries were counted, and how many."""

    first: int
    last: int
    entries: int = 0


@dataclass
class ReleaseUse:
    """How a release was used: its first and last live answer in all of the archive, and counts of the period."""

    digest: str
    first: str | None = None
    last: str | None = None
    days: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    callers: Counter[str] = field(default_factory=Counter)


@dataclass
class KeyUse:
    """Segments that one key signed, in all of the archive."""

    first: str
    last: str
    segments: int = 0


@dataclass
class Reading:
    """What the archive says of a period. `sources` says of each kind of counted entries who wrote them, and where."""

    period: Period
    listed: dict[type[BaseModel], list[Placed]] = field(default_factory=lambda: defaultdict(list))
    uses: dict[str, ReleaseUse] = field(default_factory=dict)
    errors: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    acts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    alerts: Counter[str] = field(default_factory=Counter)
    keys: dict[str, KeyUse] = field(default_factory=dict)
    hours: set[str] = field(default_factory=set)
    sources: dict[str, dict[str, Written]] = field(default_factory=lambda: defaultdict(dict))
    unread: Counter[str] = field(default_factory=Counter)

    def take(self, segment: Segment) -> None:
        """Take a segment of a day that is not after the period."""
        header = segment.header
        use = self.keys.setdefault(header.key_id, KeyUse(header.opened, header.opened))
        use.first, use.last = min(use.first, header.opened), max(use.last, header.opened)
        use.segments += 1
        if self.period.holds(header.opened) and not header.writer.startswith(_ROLES):
            self.hours.add(header.opened[:_HOUR])
        for number, line in enumerate(segment.lines):
            document = orjson.loads(line)
            if self.period.is_after(document["time"]):
                continue
            if document["schema"].startswith("pneumoserve.record/"):
                self._take_record(document, header)
            else:
                self._take_other(line, number, document, header)

    def sort(self) -> None:
        """Put what is listed into the order of its time, whichever object it was read from."""
        for placed in self.listed.values():
            placed.sort(key=lambda each: each.order)

    def _take_record(self, record: dict[str, Any], header: Header) -> None:
        use = self.uses.setdefault(record["release"], ReleaseUse(record["release_digest"]))
        kind, moment = record["kind"], record["time"]
        # Scores alone are no answer, and a shadow's nobody got.
        answer = record.get("decision") if kind == "prediction" and record["arm"] == "live" else None
        if answer is not None:
            use.first = min(use.first or moment, moment)
            use.last = max(use.last or moment, moment)
        if self.period.is_before(moment):
            return
        self._count("calls", header)
        if record["arm"] == "shadow":
            use.counts["in shadow"] += 1
        elif kind != "prediction":
            use.counts[kind] += 1
            self.errors[moment[:10], kind, record["error"]["status"]] += 1
        elif answer is not None:
            use.days[moment[:10]] += 1
            use.counts["answers"] += 1
            use.counts["referred"] += answer["referred"]
            use.reasons.update(answer["reasons"])
            use.callers[record["call"].get("subject") or "callers without a name"] += 1
        else:
            use.counts["scores alone"] += 1

    def _take_other(self, line: bytes, number: int, document: dict[str, Any], header: Header) -> None:
        try:
            entry: Any = parse_entry(line)
        except ValueError:
            self.unread[document["schema"]] += 1
            return
        listing = find_listing(entry)
        is_before = self.period.is_before(entry.time)
        if listing is not None and (listing.standing or not is_before):
            place = EntryPlace(header.writer, header.sequence, digest_of(line))
            self.listed[type(entry)].append(Placed(entry, place, number))
        if is_before:
            return
        if isinstance(entry, Alert | AlertEvent):
            self.alerts["raised" if isinstance(entry, Alert) else entry.what] += 1
            self._count("alerts", header)
        for person, act in _acts_of(entry):
            self.acts[person][act] += 1
            self._count("access", header)

    def _count(self, kind: str, header: Header) -> None:
        written = self.sources[kind].setdefault(header.writer, Written(header.sequence, header.sequence))
        written.first, written.last = min(written.first, header.sequence), max(written.last, header.sequence)
        written.entries += 1


def _acts_of(entry: object) -> Iterator[tuple[str, str]]:
    """Who did what by an entry that a person made; of an alert that nobody signed in for, nobody did."""
    match entry:
        case View():
            yield entry.by, f"opened {entry.page}{' by break-glass' if entry.why else ''}"
        case Label():
            yield entry.author, "readings" if entry.reading else f"labels ({entry.source.replace('_', ' ')})"
        case Adjudication():
            yield entry.by, "decisions between readers"
        case Incident():
            yield entry.by, "incidents reported"
        case Baseline():
            yield entry.by, "baselines chosen"
        case AlertEvent() if entry.by is not None:
            yield entry.by, f"alerts {entry.what}"


def read_archive(reader: Reader, period: Period, progress: Progress) -> Reading:
    """Read what trusted keys signed, of all days up to the period's last one.

    Raises:
        StoreError: the store does not answer.
    """
    reading = Reading(period)
    for segment in reader.segments():
        if not period.is_after(segment.header.date):
            reading.take(segment)
        progress("entries read", len(segment.lines))
    reading.sort()
    return reading
