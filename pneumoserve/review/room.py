"""The reading room: which study a reader gets next, and what they read in it.

A reader never learns before their verdict what the model answered, nor why they were given the study.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

from sqlalchemy import Connection, and_, delete, exists, insert, or_, select
from sqlalchemy.sql.elements import ColumnElement

from pneumoserve.ids import time_text, uuid7
from pneumoserve.records import (
    LONGEST_COMMENT,
    Adjudication,
    Asked,
    Certainty,
    Label,
    NotBlind,
    Page,
    PneumoniaType,
    ReadingDetail,
    View,
)
from pneumoserve.review.archive import Commit
from pneumoserve.review.chance import Chance
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.errors import NO_CASE, ClaimError, ReviewError, VerdictError
from pneumoserve.review.following import list_predictions, put_on_record
from pneumoserve.review.tables import READING_ORDER, cases, claims, exposures, predictions, readings, tasks

CLAIM_MINUTES: Final = 30
# Of studies that a first reader finds normal, or cannot tell, this share is read by a second one; of the others, all.
SECOND_SHARE: Final = 0.2
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
# Plain text shows "<3 days" as it is; a tag is for no reader.
_TAG: Final = re.compile(r"<[A-Za-z/!?]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_EXPOSED: Final[dict[Page, NotBlind]] = {
    "alert": "opened_alert", "answer": "opened_answer", "case": "opened_case", "heat_map": "opened_answer",
}  # fmt: skip


@dataclass(frozen=True)
class Image:
    """One image of a study, as a reader may see it: where the store has it, and nothing of its answer."""

    prediction_id: str
    stored_key: str
    format: str


@dataclass(frozen=True)
class Study:
    """A study that a reader has claimed, until a moment (RFC 3339, UTC)."""

    case_id: str
    images: tuple[Image, ...]
    until: str


@dataclass(frozen=True)
class Waiting:
    """A study that waits to be read; it does not say for what reason, nor since when."""

    case_id: str
    prediction_ids: tuple[str, ...]
    claimed: bool


@dataclass(frozen=True)
class Verdict:
    """What a reader says of a study. `finding` is None where they cannot tell."""

    finding: Literal["normal", "pneumonia"] | None
    certainty: Certainty
    no_result_seen: bool
    pneumonia_type: PneumoniaType | None = None
    comment: str = ""

    def check(self) -> None:
        """See that it is one.

        Raises:
            VerdictError: it is not.
        """
        checks = (
            (self.finding in {None, "normal", "pneumonia"}, "The finding is normal or pneumonia, or you cannot tell."),
            (self.certainty in get_args(Certainty), f"The certainty is one of {', '.join(get_args(Certainty))}."),
            (
                (self.finding is None) == (self.certainty == "cannot_tell"),
                "Give a finding, or say that you cannot tell; not both, and not neither.",
            ),
            (
                self.pneumonia_type in {None, *get_args(PneumoniaType)},
                f"The type is {' or '.join(get_args(PneumoniaType))}, or is not given.",
            ),
            (self.pneumonia_type is None or self.finding == "pneumonia", "Only pneumonia has a type; leave it out."),
        )
        for holds, sentence in checks:
            if not holds:
                raise VerdictError(sentence)
        check_comment(self.comment)


def check_comment(comment: str) -> None:
    """See that a comment is plain text of a length that a person writes.

    Raises:
        VerdictError: it is not.
    """
    if len(comment) > LONGEST_COMMENT:
        raise VerdictError(f"A comment has at most {LONGEST_COMMENT} characters; shorten it.")
    if _TAG.search(comment) or _CONTROL.search(comment):
        raise VerdictError("A comment is plain text; leave out control characters, and < before a letter.")


def check_name(name: str) -> None:
    """See that a person's name on record is a staff id or role.

    Raises:
        VerdictError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise VerdictError("A person is named by a staff id or role of up to 64 letters, digits and . _ @ -.")


def list_waiting(database: ReviewDatabase, at: datetime) -> list[Waiting]:
    """All studies that wait to be read, as they are read: flagged ones first, then the one that is due first.

    Raises:
        DatabaseError: the database does not answer.
    """
    claimed = exists().where(claims.c.case_id == tasks.c.case_id, claims.c.until > time_text(at))
    rows = select(tasks.c.case_id, claimed.label("claimed"), predictions.c.prediction_id)
    joined = rows.join(predictions, predictions.c.case_id == tasks.c.case_id)
    ordered = joined.order_by(*READING_ORDER, predictions.c.time, predictions.c.prediction_id)
    found: dict[str, Waiting] = {}
    with database.read() as connection:
        for row in connection.execute(ordered):
            before = found[row.case_id].prediction_ids if row.case_id in found else ()
            found[row.case_id] = Waiting(row.case_id, (*before, row.prediction_id), bool(row.claimed))
    return list(found.values())


