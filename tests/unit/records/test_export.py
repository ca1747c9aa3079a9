"""The archive as Parquet, from a store and to one or a folder; read by DuckDB."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.ledger import Header, SegmentKey, key_id_of
from pneumoserve.ledger.segment import sign_segment
from pneumoserve.records import (
    Draw,
    ExportError,
    ExportReport,
    FolderTarget,
    Label,
    Record,
    StoreTarget,
    Target,
    View,
    export,
)
from pneumoserve.records import parquet as module
from pneumoserve.records.parquet import EXPORT_COLUMNS
from pneumoserve.store import MemoryStore, StoreError
from tests.support.archives import reader_of
from tests.support.entries import KEY, RELEASE, Chain, id_made, label_of, prediction, refusal, request_of

OTHER = "ba9876543210"
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(params=["folder", "store"])
def target(request: pytest.FixtureRequest, store: MemoryStore, tmp_path: Path) -> Target:
    return FolderTarget(tmp_path / "out") if request.param == "folder" else StoreTarget(store, "some/exports")


def files(target: Target, store: MemoryStore, folder: Path) -> list[str]:
    """The names of all files of a target; those of a bucket are copied to a folder, as `read` wants them."""
    if isinstance(target, FolderTarget):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = sorted(item.key.removeprefix("some/exports/") for item in store.list("some/exports/"))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(f"some/exports/{name}"))
    return names


def read(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask `predictions` and `labels`."""
    with duckdb.connect(":memory:") as database:
        for table in EXPORT_COLUMNS:
            if (folder / table).exists():
                where = f"read_parquet('{folder}/{table}/**/*.parquet', hive_types = {{'release': VARCHAR}})"
                database.sql(f"create view {table} as from {where}")
        return database.sql(sql).fetchall()


def test_every_entry_is_a_row_by_date_and_release(store: MemoryStore, target: Target, tmp_path: Path) -> None:
    writer = Chain(store, "front-00000001")
    other = Chain(store, "front-00000002")
    films = [prediction(), prediction(typed=False), refusal(), prediction(release=OTHER)]
    writer.write([], release=RELEASE)
    writer.write(films[:2])
    place = writer.write(films[2:3])
    other.write(films[3:], release=OTHER)
    label = label_of(films[0])
    Chain(store, "label-host-00000003").write([label])
    asked = request_of(films[0])
    Chain(store, "reading-host-00000004").write([asked])
    report = export(reader_of(store, KEY), target)
    assert report == ExportReport(4, 4, 1, [], readings=1)
    out = tmp_path / "out"
    day = place.date
    assert files(target, store, out) == [
        f"labels/date={day}/release={RELEASE}/label-host-00000003-00000001-00000001.parquet",
        f"predictions/date={day}/release={RELEASE}/front-00000001-00000001-00000003.parquet",
        f"predictions/date={day}/release={OTHER}/front-00000002-00000001-00000001.parquet",
        f"readings/date={day}/release={RELEASE}/reading-host-00000004-00000001-00000001.parquet",
    ]
    counted = read(out, "select date::varchar, release, kind, count(*) from predictions group by all order by all")
    assert counted == [
        (day, RELEASE, "prediction", 2),
        (day, RELEASE, "refusal", 1),
        (day, OTHER, "prediction", 1),
    ]
    assert read(out, "select prediction_id, label_id, source, author, finding, pneumonia_type from labels") == [
        (films[0].prediction_id, label.label_id, "radiologist", "r.17", "pneumonia", "bacterial")
    ]
    assert read(out, "select prediction_id, request_id, reason, rollout_id from readings") == [
        (films[0].prediction_id, asked.request_id, "shadow_disagreement", asked.rollout_id)
    ]


