"""Fetching releases from the object store, to where `push` copied them."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from pneumoserve.archive.store import ObjectStore
from pneumoserve.release.verify import MANIFEST, Release, ReleaseError, verify

_ID: Final = re.compile(r"[0-9a-f]{12}")


def fetch(store: ObjectStore, release_id: str, out: Path, trust: Path) -> Release:
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
        strange = _copied(store, release_id, folder)
        if strange:
            raise ReleaseError(
                "extra_file", f"The store holds {strange[0]}, which leads out of the release; remove it."
            )
        if not folder.is_dir():
            raise missing(release_id)
        release = verify(folder, trust)
        if release.id != release_id:
            raise misplaced(release_id, release.id)
        shutil.rmtree(out / release_id, ignore_errors=True)
        return replace(release, folder=folder.rename(out / release_id))


def download(release_id: str, store: ObjectStore, into: Path) -> Path | None:
    """Copy a release of the store to `into/<id>`, unverified; None where the store has none of that id.

    Raises:
        StoreError: the store did not give a file.
    """
    folder = into / release_id
    _copied(store, release_id, folder)
    return folder if (folder / MANIFEST).is_file() else None


def missing(release_id: str) -> ReleaseError:
    """The store has no such release."""
    return ReleaseError("unreadable", f"There is no release {release_id} here, nor in the store.")


def misplaced(release_id: str, found: str) -> ReleaseError:
    """The store has another release in the place of one."""
    return ReleaseError("altered", f"The store's releases/{release_id} holds {found}; push the right one.")


def _copied(store: ObjectStore, release_id: str, folder: Path) -> list[str]:
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
