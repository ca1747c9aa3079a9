"""What a trust folder may hold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pneumoserve.signing import KeyFileError, key_id, load_trust, write_public_key

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "archive")])


def certificate(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, issuer: Ed25519PrivateKey) -> bytes:
    """A certificate that ran out long ago, issued by another key."""
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), x509.random_serial_number())
    dated = builder.not_valid_before(datetime(2001, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2002, 1, 1, tzinfo=UTC))
    return dated.sign(issuer, None).public_bytes(Encoding.PEM)


def test_a_certificate_carries_a_trusted_key_whatever_its_dates_and_issuer(tmp_path: Path) -> None:
    carried, plain, issuer = (Ed25519PrivateKey.generate() for _ in range(3))
    (tmp_path / "carried.pem").write_bytes(certificate(carried, issuer))
    write_public_key(plain, tmp_path)
    assert load_trust(tmp_path).keys.keys() == {key_id(key.public_key()) for key in (carried, plain)}


@pytest.mark.parametrize("content", ["certificate of another kind", "broken certificate", "private key", "nothing"])
def test_what_holds_no_public_key_of_ours_is_refused(content: str, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    whole = certificate(key, key)
    pem = {
        "certificate of another kind": certificate(ec.generate_private_key(ec.SECP256R1()), key),
        "broken certificate": whole[: len(whole) // 2] + whole[whole.index(b"\n-----END") :],
        "private key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "nothing": b"",
    }[content]
    (tmp_path / "given.pem").write_bytes(pem)
    with pytest.raises(KeyFileError, match=r"given\.pem in the trust folder is no ed25519 public key"):
        load_trust(tmp_path)