class ReadingRoom:
    """Studies for readers. `chance` draws who is read twice; `commit` puts on record; `now` is the clock."""

    def __init__(
        self,
        database: ReviewDatabase,
        commit: Commit,
        chance: Chance,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._commit = commit
        self._chance = chance
        self._now = now

    def next_study(self, reader: str) -> Study | None:
        """Claim the next study for a reader; the one that they hold, if they do; None where none waits for them.

        They get none that they have read, know the answer of, or are the practitioner of.

        Raises:
            DatabaseError: the database does not answer.
            VerdictError: the reader's name cannot be one.
        """
        check_name(reader)
        now = time_text(self._now())
        held = select(tasks.c.case_id).join(claims, claims.c.case_id == tasks.c.case_id)
        held = held.where(claims.c.reader == reader, claims.c.until > now, ~_is_read_by(reader))
        free = select(tasks.c.case_id).where(~_is_claimed(now), ~_is_read_by(reader), ~_is_known_to(reader))
        free = free.order_by(*READING_ORDER).limit(1)
        with self._database.write() as connection:
            case_id = connection.scalar(held) or connection.scalar(free)
            return None if case_id is None else self._claim(connection, case_id, reader)

    def claim(self, case_id: str, reader: str) -> Study:
        """Claim one study.

        Raises:
            ClaimError: it does not wait to be read, somebody else has it, or the reader may not read it.
            DatabaseError: the database does not answer.
            VerdictError: the reader's name cannot be one.
        """
        check_name(reader)
        now = time_text(self._now())
        with self._database.write() as connection:
            if connection.scalar(select(tasks.c.case_id).where(tasks.c.case_id == case_id)) is None:
                raise ClaimError("This study does not wait to be read; take the next one.")
            self._check_reader(connection, case_id, reader)
            holder = select(claims.c.reader).where(claims.c.case_id == case_id, claims.c.until > now)
            if connection.scalar(holder) not in {None, reader}:
                raise ClaimError("Somebody else reads this study; take the next one.")
            return self._claim(connection, case_id, reader)

    def release(self, case_id: str, reader: str) -> None:
        """Give a claimed study back; nothing happens where the reader does not have it.

        Raises:
            DatabaseError: the database does not answer.
        """
        with self._database.write() as connection:
            connection.execute(delete(claims).where(claims.c.case_id == case_id, claims.c.reader == reader))

    def save_reading(self, case_id: str, reader: str, verdict: Verdict) -> Label:
        """Put a reader's verdict on record; their claim ends with it.

        Raises:
            ClaimError: the reader has not claimed the study, their claim ran out, or they have read it already.
            VerdictError: the verdict cannot be one.
            StoreError: the archive did not take it; the claim stays.
            DatabaseError: the database does not answer.
        """
        verdict.check()
        now = time_text(self._now())
        with self._database.write() as connection:
            # The claim goes first: of two verdicts at once, the second one finds none.
            mine = and_(claims.c.case_id == case_id, claims.c.reader == reader, claims.c.until > now)
            claimed = connection.execute(delete(claims).where(mine)).rowcount
            self._check_reader(connection, case_id, reader)
            if not claimed:
                raise ClaimError("You have not claimed this study, or your time for it ran out; claim it again.")
            label = self._label(connection, case_id, reader, verdict)
            put_on_record(connection, self._commit, [label])
        return label

    def find_held_study(self, case_id: str, reader: str) -> Study | None:
        """A study that a reader has claimed and whose time has not run out; it runs on. None where they have not.

        Raises:
            DatabaseError: the database does not answer.
        """
        mine = and_(claims.c.case_id == case_id, claims.c.reader == reader, claims.c.until > time_text(self._now()))
        with self._database.read() as connection:
            until = connection.scalar(select(claims.c.until).where(mine))
            return None if until is None else Study(case_id, tuple(images_of(connection, case_id)), until)

    def record_view(self, case_id: str, person: str, page: Page, why: str = "") -> View:
        """Put on record that a person opened a page of a study; `why` where they had no right to, and said so.

        Raises:
            ReviewError: there is no such study.
            StoreError: the archive did not take it; the page must not be shown.
            DatabaseError: the database does not answer.
        """
        with self._database.write() as connection:
            case = connection.execute(select(cases).where(cases.c.case_id == case_id)).first()
            if case is None:
                raise ReviewError(NO_CASE)
            view = View(
                view_id=uuid7(),
                case_id=case_id,
                time=time_text(self._now()),
                release=case.release,
                by=person,
                page=page,
                why=why,
            )
            put_on_record(connection, self._commit, [view])
        return view

    def list_to_adjudicate(self) -> list[str]:
        """The studies whose readers differ and that a lead has not decided yet, the oldest first.

        Raises:
            DatabaseError: the database does not answer.
        """
        with self._database.read() as connection:
            found = select(cases.c.case_id).where(cases.c.adjudication_due).order_by(cases.c.opened, cases.c.case_id)
            return list(connection.scalars(found))

    def adjudicate(self, case_id: str, lead: str, verdict: Verdict) -> Adjudication:
        """Put on record what a lead decides of a study whose readers differ.

        Raises:
            ReviewError: no decision is asked for.
            VerdictError: the verdict cannot be one.
            StoreError: the archive did not take it.
            DatabaseError: the database does not answer.
        """
        check_name(lead)
        verdict.check()
        with self._database.write() as connection:
            wanted = select(cases).where(cases.c.case_id == case_id, cases.c.adjudication_due)
            case = connection.execute(wanted).first()
            if case is None:
                raise ReviewError("No decision is asked for of this study; its readers agree, or it is decided.")
            of_case = select(readings.c.label_id).where(readings.c.case_id == case_id).order_by(readings.c.number)
            made = Adjudication(
                adjudication_id=uuid7(),
                case_id=case_id,
                time=time_text(self._now()),
                release=case.release,
                prediction_ids=tuple(list_predictions(connection, case_id)),
                by=lead,
                finding=verdict.finding,
                pneumonia_type=verdict.pneumonia_type,
                label_ids=tuple(connection.scalars(of_case)),
                comment=verdict.comment,
            )
            put_on_record(connection, self._commit, [made])
        return made

    def _claim(self, connection: Connection, case_id: str, reader: str) -> Study:
        until = time_text(self._now() + timedelta(minutes=CLAIM_MINUTES))
        connection.execute(delete(claims).where(or_(claims.c.case_id == case_id, claims.c.reader == reader)))
        connection.execute(insert(claims).values(case_id=case_id, reader=reader, until=until))
        return Study(case_id, tuple(images_of(connection, case_id)), until)

    def _check_reader(self, connection: Connection, case_id: str, reader: str) -> None:
        mine = select(readings.c.label_id).where(readings.c.case_id == case_id, readings.c.reader == reader)
        if connection.scalar(mine) is not None:
            raise ClaimError("You have read this study; a second opinion is somebody else's.")
        if "practitioner" in _pages(connection, case_id, reader):
            raise ClaimError("You are the practitioner of this study, so somebody else reads it.")

    def _label(self, connection: Connection, case_id: str, reader: str, verdict: Verdict) -> Label:
        task = connection.execute(select(tasks).where(tasks.c.case_id == case_id)).first()
        case = connection.execute(select(cases).where(cases.c.case_id == case_id)).first()
        if task is None or case is None:
            raise ClaimError("This study does not wait to be read any more; take the next one.")
        first = task.number == 1
        share = 1.0 if verdict.finding == "pneumonia" else SECOND_SHARE
        pages = _pages(connection, case_id, reader)
        seen: Sequence[NotBlind] = sorted({why for page, why in _EXPOSED.items() if page in pages})
        images = tuple(list_predictions(connection, case_id))
        asked: Asked = task.asked
        return Label(
            label_id=uuid7(),
            prediction_id=images[0],
            time=time_text(self._now()),
            release=case.release,
            source="radiologist",
            author=reader,
            finding=verdict.finding,
            pneumonia_type=verdict.pneumonia_type,
            certainty=verdict.certainty,
            comment=verdict.comment,
            reading=ReadingDetail(
                case_id=case_id,
                prediction_ids=images,
                asked=asked,
                no_result_seen=verdict.no_result_seen,
                not_blind=(*seen, *(() if verdict.no_result_seen else ("result_seen",))),
                probability=task.probability,
                second_probability=share if first else None,
                second_drawn=first and self._chance.draws("second_reading", case_id, share),
            ),
        )


def _is_claimed(now: str) -> ColumnElement[bool]:
    return exists().where(claims.c.case_id == tasks.c.case_id, claims.c.until > now)


def _is_read_by(reader: str) -> ColumnElement[bool]:
    return exists().where(readings.c.case_id == tasks.c.case_id, readings.c.reader == reader)


def _is_known_to(reader: str) -> ColumnElement[bool]:
    return exists().where(exposures.c.case_id == tasks.c.case_id, exposures.c.person == reader)


def _pages(connection: Connection, case_id: str, person: str) -> set[str]:
    mine = select(exposures.c.page).where(exposures.c.case_id == case_id, exposures.c.person == person)
    return set(connection.scalars(mine))


def images_of(connection: Connection, case_id: str) -> list[Image]:
    """The images of a study, the first first."""
    columns = (predictions.c.prediction_id, predictions.c.stored_key, predictions.c.format)
    found = select(*columns).where(predictions.c.case_id == case_id)
    ordered = found.order_by(predictions.c.time, predictions.c.prediction_id)
    return [Image(row.prediction_id, row.stored_key, row.format) for row in connection.execute(ordered)]
