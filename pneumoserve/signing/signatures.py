"""Signatures of releases: ed25519 over the bytes of release.json, in release.json.sig beside it.

One signature is `{"algorithm", "key_id", "signature"}`. Those of further people follow in its `cosignatures`. A
signature that is to end has `expires`, and then signs `{"expires", "release"}` with the digest of release.json, so
that nobody can take the date off.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.signing.trust import KeyFileError, Trust, key_id, write_trusted

_ALGORITHM: Final = "ed25519"
_MORE: Final = "cosignatures"
_KEY_ID: Final = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Signature:
    """A signature that a trusted key made; `expires` is the last day (UTC) on which it lets a release start."""

    key_id: str
    expires: date | None = None


def generate_key(path: Path) -> Ed25519PrivateKey:
    """Make a private key and write it as PEM, readable by its owner alone.

    Raises:
        FileExistsError: there is a file already.
    """
    key = Ed25519PrivateKey.generate()
    write_private_key(key, path)
    return key


def write_private_key(key: Ed25519PrivateKey | X25519PrivateKey, path: Path) -> None:
    """Write a private key as PEM, readable by its owner alone.

    Raises:
        FileExistsError: there is a file already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def load_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file.

    Raises:
        KeyFileError: it holds none.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path.name} holds no ed25519 private key in PEM; make one with `pneumoserve release key`.")
    return key


def write_public_key(key: Ed25519PrivateKey, folder: Path) -> Path:
    """Add the public half to a folder of trusted keys."""
    return write_trusted(key.public_key(), folder)


def add_signature(
    manifest: bytes, key: Ed25519PrivateKey, present: bytes | None = None, expires: date | None = None
) -> bytes:
    """The content of release.json.sig: what is present there, and this key's signature in place of its earlier one."""
    mine = {
        "algorithm": _ALGORITHM,
        "key_id": key_id(key.public_key()),
        "signature": base64.b64encode(key.sign(_payload(manifest, expires))).decode(),
        **({} if expires is None else {"expires": expires.isoformat()}),
    }
    return merge_signatures(canonical_json(mine), present)


def merge_signatures(newer: bytes, present: bytes | None) -> bytes:
    """The signatures of two documents in one: those present stay, but for those of keys that signed the newer one."""
    signed_anew = {_stated_key(entry): entry for entry in _entries(newer)}
    kept = [signed_anew.pop(_stated_key(entry), entry) for entry in _entries(present or b"")]
    merged = [*kept, *signed_anew.values()]
    if not merged:
        return newer
    first, *more = merged
    return canonical_json({**first, **({_MORE: more} if more else {})})


def signatures_of(manifest: bytes, document: bytes, trust: Trust) -> list[Signature]:
    """The signatures of trusted keys, one a key, in the order of the document; of other keys nothing is said."""
    found: dict[str, Signature] = {}
    for entry in _entries(document):
        signature = _verify(manifest, entry, trust)
        if signature is not None:
            found.setdefault(signature.key_id, signature)
    return list(found.values())


def stated_signers(document: bytes) -> list[str]:
    """The ids of the keys that made its signatures, as a document says, be it true or not."""
    stated = (_stated_key(entry) for entry in _entries(document))
    return list(dict.fromkeys(key for key in stated if _KEY_ID.fullmatch(key)))


def _stated_key(entry: dict[str, Any]) -> str:
    return str(entry.get("key_id"))


def _entries(document: bytes) -> list[dict[str, Any]]:
    """Every signature of a document as it stands there; none where it is no such document."""
    try:
        first = json.loads(document)
        entries = [{name: value for name, value in first.items() if name != _MORE}, *first.get(_MORE, [])]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)]


def _verify(manifest: bytes, entry: dict[str, Any], trust: Trust) -> Signature | None:
    try:
        raw = base64.b64decode(entry["signature"], validate=True)
        key = trust.keys[entry["key_id"]]
        expires = date.fromisoformat(entry["expires"]) if "expires" in entry else None
        if entry["algorithm"] != _ALGORITHM:
            return None
        key.verify(raw, _payload(manifest, expires))
    except (ValueError, KeyError, TypeError, InvalidSignature):
        return None
    return Signature(entry["key_id"], expires)


def _payload(manifest: bytes, expires: date | None) -> bytes:
    # No release.json has these two fields alone: a signature of the one is never one of the other.
    if expires is None:
        return manifest
    return canonical_json({"expires": expires.isoformat(), "release": digest_of(manifest)})
