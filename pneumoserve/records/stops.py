"""Stopping a release: who may, and the small objects by which fronts learn of it.

The archive is the truth: each stop and each resume is an entry there. The same line stands once more below
`stops/<release>/`, since a front may read no record. It is believed by the signature of whoever acted, so that nobody
stops or resumes a release who can merely write to the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pneumoserve.canonical import canonical_json
from pneumoserve.errors import PneumoserveError
from pneumoserve.records.entries import parse_entry
from pneumoserve.records.review_entries import REVIEW_WRITERS, ReleaseResume, ReleaseStop
from pneumoserve.records.short_chain import append
from pneumoserve.signing import Trust, add_signature, key_id, signatures_of
from pneumoserve.store import NotFoundError, Store

STOPS: Final = "stops/"
_Entry = TypeVar("_Entry", ReleaseStop, ReleaseResume)


class StopError(PneumoserveError):
    """A stop or resume that fronts would not believe; the text says what to do."""

    exit_code = 2


def stop_key(entry: ReleaseStop | ReleaseResume) -> str:
    """Where the object of a stop or resume stands."""
    name = entry.stop_id if isinstance(entry, ReleaseStop) else entry.resume_id
    return f"{STOPS}{entry.release}/{name}.json"


@dataclass(frozen=True)
class Stopping:
    """Whose word counts: approvers stop and resume, the service's own programs (`service`) stop only.

    A program whose key was stolen can then refer too much, and never too little.
    """

    approvers: Trust
    service: Ed25519PublicKey

    def believes(self, entry: ReleaseStop | ReleaseResume) -> bool:
        """Whether one whose word counts signed it. A key that was revoked since may have stopped, but resumes nothing.

        To forget a stop with its signer's key would resume the release without anybody's word.
        """
        own = {key_id(self.service): self.service} if isinstance(entry, ReleaseStop) else {}
        keys = {**self.approvers.keys, **own}
        payload = canonical_json(entry.model_copy(update={"signature": ""}))
        signers = signatures_of(payload, entry.signature.encode(), Trust(keys, frozenset(), frozenset()))
        if isinstance(entry, ReleaseStop):
            return bool(signers)
        return any(each.key_id not in self.approvers.revoked_keys for each in signers)


def record_stop(
    store: Store, archive_key: Ed25519PrivateKey, key: Ed25519PrivateKey, entry: _Entry, stopping: Stopping
) -> _Entry:
    """Sign a stop or resume by `key`, put it on record by the archive's, and tell the fronts.

    Raises:
        StopError: the fronts would not believe this key.
        StoreError: the store did not take all of it; doing it again does no harm.
    """
    signed = entry.model_copy(update={"signature": add_signature(canonical_json(entry), key).decode()})
    if not stopping.believes(signed):
        raise StopError(
            "Fronts do not believe this key; sign with an approver's, whose public half is in the trust folder "
            "(`pneumoserve release trust`)."
        )
    append(store, archive_key, [signed], REVIEW_WRITERS.rstrip("-"))
    store.put(stop_key(signed), canonical_json(signed), "application/json")
    return signed


class StopBook:
    """The stops of one release, by their objects; what was believed once is not read again, nor forgotten."""

    def __init__(self, store: Store, release: str) -> None:
        self._store = store
        self._release = release
        self._believed: dict[str, ReleaseStop | ReleaseResume] = {}

    @property
    def resumed(self) -> str | None:
        """When the release was resumed last, as far as it was read; None where it never was."""
        return max((each.time for each in self._believed.values() if isinstance(each, ReleaseResume)), default=None)

    def list_standing(self, stopping: Stopping) -> list[ReleaseStop]:
        """The stops that no resume has ended, the first first; what is not to be believed is passed over.

        Raises:
            StoreError: the store does not answer.
        """
        for stored in self._store.list(f"{STOPS}{self._release}/"):
            if stored.key not in self._believed:
                self._read(stored.key, stopping)
        said = self._believed.values()
        ended = {stop for each in said if isinstance(each, ReleaseResume) for stop in each.stop_ids}
        stops = (each for each in said if isinstance(each, ReleaseStop) and each.stop_id not in ended)
        return sorted(stops, key=lambda stop: (stop.time, stop.stop_id))

    def _read(self, key: str, stopping: Stopping) -> None:
        try:
            entry = parse_entry(self._store.get(key))
        except (NotFoundError, ValueError, AttributeError):
            return
        if (
            isinstance(entry, ReleaseStop | ReleaseResume)
            and entry.release == self._release
            and stopping.believes(entry)
        ):
            self._believed[key] = entry
