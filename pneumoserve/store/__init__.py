"""The object store: what it is, S3, and one in memory."""

from pneumoserve.store.base import Lock, NotFoundError, Store, StoredObject, StoredVersion, StoreError
from pneumoserve.store.memory import MemoryStore
from pneumoserve.store.s3 import BUCKET, S3Settings, S3Store

__all__ = [
    "BUCKET",
    "Lock",
    "MemoryStore",
    "NotFoundError",
    "S3Settings",
    "S3Store",
    "Store",
    "StoreError",
    "StoredObject",
    "StoredVersion",
]
