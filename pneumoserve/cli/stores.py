"""Which store a command works on: the S3_* settings where they are set, else the state folder's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pneumoserve.archive.find import find_record
from pneumoserve.archive.record import Record
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.cli.output import Failure
from pneumoserve.local.stack import s3_alone
from pneumoserve.local.state import State

NO_RECORD: Final = "The archive has no such record; check the id, and that this is the archive it was made in."


@contextlib.contextmanager
def settings_of(state: Path) -> Iterator[S3Settings]:
    """Settings of the store; the state's own S3 server runs for as long as the context lasts, if it is down."""
    if os.environ.get("S3_ENDPOINT"):
        yield S3Settings.from_env()
    else:
        with s3_alone(State(state)) as settings:
            yield settings


@contextlib.contextmanager
def store_of(state: Path) -> Iterator[ObjectStore]:
    """The store itself."""
    with settings_of(state) as settings:
        store = ObjectStore(settings)
        try:
            yield store
        finally:
            store.close()


def record_of(store: ObjectStore, prediction_id: str) -> Record:
    """The record of a prediction that a person asks for.

    Raises:
        Failure: it is no prediction id, or the store has no such record.
    """
    try:
        record = find_record(store, prediction_id)
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


@contextlib.contextmanager
def told_training() -> Iterator[None]:
    """Turn training's errors into a `Failure`, the missing package included."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(
            f"This command needs the training packages ({error.name} is missing); install pneumoserve[train], "
            "in a checkout by `make .venv/.train`.",
            2,
        ) from None
    except (ValueError, RuntimeError) as error:
        # training's own errors are told by name: importing them would need torch.
        if type(error).__name__ == "DatasetError":
            raise Failure(str(error), 2) from error
        if type(error).__name__ == "TrainingError":
            raise Failure(str(error), 1) from error
        raise
