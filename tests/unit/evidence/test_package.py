"""The file of evidence: the same files give the same bytes, and whoever changes one is found out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.evidence import EvidencePackageError, Period, check_package, pack
from pneumoserve.evidence.package import MANIFEST, SIGNATURE, _unzip, _zip
from pneumoserve.signing import Trust, add_signature, key_id
from tests.support.archives import trust_in

# The same in each process of a run: tests are named by what is signed with them.
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
FILES = {"index.html": b"<p>page</p>", "releases/0123456789ab/release.json": b"{}", "access.json": b"[]"}
PERIOD = Period(date(2026, 11, 1), date(2026, 11, 30))
PACKED = pack(FILES, PERIOD, "0.2.0", KEY)
Files = dict[str, bytes]


def test_the_same_files_give_the_same_bytes_in_whatever_order() -> None:
    assert pack(dict(reversed(FILES.items())), PERIOD, "0.2.0", KEY) == PACKED
    checked = check_package(PACKED, trust_in(KEY))
    assert checked.signers == (key_id(KEY.public_key()),)
    assert checked.manifest.files.keys() == FILES.keys()
    assert (checked.manifest.since, checked.manifest.until) == ("2026-11-01", "2026-11-30")


def altered(change: Callable[[Files], Files]) -> bytes:
    return _zip(change(_unzip(PACKED)))


def signed_anew(files: Files) -> Files:
    return {**files, SIGNATURE: add_signature(files[MANIFEST], OTHER)}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (altered(lambda files: {**files, "access.json": b"[1]"}), "access.json was altered after it was signed"),
        (altered(lambda files: {**files, "more.json": b""}), "more.json is no part of what was signed"),
        (altered(lambda files: {n: d for n, d in files.items() if n != "access.json"}), "access.json is missing"),
        (
            altered(lambda files: {**files, MANIFEST: files[MANIFEST].replace(b"2026-11-01", b"2026-10-01")}),
            "manifest.json was altered after it was signed",
        ),
        (altered(lambda files: {**files, MANIFEST: b"{}"}), "holds no manifest.json that this version reads"),
        (altered(lambda files: {n: d for n, d in files.items() if n != SIGNATURE}), "holds no signature"),
        (altered(signed_anew), f"signed by {key_id(OTHER.public_key())}, which is not trusted"),
        (PACKED[:10] + bytes([PACKED[10] ^ 1]) + PACKED[11:], "holds more than its files"),
        (b"PK" + PACKED, "holds more than its files"),
        (PACKED[:-30], "no whole zip"),
        (b"", "no whole zip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_as_it_was_signed_is_named(data: bytes, sentence: str) -> None:
    with pytest.raises(EvidencePackageError, match=sentence.replace(".", r"\.")):
        check_package(data, trust_in(KEY))


def test_a_revoked_key_counts_no_more() -> None:
    trust = trust_in(KEY)
    revoked = Trust(trust.keys, frozenset(trust.keys), frozenset())
    with pytest.raises(EvidencePackageError, match="not trusted here"):
        check_package(PACKED, revoked)


def test_no_bit_of_it_can_change_unseen() -> None:
    for position in range(len(PACKED)):
        changed = bytearray(PACKED)
        changed[position] ^= 0x20
        with pytest.raises(EvidencePackageError):
            check_package(bytes(changed), trust_in(KEY))