def test_a_row_tells_what_the_record_tells(store: MemoryStore, tmp_path: Path) -> None:
    film, normal, refused = prediction(), prediction(typed=False), refusal()
    Chain(store, "front-00000001").write([film, normal, refused])
    export(reader_of(store, KEY), FolderTarget(tmp_path))
    columns = ", ".join(f'"{name}"' for name in EXPORT_COLUMNS["predictions"])
    rows = {
        row[0]: dict(zip(EXPORT_COLUMNS["predictions"], row, strict=True))
        for row in read(tmp_path, f"select {columns} from predictions")
    }
    row = rows[film.prediction_id]
    assert film.image is not None
    assert {name: row[name] for name in film.image.model_dump()} == film.image.model_dump()
    assert row["time"] == datetime.fromisoformat(film.time)
    assert row["time"].utcoffset() == timedelta(0)
    assert (row["pneumonia_probability"], row["bacterial_probability"]) == (0.9, 0.2)
    assert json.loads(row["typer_profile"]) == film.models[1].profile
    assert row["reasons"] == ["uncertain_type", "lateral_view"]
    assert (row["writer"], row["sequence"], row["hash"]) == ("front-00000001", 1, digest_of(canonical_json(film)))
    assert rows[normal.prediction_id]["bacterial_probability"] is None
    assert rows[normal.prediction_id]["reasons"] == []
    stated = {name: value for name, value in rows[refused.prediction_id].items() if value is not None}
    assert stated["error_status"] == 415
    assert stated["input_bytes"] == 12
    assert not stated.keys() & {"reasons", "finding", "pneumonia_probability", "stored_key"}


def test_no_field_of_an_entry_is_lost() -> None:
    place = SegmentKey("front-00000001", 1, "2026-01-01", RELEASE)
    film = prediction()
    for entry, table in ((film, "predictions"), (refusal(), "predictions"), (label_of(film), "labels")):
        _, row = module._row(place, canonical_json(entry))
        assert row.keys() <= EXPORT_COLUMNS[table].keys()
    _, whole = module._row(place, canonical_json(film))
    assert EXPORT_COLUMNS["predictions"].keys() - whole.keys() == {"error_status", "error_message"}
    _, label = module._row(place, canonical_json(label_of(film)))
    assert label.keys() == EXPORT_COLUMNS["labels"].keys()
    # A field that is new to record or label must become a column, or be left out on purpose: here is the list.
    assert Record.model_fields.keys() == {
        "schema_", "kind", "prediction_id", "time", "arm", "release", "release_digest", "preprocessing_version",
        "call", "duration_ms", "traceparent", "image", "refused", "models", "decision", "stop", "error",
    }  # fmt: skip
    of_label = label.keys() - {"writer", "sequence", "hash", "blind", "probability"}
    assert {name.rstrip("_") for name in Label.model_fields} == of_label | {"release"}


def test_a_draw_has_columns_of_its_own() -> None:
    draw = Draw(
        draw_id="a draw", case_id="a study", time="2026-01-01T00:00:00.000Z", release=RELEASE, prediction_ids=("1",),
        plan_id="a plan", stratum="normal/near", probability=0.25, key_id="0" * 64,
    )  # fmt: skip
    table, row = module._row(SegmentKey("review-00000001", 1, "2026-01-01", RELEASE), canonical_json(draw))
    assert (table, row["kind"], row["entry_id"], row["case_id"]) == ("reviews", "draw", "a draw", "a study")
    assert (row["stratum"], row["probability"]) == ("normal/near", 0.25)
    assert row.keys() <= EXPORT_COLUMNS["reviews"].keys()


