"""Tallies of an export of the archive, by SQL: for more studies than a review database can list at once.

`sql/` holds the queries, which DuckDB and Spark SQL run as they stand. Each makes a table of its name, in the order of
`QUERIES`; those of drift are `exported_drift`'s. They ask the export's tables and two that are passed in: `asked`, one
row that says which studies, and `thresholds`, each release's. Two functions are Spark's, and DuckDB is taught them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pneumoserve.errors import PneumoserveError
from pneumoserve.monitoring.estimates import Counted, Group, tally_groups
from pneumoserve.records import EXPORT_COLUMNS, Effort, Scope, Tested

if TYPE_CHECKING:
    import duckdb

QUERIES: Final = ("said", "answered", "studies", "groups", "effort", "tested")
# Those whose rows say all.
RESULTS: Final = QUERIES[3:]
TABLES: Final = ("predictions", "labels", "reviews")
ASKED: Final = {
    "since": "BIGINT",
    "one_release": "VARCHAR",
    "one_site": "VARCHAR",
    "ending": "BIGINT",
    "closing": "BIGINT",
    "closed_after": "BIGINT",
}
MEMORY: Final = "1GB"
_FUNCTIONS: Final = (
    "CREATE MACRO unix_millis(moment) AS epoch_ms(moment)",
    "CREATE MACRO sha2(words, bits) AS sha256(words)",
)
# What says that a row was written before its table had the columns that the queries need.
_EARLIER: Final = {"labels": "reading IS NOT NULL AND blind IS NULL", "reviews": "kind IS NULL"}


class ExportedError(PneumoserveError):
    """An export cannot be read; the text says what to do."""

    exit_code = 2


def read_query(name: str) -> str:
    """The text of a query."""
    return (Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def make_asked_row(
    scope: Scope, now: datetime, closed_after: timedelta
) -> tuple[int | None, str | None, str | None, int | None, int, int]:
    """The row of `asked`; moments are milliseconds since 1970."""
    since, ending = (None if day is None else _millis(day.replace(tzinfo=UTC)) for day in (scope.since, scope.before))
    days = closed_after // timedelta(milliseconds=1)
    return since, scope.release, scope.site, ending, _millis(now - closed_after), days


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def count_exported(
    folder: Path,
    now: datetime,
    scope: Scope,
    closed_after: timedelta,
    find_threshold: Callable[[str], float | None],
    memory: str = MEMORY,
) -> list[Counted]:
    """Count the studies of an export, by release, the release that answered last first.

    `find_threshold` gives a release's threshold, None where nobody knows it. DuckDB takes no more than `memory`, and
    puts what does not fit on disk.

    Raises:
        ExportedError: the folder holds no export, or one of an earlier version.
        NoStudiesError: there are no studies in that scope.
        ModuleNotFoundError: DuckDB is not installed.
    """
    with open_export(folder, memory) as database:
        known = "SELECT DISTINCT {0} FROM predictions WHERE {0} IS NOT NULL AND referred IS NOT NULL ORDER BY {0}"
        releases, sites = (
            [str(row[0]) for row in ask(database, known.format(name))] for name in ("release", "subject")
        )
        scope.check(releases, sites)
        database.executemany("INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?)", [make_asked_row(scope, now, closed_after)])
        thresholds = [(release, find_threshold(release)) for release in releases]
        database.executemany("INSERT INTO thresholds VALUES (?, ?)", thresholds)
        for name in QUERIES:
            database.execute(f"CREATE TABLE {name} AS {read_query(name)}")
        rows = {name: ask(database, f"SELECT * FROM {name}") for name in RESULTS}  # noqa: S608 - names of ours
    scope.check_found(bool(rows["groups"]))
    return collect(rows["groups"], rows["effort"], rows["tested"])


def collect(groups: Sequence[Any], effort: Sequence[Any], tested: Sequence[Any]) -> list[Counted]:
    """What the rows of the queries `groups`, `effort` and `tested` say of each release."""
    counts: dict[str, Counter[Group]] = defaultdict(Counter)
    left_out: Counter[str] = Counter()
    still_open: Counter[str] = Counter()
    stopped: Counter[str] = Counter()
    latest: dict[str, int] = {}
    for release, state, counted, stratum, above, probability, outcome, truth, named, studies, last in groups:
        latest[release] = max(last, latest.get(release, last))
        if state == "open":
            still_open[release] += studies
        elif state == "stopped":
            stopped[release] += studies
        elif counted:
            counts[release][Group(stratum, above, probability, outcome, truth, named)] += studies
        else:
            left_out[release] += studies
    known: dict[str, dict[str, dict[str, Tested]]] = defaultdict(lambda: defaultdict(dict))
    for release, source, answer, *numbers in tested:
        known[release][source][answer] = Tested(*(int(each) for each in numbers))
    efforts = {release: Effort(*numbers) for release, *numbers in effort}
    return [
        Counted(
            release,
            tally_groups(counts[release], left_out[release]),
            still_open[release],
            stopped[release],
            efforts[release],
            {source: dict(answers) for source, answers in known[release].items()},
        )
        for release in sorted(latest, key=latest.__getitem__, reverse=True)
    ]


@contextlib.contextmanager
def open_export(folder: Path, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of the export's tables, and of those that queries ask besides: `asked` and `thresholds`, empty.

    DuckDB takes no more than `memory`, and puts what does not fit on disk.

    Raises:
        ExportedError: the folder holds no export, or one of an earlier version.
        ModuleNotFoundError: DuckDB is not installed.
    """
    import duckdb  # noqa: PLC0415 - only an export needs it

    if not (folder / "predictions").is_dir():
        raise ExportedError(f"{folder} holds no export; write one with `pneumoserve archive export --to {folder}`.")
    with tempfile.TemporaryDirectory(prefix="exported-") as spill:
        limits: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "temp_directory": spill,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=limits) as database:
            for function in _FUNCTIONS:
                database.execute(function)
            database.execute(f"CREATE TABLE asked ({', '.join(f'{name} {kind}' for name, kind in ASKED.items())})")
            database.execute("CREATE TABLE thresholds (release VARCHAR, threshold DOUBLE)")
            for table in TABLES:
                _add_table(database, folder, table)
            yield database


def _add_table(database: duckdb.DuckDBPyConnection, folder: Path, table: str) -> None:
    columns = EXPORT_COLUMNS[table] | {"release": "VARCHAR"}
    if not any((folder / table).rglob("*.parquet")):
        database.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        return
    # A path in SQL's text, since a view takes no parameters.
    files = f"{folder}/{table}/**/*.parquet".replace("'", "''")
    options = "hive_partitioning = true, hive_types = {'release': VARCHAR}, union_by_name = true"
    database.execute(f"CREATE VIEW {table} AS FROM read_parquet('{files}', {options})")
    has = {row[0] for row in database.execute(f"DESCRIBE {table}").fetchall()}
    if not columns.keys() <= has or (
        table in _EARLIER and ask(database, f"FROM {table} WHERE {_EARLIER[table]} LIMIT 1")
    ):
        raise ExportedError(
            f"{folder} was written by an earlier version, whose table {table} says less; export into an empty folder."
        )


def ask(database: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    """The rows of a query."""
    return database.execute(query).fetchall()
