"""Following drift of a release: its studies by source, the baseline that a person chose, and the windows after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from pneumoserve.canonical import digest_of
from pneumoserve.decision import Policy, logit_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.ids import time_text, uuid7
from pneumoserve.inference import decide_again
from pneumoserve.monitoring.drift import BASELINE_STUDIES, WINDOW_STUDIES, Comparison, Studies, compare_studies
from pneumoserve.names import DETECTOR
from pneumoserve.records import Baseline, DriftWindow, Entry, Incident, Record

# Fewer say too little: chance in the baseline would decide how often its windows alarm.
FEWEST_BASELINE_STUDIES: Final = 500


class DriftError(PneumoserveError):
    """What was asked cannot be done; the text says what to do."""


@dataclass(frozen=True, order=True)
class Source:
    """Where studies come from: the verified caller, if any, and the modality, or the format of other images."""

    site: str
    kind: str


@dataclass(frozen=True)
class Study:
    """A study as drift sees it. `person` is the keyed hash of the patient, or the study where none was named."""

    time: str
    person: str
    logit: float
    chest: float
    referred: bool


@dataclass(frozen=True)
class Window:
    """So many studies in the order of their time, compared with the baseline."""

    first: str
    last: str
    studies: int
    comparison: Comparison


@dataclass(frozen=True)
class SourceDrift:
    """A source: its baseline, if a person chose one, the windows after it, and how many studies are in none yet."""

    source: Source
    studies: int
    baseline: Baseline | None
    windows: tuple[Window, ...]
    waiting: int

    @property
    def alarms(self) -> list[Window]:
        """Windows that do not look like the baseline."""
        return [window for window in self.windows if window.comparison.alarm]


@dataclass(frozen=True)
class History:
    """What is on record of one release: its studies by source, in the order of their time, baselines and windows.

    `reported` are the ids of windows that opened an incident.
    """

    release: str
    studies: dict[Source, list[Study]]
    baselines: dict[Source, Baseline]
    windows: tuple[DriftWindow, ...]
    reported: frozenset[str]


def read_history(entries: Iterable[Entry], release: str, policy: Policy, site: str | None = None) -> History:
    """Sort out the entries of a release, of one site or all. Only answers to callers count, none in shadow.

    By its `policy` it is known what a release would have referred that was stopped.
    """
    records: dict[tuple[Source, str], list[Record]] = defaultdict(list)
    said: list[Entry] = []
    for entry in entries:
        if entry.release != release:
            continue
        if isinstance(entry, Baseline | DriftWindow | Incident):
            said.append(entry)
        elif isinstance(entry, Record):
            source = _source_of(entry)
            if source is not None and site in (None, source.site):
                records[source, entry.call.study or entry.prediction_id].append(entry)
    studies: dict[Source, list[Study]] = defaultdict(list)
    for (source, _), images in records.items():
        studies[source].append(_study_of(images, policy))
    return make_history(release, studies, said)


def make_history(release: str, studies: Mapping[Source, Sequence[Study]], entries: Iterable[Entry]) -> History:
    """Studies of a release, in the order of their time, and what was said of them; other entries are passed over."""
    said = [each for each in entries if isinstance(each, Baseline | DriftWindow | Incident)]
    chosen = sorted((each for each in said if isinstance(each, Baseline)), key=lambda baseline: baseline.time)
    return History(
        release,
        {source: sorted(each, key=lambda study: (study.time, study.person)) for source, each in studies.items()},
        {Source(each.site or "", each.source): each for each in chosen},
        tuple(each for each in said if isinstance(each, DriftWindow)),
        frozenset(each.drift_id for each in said if isinstance(each, Incident) and each.drift_id is not None),
    )


def choose_baselines(history: History, by: str, why: str, now: datetime) -> list[Baseline]:
    """The last studies of each source as its baseline from now on, to be put on record.

    Raises:
        DriftError: no source has enough studies.
    """
    chosen = []
    for source, studies in sorted(history.studies.items()):
        last = _one_a_person(reversed(studies))[:BASELINE_STUDIES][::-1]
        if len(last) >= FEWEST_BASELINE_STUDIES:
            chosen.append(
                Baseline(
                    release=history.release, time=time_text(now), baseline_id=uuid7(), site=source.site or None,
                    source=source.kind, first=last[0].time, last=last[-1].time, studies=len(last), by=by, why=why,
                )
            )  # fmt: skip
    if not chosen:
        most = max((len(_one_a_person(studies)) for studies in history.studies.values()), default=0)
        raise DriftError(
            f"A baseline takes {FEWEST_BASELINE_STUDIES} studies of different patients from one source; the archive "
            f"has {most} of release {history.release} at most. Wait for {FEWEST_BASELINE_STUDIES - most} more."
        )
    return chosen


def find_drift(history: History, assumed: float) -> list[SourceDrift]:
    """Compare each source's windows with its baseline. `assumed` is the prevalence that the policy assumes."""
    groups = sum(source in history.baselines for source in history.studies)
    found = []
    for source, studies in sorted(history.studies.items()):
        baseline = history.baselines.get(source)
        if baseline is None:
            found.append(SourceDrift(source, len(studies), None, (), 0))
            continue
        before = _one_a_person(study for study in studies if baseline.first <= study.time <= baseline.last)
        after = [study for study in studies if study.time > baseline.last]
        windows, waiting = _cut_windows(after)
        compared = tuple(_compare(baseline, before, window, assumed, groups) for window in windows)
        found.append(SourceDrift(source, len(studies), baseline, compared, waiting))
    return found