@pytest.mark.train
def test_other_readers_find_the_stated_types(store: MemoryStore, tmp_path: Path) -> None:
    """What pyarrow reads, Spark and Trino do."""
    import pyarrow  # noqa: PLC0415 - `make check` has none
    from pyarrow import parquet  # noqa: PLC0415

    film = prediction()
    Chain(store, "front-00000001").write([film, refusal()])
    Chain(store, "label-host-00000003").write([label_of(film)])
    view = View(view_id="1", case_id="2", time=film.time, release=RELEASE, by="r.1", page="images")
    Chain(store, "review-host-00000004").write([view])
    export(reader_of(store, KEY), FolderTarget(tmp_path))
    types = {
        "VARCHAR": pyarrow.string(), "VARCHAR[]": pyarrow.list_(pyarrow.string()), "DOUBLE": pyarrow.float64(),
        "INTEGER": pyarrow.int32(), "BIGINT": pyarrow.int64(), "BOOLEAN": pyarrow.bool_(),
        "TIMESTAMPTZ": pyarrow.timestamp("us", "UTC"),
    }  # fmt: skip
    for table in ("predictions", "labels", "reviews"):
        (file,) = (tmp_path / table).rglob("*.parquet")
        schema = parquet.read_schema(file)
        expected = {name: types[kind] for name, kind in EXPORT_COLUMNS[table].items()}
        found = {name: schema.field(name).type for name in schema.names}
        # Whatever a list's elements are called.
        plain = {n: pyarrow.list_(t.value_type) if pyarrow.types.is_list(t) else t for n, t in found.items()}
        assert plain == expected


def test_a_second_run_adds_nothing_a_third_what_is_new(store: MemoryStore, target: Target, tmp_path: Path) -> None:
    writer = Chain(store, "front-00000001")
    for _ in range(5):
        writer.write([prediction()])
    assert export(reader_of(store, KEY), target) == ExportReport(1, 5, 0, [])
    assert export(reader_of(store, KEY), target) == ExportReport(0, 0, 0, [])
    writer.write([])
    assert export(reader_of(store, KEY), target) == ExportReport(0, 0, 0, [])
    writer.write([refusal()])
    assert export(reader_of(store, KEY), target) == ExportReport(1, 1, 0, [])
    names = files(target, store, tmp_path / "out")
    assert [name.rpartition("/")[2] for name in names] == [
        "front-00000001-00000001-00000005.parquet",
        "front-00000001-00000006-00000007.parquet",
    ]


class _Failing:
    """A target whose nth file is not taken."""

    def __init__(self, target: Target, broken: int) -> None:
        self._target = target
        self._left = broken

    def names(self, folder: str) -> Iterator[str]:
        return self._target.names(folder)

    def put(self, name: str, file: Path) -> None:
        self._left -= 1
        if self._left == 0:
            raise StoreError("The store could not be reached; check its address, and that it runs.")
        self._target.put(name, file)


def test_a_run_that_broke_off_is_finished_by_the_next(
    store: MemoryStore, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 4)
    writer = Chain(store, "front-00000001")
    films = [prediction() for _ in range(10)]
    for film in films:
        writer.write([film])
    with pytest.raises(StoreError):
        export(reader_of(store, KEY), _Failing(target, 2))
    # Files of another size, so that nothing is right only because the same files are written again.
    monkeypatch.setattr(module, "_ROWS", 3)
    late = prediction()
    writer.write([late])
    assert export(reader_of(store, KEY), target) == ExportReport(3, 7, 0, [])
    names = files(target, store, tmp_path / "out")
    assert [name[-25:-8] for name in names] == [
        "00000001-00000004",
        "00000005-00000007",
        "00000008-00000010",
        "00000011-00000011",
    ]
    ids = read(tmp_path / "out", "select prediction_id from predictions")
    assert sorted(chain.from_iterable(ids)) == sorted(film.prediction_id for film in [*films, late])


def test_what_comes_late_falls_into_no_file(store: MemoryStore, tmp_path: Path) -> None:
    target = FolderTarget(tmp_path)
    writer = Chain(store, "front-00000001")
    films = [prediction() for _ in range(3)]
    writer.write(films[:1])
    writer.sequence = 2
    writer.write(films[2:])
    assert export(reader_of(store, KEY), target).files == 2
    writer.sequence = 1
    writer.write(films[1:2])
    assert export(reader_of(store, KEY), target) == ExportReport(1, 1, 0, [])
    assert read(tmp_path, "select count(distinct prediction_id), count(*) from predictions") == [(3, 3)]


def test_two_runs_at_once_are_noticed(store: MemoryStore, tmp_path: Path) -> None:
    target = FolderTarget(tmp_path)
    writer = Chain(store, "front-00000001")
    writer.write([prediction()])
    export(reader_of(store, KEY), target)
    (file,) = tmp_path.rglob("*.parquet")
    file.with_name("front-00000001-00000001-00000002.parquet").write_bytes(file.read_bytes())
    with pytest.raises(ExportError, match="ran at once"):
        export(reader_of(store, KEY), target)


