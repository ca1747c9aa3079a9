"""Checkpoints in the object store: a training whose pod and disk are gone goes on from there."""

from __future__ import annotations

from pneumoserve.archive.store import NotFoundError, ObjectStore, S3Settings
from training.source import bucket_and_key

_NAME = "last.pt"


class RemoteCheckpoints:
    """The last checkpoint below an `s3://bucket/prefix`. It is one object, so it is there whole or not at all."""

    def __init__(self, url: str) -> None:
        """Reads the S3_* settings.

        Raises:
            DatasetError: the address names no bucket.
            StoreError: a setting is missing.
        """
        bucket, prefix = bucket_and_key(url)
        self._store = ObjectStore(S3Settings.from_env().in_bucket(bucket), patient=True)
        self._key = f"{prefix}/{_NAME}".lstrip("/")

    def save(self, checkpoint: bytes) -> None:
        """Put a checkpoint in the place of the one before.

        Raises:
            StoreError: the store did not take it.
        """
        self._store.put(self._key, checkpoint, "application/octet-stream")

    def load(self) -> bytes | None:
        """The last checkpoint, None where there is none.

        Raises:
            StoreError: the store did not give it.
        """
        try:
            return self._store.get(self._key)
        except NotFoundError:
            return None
