"""Fetching releases from the object store, to where `push` copied them."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from pneumoserve.canonical import digest_of
from pneumoserve.decision import Policy
from pneumoserve.release.schema import ReleaseManifest
from pneumoserve.release.verify import MANIFEST, Release, ReleaseError, verify
from pneumoserve.store import NotFoundError, Store

_ID: Final = re.compile(r"[0-9a-f]{12}")


def fetch(store: Store, release_id: str, out: Path, trust: Path) -> Release:
    """Download a release to `out/<id>`; it is there only if it verified.

    Raises:
        ReleaseError: the store has none of this id, or it must not run.
        StoreError: the store does not answer.
    """
    if not _ID.fullmatch(release_id):
        raise ReleaseError("unreadable", f"There is no release {release_id}; an id is 12 hex digits, or give a folder.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".fetch-") as temporary:
        folder = Path(temporary) / release_id
        strange = _copy(store, release_id, folder)
        if strange:
            raise ReleaseError(
                "extra_file", f"The store holds {strange[0]}, which leads out of the release; remove it."
            )
        if not folder.is_dir():
            raise missing(release_id)
        release = verify(folder, trust, release_id)
        shutil.rmtree(out / release_id, ignore_errors=True)
        return replace(release, folder=folder.rename(out / release_id))


def find_or_fetch(store: Store, release_id: str, releases: Path, trust: Path) -> Release:
    """A release of the folder of releases, where it is put if only the store has it; verified.

    Raises:
        ReleaseError: neither has one of this id, or it must not run.
        StoreError: the store does not answer.
    """
    if not (releases / release_id / MANIFEST).is_file():
        return fetch(store, release_id, releases, trust)
    return verify((releases / release_id).resolve(), trust, release_id)


def download(release_id: str, store: Store, into: Path) -> Path | None:
    """Copy a release of the store to `into/<id>`, unverified; None where the store has none of that id.

    Raises:
        StoreError: the store did not give a file.
    """
    folder = into / release_id
    _copy(store, release_id, folder)
    return folder if (folder / MANIFEST).is_file() else None


def find_policy(release_id: str, releases: Path, store: Store | None) -> Policy | None:
    """A release's policy, from the folder of releases or a store; None where neither has the release of that id.

    Raises:
        StoreError: the store does not answer.
    """
    document = find_file(release_id, MANIFEST, releases, store)
    manifest = None if document is None else parse_manifest(document, release_id)
    return None if manifest is None else manifest.policy


def find_threshold(release_id: str, releases: Path, store: Store | None) -> float | None:
    """The detector's threshold of a release, from where `find_policy` looks.

    Raises:
        StoreError: the store does not answer.
    """
    policy = find_policy(release_id, releases, store)
    return None if policy is None else policy.detector_threshold


def find_file(release_id: str, name: str, releases: Path, store: Store | None) -> bytes | None:
    """A file of a release, unverified, from the folder of releases or the store; None where neither has it.

    Raises:
        StoreError: the store does not answer.
    """
    file = releases / release_id / name
    try:
        if file.is_file():
            return file.read_bytes()
        return None if store is None else store.get(f"releases/{release_id}/{name}")
    except NotFoundError:
        return None


def parse_manifest(document: bytes, release_id: str) -> ReleaseManifest | None:
    """The manifest of this id; None where a document is another, or of a form that this version does not read."""
    # The id is made of the manifest's digest, so that it vouches for what it names.
    if not digest_of(document).startswith(release_id):
        return None
    try:
        return ReleaseManifest.model_validate_json(document)
    except ValidationError:
        return None


def missing(release_id: str) -> ReleaseError:
    """The store has no such release."""
    return ReleaseError("unreadable", f"There is no release {release_id} here, nor in the store.")


def _copy(store: Store, release_id: str, folder: Path) -> list[str]:
    """Copy a release's objects into a folder; returns the keys that lead out of it, which are not."""
    prefix = f"releases/{release_id}/"
    strange: list[str] = []
    for item in store.list(prefix):
        if item.key.endswith("/"):
            continue  # some consoles write an empty object for a folder
        name = PurePosixPath(item.key.removeprefix(prefix))
        # Whoever can write to the store must not choose where this writes.
        if name.is_absolute() or ".." in name.parts:
            strange.append(item.key)
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(item.key))
    return strange
