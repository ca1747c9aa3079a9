"""Verifying a release before anything of it is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging import PREPROCESSING_VERSION
from pneumoserve.release.schema import ReleaseManifest
from pneumoserve.signing import KeyFileError, Signature, Trust, load_trust, signatures_of, stated_signers

MANIFEST: Final = "release.json"
SIGNATURE: Final = "release.json.sig"
_ID: Final = re.compile(r"[0-9a-f]{12}")

Fault = Literal[
    "unreadable",
    "unsigned",
    "unknown_signer",
    "too_few_signatures",
    "revoked",
    "expired",
    "other_release",
    "unsupported",
    "altered",
    "missing_file",
    "extra_file",
]


class ReleaseError(PneumoserveError):
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
    signatures: tuple[Signature, ...]


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


def _is_canonical(data: bytes) -> bool:
    """Whether JSON has the one form of its content, whatever versions that lack later fields state."""
    try:
        return canonical_json(json.loads(data)) == data
    except ValueError:
        return False


def verify(folder: Path, trust_folder: Path, release_id: str | None = None) -> Release:
    """Check signatures, files and preprocessing version of a release; that it is the one of `release_id`, if given.

    Raises:
        ReleaseError: it is another one, unsigned, altered, revoked, not signed by as many trusted keys as must, or not
            for this version.
    """
    data, manifest = read_manifest(folder)
    digest = digest_of(data)
    named = f"Release {digest[:12]}"
    if release_id is not None and not _ID.fullmatch(release_id):
        raise ReleaseError(
            "other_release",
            "The release to run was not named by an id of 12 hex digits; in a cluster it is the label "
            "pneumoserve_release of the InferenceService.",
        )
    if release_id is not None and release_id != digest[:12]:
        raise make_misplaced_error(release_id, digest[:12])
    trust = _trust(named, trust_folder)
    signatures = _signatures(folder, data, trust)
    _check_policy(digest[:12], signatures, trust)
    if not _is_canonical(data):
        raise ReleaseError("altered", f"{named}: release.json is not canonical JSON; fetch the release again.")
    check_files(folder, manifest.files, named)
    if manifest.preprocessing_version != PREPROCESSING_VERSION:
        raise ReleaseError(
            "unsupported",
            f"{named} was made for preprocessing version {manifest.preprocessing_version}, this is version "
            f"{PREPROCESSING_VERSION}; run it with the image of its own version.",
        )
    return Release(folder, digest[:12], digest, manifest, tuple(signatures))


def id_of(folder: Path) -> str:
    """The id of the release that a folder holds, unverified.

    Raises:
        ReleaseError: it holds none, or not the one that its name says.
    """
    manifest, _ = read_manifest(folder)
    found, stated = digest_of(manifest)[:12], stated_id(folder)
    if stated is not None and stated != found:
        raise make_misplaced_error(stated, found)
    return found


def stated_id(folder: Path) -> str | None:
    """The id of the release that a folder should hold, as its name says; None where it names none."""
    return folder.name if _ID.fullmatch(folder.name) else None


def make_misplaced_error(release_id: str, found: str) -> ReleaseError:
    """Where one release was asked for, there is another."""
    return ReleaseError(
        "other_release",
        f"Release {release_id} was asked for, and what is there is {found}, or its {MANIFEST} was altered; put the "
        f"right one into releases/{release_id}, or ask for the other.",
    )


def signer_of_release(folder: Path, manifest: bytes, trust_folder: Path) -> str:
    """The id of a trusted key that signed a release, whatever has expired since.

    Raises:
        ReleaseError: it is unsigned, revoked, or signed by nobody who is trusted.
    """
    trust = _trust(f"Release {digest_of(manifest)[:12]}", trust_folder)
    return _signatures(folder, manifest, trust)[0].key_id


def _trust(named: str, folder: Path) -> Trust:
    try:
        return load_trust(folder)
    except KeyFileError as error:
        raise ReleaseError("unknown_signer", f"{named} cannot be verified: {error}") from None


def _signatures(folder: Path, manifest: bytes, trust: Trust) -> list[Signature]:
    """The signatures of a release that were not revoked; at least one."""
    release_id = digest_of(manifest)[:12]
    named = f"Release {release_id}"
    if digest_of(manifest) in trust.revoked_releases:
        raise ReleaseError("revoked", f"{named} is revoked; deploy another release.")
    document = folder / SIGNATURE
    if not document.is_file():
        raise ReleaseError("unsigned", f"{named} is not signed; {_sign_anew(release_id)}.")
    signatures = signatures_of(manifest, document.read_bytes(), trust)
    if not signatures:
        raise _explain_untrusted(release_id, stated_signers(document.read_bytes()), trust)
    counting = [each for each in signatures if each.key_id not in trust.revoked_keys]
    if not counting:
        revoked = " and ".join(each.key_id for each in signatures)
        raise ReleaseError("revoked", f"{named} is signed by {revoked}, which is revoked; {_sign_anew(release_id)}.")
    return counting


def _explain_untrusted(release_id: str, stated: list[str], trust: Trust) -> ReleaseError:
    """Why none of a release's signatures counts, which are those of the keys stated."""
    named = f"Release {release_id}"
    if not stated:
        return ReleaseError(
            "altered", f"{named}: {SIGNATURE} holds no signature; fetch the release again, or {_sign_anew(release_id)}."
        )
    trusted = sorted(trust.keys.keys() - trust.revoked_keys)
    if broken := [key for key in stated if key in trust.keys]:
        return ReleaseError(
            "altered",
            f"{named} was altered after key {broken[0]} signed it: {MANIFEST} or {SIGNATURE} is another one; fetch the "
            "release again.",
        )
    return ReleaseError(
        "unknown_signer",
        f"{named} is not signed by a trusted key: it is signed by {' and '.join(stated)}; trusted here are "
        f"{' and '.join(trusted) or 'none'}. Trust its signer by their public key (`pneumoserve release trust FILE`), "
        f"or {_sign_anew(release_id)}.",
    )


def _sign_anew(release_id: str) -> str:
    return f"sign it with a trusted key (`pneumoserve release sign {release_id} --key FILE`)"


def _check_policy(release_id: str, signatures: list[Signature], trust: Trust) -> None:
    named = f"Release {release_id}"
    today = datetime.now(UTC).date()
    lasting = [each for each in signatures if each.expires is None or each.expires >= today]
    if len(lasting) >= trust.signatures:
        return
    expired = [each for each in signatures if each not in lasting]
    if expired:
        raise ReleaseError(
            "expired",
            f"{named}: the signature of key {expired[0].key_id} expired on {expired[0].expires}; "
            f"{_sign_anew(release_id)}.",
        )
    raise ReleaseError(
        "too_few_signatures",
        f"{named} is signed by {len(lasting)} of the {trust.signatures} trusted keys that it needs; have it signed by "
        "another approver with `pneumoserve release sign`.",
    )


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
