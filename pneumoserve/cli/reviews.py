"""The review database that a command works on, brought up to what the archive says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pneumoserve.cli.output import needs
from pneumoserve.cli.stores import reader_of, store_of
from pneumoserve.ledger import Reader
from pneumoserve.local.state import State
from pneumoserve.store import Store

with needs("This command needs {}; install pneumoserve[review]."):
    from pneumoserve.review import ReviewDatabase


@dataclass(frozen=True)
class Review:
    """A review database, the archive that it follows, and the store of both."""

    database: ReviewDatabase
    reader: Reader
    store: Store


@contextlib.contextmanager
def review_of(
    state: Path, url: str | None, writers: Path | None, sealers: Path | None, follow: bool = True
) -> Iterator[Review]:
    """The database at `url`, by default the state's; `follow` takes what is new in the archive.

    Raises:
        Failure, KeyFileError: there are no trusted keys.
        DatabaseError: the database does not answer.
        StoreError: the store does not answer.
    """
    with store_of(state) as store:
        reader = reader_of(store, state, writers, sealers)
        with contextlib.closing(ReviewDatabase(url or State(state).review_database)) as database:
            if follow:
                database.follow(reader)
            yield Review(database, reader, store)
