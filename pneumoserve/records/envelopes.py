"""Whose X-ray it is, as the caller named it: sealed to the alert service, beside the archive and never in it.

An envelope is an object of its own under the prediction's id. No lock is ever put on it, so that it can be erased for
good. It is encrypted by HPKE (RFC 9180, X25519), which takes a fresh key for each; only the alert service and the
reading room have the private key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.errors import PneumoserveError
from pneumoserve.signing import write_private_key
from pneumoserve.store import NotFoundError, Store

ENVELOPES: Final = "envelopes/"
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class EnvelopeError(PneumoserveError):
    """A key file that cannot be used, or an envelope that does not open; the text names nobody."""

    exit_code = 2


class Addressee(BaseModel):
    """What a caller tells of a study for people alone: its practitioner, and what the hospital calls it.

    Each may name a person: it is never logged, recorded or measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    practitioner: str | None = Field(default=None, repr=False)
    reference: str | None = Field(default=None, repr=False)


def envelope_key(prediction_id: str) -> str:
    """Where a prediction's envelope stands."""
    return f"{ENVELOPES}{prediction_id}"


def seal_envelope(key: X25519PublicKey, prediction_id: str, addressee: Addressee) -> bytes:
    """An envelope of one prediction: it opens under no other one's id."""
    return _SUITE.encrypt(addressee.model_dump_json().encode(), key, _context_of(prediction_id))


def open_envelope(store: Store, key: X25519PrivateKey, prediction_id: str) -> Addressee:
    """What a prediction's caller told; nothing where it told nothing, or where it was erased.

    Raises:
        EnvelopeError: the envelope is not whole, or was sealed to another key.
        StoreError: the store does not answer.
    """
    try:
        sealed = store.get(envelope_key(prediction_id))
    except NotFoundError:
        return Addressee()
    try:
        return Addressee.model_validate_json(_SUITE.decrypt(sealed, key, _context_of(prediction_id)))
    except (InvalidTag, ValueError):
        raise EnvelopeError(
            "An envelope does not open; see that this service has the key that it was sealed to."
        ) from None


def _context_of(prediction_id: str) -> bytes:
    return f"pneumoserve.envelope/1 {prediction_id}".encode()


def generate_envelope_key(private: Path, public: Path) -> None:
    """Make a pair of keys as PEM; the private one is readable by its owner alone.

    Raises:
        FileExistsError: there is a private key already.
    """
    key = X25519PrivateKey.generate()
    write_private_key(key, private)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def load_sealing_key(path: Path) -> X25519PublicKey:
    """The public key of a PEM file, which seals.

    Raises:
        EnvelopeError: it holds none.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        key = None
    if not isinstance(key, X25519PublicKey):
        raise EnvelopeError(f"{path.name} holds no public X25519 key; put the alert service's there, in PEM.")
    return key


def load_opening_key(path: Path) -> X25519PrivateKey:
    """The private key of a PEM file, which opens what was sealed to it.

    Raises:
        EnvelopeError: it holds none.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise EnvelopeError(f"{path.name} holds no private X25519 key; put the alert service's there, in PEM.")
    return key
