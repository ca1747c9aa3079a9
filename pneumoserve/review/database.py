"""The review database: opened, brought to its present form, and read and written in transactions.

SQLite by default, one file of mode 0600; PostgreSQL where several machines share it. Both behave alike here: one
transaction writes at a time, so that nothing changes under what it has read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pneumoserve.ledger import Reader
from pneumoserve.records import Entry, parse_entry
from pneumoserve.review.errors import DatabaseError
from pneumoserve.review.following import clear, read_new, read_places, take
from pneumoserve.review.tables import METADATA, facts

_WAIT_SECONDS: Final = 5
# Any number that nothing else in the database uses.
_WRITE_LOCK: Final = 7_236_110_412
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_WRITES: Final = {"writes": True}


class ReviewDatabase:
    """One review database, whose tables have their present form.

    `url` is `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`; it is in no message.

    Raises:
        DatabaseError: it cannot be reached, or is not a review database of this version.
    """

    def __init__(self, url: str) -> None:
        address = _parse(url)
        if address.get_backend_name() == "sqlite":
            _make_file(address.database)
        self._engine = _open(address)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that changes nothing.

        Raises:
            DatabaseError: the database does not answer.
        """
        with _explain_errors(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """The one transaction that writes now; nothing of it stays where it ends by an error.

        Raises:
            DatabaseError: the database does not answer, or another transaction has written for longer than 5 s.
        """
        with _explain_errors(), self._engine.connect().execution_options(**_WRITES) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _WRITE_LOCK})
            yield connection

    def list_said(self, *kinds: str) -> list[Entry]:
        """What is on record of these kinds (`records.kind_of`), the first first.

        Raises:
            DatabaseError: the database does not answer.
        """
        wanted = select(facts.c.body).where(facts.c.kind.in_(kinds)).order_by(facts.c.time, facts.c.entry_id)
        with self.read() as connection:
            return [parse_entry(body.encode()) for body in connection.scalars(wanted)]

    def check(self) -> None:
        """See that the database answers, and has its tables.

        Raises:
            DatabaseError: it does not.
        """
        with self.read() as connection:
            for table in METADATA.sorted_tables:
                connection.execute(select(1).select_from(table).limit(1))

    def is_filled(self) -> bool:
        """Whether all that the archive said at one time is here; until then the database is empty.

        Raises:
            DatabaseError: the database does not answer.
        """
        with self.read() as connection:
            return bool(read_places(connection))

    def follow(self, reader: Reader) -> int:
        """Take what is new in the archive; how many entries that were.

        Raises:
            DatabaseError: the database does not answer.
            StoreError: the store does not answer; the next look goes on where this one stopped.
            ValueError: an entry is of a form that this version does not read.
        """
        with self.read() as connection:
            places = read_places(connection)
        if not places:
            # Whoever looked at half of it would raise alerts anew that were answered long ago.
            return self.rebuild(reader)
        taken = 0
        for step in read_new(reader, places):
            with self.write() as connection:
                take(connection, step)
            taken += len(step.entries)
        return taken

    def rebuild(self, reader: Reader) -> int:
        """Make all anew from the archive, in one transaction; how many entries that took. Claims and leases stay.

        Raises:
            DatabaseError, StoreError, ValueError: as `follow`; the database is as it was before.
        """
        taken = 0
        with self.write() as connection:
            clear(connection)
            for step in read_new(reader, {}):
                take(connection, step)
                taken += len(step.entries)
        return taken

    def _migrate(self) -> None:
        # `path_separator` says that no path of Alembic's holds several.
        config = alembic.config.Config(config_args={"path_separator": "os"})
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            try:
                alembic.command.upgrade(config, "head")
            except alembic.util.CommandError:
                raise DatabaseError(
                    "The review database was made by a newer version; use that one, or give another database."
                ) from None


def _parse(url: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError:
        address = None
    kind = None if address is None or address.database in {None, "", ":memory:"} else address.get_backend_name()
    if address is None or kind not in {"sqlite", "postgresql"}:
        raise DatabaseError("The review database is sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.")
    return address.set(drivername="postgresql+psycopg") if kind == "postgresql" else address


def _make_file(name: str | None) -> None:
    """Make the file whole, for this user alone and with a write-ahead log, which takes the same mode.

    SQLite would change to such a log only while nobody else has the file open, and does not wait for that.
    """
    path = Path(name or "")
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as new:
            with contextlib.closing(sqlite3.connect(new.name)) as connection:
                connection.execute("pragma journal_mode = wal")
            with contextlib.suppress(FileExistsError):
                os.link(new.name, path)
    except OSError as error:
        raise DatabaseError(f"The review database's file cannot be made ({error.strerror}); give another.") from None


def _open(address: URL) -> Engine:
    if address.get_backend_name() == "postgresql":
        options = {"connect_timeout": _WAIT_SECONDS, "options": f"-c lock_timeout={_WAIT_SECONDS * 1000}"}
        return create_engine(address, connect_args=options, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(address, connect_args={"timeout": _WAIT_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    # Transactions begin where SQLAlchemy says so, not where the driver thinks that one is needed.
    connection.isolation_level = None
    connection.execute("pragma synchronous = normal")


def _begin_sqlite(connection: Connection) -> None:
    """Take the lock at once: what has read before it wants to write would be refused where another wrote meanwhile."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("begin immediate" if writes else "begin")


@contextlib.contextmanager
def _explain_errors() -> Iterator[None]:
    """A sentence without address, statement or value in the place of the library's error."""
    try:
        yield
    except SQLAlchemyError as error:
        raise DatabaseError(
            f"The review database does not answer ({type(error).__name__}); see that it runs, and try again. If it "
            "stays so, `pneumoserve review rebuild` makes it anew from the archive."
        ) from None
