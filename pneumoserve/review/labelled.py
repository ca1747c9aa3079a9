"""Labels of the archive as a labelled set: blind readings of studies whose probability of being read is known.

People read all referred studies, and of the confident ones those that chance drew. Counted once each, they would show a
release that is worse than it is: most of them are hard. So each counts by one over its probability. These weights are
scaled so that each kind of answer of each release counts as often as it was given: studies that were to be read and
were not, or whose images are erased, are taken to be like the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, cast

from sqlalchemy import Connection, select

from pneumoserve.records import ReadingOutcome, Scope
from pneumoserve.release.data import ArchiveFilm, ArchiveLabels, pseudonym_of
from pneumoserve.release.schema import SiteClass
from pneumoserve.review.database import ReviewDatabase
from pneumoserve.review.errors import ArchiveLabelError
from pneumoserve.review.outcomes import CLOSED_AFTER, Told, list_told
from pneumoserve.review.tables import predictions, readings
from pneumoserve.store import Store

Answer = Literal["referred", "normal", "pneumonia"]
_WORDS: Final[dict[Answer, str]] = {
    "referred": "referred studies",
    "normal": "confidently normal studies",
    "pneumonia": "studies that are confidently pneumonia",
}
# Of how many cases a sentence names one.
_NAMED: Final = 3


class _Group(NamedTuple):
    """Studies whose weights are scaled together."""

    release: str
    answer: Answer


@dataclass(frozen=True)
class AnswerCount:
    """How many closed studies of a release got one kind of answer, and what became of them.

    Of those `chosen` to be read, `used` have a label that counts and an image; of the others nobody could tell, the
    reader was `not_blind`, they are `unread`, or their images are `erased`. `not_drawn` have a label without a chance.
    """

    release: str
    answer: Answer
    studies: int
    chosen: int
    used: int
    cannot_tell: int
    not_blind: int
    unread: int
    erased: int
    not_drawn: int


@dataclass(frozen=True)
class Collected:
    """Labels of the archive, and how many studies they stand for; `without_patient` of those used name no patient."""

    labels: ArchiveLabels
    answers: tuple[AnswerCount, ...]
    without_patient: int

    @property
    def facts(self) -> dict[str, Any]:
        """The counts, as reports have them."""
        return {"answers": [asdict(each) for each in self.answers], "without_patient": self.without_patient}


class StudyFilm(NamedTuple):
    """An image of a study: its first prediction, and the digest of its stored bytes."""

    prediction_id: str
    sha256: str


def collect_labels(
    database: ReviewDatabase, store: Store, now: datetime, scope: Scope, closed_after: timedelta = CLOSED_AFTER
) -> Collected:
    """The labels in scope that show what all studies are like, each with its weight.

    A study is used whole: each of its images that blind readers saw has its label, since they judged them together. A
    study that names no patient counts as a patient of its own.

    Raises:
        ArchiveLabelError: they do not show it; the text says what to do.
        NoStudiesError: no study is in scope; the text names releases and sites that there are.
        DatabaseError: the database does not answer.
        StoreError: the store does not answer.
    """
    told = list_told(database, now, scope, closed_after)
    if not told:
        raise ArchiveLabelError(
            f"No study in this scope was answered more than {closed_after.days} days ago; until then readings of it "
            "may be still to come."
        )
    _refuse_undecided(told)
    films = _find_films(database, store, [each for each in told if each.study.outcome == "read"])
    counts = _count_answers(told, films)
    _refuse_unread(counts)
    labels = weigh_labels(told, films)
    _refuse_contradictions(labels.items)
    without_patient = sum(each.study.patient is None for each in told if each.study.case_id in films)
    return Collected(labels, counts, without_patient)


def weigh_labels(told: Iterable[Told], films: Mapping[str, Sequence[StudyFilm]]) -> ArchiveLabels:
    """The labels of studies whose `films` there are, by study, weighted to stand for all that are told of.

    Raises:
        ZeroDivisionError: of some kind of answer there are no films, so that nothing can stand for it.
    """
    items: list[ArchiveFilm] = []
    largest = 0.0
    for group, members in _group(told).items():
        factor = _factor(members, films)
        items += _weigh(group, members, factor, films)
        chosen = (each.study.probability for each in members)
        # Of those that were to be read, whether or not they were.
        largest = max(largest, *(factor / probability for probability in chosen if probability is not None))
    return ArchiveLabels(tuple(sorted(items, key=lambda item: item.prediction_id)), largest)


def _group(told: Iterable[Told]) -> dict[_Group, list[Told]]:
    found: dict[_Group, list[Told]] = defaultdict(list)
    for each in told:
        found[_group_of(each)].append(each)
    return found


def _count_answers(told: Iterable[Told], films: Mapping[str, Sequence[StudyFilm]]) -> tuple[AnswerCount, ...]:
    return tuple(_count(group, members, films) for group, members in sorted(_group(told).items()))


def _group_of(told: Told) -> _Group:
    return _Group(told.study.release, cast(Answer, told.study.stratum.partition("/")[0]))


# --- weights


def _weigh(
    group: _Group, members: Sequence[Told], factor: float, films: Mapping[str, Sequence[StudyFilm]]
) -> Iterator[ArchiveFilm]:
    for each in members:
        probability = each.study.probability
        for film in films.get(each.study.case_id, ()):
            if probability is None:
                raise AssertionError("what is read was chosen by chance")
            yield ArchiveFilm(
                prediction_id=film.prediction_id,
                sha256=film.sha256,
                cls=_class_of(each),
                patient=pseudonym_of(each.study.patient or each.study.case_id),
                release=group.release,
                answer=group.answer,
                probability=probability,
                weight=factor / probability,
            )


def _factor(members: Sequence[Told], films: Mapping[str, Sequence[StudyFilm]]) -> float:
    """What weights of one kind of answer are scaled by, so that they add up to how often it was given."""
    used = [each.study.probability for each in members if each.study.case_id in films]
    return len(members) / sum(1 / probability for probability in used if probability is not None)


def _class_of(told: Told) -> SiteClass:
    if told.study.truth == "normal":
        return "normal"
    return told.pneumonia_type or "pneumonia"


def _find_films(database: ReviewDatabase, store: Store, told: Sequence[Told]) -> dict[str, list[StudyFilm]]:
    """By study, the images that blind readers saw, each once; of a study whose images are erased nothing."""
    with database.read() as connection:
        rows = _list_keys(connection, {each.study.case_id: each.shown for each in told})
    found = {
        case_id: [StudyFilm(name, key.rpartition("/")[2]) for key, name in sorted(keys.items()) if store.exists(key)]
        for case_id, keys in rows.items()
    }
    return {case_id: films for case_id, films in found.items() if films}


def _list_keys(connection: Connection, shown: Mapping[str, Collection[str]]) -> dict[str, dict[str, str]]:
    """By study, the keys of its images that were shown, each with the first prediction of it."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    of_read = predictions.c.case_id.in_(select(readings.c.case_id))
    wanted = select(predictions.c.case_id, predictions.c.prediction_id, predictions.c.stored_key).where(of_read)
    for row in connection.execute(wanted.order_by(predictions.c.time, predictions.c.prediction_id)):
        if row.prediction_id in shown.get(row.case_id, ()):
            found[row.case_id].setdefault(row.stored_key, row.prediction_id)
    return found


