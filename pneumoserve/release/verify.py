"""Verifying a release before anything of it is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from pneumoserve.image import PREPROCESSING_VERSION
from pneumoserve.release.schema import ReleaseManifest, canonical_json, digest_of
from pneumoserve.release.signing import KeyFileError, load_trust, signer_of

MANIFEST: Final = "release.json"
SIGNATURE: Final = "release.json.sig"

Fault = Literal[
    "unreadable", "unsigned", "unknown_signer", "revoked", "unsupported", "altered", "missing_file", "extra_file"
]


class ReleaseError(RuntimeError):
    """A release that must not run; `fault` names why, the text says what to do."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class Release:
    """A verified release. `id` is the first 12 hex digits of `digest`, the SHA-256 of its manifest."""

    folder: Path
    id: str
    digest: str
    manifest: ReleaseManifest
    signer: str


def read_manifest(folder: Path) -> tuple[bytes, ReleaseManifest]:
    """A release's manifest as bytes and as a model, unverified.

    Raises:
        ReleaseError: unreadable or unsupported.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError:
        raise ReleaseError("unreadable", "The folder holds no release.json; give the folder of a release.") from None
    try:
        manifest = ReleaseManifest.model_validate_json(data)
    except ValidationError:
        raise ReleaseError(
            "unsupported", "release.json is not of a form this version reads; use the version that made it."
        ) from None
    return data, manifest


def verify(folder: Path, trust_folder: Path) -> Release:
    """Check signature, files and preprocessing version of a release.

    Raises:
        ReleaseError: it is unsigned, altered, revoked, signed by nobody who is trusted, or not for this version.
    """
    data, manifest = read_manifest(folder)
    digest = digest_of(data)
    named = f"Release {digest[:12]}"
    signer = signer_of_release(folder, data, trust_folder)
    if canonical_json(manifest) != data:
        raise ReleaseError("altered", f"{named}: release.json is not canonical JSON; fetch the release again.")
    check_files(folder, manifest.files, named)
    if manifest.preprocessing_version != PREPROCESSING_VERSION:
        raise ReleaseError(
            "unsupported",
            f"{named} was made for preprocessing version {manifest.preprocessing_version}, this is version "
            f"{PREPROCESSING_VERSION}; run it with the image of its own version.",
        )
    return Release(folder, digest[:12], digest, manifest, signer)


def signer_of_release(folder: Path, manifest: bytes, trust_folder: Path) -> str:
    """The id of the trusted key that signed a release.

    Raises:
        ReleaseError: it is unsigned, revoked, or signed by nobody who is trusted.
    """
    named = f"Release {digest_of(manifest)[:12]}"
    try:
        trust = load_trust(trust_folder)
    except KeyFileError as error:
        raise ReleaseError("unknown_signer", f"{named} cannot be verified: {error}") from None
    if digest_of(manifest) in trust.revoked_releases:
        raise ReleaseError("revoked", f"{named} is revoked; deploy another release.")
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise ReleaseError("unsigned", f"{named} is not signed; sign it with `pneumoserve release sign`.")
    signer = signer_of(manifest, signature.read_bytes(), trust)
    if signer is None:
        raise ReleaseError(
            "unknown_signer",
            f"{named} is not signed by a trusted key, or was altered after; have it signed by a trusted approver.",
        )
    if signer in trust.revoked_keys:
        raise ReleaseError("revoked", f"{named} is signed by key {signer}, which is revoked; have it signed anew.")
    return signer


def check_files(folder: Path, expected: dict[str, str], named: str) -> None:
    """Check that a release holds its files, unaltered, and no other.

    Raises:
        ReleaseError: altered, missing_file or extra_file.
    """
    found = set()
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder).as_posix()
        if name in (MANIFEST, SIGNATURE):
            continue
        # A link could point to other content after this check.
        if name not in expected or path.is_symlink() or not path.is_file():
            raise ReleaseError("extra_file", f"{named} holds {name}, which is not part of it; remove it.")
        if _file_digest(path) != expected[name]:
            raise ReleaseError("altered", f"{named}: the file {name} was altered; fetch the release again.")
        found.add(name)
    for name in sorted(expected.keys() - found):
        raise ReleaseError("missing_file", f"{named}: the file {name} is missing; fetch the release again.")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
