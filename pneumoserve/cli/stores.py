"""Which store a command works on: the S3_* settings where they are set, else the state folder's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.cli.options import SEALERS, WRITERS
from pneumoserve.cli.output import Failure, errors, mark
from pneumoserve.ledger import Finding, Reader
from pneumoserve.local.stack import s3_alone
from pneumoserve.local.state import State
from pneumoserve.records import NO_RECORD, Record, find_record
from pneumoserve.signing import Trust, load_key, load_trust
from pneumoserve.store import S3Settings, S3Store, Store

_SHOWN: Final = 10


def is_own_store() -> bool:
    """Whether commands work on the state folder's own store, since no S3_ENDPOINT names another."""
    return not os.environ.get("S3_ENDPOINT")


@contextlib.contextmanager
def settings_of(state: Path) -> Iterator[S3Settings]:
    """Settings of the store; the state's own S3 server runs for as long as the context lasts, if it is down."""
    if not is_own_store():
        yield S3Settings.from_env()
        return
    where = State(state)
    if where.running() is None:
        # It takes seconds, and may take a minute on a busy machine.
        errors.print("starting the local store …")
    with s3_alone(where) as settings:
        yield settings


@contextlib.contextmanager
def store_of(state: Path) -> Iterator[Store]:
    """The store itself."""
    with settings_of(state) as settings:
        store = S3Store(settings)
        try:
            yield store
        finally:
            store.close()


def signing_key_of(state: Path, key: Path | None) -> Ed25519PrivateKey:
    """The key that signs what a command puts on record; without a file, the state's, once its store has run.

    Raises:
        KeyFileError: the file holds no key.
    """
    return State(state).archive_key if key is None else load_key(key)


def reader_of(store: Store, state: Path, writers: Path | None, sealers: Path | None) -> Reader:
    """A reader of the archive; folders of trusted keys that are not given are the state's.

    Raises:
        Failure: there is no such folder.
        KeyFileError: a folder holds no public key.
    """
    own = State(state)
    trusts = (_trust_of(writers or own.archive_trust, WRITERS), _trust_of(sealers or own.sealer_trust, SEALERS))
    return Reader(store, *trusts, _ShowPassedOver())


def _trust_of(folder: Path, whose: str) -> Trust:
    if not folder.is_dir():
        raise Failure(
            "Of the archive only what trusted keys signed is believed, and this state folder has none; name the "
            "folders of public keys with --archive-trust and --sealer-trust.",
            2,
        )
    return load_trust(folder, whose)


class _ShowPassedOver:
    """Shows on stderr the first objects that a reader passes over."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, finding: Finding) -> None:
        self._count += 1
        if self._count < _SHOWN:
            errors.print(mark("passed over:", "yellow", f" {finding.key}: {finding.sentence}"), soft_wrap=True)
        elif self._count == _SHOWN:
            errors.print(mark("passed over:", "yellow", " and more"), soft_wrap=True)
        if self._count == 1:
            errors.print("Run `pneumoserve archive verify` to see all that is wrong with the archive.", soft_wrap=True)


def record_of(reader: Reader, prediction_id: str) -> Record:
    """The record of a prediction that a person asks for.

    Raises:
        Failure: it is no prediction id, or the store has no such record.
    """
    try:
        record = find_record(reader, prediction_id)
    except ValueError as error:
        raise Failure(str(error), 2) from None
    if record is None:
        raise Failure(NO_RECORD, 1)
    return record


@contextlib.contextmanager
def environment_of(state: Path, needed: bool) -> Iterator[None]:
    """Set the S3_* variables that training reads, where it reads from a store."""
    if not needed:
        yield
        return
    with settings_of(state) as settings:
        os.environ.update(settings.to_env())
        yield
