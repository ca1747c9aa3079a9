"""Studies on record for the tests of reading room, alerts and random check, with a clock that they can turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from pneumoserve.canonical import digest_of
from pneumoserve.decision import Decision
from pneumoserve.ids import time_text
from pneumoserve.ledger import Reader
from pneumoserve.names import DETECTOR
from pneumoserve.records import Flag, Label, Record, ReviewEntry, Withdrawal, append
from pneumoserve.review import AlertDesk, Chance, ReadingRoom, ReviewDatabase, Verdict, Waiting, commit_to, list_waiting
from pneumoserve.review.tables import DERIVED, SAID
from pneumoserve.store import MemoryStore, Store, StoreError
from tests.support.archives import reader_of
from tests.support.entries import KEY, id_made, prediction, use

CHANCE = Chance(b"a key that the tests know, 32 bytes")
PNEUMONIA = Verdict(finding="pneumonia", certainty="sure", no_result_seen=True, pneumonia_type="viral")
NORMAL = Verdict(finding="normal", certainty="sure", no_result_seen=True)
UNSURE = Verdict(finding=None, certainty="cannot_tell", no_result_seen=True)
ANSWERS = {
    "normal": Decision(finding="normal", pneumonia_type=None, confidence=0.99, referred=False, reasons=()),
    "pneumonia": Decision(finding="pneumonia", pneumonia_type="viral", confidence=0.99, referred=False, reasons=()),
    "uncertain": Decision(
        finding=None, pneumonia_type=None, confidence=0.6, referred=True, reasons=("uncertain_finding",)
    ),
    "type": Decision(
        finding="pneumonia", pneumonia_type=None, confidence=0.9, referred=True, reasons=("uncertain_type",)
    ),
    "leg": Decision(finding=None, pneumonia_type=None, confidence=None, referred=True, reasons=("not_a_chest_film",)),
}


def case_of(name: str) -> str:
    """What the archive calls a study."""
    return digest_of(name.encode())


def answer(name: str | None, kind: str, at: datetime, score: float = 0.01, release: str = "0123456789ab") -> Record:
    """A record of one image of a study, or of none."""
    record = prediction(id_made(at), release)
    call = record.call.model_copy(update={"study": None if name is None else case_of(name)})
    given = {"decision": ANSWERS[kind], "call": call, "models": (use(DETECTOR, score),), "time": time_text(at)}
    return record.model_copy(update=given)


def flagged(record: Record) -> Record:
    """The same record of a study that a radiologist had chosen before."""
    return record.model_copy(update={"call": record.call.model_copy(update={"origin": "flagged"})})


def flag_of(record: Record, at: datetime) -> Flag:
    """A radiologist's choice of a study that was answered before."""
    case_id = record.call.study or record.prediction_id
    return Flag(flag_id=id_made(at), case_id=case_id, time=time_text(at), release=record.release)


def withdrawal_of(*records: Record, at: datetime) -> Withdrawal:
    """What a rejection note of these images of a study puts on record."""
    first = records[0]
    return Withdrawal(
        withdrawal_id=id_made(at), case_id=first.call.study or first.prediction_id, time=time_text(at),
        release=first.release, prediction_ids=tuple(each.prediction_id for each in records), why="quality",
    )  # fmt: skip


@dataclass
class Ward:
    """An archive and a database that follows it."""

    database: ReviewDatabase
    store: Store = field(default_factory=MemoryStore)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    fails: bool = False

    def __post_init__(self) -> None:
        self._commit = commit_to(self.store, KEY)
        self.room = ReadingRoom(self.database, self.commit, CHANCE, self.now)
        self.desk = AlertDesk(self.database, self.commit, self.now)

    def now(self) -> datetime:
        return self.time

    def later(self, **by: float) -> None:
        self.time += timedelta(**by)

    def commit(self, entries: Sequence[Label | ReviewEntry]) -> None:
        if self.fails:
            raise StoreError("The store could not be reached; check its address, and that it runs.")
        self._commit(entries)

    @property
    def memory(self) -> MemoryStore:
        """The store in memory, which can be made to fail."""
        assert isinstance(self.store, MemoryStore)
        return self.store

    @property
    def reader(self) -> Reader:
        return reader_of(self.store, KEY)

    def put(self, *entries: Any, role: str = "front") -> None:
        """Put entries on record, and follow."""
        append(self.store, KEY, entries, role)
        self.database.follow(self.reader)

    def study(self, name: str, *kinds: str, score: float = 0.01) -> str:
        """A study with an image of each kind of answer; a moment passes."""
        self.put(*(answer(name, kind, self.time, score) for kind in kinds))
        self.later(seconds=1)
        return case_of(name)

    def waiting(self) -> list[Waiting]:
        return list_waiting(self.database, self.time)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that the archive makes of the database."""
        with self.database.read() as connection:
            return {
                table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
                for table in (*SAID, *DERIVED)
            }
