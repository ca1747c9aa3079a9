"""Receipts: what a writer signs of a record, so that who keeps one can show that the record was promised.

The signature is over the line `pneumoserve.receipt/1` and the canonical JSON of writer, sequence and hash. Nothing else
that a writer's key signs begins like this.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Literal

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.ledger.reader import Reader
from pneumoserve.ledger.segment import SegmentKey, key_id_of
from pneumoserve.signing import Trust

_CONTEXT: Final = b"pneumoserve.receipt/1\n"


class ReceiptError(PneumoserveError, ValueError):
    """A text that is no receipt; it says what to do."""

    exit_code = 2


class Receipt(BaseModel):
    """Where a record stands: segment `sequence` of `writer`; `hash` is the SHA-256 of its canonical JSON line.

    `signature` is base64, ed25519 by the writer's key `key_id` (`pneumoserve.ledger.receipts` says over what).
    """

    writer: str
    sequence: int
    hash: Sha256
    key_id: str
    signature: str
    recorded: Literal["store", "journal"] = "store"


class GivenReceipt(BaseModel):
    """A receipt as an answer gives it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    writer: str = Field(pattern=r"^[a-z0-9-]+-[0-9a-f]{8}$", max_length=100)
    sequence: int = Field(ge=1, le=99_999_999)
    hash: Sha256 = Field(pattern=r"^[0-9a-f]{64}$")
    key_id: str
    signature: str


@dataclass(frozen=True)
class Kept:
    """Where the archive keeps a record: the object, and whether a seal vouches for it."""

    key: str
    sealed: bool


@dataclass(frozen=True)
class Checked:
    """What a receipt proves: nothing, where it has a `fault`. `kept` is None where nobody looked, or found it."""

    receipt: GivenReceipt
    fault: str | None
    kept: Kept | None = None


def make_receipt(
    place: SegmentKey, line: bytes, key: Ed25519PrivateKey, recorded: Literal["store", "journal"] = "store"
) -> Receipt:
    """The receipt of an entry, `line` its canonical JSON, in the segment at `place`."""
    digest = digest_of(line)
    signature = base64.b64encode(key.sign(_payload(place.writer, place.sequence, digest))).decode()
    return Receipt(
        writer=place.writer,
        sequence=place.sequence,
        hash=digest,
        key_id=key_id_of(key),
        signature=signature,
        recorded=recorded,
    )


def parse_receipts(text: bytes) -> list[GivenReceipt]:
    """The receipts of an answer: one as JSON, or a list of them.

    Raises:
        ReceiptError: the text is none.
    """
    try:
        given = orjson.loads(text)
        found = [GivenReceipt.model_validate(each) for each in (given if isinstance(given, list) else [given])]
    except ValueError:
        found = []
    if not found:
        raise ReceiptError("This is no signed receipt; give what an answer's pneumoserve-receipts says.")
    return found


def check_receipt(receipt: GivenReceipt, writers: Trust) -> Checked:
    """Whether a trusted writer signed a receipt."""
    key = writers.keys.get(receipt.key_id)
    if key is None or receipt.key_id in writers.revoked_keys:
        return Checked(receipt, f"it is signed by {receipt.key_id}, which is no trusted writer")
    try:
        signature = base64.b64decode(receipt.signature, validate=True)
        key.verify(signature, _payload(receipt.writer, receipt.sequence, receipt.hash))
    except (binascii.Error, InvalidSignature):
        return Checked(receipt, "its signature does not fit it")
    return Checked(receipt, None)


def check_record(reader: Reader, receipt: GivenReceipt, writers: Trust) -> Checked:
    """Whether a trusted writer signed a receipt, and the ledger holds its line.

    Raises:
        StoreError: the store does not answer.
    """
    signed = check_receipt(receipt, writers)
    if signed.fault is not None:
        return signed
    located = reader.locate(receipt.writer, receipt.sequence)
    if located is None or all(digest_of(line) != receipt.hash for line in located.segment.lines):
        return Checked(receipt, "the archive does not hold its record")
    return Checked(receipt, None, Kept(located.key, located.sealed))


def _payload(writer: str, sequence: int, digest: Sha256) -> bytes:
    return _CONTEXT + canonical_json({"writer": writer, "sequence": sequence, "hash": digest})
