"""Signatures of releases: ed25519 over the bytes of release.json, trusted keys in a folder, and what is revoked."""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pneumoserve.release.schema import canonical_json, digest_of

REVOKED_FILE: Final = "revoked.json"
_ALGORITHM: Final = "ed25519"
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"


class KeyFileError(ValueError):
    """A key file that cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Trust:
    """Public keys by id, and the ids of keys and digests of releases that no longer count."""

    keys: dict[str, Ed25519PublicKey]
    revoked_keys: frozenset[str]
    revoked_releases: frozenset[str]


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return digest_of(key.public_bytes(Encoding.Raw, PublicFormat.Raw))[:16]


def generate_key(path: Path) -> Ed25519PrivateKey:
    """Make a private key and write it as PEM, readable by its owner alone.

    Raises:
        FileExistsError: there is a file already.
    """
    key = Ed25519PrivateKey.generate()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


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
    public = key.public_key()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key_id(public)}.pem"
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def load_trust(folder: Path) -> Trust:
    """The keys (`*.pem`, public keys or certificates) and the revocation list (`revoked.json`, optional) of a folder.

    Raises:
        KeyFileError: the folder holds no public key, or a file that cannot be read.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted(folder.glob("*.pem")):
        key = _public_key(path)
        if key is None:
            raise KeyFileError(
                f"{path.name} in the trust folder is no ed25519 public key in PEM; remove or replace it."
            )
        keys[key_id(key)] = key
    if not keys:
        raise KeyFileError("The trust folder holds no public key (*.pem); put the approver's public key there.")
    revoked = _revoked(folder / REVOKED_FILE)
    return Trust(keys, frozenset(revoked.get("keys", [])), frozenset(revoked.get("releases", [])))


def _public_key(path: Path) -> Ed25519PublicKey | None:
    """The key of a file, None where it holds none. Of a certificate the key alone counts, not its dates or issuer."""
    try:
        pem = path.read_bytes()
        key = x509.load_pem_x509_certificate(pem).public_key() if _CERTIFICATE in pem else load_pem_public_key(pem)
    except (OSError, ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def _revoked(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    try:
        document: dict[str, list[str]] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise KeyFileError(
            f"{path.name} in the trust folder cannot be read; correct it before anything starts."
        ) from None
    return document


def signature_of(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of release.json.sig for the bytes of a manifest."""
    signature = base64.b64encode(key.sign(manifest)).decode()
    return canonical_json({"algorithm": _ALGORITHM, "key_id": key_id(key.public_key()), "signature": signature})


def signer_of(manifest: bytes, signature: bytes, trust: Trust) -> str | None:
    """The id of the trusted key that signed, None where none of them did."""
    try:
        document = json.loads(signature)
        raw = base64.b64decode(document["signature"], validate=True)
        if document["algorithm"] != _ALGORITHM:
            return None
        named: str = document["key_id"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None
    key = trust.keys.get(named)
    if key is None:
        return None
    try:
        key.verify(raw, manifest)
    except InvalidSignature:
        return None
    return named
