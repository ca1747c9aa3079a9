"""Objects between their arrival and their results: a bucket of its own, where identifiers stay as long as needed.

    instances/<instance>/claim         which content counts as this instance, by its digest; stays
    instances/<instance>/done          what became of it; stays, so that nothing is answered twice
    objects/<study>/<instance>         the object as it came; erased when its results are delivered
    flagged/<study>                    a radiologist chose it, and by what
    rejected/<study>/<note>            which of its instances a rejection note names, and why; stays
    notes/<study>/<note>               a rejection note as it came, or `flag`; erased when all is done that it asks for
    awaited/<transaction>              whose answer it is that a destination will give, by its transaction's UID
    said/<study>/<note>            what goes on record by a note, fixed before it does; stays
    refused/<instance>-<digest>        the same instance with other content; kept for a person to see
    studies/<study>/<number>/plan      the instances of one result, fixed before the service is called
    studies/<study>/<number>/fault     since when the service fails at the call
    studies/<study>/<number>/answer    what the service answered; stays, and names nobody
    studies/<study>/<number>/report    the result as it is sent; erased with the objects
    studies/<study>/<number>/capture   a picture of it, where the rules want one; erased with the objects
    studies/<study>/<number>/bundle    the same for FHIR servers, where there are any; erased with the objects
    studies/<study>/<number>/stored-…  a destination took it, and is to say that it keeps it
    studies/<study>/<number>/asked-…   a destination was asked for that
    studies/<study>/<number>/sent-…    a destination has it
    studies/<study>/<number>/failed-…  why a person must look
    studies/<study>/<number>/done      nothing is left to do

Each is created where there is none, and never written over. So a process may be killed between any two steps, and
several may do the same step: one of them succeeds, and the others find what it did. Keys hold keyed hashes alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict
from pydicom.dataset import Dataset

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.decision import Decision
from pneumoserve.ledger import now_text
from pneumoserve.records import Flag, Pseudonyms, RejectionReason, Withdrawal, parse_entry
from pneumoserve.store import NotFoundError, Store

_JSON: Final = "application/json"
_DICOM: Final = "application/dicom"
FHIR_JSON: Final = "application/fhir+json"
_OBJECTS: Final = "objects/"
_STUDIES: Final = "studies/"
_REFUSED: Final = "refused/"
_NOTES: Final = "notes/"
# The note of a study that was chosen.
FLAG: Final = "flag"
_FAILED: Final = "failed-"
_FAULT: Final = "fault"
_STORED: Final = "stored-"
_ASKED: Final = "asked-"
_SHOWN_DIGITS: Final = 12
# What fails: the call of the service, or a destination by its id.
ANSWER: Final = "answer"

# What is sent of a result: a structured report, a picture of its words, and a transaction of FHIR.
Form = Literal["report", "capture", "bundle"]
REPORT: Final = "report"
CAPTURE: Final = "capture"
BUNDLE: Final = "bundle"
_MEDIA_TYPES: Final[Mapping[Form, str]] = {REPORT: _DICOM, CAPTURE: _DICOM, BUNDLE: FHIR_JSON}

Kept = Literal["kept", "repeat", "refused"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Plan(_Strict):
    """The instances of one result; `note` is the rejection note that it follows from, where it does.

    `rejected` are all of the study's instances that were rejected by then.
    """

    instances: tuple[Sha256, ...]
    flagged: bool
    rejected: tuple[Sha256, ...] = ()
    note: Sha256 | None = None


class Rejection(_Strict):
    """What a rejection note says of a study."""

    why: RejectionReason
    instances: tuple[Sha256, ...]


class ReadImage(_Strict):
    """An instance that the service answered."""

    instance: Sha256
    prediction_id: str
    decision: Decision


class LeftOut(_Strict):
    """An instance that has no answer: the sentence of the service, or the rule that keeps it unread."""

    instance: Sha256
    why: str


class StudyAnswer(_Strict):
    """What is known of a study once the service has answered: of these instances, and of all of it (`study`).

    `notice` goes with a stated type. `withdrawn` were answered before, and rejected since, for the reason `why`.
    """

    time: str
    release: str
    intended_use: str
    assumed_prevalence: float | None
    notice: str | None
    read: tuple[ReadImage, ...]
    unreadable: tuple[LeftOut, ...]
    unread: tuple[LeftOut, ...]
    study: Decision | None
    withdrawn: tuple[ReadImage, ...] = ()
    why: RejectionReason | None = None

    @property
    def is_reported(self) -> bool:
        """Whether there is something to report."""
        return bool(self.read or self.unreadable or self.withdrawn)

    @property
    def shown(self) -> list[Sha256]:
        """The instances that a report says something of, the read ones first."""
        read = [each.instance for each in (*self.read, *self.withdrawn)]
        return [*read, *(each.instance for each in self.unreadable)]


@dataclass(frozen=True)
class Incoming:
    """An object as it came: `file` is one of PS3.10."""

    study_uid: str
    instance_uid: str
    file: bytes


@dataclass(frozen=True, order=True)
class Batch:
    """The objects of one result: a study, and the how-manieth result of it, from 1."""

    study: Sha256
    number: int

    @property
    def folder(self) -> str:
        """The prefix of what is known of it."""
        return f"{_STUDIES}{self.study}/{self.number:04d}/"


@dataclass(frozen=True)
class Failure:
    """Why a person must look at a batch: the call, or a destination by its id, and since when."""

    batch: Batch
    what: str
    reason: str
    since: datetime


class Spool:
    """The bucket. All calls raise StoreError where it does not answer."""

    def __init__(self, store: Store, hashes: Pseudonyms) -> None:
        self._store = store
        self._hashes = hashes

    def keep(self, incoming: Incoming, *, flagged: bool) -> Kept:
        """Keep an object until its results are delivered; it is durable when this returns.

        `repeat` is one that is here or was answered before, `refused` another content under the same UID.
        """
        instance = self._hashes.hash("instance", incoming.instance_uid)
        study = self._hashes.hash("study", incoming.study_uid)
        digest = digest_of(incoming.file)
        if flagged:
            self.flag(incoming.study_uid)
        done = f"instances/{instance}/done"
        is_first = self._claim(instance, study, digest)
        if is_first is None:
            return "refused"
        if not is_first and self._store.exists(done):
            return "repeat"
        key = _object_key(study, instance)
        is_new = self._store.create(key, incoming.file, _DICOM)
        if not is_first and self._store.exists(done):
            # It was done with while the repeat was on its way.
            self._store.erase(key)
            return "repeat"
        return "kept" if is_new else "repeat"

    def _claim(self, instance: Sha256, study: Sha256, digest: Sha256) -> bool | None:
        """Whether this is the first time that an instance comes; None where it came with other content."""
        claim = f"instances/{instance}/claim"
        if self._create(claim, {"digest": digest, "study": study}):
            return True
        if self._read(claim)["digest"] == digest:
            return False
        self._create(f"{_REFUSED}{instance}-{digest[:_SHOWN_DIGITS]}", {"study": study, "time": now_text()})
        return None

    def flag(self, study_uid: str, title: str | None = None) -> None:
        """A radiologist chose a study, by a key object selection with a title; the first time counts."""
        study = self._hashes.hash("study", study_uid)
        if not self._store.exists(f"flagged/{study}"):
            # The note first: whoever is killed between the two is told to choose it again.
            self._create(f"{_NOTES}{study}/{FLAG}", {"title": title})
            self._create(f"flagged/{study}", {"title": title})

    def keep_rejection(self, note: Incoming, why: RejectionReason, studies: Mapping[str, Iterable[str]]) -> Kept:
        """Keep a rejection note, which names instances of studies by their UIDs; it is durable when this returns.

        `repeat` and `refused` are as those of `keep`.
        """
        name = self._hashes.hash("instance", note.instance_uid)
        if self._claim(name, self._hashes.hash("study", note.study_uid), digest_of(note.file)) is None:
            return "refused"
        kept: Kept = "repeat"
        for study_uid, instances in studies.items():
            study = self._hashes.hash("study", study_uid)
            rejection = Rejection(why=why, instances=tuple(self._hashes.hash("instance", each) for each in instances))
            self._create(f"rejected/{study}/{name}", rejection.model_dump())
            key, done = f"{_NOTES}{study}/{name}", _note_done(study, name)
            if not self._store.exists(done) and self._store.create(key, note.file, _DICOM):
                kept = "kept"
                if self._store.exists(done):
                    # It was done with while the repeat was on its way.
                    self._store.erase(key)
        return kept

    def notes(self, study: Sha256) -> dict[str, datetime]:
        """The notes on a study that something is to be done for, and when each came."""
        return {each.key.rpartition("/")[2]: each.last_modified for each in self._store.list(f"{_NOTES}{study}/")}

    def read_note(self, study: Sha256, note: str) -> bytes:
        """A rejection note as it came.

        Raises:
            NotFoundError: it is erased.
        """
        return self._store.get(f"{_NOTES}{study}/{note}")

    def read_rejection(self, study: Sha256, note: str) -> Rejection:
        """What a rejection note says of a study."""
        return Rejection.model_validate_json(self._store.get(f"rejected/{study}/{note}"))

    def read_flag(self, study: Sha256) -> str | None:
        """By a selection of which title a study was chosen; None where it was by the AE title."""
        # Whoever made the note may have been killed before this.
        note = f"{_NOTES}{study}/{FLAG}"
        title: str | None = json.loads(self._store.get(note))["title"]
        self._create(f"flagged/{study}", {"title": title})
        return title

    def fix(self, study: Sha256, note: str, entry: Flag | Withdrawal) -> Flag | Withdrawal:
        """What goes on record by a note; where that was fixed before, it stands."""
        key = f"said/{study}/{note}"
        self._store.create(key, canonical_json(entry), _JSON)
        fixed = parse_entry(self._store.get(key))
        assert isinstance(fixed, Flag | Withdrawal)  # noqa: S101 - nothing else is put there
        return fixed

    def finish_note(self, study: Sha256, note: str) -> None:
        """Nothing is left to do for a note."""
        if note != FLAG:
            self._create(_note_done(study, note), {"time": now_text()})
        self._store.erase(f"{_NOTES}{study}/{note}")

    def studies(self) -> list[Sha256]:
        """Studies that something is to be done for."""
        return list(self.waiting())

    def waiting(self) -> dict[Sha256, datetime | None]:
        """The same, each with when the first of its objects came that are here; None where a note waits too."""
        found: dict[Sha256, datetime | None] = {}
        # Not by folders: some stores show those of objects that are erased.
        for each in self._store.list(_OBJECTS):
            study = each.key.split("/")[1]
            found[study] = min(each.last_modified, found.get(study) or each.last_modified)
        return found | dict.fromkeys(each.key.split("/")[1] for each in self._store.list(_NOTES))

    def objects(self, study: Sha256) -> dict[Sha256, datetime]:
        """The instances that are here of a study, and when each came."""
        found = self._store.list(f"{_OBJECTS}{study}/")
        return {each.key.rpartition("/")[2]: each.last_modified for each in found}

    def batches(self, study: Sha256) -> dict[Batch, set[str]]:
        """The batches of a study in their order, each with the names of what is known of it."""
        found: dict[Batch, set[str]] = {}
        for each in self._store.list(f"{_STUDIES}{study}/"):
            _, _, number, name = each.key.split("/")
            found.setdefault(Batch(study, int(number)), set()).add(name)
        return found

    def plan(self, batch: Batch, instances: list[Sha256], note: Sha256 | None = None) -> None:
        """Fix the instances of a batch; another process's plan of the same number stands."""
        said = [each.key.rpartition("/")[2] for each in self._store.list(f"rejected/{batch.study}/")]
        rejected = {each for name in said for each in self.read_rejection(batch.study, name).instances}
        plan = Plan(
            instances=tuple(sorted(instances)),
            flagged=self._store.exists(f"flagged/{batch.study}"),
            rejected=tuple(sorted(rejected)),
            note=note,
        )
        self._create(f"{batch.folder}plan", plan.model_dump())

    def read_plan(self, batch: Batch) -> Plan:
        """The instances of a batch."""
        return Plan.model_validate_json(self._store.get(f"{batch.folder}plan"))

    def read_object(self, study: Sha256, instance: Sha256) -> bytes:
        """An object's bytes.

        Raises:
            NotFoundError: it is erased.
        """
        return self._store.get(_object_key(study, instance))

    def put_answer(self, batch: Batch, answer: StudyAnswer) -> None:
        """Keep a batch's answer; another process's stands where that was faster."""
        self._create(f"{batch.folder}answer", answer.model_dump(mode="json"))

    def has_answer(self, batch: Batch) -> bool:
        """Whether a batch has an answer; one that was given up has none."""
        return self._store.exists(f"{batch.folder}answer")

    def answer_of(self, batch: Batch) -> StudyAnswer:
        """A batch's answer.

        Raises:
            NotFoundError: it has none.
        """
        return StudyAnswer.model_validate_json(self._store.get(f"{batch.folder}answer"))

    def put_report(self, batch: Batch, report: bytes, form: Form = REPORT) -> None:
        """Keep a batch's report, so that each destination and each try gets the same bytes."""
        self._store.create(f"{batch.folder}{form}", report, _MEDIA_TYPES[form])

    def forms_of(self, batch: Batch, forms: Sequence[Form]) -> list[Form]:
        """Those of the forms that a batch's report has.

        Raises:
            NotFoundError: it has none of them, or none any more.
        """
        names = self.names_of(batch)
        found = [form for form in forms if form in names]
        if not found:
            raise NotFoundError("There is no such report.")
        return found

    def report_of(self, batch: Batch, form: Form = REPORT) -> bytes:
        """A batch's report in a form.

        Raises:
            NotFoundError: it has none, or none any more.
        """
        return self._store.get(f"{batch.folder}{form}")

    def names_of(self, batch: Batch) -> dict[str, datetime]:
        """The names of what is known of a batch, and since when."""
        return {each.key.rpartition("/")[2]: each.last_modified for each in self._store.list(batch.folder)}

    def note_stored(self, batch: Batch, destination: str) -> None:
        """A destination took a batch's report; it may not keep it yet."""
        self._create(f"{batch.folder}{_STORED}{destination}", {"time": now_text()})

    def note_asked(self, batch: Batch, destination: str) -> None:
        """A destination is to say whether it keeps a batch's report."""
        self._create(f"{batch.folder}{_ASKED}{destination}", {"time": now_text()})

    def await_answer(self, batch: Batch, destination: str) -> str:
        """Whether a destination keeps a batch's report is to be found by the transaction UID that this returns."""
        transaction = self.uid(_transaction(batch, destination))
        told = {"study": batch.study, "number": batch.number, "destination": destination}
        self._create(self._awaited_key(transaction), told)
        return transaction

    def find_awaited(self, transaction: str) -> tuple[Batch, str] | None:
        """The batch and the destination of a transaction; None where nobody waits for it."""
        try:
            told = json.loads(self._store.get(self._awaited_key(transaction)))
        except NotFoundError:
            return None
        return Batch(told["study"], told["number"]), told["destination"]

    def forget_awaited(self, batch: Batch, destination: str) -> None:
        """Wait no more for what a destination says of a batch's report."""
        self._store.erase(self._awaited_key(self.uid(_transaction(batch, destination))))

    def _awaited_key(self, transaction: str) -> str:
        return f"awaited/{self._hashes.hash('request', f'transaction {transaction}')}"

    def note_sent(self, batch: Batch, destination: str) -> None:
        """A destination has a batch's report."""
        self._create(f"{batch.folder}sent-{destination}", {"time": now_text()})

    def is_sent(self, batch: Batch, destination: str) -> bool:
        """Whether a destination has a batch's report."""
        return self._store.exists(f"{batch.folder}sent-{destination}")

    def note_fault(self, batch: Batch) -> datetime:
        """The service fails at a batch's call; since when it does."""
        key = f"{batch.folder}{_FAULT}"
        self._create(key, {"time": now_text()})
        return datetime.fromisoformat(self._read(key)["time"])

    def fail(self, batch: Batch, what: str, reason: str) -> None:
        """A person must look at a batch."""
        self._create(f"{batch.folder}{_FAILED}{what}", {"reason": reason, "time": now_text()})

    def failures(self, batch: Batch, names: set[str]) -> Iterator[Failure]:
        """Why a person must look at a batch, given the names of what is known of it."""
        for name in sorted(names):
            if name.startswith(_FAILED):
                found = self._read(f"{batch.folder}{name}")
                since = datetime.fromisoformat(found["time"])
                yield Failure(batch, name.removeprefix(_FAILED), found["reason"], since)

    def all_failures(self) -> list[Failure]:
        """Why a person must look at whatever is here."""
        found = (self.batches(study).items() for study in self.studies())
        return [failure for batches in found for batch, names in batches for failure in self.failures(batch, names)]

    def retry(self, failure: Failure) -> None:
        """Let what failed be tried again."""
        for name in (_STORED, _ASKED):
            self._store.erase(f"{failure.batch.folder}{name}{failure.what}")
        if failure.what == ANSWER:
            self._store.erase(f"{failure.batch.folder}{_FAULT}")
        self._store.erase(f"{failure.batch.folder}{_FAILED}{failure.what}")

    def finish(self, batch: Batch, outcomes: dict[Sha256, str]) -> None:
        """Note what became of each instance, then erase the report, the objects and the note that it follows from."""
        for instance, outcome in outcomes.items():
            self._create(f"instances/{instance}/done", {"outcome": outcome, "time": now_text()})
        # Before the objects: a study without one is not looked at any more.
        for name in self.names_of(batch):
            if name in get_args(Form):
                self._store.erase(f"{batch.folder}{name}")
            if name.startswith(_ASKED):
                self.forget_awaited(batch, name.removeprefix(_ASKED))
        for instance in outcomes:
            self._store.erase(_object_key(batch.study, instance))
        note = self.read_plan(batch).note
        if note is not None:
            self.finish_note(batch.study, note)
        self._create(f"{batch.folder}done", {"time": now_text()})

    def drop(self, batch: Batch, outcome: str) -> int:
        """Give a batch up, whatever it waits for; how many objects it had."""
        instances = self.read_plan(batch).instances
        self.finish(batch, dict.fromkeys(instances, outcome))
        return len(instances)

    def list_refused(self) -> list[tuple[Sha256, str]]:
        """Studies of which an instance came again with other content, and when."""
        found = [self._read(each.key) for each in self._store.list(_REFUSED)]
        return [(each["study"], each["time"]) for each in found]

    def forget_refused(self, study: Sha256) -> None:
        """List a study's refused objects no more."""
        for each in self._store.list(_REFUSED):
            if self._read(each.key)["study"] == study:
                self._store.erase(each.key)

    def hash_instances(self, images: Mapping[str, Dataset]) -> dict[Sha256, Dataset]:
        """The same by the hashes of their instance UIDs."""
        return {self._hashes.hash("instance", uid): image for uid, image in images.items()}

    def uid(self, what: str) -> str:
        """A DICOM UID (PS3.5 B.2) for what is named so, always the same one."""
        return f"2.25.{int(self._hashes.hash('report', what)[:32], 16)}"

    def key(self, what: str) -> str:
        """An idempotency key for what is named so, always the same one."""
        return self._hashes.hash("request", what)

    def _create(self, key: str, document: dict[str, object]) -> bool:
        return self._store.create(key, canonical_json(document), _JSON)

    def _read(self, key: str) -> dict[str, str]:
        document: dict[str, str] = json.loads(self._store.get(key))
        return document


def _transaction(batch: Batch, destination: str) -> str:
    return f"commitment {batch.folder} {destination}"


def _note_done(study: Sha256, note: str) -> str:
    return f"instances/{note}/done-{study[:_SHOWN_DIGITS]}"


def _object_key(study: Sha256, instance: Sha256) -> str:
    return f"{_OBJECTS}{study}/{instance}"
