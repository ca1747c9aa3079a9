"""The archive as Parquet: flat tables by date and release, for DuckDB, Spark or Trino.

A file's name says which segments of which writer it holds, and an empty file of its own which roll-up was gone through.
What has been exported is therefore known from the target's listing alone: a run that was cut short is finished by the
next one, without duplicates and without a state.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from pneumoserve.canonical import digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.ledger import Batch, Reader, Segment, SegmentKey, Spans
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records.acceptance import Acceptance, AcceptanceApproval
from pneumoserve.records.entries import id_of, kind_of, parse_entry
from pneumoserve.records.label import Label
from pneumoserve.records.record import ModelUse, Record
from pneumoserve.records.review_entries import REVIEW_ENTRIES
from pneumoserve.records.rollout_event import RolloutEvent
from pneumoserve.records.site_use import SiteUse
from pneumoserve.store import S3Settings, S3Store, Store

if TYPE_CHECKING:
    import duckdb

# What bounds the memory of an export; a file has at most so many rows and those of one segment more.
_ROWS: Final = 20_000
_PART: Final = ".part"
_NAME: Final = re.compile(r"(?P<writer>.+)-(?P<first>\d{8})-(?P<last>\d{8})\.parquet")
_ADDRESS: Final = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>/.*)?")
# With a scheme, whether or not it is spelt rightly; `s3//` too.
_LIKE_AN_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|s3//", re.IGNORECASE)
# Readers of partitioned tables pass over folders that begin so.
_DONE: Final = "_rollups/"

# Columns and their DuckDB types. `date` and `release` are folders. What each column means stands in
# docs/reference/export-tables.md.
EXPORT_COLUMNS: Final[dict[str, dict[str, str]]] = {
    "predictions": {
        "prediction_id": "VARCHAR",
        "time": "TIMESTAMPTZ",
        "kind": "VARCHAR",
        "arm": "VARCHAR",
        "release_digest": "VARCHAR",
        "preprocessing_version": "VARCHAR",
        "call_id": "VARCHAR",
        "call_index": "INTEGER",
        "call_count": "INTEGER",
        "model": "VARCHAR",
        "protocol": "VARCHAR",
        "encoding": "VARCHAR",
        "subject": "VARCHAR",
        "duration_ms": "DOUBLE",
        "traceparent": "VARCHAR",
        "study": "VARCHAR",
        "patient": "VARCHAR",
        "origin": "VARCHAR",
        "input_sha256": "VARCHAR",
        "input_bytes": "BIGINT",
        "pixels_sha256": "VARCHAR",
        "stored_sha256": "VARCHAR",
        "stored_key": "VARCHAR",
        "format": "VARCHAR",
        "width": "INTEGER",
        "height": "INTEGER",
        "modality": "VARCHAR",
        "body_part": "VARCHAR",
        "view_position": "VARCHAR",
        "age_years": "DOUBLE",
        "sex": "VARCHAR",
        "pneumonia_probability": "DOUBLE",
        "pneumonia_logit": "DOUBLE",
        "chest_probability": "DOUBLE",
        "detector_version": "VARCHAR",
        "detector_weights": "VARCHAR",
        "detector_profile": "VARCHAR",
        "bacterial_probability": "DOUBLE",
        "bacterial_logit": "DOUBLE",
        "typer_version": "VARCHAR",
        "typer_weights": "VARCHAR",
        "typer_profile": "VARCHAR",
        "finding": "VARCHAR",
        "pneumonia_type": "VARCHAR",
        "confidence": "DOUBLE",
        "referred": "BOOLEAN",
        "reasons": "VARCHAR[]",
        "leaning": "VARCHAR",
        "type_probability": "DOUBLE",
        "stop": "VARCHAR",
        "error_status": "INTEGER",
        "error_message": "VARCHAR",
        "schema": "VARCHAR",
        "writer": "VARCHAR",
        "sequence": "INTEGER",
        "hash": "VARCHAR",
    },
    "labels": {
        "label_id": "VARCHAR",
        "prediction_id": "VARCHAR",
        "time": "TIMESTAMPTZ",
        "source": "VARCHAR",
        "author": "VARCHAR",
        "finding": "VARCHAR",
        "pneumonia_type": "VARCHAR",
        "certainty": "VARCHAR",
        "comment": "VARCHAR",
        "reading": "VARCHAR",
        "blind": "BOOLEAN",
        "probability": "DOUBLE",
        "schema": "VARCHAR",
        "writer": "VARCHAR",
        "sequence": "INTEGER",
        "hash": "VARCHAR",
    },
    "readings": {
        "request_id": "VARCHAR",
        "prediction_id": "VARCHAR",
        "time": "TIMESTAMPTZ",
        "reason": "VARCHAR",
        "rollout_id": "VARCHAR",
        "schema": "VARCHAR",
        "writer": "VARCHAR",
        "sequence": "INTEGER",
        "hash": "VARCHAR",
    },
    "reviews": {
        "entry_id": "VARCHAR",
        "kind": "VARCHAR",
        "case_id": "VARCHAR",
        "prediction_ids": "VARCHAR[]",
        "time": "TIMESTAMPTZ",
        "person": "VARCHAR",
        "alert_id": "VARCHAR",
        "page": "VARCHAR",
        "ordered": "VARCHAR",
        "finding": "VARCHAR",
        "stratum": "VARCHAR",
        "probability": "DOUBLE",
        "normal_below": "DOUBLE",
        "pneumonia_from": "DOUBLE",
        "entry": "VARCHAR",
        "schema": "VARCHAR",
        "writer": "VARCHAR",
        "sequence": "INTEGER",
        "hash": "VARCHAR",
    },
    "rollouts": {
        "event_id": "VARCHAR",
        "rollout_id": "VARCHAR",
        "number": "INTEGER",
        "time": "TIMESTAMPTZ",
        "stable": "VARCHAR",
        "what": "VARCHAR",
        "percent": "INTEGER",
        "verdicts": "VARCHAR",
        "evidence": "VARCHAR",
        "disagreements": "VARCHAR[]",
        "why": "VARCHAR",
        "schema": "VARCHAR",
        "writer": "VARCHAR",
        "sequence": "INTEGER",
        "hash": "VARCHAR",
    },
}

Row = dict[str, Any]


class ExportError(PneumoserveError):
    """The export cannot go on; the text says what to do."""


class ExportTargetError(ExportError):
    """Where to export to is stated wrongly; what was typed is not repeated, since an address may hold a key."""

    exit_code = 2


class Target(Protocol):
    """Where the files go. Names are relative, with slashes; a file is there whole or not at all."""

    def names(self, folder: str) -> Iterator[str]:
        """The names of what lies in a folder, without the folder."""

    def put(self, name: str, file: Path) -> None:
        """Put a file there."""


class FolderTarget:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, folder: str) -> Iterator[str]:
        """The names of what lies in a folder, without the folder."""
        return (path.name for path in (self._folder / folder).glob("*") if path.suffix != _PART)

    def put(self, name: str, file: Path) -> None:
        """Put a file there."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that readers of *.parquet pass over, until all of it is there.
        part = path.with_suffix(_PART)
        shutil.copyfile(file, part)
        part.replace(path)


