"""Copying releases to the object store, where clusters fetch them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.archive.store import ObjectStore
from pneumoserve.release.fetch import download, misplaced, missing
from pneumoserve.release.schema import digest_of
from pneumoserve.release.signing import signature_of
from pneumoserve.release.verify import MANIFEST, SIGNATURE, check_files, read_manifest


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


def sign_pushed(release_id: str, store: ObjectStore, key: Ed25519PrivateKey) -> None:
    """Sign a release where it was pushed to, after a look at whether it is whole and the one that was asked for.

    Raises:
        ReleaseError: the store has none of this id, or it is not what its manifest states.
        StoreError: the store does not give or take a file.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = download(release_id, store, Path(temporary))
        if folder is None:
            raise missing(release_id)
        data, manifest = read_manifest(folder)
        found = digest_of(data)[:12]
        if found != release_id:
            raise misplaced(release_id, found)
        check_files(folder, manifest.files, f"Release {release_id}")
    store.put(f"releases/{release_id}/{SIGNATURE}", signature_of(data, key), "application/octet-stream")
