"""Running a command inside the test's process: a process of its own takes seconds to start on a busy machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from pneumoserve.cli import app, stores
from pneumoserve.errors import exit_code_of
from pneumoserve.signing import write_public_key
from pneumoserve.store import Store


@dataclass(frozen=True)
class Ran:
    """How a command ended; `stderr` has the sentence of a failure."""

    returncode: int
    stdout: str
    stderr: str


def invoke(words: Sequence[str], environment: Mapping[str, str]) -> Ran:
    """Run `pneumoserve WORDS…`."""
    done = CliRunner().invoke(app, list(words), env=dict(environment))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        code = exit_code_of(done.exception)
        if code is None:
            raise done.exception
        return Ran(code, done.stdout, str(done.exception))
    return Ran(done.exit_code, done.stdout, done.stderr)


def use_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands work on a store of the test's, whatever their state folder."""

    @contextlib.contextmanager
    def store_of(_state: Path) -> Iterator[Store]:
        yield store

    monkeypatch.setattr(stores, "store_of", store_of)
    monkeypatch.delenv("S3_ENDPOINT", raising=False)


def trusting(folder: Path, *writers: Ed25519PrivateKey, sealer: Ed25519PrivateKey | None = None) -> list[str]:
    """The options that name folders of trusted keys, which are made."""
    for writer in writers:
        write_public_key(writer, folder / "archive-trust")
    write_public_key(sealer or Ed25519PrivateKey.generate(), folder / "sealer-trust")
    return [f"--archive-trust={folder / 'archive-trust'}", f"--sealer-trust={folder / 'sealer-trust'}"]
