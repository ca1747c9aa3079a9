"""`pneumoserve release stop` and `resume`: a person has every answer of a release referred, and ends that."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumoserve.cli.app import releases
from pneumoserve.cli.options import DEFAULT_STATE, StateFolder, Trust
from pneumoserve.cli.output import Failure, console, errors

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pneumoserve.monitoring.stop_plan import StopPlan
    from pneumoserve.records import ReviewEntry, Stopping
    from pneumoserve.store import Store

Release = Annotated[str, typer.Argument(metavar="ID", help="Id of the release, as answers have it.")]
By = Annotated[str, typer.Option(help="Your staff id.")]
Why = Annotated[str, typer.Option(help="Why, in a sentence that names no patient.")]
Key = Annotated[Path, typer.Option(help="Your own private key (PEM), whose public half is trusted for releases.")]
ArchiveKey = Annotated[
    Path | None, typer.Option("--archive-key", help="Private key (PEM) that signs the record; default: the state's.")
]


@releases.command(epilog="Example: pneumoserve release stop 919e240e759e --by lead-2 --why 'new plate' --key my.pem")
def stop(  # noqa: PLR0913, PLR0917 - each is an option of the command
    release: Release,
    by: By,
    why: Why,
    key: Key,
    evidence: Annotated[
        list[str] | None, typer.Option(help="Id of an entry that it rests on. May be given repeatedly.")
    ] = None,
    archive_key: ArchiveKey = None,
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Have every answer of a release be "a human must look", on record, until a person resumes it.

    Fronts hear of it within half a minute. Nothing else changes: no model is switched and no call is refused.
    """
    from datetime import UTC, datetime

    from pneumoserve.cli.stores import signing_key_of, store_of
    from pneumoserve.ids import time_text, uuid7
    from pneumoserve.records import ReleaseStop, record_stop
    from pneumoserve.signing import load_key

    with store_of(state) as store:
        _check_known(release, state, store)
        recording = signing_key_of(state, archive_key)
        entry = ReleaseStop(
            time=time_text(datetime.now(UTC)),
            release=release,
            stop_id=uuid7(),
            by=by,
            why=why,
            evidence=tuple(evidence or ()),
        )
        record_stop(store, recording, load_key(key), entry, stopping_of(state, trust, recording))
    console.print(
        f"release {release} is stopped by {entry.stop_id}: within half a minute every answer is referred; end it by "
        "`pneumoserve release resume`",
        soft_wrap=True,
    )


@releases.command(epilog="Example: pneumoserve release resume 919e240e759e --by lead-2 --why fixed --key my.pem")
def resume(
    release: Release,
    by: By,
    why: Why,
    key: Key,
    archive_key: ArchiveKey = None,
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """End all stops of a release, on record: it answers again."""
    from datetime import UTC, datetime

    from pneumoserve.cli.stores import signing_key_of, store_of
    from pneumoserve.ids import time_text, uuid7
    from pneumoserve.records import ReleaseResume, StopBook, record_stop
    from pneumoserve.signing import load_key

    with store_of(state) as store:
        _check_known(release, state, store)
        recording = signing_key_of(state, archive_key)
        stopping = stopping_of(state, trust, recording)
        standing = StopBook(store, release).list_standing(stopping)
        if not standing:
            raise Failure(f"Release {release} is not stopped.", 2)
        entry = ReleaseResume(
            time=time_text(datetime.now(UTC)),
            release=release,
            resume_id=uuid7(),
            by=by,
            why=why,
            stop_ids=tuple(each.stop_id for each in standing),
        )
        record_stop(store, recording, load_key(key), entry, stopping)
    for each in standing:
        console.print(f"ended: {each.stop_id}, by {each.by} at {each.time}: {each.why}", soft_wrap=True)
    console.print(f"release {release} answers again within half a minute")


def stopping_of(state: Path, trust: Path | None, recording: Ed25519PrivateKey) -> Stopping:
    """Whose word fronts take: the trust folder's approvers, and the archive's key.

    Raises:
        KeyFileError: the folder holds no public key.
    """
    from pneumoserve.local.state import State
    from pneumoserve.records import Stopping
    from pneumoserve.signing import load_trust

    return Stopping(load_trust(trust or State(state).trust), recording.public_key())


class PlanStop:
    """A site's plan acts on a release, on record: it stops it where nothing has, and says what stands."""

    def __init__(self, store: Store, key: Ed25519PrivateKey, stopping: Stopping, release: str, plan: StopPlan) -> None:
        """`key` is the archive's, which fronts take for a stop.

        Raises:
            StoreError: the store does not answer.
        """
        from pneumoserve.records import StopBook

        book = StopBook(store, release)
        self._standing = book.list_standing(stopping)
        self.resumed = book.resumed
        self._store, self._key, self._stopping, self._release, self._plan = store, key, stopping, release, plan

    def record(self, entries: Sequence[ReviewEntry]) -> None:
        """Put entries on record, such as the looks that a stop rests on.

        Raises:
            StoreError: the store did not take them.
        """
        from pneumoserve.records import REVIEW_WRITERS, append

        append(self._store, self._key, entries, REVIEW_WRITERS.rstrip("-"))

    def show_standing(self) -> None:
        """Say which stops stand."""
        for each in self._standing:
            errors.print(f"release {self._release} is stopped by {each.stop_id} since {each.time}", soft_wrap=True)

    def stop(self, why: str, evidence: Sequence[str]) -> None:
        """Stop the release, unless it is stopped; `evidence` are ids of the entries that it rests on.

        Raises:
            StoreError: the store did not take all of it; doing it again does no harm.
        """
        from datetime import UTC, datetime

        from pneumoserve.ids import time_text, uuid7
        from pneumoserve.records import ReleaseStop, record_stop

        if self._standing:
            self.show_standing()
            return
        entry = ReleaseStop(
            time=time_text(datetime.now(UTC)),
            release=self._release,
            stop_id=uuid7(),
            by=self._plan.author,
            why=why,
            plan=self._plan.digest,
            evidence=tuple(evidence),
        )
        record_stop(self._store, self._key, self._key, entry, self._stopping)
        errors.print(f"release {self._release} is stopped by {entry.stop_id}: {entry.why}", soft_wrap=True)


def _check_known(release: str, state: Path, store: Store) -> None:
    """See that there is such a release: to stop another name than the one that is meant would stop nothing.

    Raises:
        Failure: there is none.
    """
    from pneumoserve.local.state import State
    from pneumoserve.release.fetch import find_policy

    if find_policy(release, State(state).releases, store) is None:
        raise Failure(
            f"There is no release {release} here, nor in the store, so nothing is changed; give its id as an answer "
            "has it.",
            2,
        )
