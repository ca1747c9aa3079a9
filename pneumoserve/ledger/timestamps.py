"""Time stamps of seals by an authority (RFC 3161): that a seal was there at a time, in the word of a third party.

A stamp is the authority's answer, as it came, beside its seal: `seals/<number>.tsr`. Since each seal holds the hash of
the one before it, a stamp speaks for all seals up to its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import urllib3
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from pneumoserve.canonical import Sha256
from pneumoserve.errors import PneumoserveError

_SECONDS: Final = 30.0
# An answer with the chain of the authority's certificates has some 6 kB.
_MOST_BYTES: Final = 64 << 10
_HEADERS: Final = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}


class TimeStampError(PneumoserveError):
    """There is no time stamp, or none that counts; the text says why."""

    exit_code = 2


def ask_for_stamp(url: str, body: bytes) -> bytes:
    """An authority's answer for some bytes, of which it is sent the SHA-256 alone.

    Raises:
        TimeStampError: it gave none.
    """
    request = TimestampRequestBuilder().data(body).hash_algorithm(HashAlgorithm.SHA256).build()
    try:
        with urllib3.PoolManager(retries=False, timeout=_SECONDS) as pool:
            answer = pool.request("POST", url, body=request.as_bytes(), headers=_HEADERS, preload_content=False)
            stamp = answer.read(_MOST_BYTES + 1)
    except (urllib3.exceptions.HTTPError, OSError):
        raise TimeStampError("the time-stamping authority did not answer; look at its address") from None
    if answer.status != 200 or len(stamp) > _MOST_BYTES:
        raise TimeStampError(f"the time-stamping authority gave no stamp (HTTP {answer.status}); look at its address")
    try:
        given = decode_timestamp_response(stamp).tst_info
    except ValueError:
        raise TimeStampError("the time-stamping authority refused, or its answer is no time stamp") from None
    if given.message_imprint.message != hashlib.sha256(body).digest() or given.nonce != request.nonce:
        raise TimeStampError("the time-stamping authority's answer belongs to another request")
    return stamp


def load_authorities(folder: Path) -> list[x509.Certificate]:
    """The certificates of a folder (`*.pem`): those of authorities, and any between them and what signs stamps.

    Raises:
        TimeStampError: it holds none, or a file that is none.
    """
    found: list[x509.Certificate] = []
    for file in sorted(folder.glob("*.pem")):
        try:
            found += x509.load_pem_x509_certificates(file.read_bytes())
        except (OSError, ValueError):
            raise TimeStampError(f"{file.name} holds no certificate in PEM; remove or replace it.") from None
    if not found:
        raise TimeStampError("The folder holds no certificate of a time-stamping authority (*.pem); put it there.")
    return found


def check_stamp(stamp: bytes, digest: Sha256, authorities: Sequence[x509.Certificate]) -> datetime:
    """When, by a trusted authority's word, bytes of this SHA-256 were there.

    Raises:
        TimeStampError: no such authority says so.
    """
    builder = VerifierBuilder(roots=list(authorities))
    try:
        response = decode_timestamp_response(stamp)
        builder.build().verify(response, bytes.fromhex(digest))
    except (ValueError, VerificationError):
        raise TimeStampError("it is no time stamp of this seal by a trusted authority") from None
    return response.tst_info.gen_time
