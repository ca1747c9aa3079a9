"""Putting a few entries on record from a process that serves nothing: one short chain, whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json
from pneumoserve.ledger import Chain, Receipt, make_receipt, writer_name
from pneumoserve.records.entries import Entry
from pneumoserve.store import Store


def append_once(store: Store, key: Ed25519PrivateKey, entry: Entry, writer: str) -> None:
    """Write an entry by a writer of its own, whose name says which entry it is: `<role>-<host>-<8 hex>`.

    Whoever writes the same entry under the same name again, after a kill or at the same time, writes nothing.

    Raises:
        StoreError: the store did not take it.
    """
    chain = Chain(key, writer)
    place, body = chain.next([canonical_json(entry)], entry.time[:10], entry.release, last=True)
    store.create(place.key, body, "application/x-ndjson")


def append(store: Store, key: Ed25519PrivateKey, entries: Sequence[Entry], role: str) -> list[Receipt]:
    """Write entries by a writer of their own, `<role>-<host>-<8 hex>`; a receipt for each, in their order.

    Raises:
        StoreError: the store did not take all of them.
    """
    chain = Chain(key, writer_name(role))
    groups = [(place, list(group)) for place, group in groupby(entries, lambda entry: (entry.time[:10], entry.release))]
    receipts: list[Receipt] = []
    for number, ((date, release), group) in enumerate(groups, 1):
        lines = [canonical_json(entry) for entry in group]
        place, body = chain.next(lines, date, release, last=number == len(groups))
        store.put(place.key, body, "application/x-ndjson")
        receipts += [make_receipt(place, line, key) for line in lines]
    return receipts
