"""What reading room, alerts and random check put on record: the archive has it before the database does.

A crash in between is healed by following the archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.records import LABEL_WRITERS, REVIEW_WRITERS, ArchiveWriter, Label, ReviewEntry, append
from pneumoserve.store import Store

# Puts entries of one kind on record, together; returns when the archive has all of them, and raises StoreError else.
Commit = Callable[[Sequence[Label | ReviewEntry]], object]


def commit_to(store: Store, key: Ed25519PrivateKey) -> Commit:
    """Puts entries on record by a short chain each time, as commands do. A service keeps writers of its own."""
    return partial(_commit, store, key)


def commit_by(labels: ArchiveWriter, reviews: ArchiveWriter, loop: asyncio.AbstractEventLoop) -> Commit:
    """Puts entries on record by a service's own writers of the roles `label` and `review`, which run in `loop`.

    It is called in other threads than the loop's, as all that works on the database is.
    """

    async def write(entries: Sequence[Label | ReviewEntry]) -> None:
        await asyncio.gather(*((labels if isinstance(each, Label) else reviews).commit(each) for each in entries))

    def commit(entries: Sequence[Label | ReviewEntry]) -> None:
        asyncio.run_coroutine_threadsafe(write(entries), loop).result()

    return commit


def _commit(store: Store, key: Ed25519PrivateKey, entries: Sequence[Label | ReviewEntry]) -> None:
    role = LABEL_WRITERS if isinstance(entries[0], Label) else REVIEW_WRITERS
    append(store, key, entries, role.rstrip("-"))