def list_new_windows(history: History, found: Sequence[SourceDrift], now: datetime) -> list[DriftWindow]:
    """Windows that are not on record yet, to be put there: each is a look, whether or not it is an alarm."""
    known = {(window.baseline_id, window.first) for window in history.windows}
    return [
        DriftWindow(
            release=history.release, time=time_text(now), drift_id=uuid7(), baseline_id=each.baseline.baseline_id,
            site=each.source.site or None, source=each.source.kind, first=window.first, last=window.last,
            studies=window.studies, scores_p=window.comparison.scores_p, images_p=window.comparison.images_p,
            referrals_p=window.comparison.referrals_p, cause=window.comparison.cause,
            baseline_share=window.comparison.baseline_share, sick_share=window.comparison.sick_share,
        )
        for each in found
        for window in each.windows
        if each.baseline is not None and (each.baseline.baseline_id, window.first) not in known
    ]  # fmt: skip


def open_incidents(history: History, made: Sequence[DriftWindow], now: datetime) -> list[Incident]:
    """An incident for the first alarm beside each baseline, to be put on record with the new windows `made`.

    Later alarms of the source belong to the same incident, until a person renews the baseline.
    """
    known = {window.baseline_id for window in history.windows if window.drift_id in history.reported}
    opened = []
    for window in sorted(made, key=lambda window: window.first):
        if window.cause is None or window.baseline_id in known:
            continue
        known.add(window.baseline_id)
        comment = (
            f"{window.site or 'callers without a name'}, {window.source}: {window.studies} studies to {window.last}"
        )
        opened.append(
            Incident(
                release=history.release, time=time_text(now), incident_id=uuid7(), drift_id=window.drift_id,
                by="pneumoserve drift", kind="drift", comment=comment,
            )
        )  # fmt: skip
    return opened


def _source_of(record: Record) -> Source | None:
    """None of a record that does not count: no live answer, or one for which the detector was not asked."""
    is_answer = record.kind == "prediction" and record.arm == "live" and record.decision is not None
    if not is_answer or record.image is None or all(use.name != DETECTOR for use in record.models):
        return None
    return Source(record.call.subject or "", record.image.modality or record.image.format)


def _study_of(images: Sequence[Record], policy: Policy) -> Study:
    """Of several images the one most like a pneumonia counts, and the one least like a chest film."""
    first = min(images, key=lambda record: (record.time, record.prediction_id))
    uses = [use for record in images for use in record.models if use.name == DETECTOR]
    return Study(
        time=first.time,
        person=first.call.patient or first.call.study or first.prediction_id,
        logit=max(logit_of(use.probability) for use in uses),
        chest=min(0.0 if use.chest_probability is None else logit_of(use.chest_probability) for use in uses),
        referred=any(_is_referred(record, policy) for record in images),
    )


def _is_referred(record: Record, policy: Policy) -> bool:
    """Whether an image is referred by its scores; that the release was stopped says nothing of the image."""
    decision = record.decision
    if record.stop is not None and record.image is not None:
        decision = decide_again(policy, record.image, record.models)
    return decision is not None and decision.referred


def _one_a_person(studies: Iterable[Study]) -> list[Study]:
    """The first study of each person."""
    found: dict[str, Study] = {}
    for study in studies:
        found.setdefault(study.person, study)
    return list(found.values())


def _cut_windows(studies: Sequence[Study]) -> tuple[list[list[Study]], int]:
    """Windows that do not overlap, each with one study a person; and how many persons are in none yet."""
    windows: list[list[Study]] = []
    window: dict[str, Study] = {}
    for study in studies:
        window.setdefault(study.person, study)
        if len(window) == WINDOW_STUDIES:
            windows.append(list(window.values()))
            window = {}
    return windows, len(window)


def _compare(
    baseline: Baseline, before: Sequence[Study], window: Sequence[Study], assumed: float, groups: int
) -> Window:
    first, last = window[0].time, window[-1].time
    # The same window gives the same p-values, whoever looks.
    seed = int(digest_of(f"{baseline.baseline_id} {first}".encode())[:12], 16)
    comparison = compare_studies(_stack(before), _stack(window), assumed, groups, seed)
    return Window(first, last, len(window), comparison)


def _stack(studies: Sequence[Study]) -> Studies:
    return Studies(
        np.array([study.logit for study in studies]),
        np.array([study.chest for study in studies]),
        np.array([study.referred for study in studies]),
    )
