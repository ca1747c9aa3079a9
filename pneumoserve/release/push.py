"""Copying releases to the object store, where clusters fetch them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pneumoserve.archive.store import ObjectStore
from pneumoserve.release.verify import MANIFEST, read_manifest


def upload(folder: Path, store: ObjectStore) -> Iterator[str]:
    """Copy a release below `releases/<id>`, yielding each key; its manifest comes last, so a half push is none.

    Raises:
        ReleaseError: the folder holds no release.
        StoreError: the store did not take a file.
    """
    read_manifest(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == MANIFEST):
        key = f"releases/{folder.name}/{path.relative_to(folder).as_posix()}"
        store.put(key, path.read_bytes(), "application/octet-stream")
        yield key
