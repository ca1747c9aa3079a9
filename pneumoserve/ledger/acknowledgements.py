"""Acknowledgements: findings that a human looked into, signed, so that the next verification can pass again."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pneumoserve.canonical import canonical_json
from pneumoserve.ids import time_text, uuid7
from pneumoserve.ledger.scan import Finding, Findings, Kind, list_versions, retry
from pneumoserve.ledger.segment import key_id_of
from pneumoserve.signing import Trust
from pneumoserve.store import NotFoundError, Store, StoreError

ACKNOWLEDGEMENTS: Final = "acknowledgements/"


class Acknowledgement(BaseModel):
    """What a holder of a sealer's key knows of: one finding, and what the store held at its key at that time."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.acknowledgement/1"] = Field(default="pneumoserve.acknowledgement/1", alias="schema")
    key: str = Field(description="of the finding")
    kind: Kind = Field(description="of the finding")
    versions: tuple[str, ...] = Field(description="version and ETag of all that stood at the key; a later one is new")
    reason: str = Field(description="what was found out, by whom; no word about a patient")
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    key_id: str
    signature: str = Field(description="base64, ed25519 over this object's canonical JSON without `signature`")


@dataclass(frozen=True)
class Acknowledged:
    """A finding that counts no more, why, since when, and by whose key."""

    finding: Finding
    reason: str
    time: str
    key_id: str


def acknowledge(store: Store, finding: Finding, reason: str, key: Ed25519PrivateKey, now: datetime) -> str:
    """Sign that a finding is known, and keep that in the store; its key there.

    Raises:
        StoreError: the store did not take it.
    """
    unsigned = Acknowledgement(
        key=finding.key,
        kind=finding.kind,
        versions=tuple(sorted(_versions(store, finding.key))),
        reason=reason,
        time=time_text(now),
        key_id=key_id_of(key),
        signature="",
    )
    signature = base64.b64encode(key.sign(_payload(unsigned))).decode()
    where = f"{ACKNOWLEDGEMENTS}{uuid7()}.json"
    body = canonical_json(unsigned.model_copy(update={"signature": signature}))
    if not store.create(where, body, "application/json"):
        raise StoreError("The store holds an acknowledgement of this name already; try again.")
    return where


class Acknowledgements:
    """Those of a store that a trusted sealer signed."""

    def __init__(self, store: Store, sealers: Trust, findings: Findings) -> None:
        """Read them all; what is none goes to `findings`.

        Raises:
            StoreError: the store does not answer.
        """
        self._store = store
        self._by_key: dict[str, list[Acknowledgement]] = {}
        for each in _read(store, sealers, findings):
            self._by_key.setdefault(each.key, []).append(each)

    def of(self, finding: Finding) -> Acknowledged | None:
        """What was acknowledged of a finding; None where nothing was, or something was written there since."""
        known = next((each for each in self._find_valid(finding.key) if each.kind == finding.kind), None)
        return None if known is None else Acknowledged(finding, known.reason, known.time, known.key_id)

    def reason(self, key: str) -> str | None:
        """Why something at a key, of whatever kind, was acknowledged; None where it was not."""
        return next((each.reason for each in self._find_valid(key)), None)

    def _find_valid(self, key: str) -> Iterator[Acknowledgement]:
        known = self._by_key.get(key, [])
        held = _versions(self._store, key) if known else set()
        return (each for each in known if held <= set(each.versions))

    def split(self, findings: Findings) -> tuple[tuple[Finding, ...], tuple[Acknowledged, ...]]:
        """The findings that count, and those that were acknowledged."""
        judged = [(finding, self.of(finding)) for finding in findings.sorted()]
        return (
            tuple(finding for finding, known in judged if known is None),
            tuple(known for _, known in judged if known is not None),
        )


def _versions(store: Store, key: str) -> set[str]:
    """What stands at a key: deletions too. What a lifecycle rule removes later makes it less, never more."""
    return {f"{each.version} {each.etag or 'deleted'}" for each in store.versions(key) if each.key == key}


def _read(store: Store, sealers: Trust, findings: Findings) -> Iterator[Acknowledgement]:
    for listed in list_versions(store, ACKNOWLEDGEMENTS):
        try:
            body = retry(store, partial(store.get, listed.key)) if listed.there else None
        except NotFoundError:
            body = None
        acknowledgement = None if body is None else _verify(body, sealers)
        if acknowledgement is not None:
            yield acknowledgement
        elif listed.there:
            findings.add("added", listed.key, "it is no acknowledgement that a trusted sealer signed", sealed=False)


def _verify(body: bytes, sealers: Trust) -> Acknowledgement | None:
    try:
        acknowledgement = Acknowledgement.model_validate_json(body)
    except ValidationError:
        return None
    key = sealers.keys.get(acknowledgement.key_id)
    if key is None or acknowledgement.key_id in sealers.revoked_keys:
        return None
    try:
        key.verify(base64.b64decode(acknowledgement.signature, validate=True), _payload(acknowledgement))
    except (binascii.Error, InvalidSignature):
        return None
    return acknowledgement


def _payload(acknowledgement: Acknowledgement) -> bytes:
    return canonical_json(acknowledgement.model_dump(mode="json", by_alias=True, exclude={"signature"}))
