"""Copies of seals at a second place: a folder that the store's administrator has no hand in."""

from __future__ import annotations

import os
from pathlib import Path

from pneumoserve.canonical import Sha256, digest_of
from pneumoserve.ledger.seals import SEALS, Seals, seal_key, seal_number, stamp_key
from pneumoserve.store import NotFoundError, Store


def copy_seals(store: Store, seals: Seals, folder: Path) -> None:
    """Write to the folder what of the chain is not there yet, seals and their time stamps.

    Raises:
        StoreError: the store does not answer.
        OSError: the folder takes no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir()}
    keys = [seal_key(number) for number in seals.digests] + [stamp_key(number) for number in seals.stamps]
    for key in keys:
        name = key.removeprefix(SEALS)
        if name not in there:
            _copy(store, key, seals, folder / name)


def _copy(store: Store, key: str, seals: Seals, path: Path) -> None:
    try:
        body = store.get(key)
    except NotFoundError:
        return
    number = seal_number(key)
    if number is not None and digest_of(body) != seals.digests[number]:
        return
    # Whole, or not there: a later run copies what is not.
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_copied_seals(folder: Path) -> tuple[tuple[int, Sha256], ...]:
    """Number and SHA-256 of the seals that a folder has copies of.

    Raises:
        OSError: it cannot be read.
    """
    found = ((seal_number(f"{SEALS}{path.name}"), path) for path in sorted(folder.iterdir()))
    return tuple((number, digest_of(path.read_bytes())) for number, path in found if number is not None)