def test_days_before_since_are_left_out(store: MemoryStore, tmp_path: Path) -> None:
    writer = Chain(store, "front-00000001")
    now = datetime.now(UTC)
    for age in (3, 2, 1):
        writer.write([prediction(id_made(now - timedelta(days=age)))])
    first: date = (now - timedelta(days=2)).date()
    assert export(reader_of(store, KEY), FolderTarget(tmp_path), first) == ExportReport(2, 2, 0, [])
    assert export(reader_of(store, KEY), FolderTarget(tmp_path)) == ExportReport(1, 1, 0, [])


def test_entries_of_older_versions_are_exported(store: MemoryStore, tmp_path: Path) -> None:
    film = prediction()
    document = json.loads(canonical_json(film))
    document["schema"] = "pneumoserve.record/1"
    del document["call"]["study"], document["call"]["patient"]
    line = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    header = Header(
        writer="front-00000001", sequence=1, date=film.time[:10], release=RELEASE, opened=film.time, count=1,
        previous=None, last=False, software="0.1.0", key_id=key_id_of(KEY),
    )  # fmt: skip
    store.put(header.segment_key.key, sign_segment(header, [line], KEY), "application/x-ndjson")
    export(reader_of(store, KEY), FolderTarget(tmp_path))
    assert read(tmp_path, 'select "schema", study, hash from predictions') == [
        ("pneumoserve.record/1", None, digest_of(line))
    ]


def test_a_damaged_segment_is_reported_and_its_neighbours_are_exported(store: MemoryStore, tmp_path: Path) -> None:
    writer = Chain(store, "front-00000001")
    places = [writer.write([prediction(), prediction()]) for _ in range(3)]
    body = store.get(places[1].key)
    store.put(places[1].key, body[: len(body) // 2], "application/x-ndjson")
    assert export(reader_of(store, KEY), FolderTarget(tmp_path)) == ExportReport(2, 4, 0, [places[1].key])
    store.put(places[1].key, body, "application/x-ndjson")
    assert export(reader_of(store, KEY), FolderTarget(tmp_path)) == ExportReport(1, 2, 0, [])


def test_a_full_disk_is_reported(store: MemoryStore, tmp_path: Path) -> None:
    Chain(store, "front-00000001").write([prediction()])
    (tmp_path / "predictions").write_text("a file where a folder would be")
    with pytest.raises(ExportError, match="make room, or give another --to"):
        export(reader_of(store, KEY), FolderTarget(tmp_path))


def test_the_query_of_the_documentation(store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = [prediction(), prediction(), prediction(typed=False), prediction()]
    Chain(store, "front-00000001").write(films)
    wrong = label_of(films[0]).model_copy(update={"finding": "normal", "time": "2026-01-01T00:00:00.000Z"})
    labels = [wrong, *(label_of(film) for film in films[:3])]
    Chain(store, "label-host-00000002").write(labels, date=films[0].time[:10])
    export(reader_of(store, KEY), FolderTarget(tmp_path / "exports"))
    monkeypatch.chdir(tmp_path)
    (query,) = re.findall(r"```sql\n(.*?)```", (DOCS / "how-to" / "export.md").read_text(), re.DOTALL)
    with duckdb.connect(":memory:") as database:
        assert database.sql(query).fetchall() == [(RELEASE, "pneumonia", 3, 2, 1, 0, 0.9)]


def test_every_column_is_in_the_documentation() -> None:
    text = (DOCS / "reference" / "export-tables.md").read_text()
    for table, columns in EXPORT_COLUMNS.items():
        section = text.partition(f"## Table `{table}`\n")[2].partition("\n#")[0]
        described = re.findall(r"^\| `(\w+)` \| ([A-Z\[\]]+) \|", section, re.MULTILINE)
        assert described == list(columns.items())
