"""Keys, whose signatures count, and signatures of documents."""

from pneumoserve.signing.secret import SHORTEST_SECRET, read_secret
from pneumoserve.signing.signatures import (
    Signature,
    add_signature,
    generate_key,
    load_key,
    merge_signatures,
    signatures_of,
    stated_signers,
    write_private_key,
    write_public_key,
)
from pneumoserve.signing.trust import KeyFileError, Trust, add_trusted, key_id, load_trust, revoke

__all__ = [
    "SHORTEST_SECRET",
    "KeyFileError",
    "Signature",
    "Trust",
    "add_signature",
    "add_trusted",
    "generate_key",
    "key_id",
    "load_key",
    "load_trust",
    "merge_signatures",
    "read_secret",
    "revoke",
    "signatures_of",
    "stated_signers",
    "write_private_key",
    "write_public_key",
]
