"""Who approved an acceptance, and whether that is enough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pneumoserve.canonical import canonical_json
from pneumoserve.errors import PneumoserveError
from pneumoserve.ledger import Reader
from pneumoserve.records.acceptance import Acceptance, AcceptanceApproval
from pneumoserve.records.entries import read_entries
from pneumoserve.signing import Trust, signatures_of

ACCEPTANCE_WRITERS: Final = "acceptance"
APPROVERS: Final = 2


class AcceptanceError(PneumoserveError, ValueError):
    """An acceptance that cannot be run; the text says what to do."""

    exit_code = 2


def find_acceptance(reader: Reader, acceptance_id: str) -> tuple[Acceptance, list[AcceptanceApproval]]:
    """An acceptance on record, and its approvals as they stand there, unverified.

    Raises:
        AcceptanceError: there is none.
        StoreError: the store does not answer.
    """
    found: Acceptance | None = None
    approvals = []
    for entry in read_entries(reader, roles=(f"{ACCEPTANCE_WRITERS}-",)):
        if isinstance(entry, Acceptance) and entry.acceptance_id == acceptance_id:
            found = entry
        elif isinstance(entry, AcceptanceApproval) and entry.acceptance_id == acceptance_id:
            approvals.append(entry)
    if found is None:
        raise AcceptanceError("The archive has no such acceptance; `pneumoserve accept` prints the id of each.")
    return found, approvals


def approvers_of(acceptance: Acceptance, approvals: Iterable[AcceptanceApproval], trust: Trust) -> list[str]:
    """The ids of the trusted keys, not revoked, that signed an acceptance; each counts once."""
    entry = canonical_json(acceptance)
    signed = (signature for each in approvals for signature in signatures_of(entry, each.signature.encode(), trust))
    return list(dict.fromkeys(each.key_id for each in signed if each.key_id not in trust.revoked_keys))


def check_acceptance(reader: Reader, acceptance_id: str, release: str, trust: Trust) -> None:
    """Make sure that a release was accepted, and that two people whose keys are trusted approved it.

    Raises:
        AcceptanceError: it was not, they did not, or the archive has no such acceptance.
        StoreError: the store does not answer.
    """
    found, approvals = find_acceptance(reader, acceptance_id)
    if (found.release, found.outcome) != (release, "accepted"):
        raise AcceptanceError(
            f"The acceptance {acceptance_id} says {found.outcome} of release {found.release}; name one that accepted "
            f"release {release}."
        )
    approvers = approvers_of(found, approvals, trust)
    if len(approvers) < APPROVERS:
        raise AcceptanceError(
            f"The acceptance {acceptance_id} is approved by {len(approvers)} of {APPROVERS} people; have it approved "
            "with `pneumoserve approve`."
        )
