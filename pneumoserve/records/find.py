"""Finding what the archive holds of a prediction, by its id alone.

The archive is not verified whole for it: each segment that gives a record or a label is, and what a seal vouches for is
looked at first.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pneumoserve.canonical import digest_of
from pneumoserve.ids import time_of
from pneumoserve.ledger import Reader, Segment
from pneumoserve.records.entries import parse_entry
from pneumoserve.records.label import Label
from pneumoserve.records.reading_request import READING_WRITERS, ReadingRequest
from pneumoserve.records.record import Record

# A label that waited for a clock that jumped back is looked for a day earlier.
_DAY: Final = timedelta(days=1)
_ID: Final = re.compile(rb'"prediction_id":"([0-9a-f-]{36})"')

LABEL_WRITERS: Final = "label-"
_PLACE: Final = re.compile(r"(?P<writer>[a-z0-9-]+-[0-9a-f]{8}):(?P<sequence>[1-9]\d{0,7}):(?P<hash>[0-9a-f]{12,64})")


@dataclass(frozen=True, order=True)
class EntryPlace:
    """Where an entry stands: segment `sequence` of `writer`; `hash` is the SHA-256 of its line, or how it begins."""

    writer: str
    sequence: int
    hash: str

    @property
    def text(self) -> str:
        """The place as people copy it, `WRITER:SEQUENCE:HASH`."""
        return f"{self.writer}:{self.sequence}:{self.hash[:12]}"

    @classmethod
    def parse(cls, text: str) -> EntryPlace | None:
        """A place from its text, with 12 digits of the hash or more; None where it is none."""
        found = _PLACE.fullmatch(text)
        return None if found is None else cls(found["writer"], int(found["sequence"]), found["hash"])


def find_line(reader: Reader, place: EntryPlace) -> bytes | None:
    """The entry of a place as its writer wrote it; None where the archive has none that a trusted key signed.

    Raises:
        StoreError: the store does not answer.
    """
    located = reader.locate(place.writer, place.sequence)
    lines = () if located is None else located.segment.lines
    return next((line for line in lines if digest_of(line).startswith(place.hash)), None)


def find_record(reader: Reader, prediction_id: str) -> Record | None:
    """The record of a prediction, None where the archive has none that a trusted key signed.

    Raises:
        ValueError: the id is no prediction id.
        StoreError: the store does not answer.
    """
    return find_records(reader, [prediction_id]).get(prediction_id)


def find_records(reader: Reader, prediction_ids: Collection[str]) -> dict[str, Record]:
    """The records of predictions that the archive has, by id. An id carries its time, which says where to look first.

    Raises:
        ValueError: one is no prediction id.
        StoreError: the store does not answer.
    """
    made = {each: time_of(each) for each in prediction_ids}
    found: dict[str, Record] = {}

    def mentions(body: bytes) -> bool:
        # Parsing every record would cost more than finding the one.
        return any(name.decode() in made for name in _ID.findall(body))

    def take(segment: Segment) -> None:
        for line in filter(mentions, segment.lines):
            try:
                entry = parse_entry(line)
            except ValueError:
                # Of another version; that it is whole is signed.
                continue
            if isinstance(entry, Record) and entry.prediction_id in made:
                # The first that was found counts.
                found.setdefault(entry.prediction_id, entry)

    reader.search(made, mentions, take, found.keys())
    return found


def labels_of(reader: Reader, prediction_id: str) -> list[Label]:
    """What became known of a prediction afterwards, the first statement first.

    Raises:
        ValueError: the id is no prediction id.
        StoreError: the store does not answer.
    """
    return follow_up(reader, prediction_id).labels


@dataclass(frozen=True)
class FollowUp:
    """What came to be on record of a prediction afterwards, the first first."""

    labels: list[Label]
    requests: list[ReadingRequest]


def follow_up(reader: Reader, prediction_id: str) -> FollowUp:
    """The labels of a prediction, and the requests that a human read its image.

    Raises:
        ValueError: the id is no prediction id.
        StoreError: the store does not answer.
    """
    wanted = prediction_id.encode()
    labels: dict[str, Label] = {}
    requests: dict[str, ReadingRequest] = {}
    since, roles = time_of(prediction_id) - _DAY, (LABEL_WRITERS, f"{READING_WRITERS}-")
    for segment in reader.segments(since, roles=roles, mentions=lambda body: wanted in body):
        for entry in (parse_entry(line) for line in segment.lines if wanted in line):
            if isinstance(entry, Label) and prediction_id in entry.prediction_ids:
                labels.setdefault(entry.label_id, entry)
            elif isinstance(entry, ReadingRequest) and entry.prediction_id == prediction_id:
                requests.setdefault(entry.request_id, entry)
    return FollowUp([labels[each] for each in sorted(labels)], [requests[each] for each in sorted(requests)])
