"""Verifying a whole ledger: seals, roll-ups, segments and attachments, each against what signed it or what it is named.

Bodies are streamed and never held together. What is held grows with what there is: some 100 bytes an attachment that a
line mentions, and some 300 a segment whose own object is still there, which is short beside its roll-up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.x509 import Certificate

from pneumoserve.canonical import Sha256
from pneumoserve.ids import time_text
from pneumoserve.ledger.acknowledgements import Acknowledged, Acknowledgements
from pneumoserve.ledger.attachments import Ledger
from pneumoserve.ledger.scan import Finding, list_versions, ordered_map
from pneumoserve.ledger.seals import ROLLUPS, Seals, read_seals, stamp_key
from pneumoserve.ledger.timestamps import TimeStampError, check_stamp
from pneumoserve.ledger.verification.attached import check_attachments
from pneumoserve.ledger.verification.context import AHEAD, THREADS, Context, list_own_objects
from pneumoserve.ledger.verification.sealed import SealedStep, check_leftover_rollups
from pneumoserve.ledger.verification.unsealed import UnsealedStep
from pneumoserve.progress import Progress

# An authority that was away is asked again by each later seal Job.
_STAMPED_WITHIN: Final = timedelta(days=1)


@dataclass(frozen=True)
class Summary:
    """What was verified.

    `expired` are segments that only their roll-up holds, as it should be; `unsealed_rollups` were left by sealers that
    were stopped, `unnamed_images`, which no record names, by fronts that were stopped. `stamps` are time stamps that a
    trusted authority made, `last_stamped` the number of the last seal that has one.
    """

    seals: int
    last_seal: int
    last_seal_time: str | None
    last_seal_hash: Sha256 | None
    last_stamped: int
    stamps: int
    rollups: int
    unsealed_rollups: int
    segments: int
    sealed_segments: int
    expired: int
    records: int
    writers: int
    images: int
    unnamed_images: int
    seconds: float


@dataclass(frozen=True)
class VerificationReport:
    """The ledger is as it was written where nothing was found, but for what was `acknowledged`.

    `late`: writers that were new to a seal and say that they are older than the seal before it, each with a sentence.
    """

    findings: tuple[Finding, ...]
    acknowledged: tuple[Acknowledged, ...]
    late: dict[str, str]
    summary: Summary


def verify(
    ledger: Ledger,
    now: datetime,
    progress: Progress,
    kept: tuple[tuple[int, Sha256], ...] = (),
    authorities: Sequence[Certificate] = (),
) -> VerificationReport:
    """Walk everything; `progress` is called with what is being walked, and how many more objects were verified.

    `kept` are numbers of seals with their SHA-256 that somebody kept outside of the store.
    `authorities` are those whose time stamps count; without any, none is looked at.

    Raises:
        StoreError: the store does not answer.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as threads:
        return _verify(Context(ledger, now, progress, threads), kept, authorities)


def _verify(
    context: Context, kept: tuple[tuple[int, Sha256], ...], authorities: Sequence[Certificate]
) -> VerificationReport:
    """Each step takes what the one before leaves: what no seal names, then what no line mentions."""
    started = time.perf_counter()
    ledger = context.ledger
    seals = read_seals(ledger.store, ledger.sealers, context.threads, context.findings)
    for number, digest in kept:
        seals.compare(number, digest, context.findings)
    stamped = _check_stamps(context, seals, authorities) if authorities else []
    rollups = {listed.key: listed for listed in list_versions(ledger.store, ROLLUPS)}
    own = list_own_objects(context)
    chains = SealedStep(context, seals, own, rollups).run()
    check_leftover_rollups(context, seals, rollups)
    UnsealedStep(context, seals, own, chains).run()
    check_attachments(context, chains.outlived)
    counts = context.counts
    summary = Summary(
        seals=len(seals.digests),
        last_seal=seals.number,
        last_seal_time=seals.time,
        last_seal_hash=seals.digest,
        last_stamped=max(stamped, default=0),
        stamps=len(stamped),
        rollups=len(seals.rollups),
        unsealed_rollups=counts["unsealed_rollups"],
        segments=counts["segments"],
        sealed_segments=counts["sealed_segments"],
        expired=counts["expired"],
        records=counts["records"],
        writers=len(chains.positions.keys() | seals.heads.keys()),
        images=counts["images"],
        unnamed_images=counts["unnamed_images"],
        seconds=round(time.perf_counter() - started, 3),
    )
    known = Acknowledgements(ledger.store, ledger.sealers, context.findings)
    return VerificationReport(*known.split(context.findings), context.late, summary)


def _check_stamps(context: Context, seals: Seals, authorities: Sequence[Certificate]) -> list[int]:
    """The numbers of seals that were there when they say, by an authority's word."""
    findings, numbers = context.findings, sorted(seals.stamps)
    good: list[int] = []
    for number, stamp in ordered_map(context.threads, numbers, lambda each: context.get(stamp_key(each)), AHEAD):
        key = stamp_key(number)
        if number not in seals.digests:
            findings.add("added", key, "it is the time stamp of no seal", sealed=False)
            continue
        try:
            moment = check_stamp(stamp or b"", seals.digests[number], authorities)
        except TimeStampError as error:
            findings.add("altered", key, str(error), sealed=False)
            continue
        if abs(moment - seals.moments[number]) > _STAMPED_WITHIN:
            sentence = f"its seal says {time_text(seals.moments[number])}, the authority {time_text(moment)}"
            findings.add("wrong_time", key, sentence, sealed=False)
        good.append(number)
    return good