class StoreTarget:
    """A prefix of a bucket."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = f"{prefix}/" if prefix else ""

    def names(self, folder: str) -> Iterator[str]:
        """The names of what lies in a folder, without the folder."""
        return (item.key.rpartition("/")[2] for item in self._store.list(f"{self._prefix}{folder}"))

    def put(self, name: str, file: Path) -> None:
        """Put a file there."""
        self._store.put(f"{self._prefix}{name}", file.read_bytes(), "application/vnd.apache.parquet")


def parse_address(to: str) -> tuple[str, str] | None:
    """Bucket and prefix of `s3://bucket/prefix`; None of a folder.

    Raises:
        ExportTargetError: it looks like an address, and is not of that form.
    """
    if match := _ADDRESS.fullmatch(to):
        return match["bucket"], (match["prefix"] or "").strip("/")
    if _LIKE_AN_ADDRESS.match(to) or not to:
        raise ExportTargetError(
            "--to is a folder, or s3://bucket/prefix in the same store; write a folder with a colon as ./NAME."
        )
    return None


@contextlib.contextmanager
def open_target(to: str, settings: S3Settings) -> Iterator[Target]:
    """The target that `to` names: a folder, or `s3://bucket/prefix` in the store of `settings`.

    Raises:
        ExportTargetError: it is neither.
        StoreError: there is no such bucket, or the store does not answer.
    """
    address = parse_address(to)
    if address is None:
        yield FolderTarget(Path(to))
        return
    bucket, prefix = address
    store = S3Store(settings.in_bucket(bucket))
    try:
        store.check()
        yield StoreTarget(store, prefix)
    finally:
        store.close()


@dataclass
class ExportReport:
    """What a run did: files written, rows of each table, and the keys of segments that could not be read."""

    files: int
    predictions: int
    labels: int
    unreadable: list[str]
    rollouts: int = 0
    readings: int = 0
    reviews: int = 0


def export(
    reader: Reader, target: Target, since: date | None = None, progress: Callable[[ExportReport], None] = lambda _: None
) -> ExportReport:
    """Write all that is new since the last run, of days (UTC) from `since` on; `progress` is called after each file.

    Roll-ups come first, each once: they hold what has expired before it was exported. A segment that cannot be believed
    is left out, and asked for again by every run. One run at a time may write to a target.

    Raises:
        ExportError: two runs have written to the target at once, or it has no room.
        StoreError: the store does not answer.
        ModuleNotFoundError: DuckDB is not installed.
    """
    import duckdb  # noqa: PLC0415 - only an export needs it

    report = ExportReport(0, 0, 0, [])
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        # Everything it needs is inside the package; it must not reach for extensions on the internet.
        limits: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": "512MB",
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
        }
        try:
            with duckdb.connect(":memory:", config=limits) as database:
                gather = _Gather(target, Path(folder), database, report, progress)
                _Export(reader, target, "" if since is None else since.isoformat(), gather).run()
        except (OSError, duckdb.IOException) as error:
            reason = error.strerror if isinstance(error, OSError) else "disk error"
            raise ExportError(f"The export cannot be written ({reason}); make room, or give another --to.") from error
    return report


class _Export:
    """One run. `since` is a day, or empty for all."""

    def __init__(self, reader: Reader, target: Target, since: str, gather: _Gather) -> None:
        self._reader = reader
        self._target = target
        self._since = since
        self._gather = gather
        self._done: dict[str, Spans] = {}
        self._marks: dict[str, set[str]] = {}

    def run(self) -> None:
        first = date.fromisoformat(self._since) if self._since else None
        whole: dict[str, bool] = {}
        for batch in self._reader.batches(first, self._is_marked, self._is_new):
            is_whole = self._export(batch)
            if batch.key is not None:
                whole[batch.key] = is_whole and whole.get(batch.key, True)
                if batch.last:
                    self._finish(batch.key, whole[batch.key])

    def _export(self, batch: Batch) -> bool:
        """Export what no file holds; whether none was left out."""
        whole = True
        for place, segment in batch.segments:
            if place.date < self._since:
                whole = False
            elif self._is_new(place):
                whole &= self._take(place, segment)
        self._gather.flush()
        return whole

    def _finish(self, key: str, whole: bool) -> None:
        """Mark an object as gone through where all of it was exported."""
        if key in self._reader.findings:
            self._gather.report.unreadable.append(key)
        elif whole:
            self._gather.mark(_mark_of(key))

    def _is_marked(self, key: str) -> bool:
        folder, _, name = _mark_of(key).rpartition("/")
        if folder not in self._marks:
            self._marks[folder] = set(self._target.names(folder))
        return name in self._marks[folder]

    def _is_new(self, place: SegmentKey) -> bool:
        return not self._spans(_partition_of(place)).hold(place)

    def _take(self, place: SegmentKey, segment: Segment | None) -> bool:
        """Whether a segment's rows could be taken."""
        try:
            rows = None if segment is None else [_row(place, line) for line in segment.lines]
        except ValueError:
            rows = None
        if rows is None:
            self._gather.flush()
            self._gather.report.unreadable.append(place.key)
            return False
        partition = _partition_of(place)
        self._gather.add(partition, place, rows)
        self._spans(partition).add(place)
        return True

    def _spans(self, partition: str) -> Spans:
        """What files of a partition hold."""
        if partition not in self._done:
            self._done[partition] = _read_spans(self._target, partition)
        return self._done[partition]


