"""From objects to answers: which are one study, which are read, and what the service says of them.

One look goes over all studies that have objects, and does of each what can be done now. It holds no state that the
spool does not: what was begun and not finished is found there, by this process or another.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset

from pneumoserve.canonical import Sha256
from pneumoserve.decision import Decision, of_study
from pneumoserve.ids import uuid7
from pneumoserve.imaging.turns import CALL_PIXELS
from pneumoserve.intake import metrics
from pneumoserve.intake.backoff import Backoff
from pneumoserve.intake.calls import MAX_BYTES, MAX_IMAGES, Answers, Caller
from pneumoserve.intake.capture import make_capture
from pneumoserve.intake.errors import ServiceAwayError, ServiceFaultError, ServiceRefusalError
from pneumoserve.intake.fhir import make_bundle
from pneumoserve.intake.header import read_header
from pneumoserve.intake.recording import Recorder
from pneumoserve.intake.results import make_report
from pneumoserve.intake.rules import IntakeRules, Unread
from pneumoserve.intake.selections import read_selection
from pneumoserve.intake.sender import Outbox
from pneumoserve.intake.spool import (
    ANSWER,
    BUNDLE,
    CAPTURE,
    FLAG,
    REPORT,
    Batch,
    LeftOut,
    Plan,
    ReadImage,
    Spool,
    StudyAnswer,
)
from pneumoserve.ledger import now_text
from pneumoserve.records import Flag, Withdrawal
from pneumoserve.store import StoreError

# Studies that are worked on at once; each holds one call's images.
_AT_ONCE: Final = 4
# Objects of one result: their headers are in memory, and a report names each. What a study has more follows in others.
_MOST_OBJECTS: Final = 160
_SHOWN_DIGITS: Final = 8
# A fault that lasts longer comes each time, by what the images hold.
_FAULT_SECONDS: Final = 24 * 3600

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Object:
    """One object of a batch, its bytes read again when they are needed: a study may have hundreds."""

    instance: Sha256
    size: int
    pixels: int
    header: Dataset
    unread: Unread | None


class Studies:
    """Answers studies that are complete, and lets each destination have their results."""

    def __init__(
        self,
        spool: Spool,
        rules: IntakeRules,
        caller: Caller,
        destinations: Sequence[Outbox] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self._spool = spool
        self._rules = rules
        self._caller = caller
        self._destinations = destinations
        self._recorder = recorder
        self._later: dict[Batch, Backoff] = {}
        self._at_work: dict[Sha256, Future[None]] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="studies")

    def look(self) -> None:
        """Begin what can be done now, without waiting for it.

        Raises:
            StoreError: the spool does not answer.
        """
        waiting = self._spool.waiting()
        metrics.WAITING.set(len(waiting))
        self._at_work = {study: work for study, work in self._at_work.items() if not work.done()}
        for study, since in waiting.items():
            # Nothing is planned of objects that all came just now. Hundreds of studies may come in a quiet time, and to
            # look into each would hold up those that are complete.
            is_due = since is None or _age(since) >= self._rules.quiet_seconds
            if is_due and study not in self._at_work:
                self._at_work[study] = self._threads.submit(self._advance, study)
        metrics.LAST_LOOK.set_to_current_time()

    def finish(self) -> None:
        """Wait for what was begun."""
        # What has not begun, the next process does.
        self._threads.shutdown(cancel_futures=True)

    def _advance(self, study: Sha256) -> None:
        try:
            self.advance(study)
        except StoreError as error:
            _log.warning("study %s waits, since the spool does not answer: %s", study[:_SHOWN_DIGITS], error)
        except Exception as error:  # noqa: BLE001 - nobody else hears of it; its text may name somebody
            _log.error("study %s waits by a fault of intake (%s)", study[:_SHOWN_DIGITS], type(error).__name__)

    def advance(self, study: Sha256) -> None:
        """Do of one study what can be done now.

        Raises:
            StoreError: the spool does not answer.
        """
        here, known = self._spool.objects(study), self._spool.batches(study)
        is_answered = True
        for batch, names in known.items():
            if "done" not in names:
                is_answered = self._go_on(batch, names) and is_answered
        if not is_answered:
            # A later result counts the images of the earlier ones.
            return
        plans = {batch: self._spool.read_plan(batch) for batch in known}
        new = here.keys() - {each for plan in plans.values() for each in plan.instances}
        # Of what has no answer yet, nobody knows whether there is something to withdraw.
        if all({"answer", "done"} & names for names in known.values()):
            for note, since in self._spool.notes(study).items():
                if self._go_through(study, note, _age(since), plans, new):
                    # The next look goes on with the result that follows from it.
                    return
        quiet_since = max((here[each] for each in new), default=None)
        if quiet_since is None or _age(quiet_since) < self._rules.quiet_seconds:
            return
        batch = Batch(study, len(known) + 1)
        self._spool.plan(batch, sorted(new)[:_MOST_OBJECTS])
        self._go_on(batch, {"plan"})

    def _go_through(
        self, study: Sha256, note: str, age: float, plans: Mapping[Batch, Plan], new: AbstractSet[Sha256]
    ) -> bool:
        """Do what a note asks for, if it can be done now; whether a result follows from it."""
        answers = {batch: self._spool.answer_of(batch) for batch in plans if self._spool.has_answer(batch)}
        if note == FLAG:
            # Of a study that never comes there is nothing to put on record.
            if plans or age > timedelta(days=self._rules.keep_days).total_seconds():
                self._record_flag(study, plans, answers, new)
            return False
        if note in {plan.note for plan in plans.values()}:
            return False
        rejection = self._spool.read_rejection(study, note)
        read = [each for answer in answers.values() for each in answer.read if each.instance in rejection.instances]
        if not new.isdisjoint(rejection.instances):
            # They came before the note, and are planned as rejected, or answered.
            return False
        if not read:
            self._spool.finish_note(study, note)
            return False
        self._record(
            study,
            note,
            Withdrawal(
                withdrawal_id=uuid7(),
                case_id=study,
                time=now_text(),
                release=next(answer.release for answer in answers.values() if answer.read),
                prediction_ids=tuple(each.prediction_id for each in read),
                why=rejection.why,
            ),
        )
        self._spool.plan(Batch(study, len(plans) + 1), [], note)
        return True

    def _record_flag(
        self, study: Sha256, plans: Mapping[Batch, Plan], answers: Mapping[Batch, StudyAnswer], new: AbstractSet[Sha256]
    ) -> None:
        title = self._spool.read_flag(study)
        # What was planned later has the flag as its origin.
        late = [answer for batch, answer in answers.items() if answer.read and not plans[batch].flagged]
        if late:
            release = late[0].release
            flag = Flag(flag_id=uuid7(), case_id=study, time=now_text(), release=release, title=title)
            self._record(study, FLAG, flag)
        elif new:
            return
        self._spool.finish_note(study, FLAG)

    def _record(self, study: Sha256, note: str, entry: Flag | Withdrawal) -> None:
        if self._recorder is None:
            number = study[:_SHOWN_DIGITS]
            _log.error("study %s: a flag came late, and is not on record; give --archive-bucket", number)
        else:
            self._recorder.record(self._spool.fix(study, note, entry))

    def _go_on(self, batch: Batch, names: set[str]) -> bool:
        """Do of one batch what can be done now; whether later ones may go on."""
        failures = list(self._spool.failures(batch, names))
        if any(_age(failure.since) > timedelta(days=self._rules.keep_days).total_seconds() for failure in failures):
            count = self._spool.drop(batch, "expired")
            metrics.OUTCOMES.labels("expired").inc(count)
            _log.warning("study %s: nobody looked, so %d objects are dropped", batch.study[:_SHOWN_DIGITS], count)
            return True
        if any(failure.what == ANSWER for failure in failures):
            return True
        if "answer" not in names:
            if not self._answer(batch):
                return False
            names = self._spool.batches(batch.study)[batch]
        # Without a report, nobody was to have one when it was answered, or there is nothing to say.
        due = (each for each in self._destinations if names.intersection(each.forms))
        open_for = [each for each in due if f"sent-{each.id}" not in names]
        failed = {failure.what for failure in failures}
        for destination in open_for:
            if destination.id not in failed:
                destination.offer(batch)
        if not open_for:
            self._finish(batch)
        return True

    def _finish(self, batch: Batch) -> None:
        answer = self._spool.answer_of(batch)
        outcomes = (
            {each.instance: "answered" for each in answer.read}
            | {each.instance: "unreadable" for each in answer.unreadable}
            | {each.instance: each.why for each in answer.unread}
        )
        metrics.OUTCOMES.labels("withdrawn").inc(len(answer.withdrawn))
        self._spool.finish(batch, outcomes)
        self._later.pop(batch, None)
        for outcome in outcomes.values():
            metrics.OUTCOMES.labels(outcome).inc()
        _log.info("study %s: result %d is done", batch.study[:_SHOWN_DIGITS], batch.number)

    def _answer(self, batch: Batch) -> bool:
        """Have a batch answered, and its report written; whether it is now."""
        backoff = self._later.setdefault(batch, Backoff())
        if backoff.seconds > 0:
            return False
        try:
            self._make_answer(batch)
        except ServiceAwayError as error:
            if isinstance(error, ServiceFaultError) and _age(self._spool.note_fault(batch)) > _FAULT_SECONDS:
                self._fail(batch, f"{error} It has for a day; look at its log, then `intake retry`.")
                return False
            backoff.wait()
            _log.warning("study %s waits %.0f s: %s", batch.study[:_SHOWN_DIGITS], backoff.seconds, error)
            return False
        except ServiceRefusalError as error:
            self._fail(batch, str(error))
            return False
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it would come again; its text may name somebody
            self._spool.fail(batch, ANSWER, f"A fault of intake ({type(error).__name__}); report it.")
            _log.error("study %s: a fault of intake (%s)", batch.study[:_SHOWN_DIGITS], type(error).__name__)
            return False
        return True

    def _fail(self, batch: Batch, reason: str) -> None:
        self._spool.fail(batch, ANSWER, reason)
        _log.error("study %s: a person must look: %s", batch.study[:_SHOWN_DIGITS], reason)

    def _make_answer(self, batch: Batch) -> None:
        plan, earlier = self._spool.read_plan(batch), self._earlier(batch)
        objects = [self._read(batch, plan, instance) for instance in plan.instances]
        headers = {each.instance: each.header for each in objects}
        left = [each for answer in earlier.values() for each in answer.read if each.instance not in plan.rejected]
        if plan.note is None:
            answer = self._ask(batch, plan, objects, [each.decision for each in left])
        else:
            answer = self._withdraw(batch, plan.note, list(earlier.values()), [each.decision for each in left])
            headers = self._spool.hash_instances(read_selection(self._spool.read_note(batch.study, plan.note)).images)
        if self._destinations and answer.is_reported:
            # Before the answer, which says that all is there to go on with.
            before = max((each for each, one in earlier.items() if one.is_reported), default=None)
            wanted = {form for each in self._destinations for form in each.forms}
            if REPORT in wanted:
                self._spool.put_report(batch, make_report(batch, answer, headers, self._spool.uid, before))
            if CAPTURE in wanted and self._rules.secondary_capture:
                self._spool.put_report(batch, make_capture(batch, answer, headers, self._spool.uid), CAPTURE)
            if BUNDLE in wanted:
                bundle = make_bundle(batch, answer, headers, self._spool.uid, before, earlier)
                self._spool.put_report(batch, bundle, BUNDLE)
        self._spool.put_answer(batch, answer)

    def _earlier(self, batch: Batch) -> dict[Batch, StudyAnswer]:
        """The answers of a study's earlier batches; one that was given up has none."""
        if batch.number == 1:
            # As nearly all are; it saves a listing.
            return {}
        known = self._spool.batches(batch.study).items()
        return {each: self._spool.answer_of(each) for each, names in known if each < batch and "answer" in names}

    def _withdraw(
        self, batch: Batch, note: Sha256, earlier: Sequence[StudyAnswer], left: Sequence[Decision]
    ) -> StudyAnswer:
        """What is left of a study after a rejection note."""
        rejection = self._spool.read_rejection(batch.study, note)
        read = [answer for answer in earlier if answer.read]
        return StudyAnswer(
            time=now_text(),
            release=read[-1].release,
            intended_use=read[-1].intended_use,
            assumed_prevalence=read[-1].assumed_prevalence,
            notice=None,
            read=(),
            unreadable=(),
            unread=(),
            study=of_study(left) if left else None,
            withdrawn=tuple(each for answer in read for each in answer.read if each.instance in rejection.instances),
            why=rejection.why,
        )

    def _read(self, batch: Batch, plan: Plan, instance: Sha256) -> _Object:
        file = self._spool.read_object(batch.study, instance)
        header = read_header(file)
        pixels = int(header.get("Rows") or 0) * int(header.get("Columns") or 0)
        unread = "rejected" if instance in plan.rejected else self._rules.read.find_reason(header)
        return _Object(instance, len(file), pixels, header, unread)

    def _ask(self, batch: Batch, plan: Plan, objects: Sequence[_Object], earlier: Sequence[Decision]) -> StudyAnswer:
        """What the service says of a batch, and with its earlier images of the whole study."""
        read: list[ReadImage] = []
        unreadable: list[LeftOut] = []
        last: Answers | None = None
        notice: str | None = None
        for part in _split([each for each in objects if each.unread is None]):
            answered = self._ask_part(batch, plan, part, unreadable)
            if answered is not None:
                asked, last = answered
                notice = notice or last.notice
                read += [
                    ReadImage(instance=each.instance, prediction_id=prediction_id, decision=decision)
                    for each, (prediction_id, decision) in zip(asked, last.predictions, strict=True)
                ]
        decisions = [*earlier, *(each.decision for each in read)]
        return StudyAnswer(
            time=now_text(),
            release=last.release if last else "",
            intended_use=last.intended_use if last else "",
            assumed_prevalence=last.assumed_prevalence if last else None,
            notice=notice,
            read=tuple(read),
            unreadable=tuple(unreadable),
            unread=tuple(LeftOut(instance=each.instance, why=each.unread) for each in objects if each.unread),
            study=of_study(decisions) if decisions else None,
        )

    def _ask_part(
        self, batch: Batch, plan: Plan, part: list[_Object], unreadable: list[LeftOut]
    ) -> tuple[list[_Object], Answers] | None:
        """The answers for one call's images but for those that the service cannot read, which are named."""
        left = list(part)
        while left:
            header = left[0].header
            names = {
                "study": str(header.StudyInstanceUID),
                "origin": "flagged" if plan.flagged else "routed",
                **({"patient": str(header.PatientID)} if header.get("PatientID") else {}),
                **self._rules.name(header),
            }
            key = self._spool.key("\n".join([batch.folder, *(each.instance for each in left)]))
            images = [self._spool.read_object(batch.study, each.instance) for each in left]
            try:
                return left, self._caller.ask(images, names, key)
            except ServiceRefusalError as error:
                if error.index is None:
                    raise
                unreadable.append(LeftOut(instance=left.pop(error.index).instance, why=str(error)))
        return None


def _split(objects: Sequence[_Object]) -> Iterator[list[_Object]]:
    """Objects as calls take them."""
    part: list[_Object] = []
    for each in objects:
        more = [*part, each]
        size, pixels = sum(one.size for one in more), sum(one.pixels for one in more)
        if part and (len(more) > MAX_IMAGES or size > MAX_BYTES or pixels > CALL_PIXELS):
            yield part
            more = [each]
        part = more
    if part:
        yield part


def _age(moment: datetime) -> float:
    """Seconds since a moment."""
    return (datetime.now(UTC) - moment).total_seconds()