def _count(group: _Group, members: Sequence[Told], films: Mapping[str, Sequence[StudyFilm]]) -> AnswerCount:
    chosen = [each for each in members if each.study.probability is not None]
    outcomes: Counter[ReadingOutcome] = Counter(each.study.outcome for each in chosen)
    used = sum(each.study.case_id in films for each in chosen)
    return AnswerCount(
        *group,
        studies=len(members),
        chosen=len(chosen),
        used=used,
        cannot_tell=outcomes["cannot_tell"],
        not_blind=outcomes["not_blind"],
        unread=outcomes["unread"],
        erased=outcomes["read"] - used,
        not_drawn=sum(each.labelled for each in members if each.study.probability is None),
    )


# --- what is refused


def _refuse_undecided(told: Sequence[Told]) -> None:
    undecided = [min(each.shown) for each in told if each.study.outcome == "undecided"]
    if undecided:
        raise ArchiveLabelError(
            f"{len(undecided)} {_studies(undecided)} labels that contradict each other: {_name(undecided)}. Let a "
            "third reader or a lead decide them in the reading room (`pneumoserve console`), and try again."
        )


def _refuse_contradictions(items: Sequence[ArchiveFilm]) -> None:
    """One image in two studies that readers judged otherwise: one of them is wrong."""
    sick: dict[str, set[bool]] = defaultdict(set)
    for item in items:
        sick[item.sha256].add(item.cls != "normal")
    both = [item.prediction_id for item in items if len(sick[item.sha256]) > 1]
    if both:
        raise ArchiveLabelError(
            f"{len(both)} predictions are of images that were read as sick in one study and as well in another: "
            f"{_name(both)}. Let a lead decide them in the reading room (`pneumoserve console`), and try again."
        )


def _refuse_unread(counts: Sequence[AnswerCount]) -> None:
    """An answer of whose studies not one has a label that counts: nothing can stand for them."""
    for each in counts:
        if each.used:
            continue
        parts = {
            "were chosen to be read" if each.answer == "referred" else "were drawn": each.chosen,
            "labelled without a draw": each.not_drawn,
            "read by people who were not blind": each.not_blind,
            "that nobody could tell": each.cannot_tell,
            "whose images are erased": each.erased,
        }
        said = ", ".join(f"{count:,} {words}" for words, count in parts.items() if count or words.startswith("were"))
        draw = "have them read blind" if each.chosen else "draw some with `pneumoserve sample` and have them read blind"
        raise ArchiveLabelError(
            f"Of the {each.studies:,} {_WORDS[each.answer]} of release {each.release} not one has a label that "
            f"counts ({said}), so labels of other answers would stand for all. First {draw} in the reading room; or "
            "leave that release out by --answered-by, or its days by --since."
        )


def _studies(found: Sequence[str]) -> str:
    return "study has" if len(found) == 1 else "studies have"


def _name(found: Sequence[str]) -> str:
    names = sorted(found)
    return ", ".join(names[:_NAMED]) + (" and others" if len(names) > _NAMED else "")
