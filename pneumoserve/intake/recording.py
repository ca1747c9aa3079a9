"""What people say of studies by DICOM, put on record in the archive."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.records import REVIEW_WRITERS, Flag, Withdrawal, append_once, id_of
from pneumoserve.store import Store


class Recorder:
    """Writes to the archive; each entry once, however often it is told to."""

    def __init__(self, archive: Store, key: Ed25519PrivateKey) -> None:
        self._archive = archive
        self._key = key

    def record(self, entry: Flag | Withdrawal) -> None:
        """Put an entry on record.

        Raises:
            StoreError: the archive did not take it.
        """
        name = str(id_of(entry)).replace("-", "")
        append_once(self._archive, self._key, entry, f"{REVIEW_WRITERS}intake-{name[:-8]}-{name[-8:]}")
