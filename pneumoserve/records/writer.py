"""Putting entries and films on record from a process that serves."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import Sha256, canonical_json
from pneumoserve.ledger import Journal, LedgerWriter, LockRule, Receipt
from pneumoserve.records.entries import Entry
from pneumoserve.records.envelopes import envelope_key
from pneumoserve.records.image_keys import image_key
from pneumoserve.store import Store


class ArchiveWriter:
    """A writer of a process that serves a release; one for each role, such as `label`, that it writes in."""

    def __init__(
        self,
        store: Store,
        key: Ed25519PrivateKey,
        release: str,
        journal: Journal | None = None,
        lock: LockRule | None = None,
        role: str = "",
    ) -> None:
        self._writer = LedgerWriter(store, key, release, journal, lock, role)

    async def start(self) -> None:
        """Begin to write and to watch the store.

        Raises:
            StoreError: there is to be a journal, and it cannot be opened.
        """
        await self._writer.start()

    async def close(self) -> None:
        """Write what is queued and the chain's end, then stop; what the store does not take waits in the journal."""
        await self._writer.close()

    @property
    def healthy(self) -> bool:
        """Whether a record would be taken: by the store, which took or answered the last request, or the journal."""
        return self._writer.healthy

    async def put_image(self, stored_sha256: Sha256, data: bytes, content_type: str) -> None:
        """Store a film once.

        Raises:
            StoreError: neither the store nor a journal took it within 5 s.
        """
        await self._writer.put_object(image_key(stored_sha256), data, content_type)

    async def put_envelope(self, prediction_id: str, sealed: bytes) -> None:
        """Store an envelope, which no lock holds: it must be possible to erase it.

        Raises:
            StoreError: neither the store nor a journal took it within 5 s.
        """
        await self._writer.put_object(envelope_key(prediction_id), sealed, "application/octet-stream", locked=False)

    async def commit(self, entry: Entry) -> Receipt:
        """Write an entry; returns when the store or the journal has it.

        Raises:
            StoreError: neither took it within 5 s, or the writer is closing.
        """
        return await self._writer.commit(canonical_json(entry), entry.time[:10], entry.release)
