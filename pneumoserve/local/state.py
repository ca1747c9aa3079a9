"""The state folder of a local stack: keys, releases, the S3 server's data, logs; and its one lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.archive.store import BUCKET, S3Settings
from pneumoserve.local.process import StackError
from pneumoserve.release.signing import generate_key, load_key, write_public_key

_FOLDERS: Final = ("s3", "releases", "keys", "journal", "logs", "tmp")


@dataclass(frozen=True)
class State:
    """A state folder; made, with all it holds, on first use."""

    folder: Path

    def make(self) -> None:
        """Make the folders, the signing key with its trust folder, and the S3 keys, where they are missing."""
        for name in _FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "keys").chmod(0o700)
        if not self._key_file.exists():
            write_public_key(generate_key(self._key_file), self.trust)
        for file, trust in ((self.archive_key_file, self.archive_trust), (self.sealer_key_file, self.sealer_trust)):
            if not file.exists():
                write_public_key(generate_key(file), trust)
        if not self.reference_key.exists():
            _write_private(self.reference_key, secrets.token_hex(32).encode())
        if not self._s3_keys.exists():
            keys = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_hex(20)}
            _write_private(self._s3_keys, json.dumps(keys).encode())

    @property
    def _key_file(self) -> Path:
        return self.folder / "keys" / "signing.pem"

    @property
    def _s3_keys(self) -> Path:
        return self.folder / "keys" / "s3.json"

    @property
    def trust(self) -> Path:
        """The folder of trusted public keys."""
        return self.folder / "keys" / "trust"

    @property
    def archive_key_file(self) -> Path:
        """The file of the private key that signs the archive's segments."""
        return self.folder / "keys" / "archive.pem"

    @property
    def archive_key(self) -> Ed25519PrivateKey:
        """The key that signs the archive's segments."""
        return load_key(self.archive_key_file)

    @property
    def archive_trust(self) -> Path:
        """The folder of public keys whose segments count."""
        return self.folder / "keys" / "archive-trust"

    @property
    def sealer_key_file(self) -> Path:
        """The file of the private key that signs the archive's seals."""
        return self.folder / "keys" / "sealer.pem"

    @property
    def sealer_key(self) -> Ed25519PrivateKey:
        """The key that signs the archive's seals."""
        return load_key(self.sealer_key_file)

    @property
    def sealer_trust(self) -> Path:
        """The folder of public keys whose seals count."""
        return self.folder / "keys" / "sealer-trust"

    @property
    def reference_key(self) -> Path:
        """The file of the key that hashes study and patient references."""
        return self.folder / "keys" / "reference.key"

    @property
    def journal(self) -> Path:
        """The folder of the front's journal."""
        return self.folder / "journal"

    @property
    def releases(self) -> Path:
        """The folder of releases."""
        return self.folder / "releases"

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """The key this state signs with."""
        return load_key(self._key_file)

    def s3_settings(self, port: int) -> S3Settings:
        """How to reach this state's store when it listens on `port`."""
        keys = json.loads(self._s3_keys.read_text())
        return S3Settings(f"http://127.0.0.1:{port}", keys["access_key"], keys["secret_key"], BUCKET)

    @property
    def chosen(self) -> str | None:
        """The id of the release that `serve` serves by default, None for the reference."""
        return self._choice.read_text().strip() if self._choice.exists() else None

    def choose(self, release: str | None) -> None:
        """Choose what `serve` serves by default; None for the reference."""
        if release is None:
            self._choice.unlink(missing_ok=True)
            return
        _write_private(self._choice, f"{release}\n".encode())

    @property
    def _choice(self) -> Path:
        return self.folder / "release"

    def announce(self, url: str, grpc: str, release: str, s3: S3Settings, private: dict[str, Any]) -> dict[str, Any]:
        """Write `stack.json`, and return what `serve` prints: all but `private`."""
        store = {key: value for key, value in asdict(s3).items() if key != "region"}
        document = {"url": url, "grpc": grpc, "release": release, "s3": store}
        _write_private(self.folder / "stack.json", json.dumps({**document, **private}).encode())
        return document

    def withdraw(self) -> None:
        """Remove `stack.json`: the stack is down."""
        (self.folder / "stack.json").unlink(missing_ok=True)

    def running(self) -> dict[str, Any] | None:
        """What the stack that runs on this state announced, None where none runs."""
        file = self.folder / "stack.json"
        if not file.exists():
            return None
        try:
            with self.lock():
                # A stack that was killed left it, with a process id that may be somebody else's by now.
                self.withdraw()
                return None
        except StackError:
            announced: dict[str, Any] = json.loads(file.read_text())
            return announced

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the state alone.

        Raises:
            StackError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(
                    f"A stack already runs on the state folder {self.folder.name}; stop it or give another --state."
                ) from None
            yield


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
