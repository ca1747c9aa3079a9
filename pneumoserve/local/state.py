"""The state folder of a local stack: keys, releases, the S3 server's data, logs; and its one lock."""

from __future__ import annotations

import base64
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

from pneumoserve.local.process import StackError
from pneumoserve.records import generate_envelope_key
from pneumoserve.signing import generate_key, load_key, write_public_key
from pneumoserve.store import BUCKET, S3Settings

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
        if not self.opening_key.exists():
            generate_envelope_key(self.opening_key, self.sealing_key)
        if not self.link_keys.exists():
            _write_private(self.link_keys, base64.urlsafe_b64encode(secrets.token_bytes(32)))
        for file in (self.reference_key, self.chance_key):
            if not file.exists():
                _write_private(file, secrets.token_hex(32).encode())
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
    def chance_key(self) -> Path:
        """The file of the key that decides which studies are drawn to be read."""
        return self.folder / "keys" / "chance.key"

    @property
    def opening_key(self) -> Path:
        """The file of the private key that opens envelopes: whose X-ray it is."""
        return self.folder / "keys" / "envelope.pem"

    @property
    def sealing_key(self) -> Path:
        """The file of the public key that envelopes are sealed to."""
        return self.folder / "keys" / "envelope.pub.pem"

    @property
    def link_keys(self) -> Path:
        """The file of the keys of alerts' links."""
        return self.folder / "keys" / "links.key"

    @property
    def review_database(self) -> str:
        """The URL of the review database."""
        return f"sqlite:///{self.folder.resolve() / 'review.sqlite'}"

    @property
    def intake_rules(self) -> Path:
        """The file of the rules of DICOM intake; there may be none."""
        return self.folder / "intake.yaml"

    @property
    def netrc(self) -> Path:
        """The file of intake's names and passwords at web servers; there may be none."""
        return self.folder / "netrc"

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
    def selected_release(self) -> str | None:
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

    def announce(
        self,
        addresses: dict[str, Any],
        release: str,
        s3: S3Settings,
        private: dict[str, Any],
        show_secrets: bool,
    ) -> dict[str, Any]:
        """Write `stack.json`, and return what `serve` prints: where that is, and all but `private` and the secret key.

        With `show_secrets`, the secret key too.
        """
        store = {key: value for key, value in asdict(s3).items() if key != "region"}
        document = {**addresses, "release": release, "s3": store}
        file = self.folder.resolve() / "stack.json"
        _write_private(file, json.dumps({**document, **private}).encode())
        shown = {key: value for key, value in store.items() if show_secrets or key != "secret_key"}
        return {**document, "s3": shown, "stack": str(file)}

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
