"""The file of evidence: a zip whose manifest has the digest of every other file, and is signed.

The same files give the same bytes: names in order, no times, nothing compressed, since compressors differ between
builds of zlib. So whoever checks one packs it anew, and nothing can hide between or behind its files.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.evidence.contents import Period
from pneumoserve.signing import Trust, add_signature, signatures_of, stated_signers

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.json.sig"
# The earliest date a zip can hold: it says nothing.
_NO_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16
# What people could read of it fits many times; a larger one was made by somebody else.
LARGEST: Final = 1 << 30


class EvidencePackageError(PneumoserveError):
    """A file of evidence that is not as it was signed; the text says why."""


class Manifest(BaseModel):
    """`manifest.json`: of which period the evidence is, by which version it was made, and what its files are."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.evidence/1"] = Field(default="pneumoserve.evidence/1", alias="schema")
    since: str | None = Field(description="YYYY-MM-DD, UTC: the first day; null: from the beginning of the archive")
    until: str = Field(description="the last day")
    software: str = Field(description="the version of pneumoserve that made it")
    files: dict[str, Annotated[Sha256, Field(pattern="^[0-9a-f]{64}$")]] = Field(description="name: SHA-256")


@dataclass(frozen=True)
class Checked:
    """What a file of evidence turned out to be: as it was signed, by these trusted keys."""

    manifest: Manifest
    digest: Sha256
    signers: tuple[str, ...]


def pack(files: Mapping[str, bytes], period: Period, software: str, key: Ed25519PrivateKey) -> bytes:
    """The bytes of a file of evidence."""
    manifest = canonical_json(
        Manifest(
            since=None if period.since is None else period.since.isoformat(),
            until=period.until.isoformat(),
            software=software,
            files={name: digest_of(data) for name, data in files.items()},
        )
    )
    return _zip({**files, MANIFEST: manifest, SIGNATURE: add_signature(manifest, key)})


def _zip(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _NO_DATE)
            entry.external_attr = _MODE
            entry.create_system = 3
            archive.writestr(entry, files[name])
    return packed.getvalue()


def check_package(data: bytes, trust: Trust) -> Checked:
    """See that a file of evidence is as a trusted key signed it.

    Raises:
        EvidencePackageError: it is not.
    """
    files = _unzip(data)
    manifest = _read_manifest(files)
    signers = _check_signers(files, trust)
    expected = {*manifest.files, MANIFEST, SIGNATURE}
    if missing := sorted(expected - files.keys()):
        raise EvidencePackageError(f"{missing[0]} is missing; get the evidence again from whoever made it.")
    if extra := sorted(files.keys() - expected):
        raise EvidencePackageError(f"{extra[0]} is no part of what was signed; get the evidence again.")
    for name, digest in sorted(manifest.files.items()):
        if digest_of(files[name]) != digest:
            raise EvidencePackageError(f"{name} was altered after it was signed; get the evidence again.")
    if _zip(files) != data:
        raise EvidencePackageError("The zip holds more than its files; get the evidence again.")
    return Checked(manifest, digest_of(data), signers)


def _unzip(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if len(set(names)) == len(names) and sum(each.file_size for each in archive.infolist()) <= LARGEST:
                return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError):
        pass
    raise EvidencePackageError("This is no whole zip of evidence; get it again from whoever made it.")


def _read_manifest(files: Mapping[str, bytes]) -> Manifest:
    try:
        return Manifest.model_validate_json(files[MANIFEST])
    except (KeyError, ValidationError):
        raise EvidencePackageError(
            f"It holds no {MANIFEST} that this version reads; give a file that `pneumoserve evidence` made."
        ) from None


def _check_signers(files: Mapping[str, bytes], trust: Trust) -> tuple[str, ...]:
    document = files.get(SIGNATURE, b"")
    signatures = signatures_of(files[MANIFEST], document, trust)
    signers = tuple(each.key_id for each in signatures if each.key_id not in trust.revoked_keys)
    if signers:
        return signers
    stated = stated_signers(document)
    if not stated:
        raise EvidencePackageError(f"{SIGNATURE} is missing or holds no signature; get the evidence again.")
    if any(key in trust.keys and key not in trust.revoked_keys for key in stated):
        raise EvidencePackageError(f"{MANIFEST} was altered after it was signed; get the evidence again.")
    raise EvidencePackageError(
        f"It is signed by {' and '.join(stated)}, which is not trusted here; ask its maker for their public key, and "
        "give its folder with --trust."
    )