def _mark_of(key: str) -> str:
    """The empty file that says that an object was gone through."""
    return f"{_DONE}{key.partition('/')[2]}"


def _partition_of(place: SegmentKey) -> str:
    return f"date={place.date}/release={place.release}/"


def _read_spans(target: Target, partition: str) -> Spans:
    """The sequences that files of a partition hold."""
    spans: dict[str, list[range]] = defaultdict(list)
    for table in EXPORT_COLUMNS:
        for match in map(_NAME.fullmatch, target.names(f"{table}/{partition}")):
            if match is not None:
                spans[match["writer"]].append(range(int(match["first"]), int(match["last"]) + 1))
    exported = Spans()
    for writer, of_writer in spans.items():
        ordered = sorted(of_writer, key=lambda span: span.start)
        for earlier, later in pairwise(ordered):
            if later.start < earlier.stop:
                raise ExportError(
                    f"Two files of {partition}{writer} hold segment {later.start}: two exports ran at once. Remove "
                    f"the one that ends in -{later.start:08d}-{later.stop - 1:08d}.parquet, and run one at a time."
                )
        for span in ordered:
            exported.add_range(writer, span)
    return exported


class _Gather:
    """Gathers the rows of one writer's consecutive segments, and writes them as one file.

    A gap in the sequence ends a file: what a journal brings later then never falls within one that is written.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        database: duckdb.DuckDBPyConnection,
        report: ExportReport,
        progress: Callable[[ExportReport], None],
    ) -> None:
        self.report = report
        self._target = target
        self._lines = folder / "rows.ndjson"
        self._file = folder / "rows.parquet"
        self._database = database
        self._progress = progress
        self._partition = ""
        self._first: SegmentKey | None = None
        self._next = 0
        self._table: str | None = None
        self._count = 0

    def add(self, partition: str, place: SegmentKey, rows: list[tuple[str, Row]]) -> None:
        """Take the rows of a segment, each with its table."""
        # A writer writes entries of one kind; its empty segments belong to whichever that is.
        tables = {table for table, _ in rows}
        if len(tables) > 1:
            raise ExportError(f"{place.key} holds entries of several kinds, which no writer of this version makes.")
        table = next(iter(tables), self._table)
        if self._first is None or not (
            (partition, place.writer, place.sequence) == (self._partition, self._first.writer, self._next)
            and self._table in {None, table}
        ):
            self.flush()
            self._partition, self._first = partition, place
        self._table = table if rows or self._table else None
        self._next = place.sequence + 1
        self._count += len(rows)
        with self._lines.open("ab") as file:
            file.writelines(orjson.dumps(row) + b"\n" for _, row in rows)
        if self._count >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._first is not None and self._table is not None:
            name = f"{self._first.writer}-{self._first.sequence:08d}-{self._next - 1:08d}.parquet"
            self._write(self._table, f"{self._table}/{self._partition}{name}")
            self.report.files += 1
            # A report counts each table's rows under the table's name.
            setattr(self.report, self._table, getattr(self.report, self._table) + self._count)
            self._progress(self.report)
        self._lines.unlink(missing_ok=True)
        self._first, self._table, self._count = None, None, 0

    def mark(self, name: str) -> None:
        """Leave an empty file."""
        self._lines.touch()
        self._target.put(name, self._lines)
        self._lines.unlink()

    def _write(self, table: str, name: str) -> None:
        rows = self._database.read_json(str(self._lines), columns=EXPORT_COLUMNS[table], format="newline_delimited")
        rows.write_parquet(str(self._file), compression="zstd")
        self._target.put(name, self._file)


def _row(place: SegmentKey, line: bytes) -> tuple[str, Row]:
    """An entry's table and row.

    Raises:
        ValueError: it is of no form that this version reads.
    """
    entry = parse_entry(line)
    receipt = {"writer": place.writer, "sequence": place.sequence, "hash": digest_of(line)}
    if isinstance(entry, Record):
        return "predictions", {**prediction_row(entry), **receipt}
    columns = entry.model_dump(mode="json", by_alias=True, exclude={"release"})
    if isinstance(entry, RolloutEvent):
        return "rollouts", {**columns, "verdicts": orjson.dumps(columns["verdicts"]).decode(), **receipt}
    if isinstance(entry, Label):
        detail = entry.reading
        columns |= {
            "reading": None if detail is None else orjson.dumps(columns["reading"]).decode(),
            "blind": None if detail is None else detail.blind,
            "probability": None if detail is None else detail.probability,
        }
        return "labels", {**columns, **receipt}
    if isinstance(entry, (*REVIEW_ENTRIES, Acceptance, AcceptanceApproval, SiteUse)):
        row = {name: columns.get(name) for name in EXPORT_COLUMNS["reviews"]}
        row |= {"entry_id": id_of(entry), "kind": kind_of(entry), "person": columns.get("by")}
        return "reviews", {**row, "entry": line.decode(), **receipt}
    return "readings", {**columns, **receipt}


def prediction_row(record: Record) -> Row:
    """A record's columns, but for its receipt; what a record does not have is None."""
    call, image, refused, decision, error = record.call, record.image, record.refused, record.decision, record.error
    uses = {use.name: use for use in record.models}
    row: Row = {
        "prediction_id": record.prediction_id,
        "time": record.time,
        "kind": record.kind,
        "arm": record.arm,
        "release_digest": record.release_digest,
        "preprocessing_version": record.preprocessing_version,
        "call_id": call.call_id,
        "call_index": call.index,
        "call_count": call.count,
        "model": call.model,
        "protocol": call.protocol,
        "encoding": call.encoding,
        "subject": call.subject,
        "duration_ms": record.duration_ms,
        "traceparent": record.traceparent,
        "stop": record.stop,
        "study": call.study,
        "patient": call.patient,
        "origin": call.origin,
        **_model_columns("detector", "pneumonia", uses.get(DETECTOR)),
        **_model_columns("typer", "bacterial", uses.get(TYPER)),
        "schema": record.schema_,
    }
    if DETECTOR in uses:
        row["chest_probability"] = uses[DETECTOR].chest_probability
    if refused is not None:
        row |= refused.model_dump()
    if image is not None:
        row |= image.model_dump()
    if decision is not None:
        row |= decision.model_dump(mode="json")
    if error is not None:
        row |= {"error_status": error.status, "error_message": error.message}
    return row


def _model_columns(role: str, what: str, use: ModelUse | None) -> Row:
    if use is None:
        return {}
    return {
        f"{what}_probability": use.probability,
        f"{what}_logit": use.logit,
        f"{role}_version": use.version,
        f"{role}_weights": use.weights,
        f"{role}_profile": orjson.dumps(use.profile, option=orjson.OPT_SORT_KEYS).decode(),
    }
