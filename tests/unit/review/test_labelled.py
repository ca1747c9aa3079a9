"""Labels of the archive that stand for all its studies: their weights, and what is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.decision import Decision
from pneumoserve.ids import uuid7
from pneumoserve.monitoring.acceptance import JudgedFilm, measure_figures
from pneumoserve.records import NoStudiesError, Record, Scope, image_key
from pneumoserve.release.data import ArchiveFilm, LabelledFilm, read_labels
from pneumoserve.review import ArchiveLabelError, Collected, ReviewDatabase, Sampler, Verdict, collect_labels
from pneumoserve.review.labelled import StudyFilm, weigh_labels
from pneumoserve.review.outcomes import Studied, Told
from tests.support.entries import RELEASE, label_of
from tests.support.metrics import DAY, POLICY, read_all
from tests.support.reviews import CHANCE, NORMAL, PNEUMONIA, UNSURE, Ward, answer, case_of

# Name, kind of answer, score, how many, and every how many-th is sick.
KINDS = (("referred", "uncertain", 0.5, 12, 2), ("stated", "pneumonia", 0.95, 9, 3), ("normal", "normal", 0.05, 60, 30))
SEEN = Verdict(finding="pneumonia", certainty="sure", no_result_seen=False)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    database = ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}")
    yield Ward(database, time=DAY)
    database.close()


def image_of(name: str) -> str:
    return digest_of(f"image of {name}".encode())


def put(ward: Ward, name: str, kind: str, score: float, image: str | None = None) -> Record:
    """A study whose image is in the store."""
    record = answer(name, kind, ward.time, score)
    digest = image or image_of(name)
    assert record.image is not None
    ward.store.put(image_key(digest), b"image", "image/png")
    stored = record.image.model_copy(update={"stored_sha256": digest, "stored_key": image_key(digest)})
    patient = record.call.model_copy(update={"patient": digest_of(f"patient of {name}".encode())})
    return record.model_copy(update={"image": stored, "call": patient})


def fill(ward: Ward, capacity: float = 30) -> list[Record]:
    """A day of studies and its draw."""
    names = [(f"{name} {number}", kind, score) for name, kind, score, amount, _ in KINDS for number in range(amount)]
    records = [put(ward, *each) for each in names]
    ward.put(*records)
    if capacity:
        Sampler(ward.database, ward.commit, CHANCE, lambda _: POLICY, ward.now).sample(DAY.date(), capacity)
    ward.later(hours=1)
    return records


def verdicts() -> dict[str, Verdict]:
    return {
        case_of(f"{name} {number}"): PNEUMONIA if number % every == 0 else NORMAL
        for name, _, _, amount, every in KINDS
        for number in range(amount)
    }


def collect(ward: Ward, scope: Scope = Scope(), now: datetime | None = None) -> Collected:  # noqa: B008 - frozen
    return collect_labels(ward.database, ward.store, now or datetime.now(UTC), scope)


def summed(found: Collected) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float)
    for item in found.labels.items:
        totals[item.answer] += item.weight
    return {answer: pytest.approx(total) for answer, total in totals.items()}


def test_each_kind_of_answer_counts_as_often_as_it_was_given(ward: Ward, tmp_path: Path) -> None:
    fill(ward)
    read_all(ward, {**verdicts(), case_of("referred 0"): UNSURE})
    found = collect(ward)
    assert summed(found) == {"referred": 12, "pneumonia": 9, "normal": 60}
    items = {item.sha256: item for item in found.labels.items}
    # One of the twelve referred could not be told: the other eleven stand for it.
    assert items[image_of("referred 1")].weight == pytest.approx(12 / 11)
    normal = [item for item in found.labels.items if item.answer == "normal"]
    assert len(normal) < 60
    assert len({item.probability for item in normal}) == 1
    assert max(item.weight for item in normal) == pytest.approx(60 / len(normal))
    counts = {each.answer: each for each in found.answers}
    assert (counts["referred"].chosen, counts["referred"].used, counts["referred"].cannot_tell) == (12, 11, 1)
    assert (counts["normal"].studies, counts["normal"].used) == (60, len(normal))
    assert {item.cls for item in found.labels.items} == {"normal", "pneumonia"}
    assert found.without_patient == 0
    # The archive gives the same labels to the byte, and the file of them is read again.
    ward.database.rebuild(ward.reader)
    assert collect(ward).labels.document == found.labels.document
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.json").write_bytes(found.labels.document)
    assert read_labels(tmp_path, digest_of(found.labels.document)) == found.labels.items


def test_erased_images_are_counted_and_the_others_stand_for_them(ward: Ward) -> None:
    fill(ward)
    read_all(ward, verdicts())
    for number in range(3):
        ward.store.erase(image_key(image_of(f"referred {number}")))
    found = collect(ward)
    assert summed(found)["referred"] == 12
    assert next(each for each in found.answers if each.answer == "referred").erased == 3


def test_what_is_said_late_counts_and_what_is_young_does_not(ward: Ward) -> None:
    fill(ward)
    with pytest.raises(ArchiveLabelError, match="No study in this scope was answered more than 14 days ago"):
        collect(ward, now=DAY + timedelta(days=10))
    ward.later(days=40)
    read_all(ward, verdicts())
    assert summed(collect(ward)) == {"referred": 12, "pneumonia": 9, "normal": 60}


def test_confident_answers_that_were_not_drawn_have_labels_that_stand_for_nothing(ward: Ward) -> None:
    records = fill(ward, capacity=0)
    read_all(ward, verdicts())
    ward.put(label_of(records[-1]), role="label")
    sentence = (
        r"Of the 60 confidently normal studies of release 0123456789ab not one has a label that counts \(0 were drawn, "
        r"1 labelled without a draw\).* draw some with `pneumoserve sample` and have them read blind"
    )
    with pytest.raises(ArchiveLabelError, match=sentence):
        collect(ward)


def test_labels_that_are_not_blind_do_not_count(ward: Ward) -> None:
    names = [f"referred {number}" for number in range(4)]
    ward.put(*(put(ward, name, "uncertain", 0.5) for name in names))

    def read(name: str, verdict: Verdict) -> None:
        ward.room.claim(case_of(name), "r.1")
        ward.room.save_reading(case_of(name), "r.1", verdict)

    for name in names[:3]:
        read(name, SEEN)
    sentence = r"4 referred studies .* \(4 were chosen to be read, 3 read by people who were not blind\)"
    with pytest.raises(ArchiveLabelError, match=sentence):
        collect(ward)
    # With one that was blind, the others are counted beside it.
    read(names[3], NORMAL)
    (count,) = collect(ward).answers
    assert (count.used, count.not_blind) == (1, 3)


def test_labels_that_contradict_each_other_are_refused(ward: Ward) -> None:
    ward.put(put(ward, "two readers", "uncertain", 0.5), put(ward, "other", "uncertain", 0.5))
    for reader, verdict in (("r.1", PNEUMONIA), ("r.2", NORMAL), ("r.3", UNSURE)):
        ward.room.claim(case_of("two readers"), reader)
        ward.room.save_reading(case_of("two readers"), reader, verdict)
        ward.later(seconds=1)
    with pytest.raises(ArchiveLabelError, match="1 study has labels that contradict each other"):
        collect(ward)
    ward.room.adjudicate(case_of("two readers"), "lead", PNEUMONIA)
    (item,) = collect(ward).labels.items
    assert item.cls == "viral"


def test_one_image_that_is_sick_in_one_study_and_well_in_another_is_refused(ward: Ward) -> None:
    ward.put(*(put(ward, name, "uncertain", 0.5, image_of("shared")) for name in ("first", "second")))
    read_all(ward, {case_of("first"): PNEUMONIA, case_of("second"): NORMAL})
    with pytest.raises(ArchiveLabelError, match="2 predictions are of images that were read as sick in one study"):
        collect(ward)


def test_a_release_that_never_served_is_refused(ward: Ward) -> None:
    fill(ward)
    with pytest.raises(NoStudiesError, match=f"Release 111111111111 has answered no study; those that did: {RELEASE}"):
        collect(ward, Scope(release="1" * 12))


# --- weighted figures of a world whose truth is known

RUNS = 60
_STATED = {
    answer: Decision(
        finding=None if answer == "referred" else answer, pneumonia_type=None, confidence=0.9,
        referred=answer == "referred", reasons=("uncertain_finding",) if answer == "referred" else (),
    )
    for answer in ("referred", "normal", "pneumonia")
}  # fmt: skip


def judge_a_sample(random: np.random.Generator) -> tuple[list[JudgedFilm], float]:
    """1,500 patients, a tenth of them sick; the release refers a band, and of confident normals one of 20 is drawn."""
    sick = random.random(1500) < 0.1
    logits = np.where(sick, random.normal(2.0, 1.3, 1500), random.normal(-1.3, 1.3, 1500))
    told, films, decisions = [], {}, {}
    for number, (ill, logit) in enumerate(zip(sick.tolist(), logits.tolist(), strict=True)):
        kind = "normal" if logit < -1 else "pneumonia" if logit > 2.5 else "referred"
        probability = {"normal": 0.05, "pneumonia": 0.3, "referred": 1.0}[kind]
        name = str(number)
        study = Studied(name, "", RELEASE, name, kind, 0.5, probability, "read", "pneumonia" if ill else "normal")
        told.append(Told(study, None, frozenset(), True))
        # Of a fifth of what was to be read nobody has read it.
        if random.random() < 0.8 * probability:
            films[name] = [StudyFilm(uuid7(), f"{number:064x}")]
            decisions[f"{number:064x}"] = (kind, 1 / (1 + np.exp(-logit)))
    labels = weigh_labels(told, films)
    judged = [
        JudgedFilm(item, _STATED[kind], probability, "DX", "1 to 5", "a")
        for item in labels.items
        for kind, probability in (decisions[item.sha256],)
    ]
    return judged, labels.largest


def count_once(item: LabelledFilm) -> ArchiveFilm:
    assert isinstance(item, ArchiveFilm)
    return replace(item, weight=1.0)


def test_weighted_figures_are_true_and_their_bounds_hold() -> None:
    """The threshold's specificity is .841 (a logit below 0), and a set of mostly referrals says something else."""
    random = np.random.default_rng(7)
    truth = {"specificity": 0.8413, "sensitivity": 0.9380}
    weighted, plain = defaultdict(list), []
    held = dict.fromkeys(truth, 0)
    for _ in range(RUNS):
        judged, largest = judge_a_sample(random)
        found = measure_figures(judged, 0.5, largest)
        for name, value in truth.items():
            weighted[name].append(found[name].rate)
            held[name] += found[name].lower(0.05) <= value <= 1.0
        alike = [replace(film, item=count_once(film.item)) for film in judged]
        plain.append(measure_figures(alike, 0.5)["specificity"].rate)
    assert np.mean(weighted["specificity"]) == pytest.approx(truth["specificity"], abs=0.01)
    assert np.mean(weighted["sensitivity"]) == pytest.approx(truth["sensitivity"], abs=0.01)
    assert np.mean(plain) < truth["specificity"] - 0.08
    # At .95 in truth, 60 runs give .9 or more with a probability of .97.
    assert all(count >= 0.9 * RUNS for count in held.values()), held
