"""Whose signatures count: public keys, what was revoked, and how many people must approve a release.

A trust folder holds `*.pem` (public keys), `revoked.json` and `policy.json`, the last two optional. Both have one form
each. Anything else ends the start: a list of revocations that is misread lets a revoked release run.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.errors import PneumoserveError

REVOKED_FILE: Final = "revoked.json"
POLICY_FILE: Final = "policy.json"
_FORMS: Final = {
    REVOKED_FILE: '{"keys": [key ids of 16 lower-case hex digits], "releases": [digests of 64 lower-case hex digits]}; '
    "`pneumoserve release revoke` writes it",
    POLICY_FILE: '{"signatures": how many trusted keys must sign a release}',
}
_File = TypeVar("_File", bound=BaseModel)
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"


class KeyFileError(PneumoserveError, ValueError):
    """A key file, or another file of a trust folder, that cannot be used; the text says what to do."""

    exit_code = 2


def _hex(value: str, digits: int, what: str) -> str:
    if re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
        return value
    if ":" in value:
        problem = "has a prefix; leave the digits alone"
    elif re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", value):
        problem = "has upper-case letters; write them in lower case"
    elif re.fullmatch(rf"[0-9A-Fa-f]{{1,{digits - 1}}}", value):
        problem = f"has {len(value)} digits; write all {digits} of the {what}"
    else:
        problem = f"is no {what} of {digits} lower-case hex digits"
    raise ValueError(problem)


class Revocations(BaseModel):
    """`revoked.json`: what no longer counts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keys: list[Annotated[str, AfterValidator(lambda value: _hex(value, 16, "key id"))]] = Field(
        default=[], description="ids of keys whose signatures no longer count"
    )
    releases: list[Annotated[str, AfterValidator(lambda value: _hex(value, 64, "digest"))]] = Field(
        default=[], description="digests of releases that must not start: SHA-256 of release.json"
    )


class Policy(BaseModel):
    """`policy.json`: what a release needs beside one trusted signature."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    signatures: int = Field(default=1, ge=1, description="how many different trusted keys must sign a release")


@dataclass(frozen=True)
class Trust:
    """Public keys by id, ids of keys and digests of releases that no longer count, and how many keys must sign."""

    keys: dict[str, Ed25519PublicKey]
    revoked_keys: frozenset[str]
    revoked_releases: frozenset[str]
    signatures: int = 1


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return digest_of(key.public_bytes(Encoding.Raw, PublicFormat.Raw))[:16]


def load_trust(folder: Path, whose: str = "the approvers'") -> Trust:
    """The keys (`*.pem`, public keys or certificates), `revoked.json` and `policy.json` of a folder.

    `whose` says in an error who the people or programs are whose keys the folder is for.

    Raises:
        KeyFileError: the folder holds no public key, or a file that cannot be used.
    """
    if not folder.is_dir():
        raise KeyFileError(f"There is no trust folder {folder.name}; give the folder of {whose} public keys.")
    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted(folder.glob("*.pem")):
        key = _public_key(path)
        if key is None:
            raise KeyFileError(
                f"{path.name} in the trust folder is no ed25519 public key in PEM; remove or replace it."
            )
        keys[key_id(key)] = key
    if not keys:
        raise KeyFileError(
            f"The trust folder {folder.name} holds no public key (*.pem); put {whose} public keys there."
        )
    _check_names(folder)
    revoked = _read(folder / REVOKED_FILE, Revocations)
    policy = _read(folder / POLICY_FILE, Policy)
    return Trust(keys, frozenset(revoked.keys), frozenset(revoked.releases), policy.signatures)


def add_trusted(file: Path, folder: Path) -> str:
    """Add the public key of a PEM file to a folder of trusted keys, which is made where there is none; returns its id.

    Raises:
        KeyFileError: the file holds no public key.
    """
    key = _public_key(file)
    if key is None:
        raise KeyFileError(f"{file.name} holds no ed25519 public key in PEM; `pneumoserve release key` writes one.")
    return write_trusted(key, folder).stem


def write_trusted(key: Ed25519PublicKey, folder: Path) -> Path:
    """Add a public key to a folder of trusted keys, which is made where there is none; returns the key's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key_id(key)}.pem"
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def revoke(folder: Path, digest: str) -> bool:
    """Add a release's digest to a trust folder's `revoked.json`; False where it is there already.

    Raises:
        KeyFileError: the file there is of another form.
    """
    path = folder / REVOKED_FILE
    revoked = _read(path, Revocations)
    if digest in revoked.releases:
        return False
    more = Revocations(keys=revoked.keys, releases=sorted([*revoked.releases, digest]))
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{REVOKED_FILE}.partial")
    partial.write_bytes(canonical_json(more) + b"\n")
    partial.replace(path)
    return True


def _check_names(folder: Path) -> None:
    """A file that is almost named as one of ours would be passed over without a word."""
    for path in sorted(folder.iterdir()):
        for name in _FORMS:
            stem = name.partition(".")[0]
            if path.name != name and path.suffix != ".pem" and path.name.lower().startswith(stem):
                raise KeyFileError(f"The trust folder holds {path.name}; name it {name}, or remove it.")


def _read(path: Path, form: type[_File]) -> _File:
    """A file of the trust folder in its one form; the form's defaults where there is none."""
    if not os.path.lexists(path):
        return form()
    try:
        return form.model_validate(json.loads(path.read_bytes().decode(), object_pairs_hook=_without_repeats))
    except ValidationError as error:
        first = error.errors()[0]
        problem = _problem_of(first["type"], first["msg"])
        place = ".".join(str(part) for part in first["loc"])
        wrong = f"{place} {problem}" if place else problem
    except _RepeatedError as error:
        wrong = f"{error} is there twice"
    except (OSError, ValueError, RecursionError):
        wrong = "it cannot be read as JSON"
    raise KeyFileError(
        f"{path.name} in the trust folder is wrong: {wrong}. Nothing starts until it is {_FORMS[path.name]}."
    )


class _RepeatedError(Exception):
    """A name that stands twice in an object: which of them counts depends on who reads it."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedError(next(name for name in names if names.count(name) > 1))
    return found


def _problem_of(kind: str, message: str) -> str:
    match kind:
        case "extra_forbidden":
            return "is no name that is known here"
        case "value_error":
            return message.removeprefix("Value error, ")
        case _:
            return f"has another form ({message.lower()})"


def _public_key(path: Path) -> Ed25519PublicKey | None:
    """The key of a file, None where it holds none. Of a certificate the key alone counts, not its dates or issuer."""
    try:
        pem = path.read_bytes()
        key = x509.load_pem_x509_certificate(pem).public_key() if _CERTIFICATE in pem else load_pem_public_key(pem)
    except (OSError, ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None
