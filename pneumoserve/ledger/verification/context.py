"""What the steps of one verification share: what is verified, and what was found and counted so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from pneumoserve.ledger.attachments import Ledger
from pneumoserve.ledger.chain import late_sentence
from pneumoserve.ledger.scan import BoundedExecutor, Findings, has_other_bytes, list_versions, retry
from pneumoserve.ledger.segment import RECORDS, Segment, SegmentKey
from pneumoserve.progress import Progress
from pneumoserve.signing import Trust
from pneumoserve.store import NotFoundError

THREADS: Final = 16
AHEAD: Final = 32
# Why an attachment is looked for: a seal vouches for what mentions it; it must still be there.
SEALED: Final = 1
WANTED: Final = 2


@dataclass
class Context:
    """One verification. `mentioned` are digests of attachments that lines mention, each with why it is looked for.

    `late`: writers that are new and say that they are old, each with a sentence.
    """

    ledger: Ledger
    now: datetime
    progress: Progress
    threads: ThreadPoolExecutor
    findings: Findings = field(default_factory=Findings)
    counts: Counter[str] = field(default_factory=Counter)
    mentioned: dict[bytes, int] = field(default_factory=dict)
    late: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.executor = BoundedExecutor(self.threads, 4 * THREADS)
        # A key that was revoked since may sign nothing more, but what was sealed before that was signed in time.
        self.writers_once = Trust(self.ledger.writers.keys, frozenset(), frozenset())

    def get(self, key: str) -> bytes | None:
        """An object's bytes, None where the store does not give them out."""
        try:
            return retry(self.ledger.store, partial(self.ledger.store.get, key))
        except NotFoundError:
            return None

    def is_overwritten(self, key: str, others: Iterable[str]) -> bool:
        """Whether other versions of an object hold other bytes."""
        return has_other_bytes(self.ledger.store, key, others)

    def count(self, segment: Segment, why: int) -> None:
        """Count a segment that is as it should be, and note which attachments it mentions."""
        self.counts["segments"] += 1
        self.counts["records"] += len(segment.lines)
        self.progress("records", len(segment.lines))
        attachments = self.ledger.attachments
        try:
            keys = list(attachments.keys_in(segment))
        except ValueError:
            key = segment.header.segment_key.key
            self.findings.add("altered", key, "an entry in it is not one", sealed=bool(why & SEALED))
            return
        for key in keys:
            digest = attachments.digest(key)
            if digest is None:
                sentence = f"a record names it, and no {attachments.noun} has such a key"
                self.findings.add("missing_image", key, sentence, sealed=True)
            else:
                self.mentioned[digest] = self.mentioned.get(digest, 0) | why

    def note_late(self, segment: Segment, sealed: datetime | None) -> None:
        """Note a writer that the seal made at `sealed` did not see, and that says that it is older."""
        if (sentence := late_sentence(segment, sealed)) is not None:
            self.late.setdefault(segment.header.writer, sentence)


@dataclass(frozen=True)
class OwnObjects:
    """Segments that are objects of their own. `present`: by key, which versions are not the present bytes.

    `deleted` are keys at which a delete marker stands or stood. Steps take out what they have dealt with.
    """

    present: dict[str, tuple[str, ...]]
    deleted: set[str]

    def writers(self) -> set[str]:
        """Writers of whom anything is there."""
        return {place.writer for key in self.present if (place := SegmentKey.parse(key))}


def list_own_objects(context: Context) -> OwnObjects:
    """List what lies below records/, and find what is no segment there.

    Raises:
        StoreError: the store does not answer.
    """
    own = OwnObjects({}, set())
    for listed in list_versions(context.ledger.store, RECORDS):
        if SegmentKey.parse(listed.key) is None:
            context.findings.add("added", listed.key, "records/ holds nothing but segments", sealed=False)
            continue
        if listed.deleted:
            own.deleted.add(listed.key)
        if listed.there:
            own.present[listed.key] = listed.others
            context.progress("segments listed", 1)
    return own
