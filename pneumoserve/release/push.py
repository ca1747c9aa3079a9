"""Copying releases to the object store, where clusters fetch them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import digest_of
from pneumoserve.release.fetch import download, missing
from pneumoserve.release.verify import MANIFEST, SIGNATURE, check_files, id_of, make_misplaced_error, read_manifest
from pneumoserve.signing import add_signature, merge_signatures
from pneumoserve.store import NotFoundError, Store


def upload(folder: Path, store: Store) -> Iterator[str]:
    """Copy a release below `releases/<id>`, yielding each key; its manifest comes last, so a half push is none.

    Signatures that the store's copy has stay.

    Raises:
        ReleaseError: the folder holds no release, or not the one that its name says.
        StoreError: the store does not give or take a file.
    """
    release_id = id_of(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == MANIFEST):
        name = path.relative_to(folder).as_posix()
        key, data = f"releases/{release_id}/{name}", path.read_bytes()
        if name == SIGNATURE:
            data = merge_signatures(data, _present(key, store))
        store.put(key, data, "application/octet-stream")
        yield key


def _present(key: str, store: Store) -> bytes | None:
    try:
        return store.get(key)
    except NotFoundError:
        return None


def sign_pushed(release_id: str, store: Store, key: Ed25519PrivateKey, expires: date | None = None) -> None:
    """Sign a release where it was pushed to, after a look at whether it is whole and the one that was asked for.

    Signatures of others stay; `expires` is the last day (UTC) on which this one lets it start.

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
            raise make_misplaced_error(release_id, found)
        check_files(folder, manifest.files, f"Release {release_id}")
        present = (folder / SIGNATURE).read_bytes() if (folder / SIGNATURE).is_file() else None
    signed = add_signature(data, key, present, expires)
    store.put(f"releases/{release_id}/{SIGNATURE}", signed, "application/octet-stream")
