"""From the archive into the database: what is new is read, and what follows from it is worked out study by study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, delete, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from pneumoserve.canonical import canonical_json
from pneumoserve.decision import Decision, Scores, complete
from pneumoserve.ledger import Reader, Segment
from pneumoserve.names import DETECTOR
from pneumoserve.records import (
    OF_RELEASES,
    Entry,
    Label,
    ReadingRequest,
    Record,
    ReviewEntry,
    id_of,
    kind_of,
    parse_entry,
)
from pneumoserve.review import tables
from pneumoserve.review.archive import Commit
from pneumoserve.review.derive import Derived, Fact, Prediction, Row, derive

# Days that are looked at again: what a journal kept for longer comes with the roll-up that it was sealed in.
_AGAIN: Final = timedelta(days=7)
_ENTRIES: Final = 2000
# SQLite takes 32,766 values a statement.
_NAMES: Final = 500
_DAY: Final = "day"
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Step:
    """Some entries, and the places of the archive that were read once they are taken."""

    entries: tuple[Entry, ...]
    places: dict[str, int]


def read_new(reader: Reader, places: Mapping[str, int]) -> Iterator[Step]:
    """What is behind these places. A step that was not taken comes again with the next look.

    Raises:
        StoreError: the store does not answer.
        ValueError: an entry is of a form that this version does not read.
    """
    today = datetime.now(UTC).date()
    first = date.fromordinal(places[_DAY]) - _AGAIN if _DAY in places else None
    for batch in reader.batches(first, places.__contains__, read=places):
        entries: list[Entry] = []
        read: dict[str, int] = {}
        for place, segment in batch.segments:
            entries += [] if segment is None else _entries_of(segment)
            if batch.key is None:
                read[place.line] = place.sequence
            if len(entries) >= _ENTRIES:
                yield Step(tuple(entries), read)
                entries, read = [], {}
        if batch.key is not None and batch.last:
            read[batch.key] = 1
        yield Step(tuple(entries), read)
    yield Step((), {_DAY: today.toordinal()})


def _entries_of(segment: Segment) -> list[Entry]:
    return [entry for entry in map(parse_entry, segment.lines) if not isinstance(entry, OF_RELEASES)]


def read_places(connection: Connection) -> dict[str, int]:
    """How far the archive was followed."""
    found = connection.execute(select(tables.positions.c.place, tables.positions.c.sequence))
    return {row.place: row.sequence for row in found}


def take(connection: Connection, step: Step) -> None:
    """Put entries into the database, and work out anew what follows for their studies."""
    take_entries(connection, step.entries)
    if step.places:
        table = tables.positions
        connection.execute(delete(table).where(table.c.place.in_(step.places)))
        connection.execute(insert(table), [{"place": key, "sequence": last} for key, last in step.places.items()])
    if _DAY in step.places:
        # Of days that are not listed again: each command and each alert is a writer of its own.
        oldest = date.fromordinal(step.places[_DAY]) - _AGAIN
        connection.execute(delete(tables.positions).where(tables.positions.c.place < oldest.isoformat()))


def take_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    """The same without a place: of entries that were put on record just now."""
    predictions = [_prediction_row(entry) for entry in entries if isinstance(entry, Record) and _counts(entry)]
    said = [_fact_row(entry) for entry in entries if not isinstance(entry, (Record, *OF_RELEASES))]
    _insert_new(connection, tables.predictions, predictions)
    _insert_new(connection, tables.facts, said)
    touched = {row["case_id"] for row in (*predictions, *said) if row["case_id"] is not None}
    touched |= _cases_of(connection, {row["prediction_id"] for row in said if row["prediction_id"] is not None})
    work_out(connection, touched)


def put_on_record(connection: Connection, commit: Commit, entries: Sequence[Label | ReviewEntry]) -> None:
    """Have the archive take entries, and the database then: a crash in between is healed by following.

    Raises:
        StoreError: the archive did not take them, and the database has nothing of them.
    """
    commit(entries)
    take_entries(connection, entries)


def work_out(connection: Connection, case_ids: Collection[Any]) -> None:
    """Make the rows of studies anew from what is said of them."""
    for names in _in_parts(sorted(case_ids), _NAMES):
        images, facts = load_cases(connection, names)
        rows: dict[str, list[Row]] = defaultdict(list)
        for case_id in names:
            derived = derive(case_id, images[case_id], facts[case_id])
            for name in Derived.__dataclass_fields__:
                rows[name] += getattr(derived, name)
        for table in tables.DERIVED:
            connection.execute(delete(table).where(table.c.case_id.in_(names)))
            if rows[table.name]:
                connection.execute(insert(table), rows[table.name])


def clear(connection: Connection) -> None:
    """Forget all that the archive said; who reads or sends something at this moment stays."""
    for table in (*tables.SAID, *tables.DERIVED, tables.positions):
        connection.execute(delete(table))


def _counts(record: Record) -> bool:
    """Whether a record is an answer that somebody got: a shadow's are nobody's, raw scores decide nothing."""
    return record.arm == "live" and record.decision is not None and record.image is not None


def _prediction_row(record: Record) -> Row:
    decision, image = record.decision, record.image
    if decision is None or image is None:
        raise ValueError("a record without a decision is no case")
    scores = [use.probability for use in record.models if use.name == DETECTOR]
    return {
        "prediction_id": record.prediction_id,
        "case_id": record.call.study or record.prediction_id,
        "time": record.time,
        "release": record.release,
        "caller": record.call.subject,
        "patient": record.call.patient,
        "origin": record.call.origin,
        "finding": decision.finding,
        "pneumonia_type": decision.pneumonia_type,
        "confidence": decision.confidence,
        "referred": decision.referred,
        "reasons": " ".join(decision.reasons),
        "pneumonia_probability": scores[0] if scores else None,
        "stored_key": image.stored_key,
        "format": image.format,
    }


def _fact_row(entry: Label | ReadingRequest | ReviewEntry) -> Row:
    case_id, prediction_id = getattr(entry, "case_id", None), None
    if isinstance(entry, Label | ReadingRequest):
        prediction_id = entry.prediction_id
    return {
        "entry_id": id_of(entry),
        "kind": kind_of(entry),
        "case_id": case_id,
        "prediction_id": prediction_id,
        "time": entry.time,
        "body": canonical_json(entry).decode(),
    }


def _cases_of(connection: Connection, prediction_ids: Collection[Any]) -> set[object]:
    table, found = tables.predictions, set[object]()
    for names in _in_parts(sorted(prediction_ids), _NAMES):
        found |= set(connection.scalars(select(table.c.case_id).where(table.c.prediction_id.in_(names))))
    return found


def load_cases(
    connection: Connection, names: Sequence[str]
) -> tuple[Mapping[str, list[Prediction]], Mapping[str, list[Fact]]]:
    """What is said of studies, by study; facts the first first."""
    said, facts = tables.predictions, tables.facts
    images: dict[str, list[Prediction]] = defaultdict(list)
    case_of: dict[str, str] = {}
    for row in connection.execute(select(said).where(said.c.case_id.in_(names))):
        images[row.case_id].append(prediction_of(row))
        case_of[row.prediction_id] = row.case_id
    found: dict[str, list[Fact]] = defaultdict(list)
    ids = list(case_of)
    parts = [facts.c.case_id.in_(names), *(facts.c.prediction_id.in_(part) for part in _in_parts(ids, _NAMES))]
    for row in connection.execute(select(facts).where(or_(*parts)).order_by(facts.c.time, facts.c.entry_id)):
        fact = parse_entry(row.body.encode())
        found[row.case_id or case_of[row.prediction_id]].append(fact)  # type: ignore[arg-type]
    return images, found


def list_predictions(connection: Connection, case_id: str) -> list[str]:
    """The ids of a study's predictions, the first first."""
    table = tables.predictions
    found = select(table.c.prediction_id).where(table.c.case_id == case_id)
    return list(connection.scalars(found.order_by(table.c.time, table.c.prediction_id)))


def prediction_of(row: Any) -> Prediction:
    """A row of `predictions` as what is known of an image."""
    stated = Decision(
        finding=row.finding,
        pneumonia_type=row.pneumonia_type,
        confidence=row.confidence,
        referred=row.referred,
        reasons=tuple(row.reasons.split()),
    )
    decision = complete(stated, Scores(pneumonia=row.pneumonia_probability))
    return Prediction(
        row.prediction_id, row.time, row.release, row.caller, row.patient, row.origin, row.pneumonia_probability,
        decision,
    )  # fmt: skip


def _insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows that are not there yet."""
    if rows:
        library = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(library.insert(table).on_conflict_do_nothing(), rows)


def _in_parts(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part
