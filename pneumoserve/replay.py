"""Replay: recorded films once more through a release, by the code that answered them, and what came out otherwise.

The record's own release must answer as it did: bit for bit where a film's models ran in the same execution profile as
now, else within a tolerance. For another release the report says what changed.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, get_args

import numpy as np

from pneumoserve.canonical import digest_of
from pneumoserve.decision import Decision
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging import PREPROCESSING_VERSION, ImageError, PreparedImage
from pneumoserve.imaging.pool import NotDecodedError, shared_pool
from pneumoserve.inference import Inference, infer
from pneumoserve.ledger import Reader
from pneumoserve.models.inprocess import InProcess
from pneumoserve.models.scorer import Scorer
from pneumoserve.names import DECISION, DETECTOR, TYPER
from pneumoserve.progress import Progress
from pneumoserve.records import ImageDetail, ModelUse, Record, read_entries
from pneumoserve.release import Release
from pneumoserve.store import NotFoundError, Store

# Of a probability, across execution profiles: there sums are taken in another order. On the 60 films of the sample ONNX
# Runtime and torch, both on a CPU, differ by 4.5e-6 at most; twenty times that is still far below what a reader sees.
TOLERANCE: Final = 1e-4
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_MAX_THREADS: Final = 16

EvidenceFault = Literal[
    "incomplete_record",
    "missing_image",
    "altered_image",
    "unreadable_image",
    "other_preprocessing",
    "other_pixels",
    "other_facts",
]
Difference = Literal["models", "logit", "probability", "decision"]
Standard = Literal["bit_for_bit", "tolerance"]
Change = Literal[
    "normal_to_pneumonia",
    "pneumonia_to_normal",
    "bacterial_to_viral",
    "viral_to_bacterial",
    "to_referred",
    "from_referred",
    "referred_otherwise",
]
CHANGES: Final[tuple[Change, ...]] = get_args(Change)


class ReplayError(PneumoserveError):
    """A replay that cannot go on; the text says what to do."""


@dataclass(frozen=True)
class BadEvidence:
    """A prediction that cannot be replayed, and why: its record or its image is not what it was."""

    prediction_id: str
    fault: EvidenceFault


@dataclass(frozen=True)
class Mismatch:
    """A prediction that its own release does not repeat, by which standard, and what differs."""

    prediction_id: str
    standard: Standard
    differs: tuple[Difference, ...]


@dataclass(frozen=True)
class Repeated:
    """Predictions of the replayed release itself: how many came out equal, bit for bit or by tolerance.

    `largest_difference` is the largest |difference of a probability| among those held to the tolerance.
    """

    bit_for_bit: int
    by_tolerance: int
    largest_difference: float
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True)
class ScoreChange:
    """How a model's calibrated probability changed, replayed minus recorded, over `count` predictions.

    `quantiles` go with QUANTILES; `largest` is the largest absolute change, `largest_id` the prediction it belongs to.
    """

    count: int
    mean: float
    largest: float
    largest_id: str
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Compared:
    """Predictions of another release: how many have a decision, how many keep it, and the ids of those that change.

    A decision is kept where finding, type and referral are. One that changes stands under every change it is.
    """

    release: str
    predictions: int
    decisions: int
    agreeing: int
    changes: dict[Change, tuple[str, ...]]
    scores: dict[str, ScoreChange]


@dataclass(frozen=True)
class Report:
    """What a replay found; everything is in the order of prediction ids, so two replays of the same give the same."""

    release: str
    predictions: int
    repeated: Repeated
    compared: tuple[Compared, ...]
    bad_evidence: tuple[BadEvidence, ...]

    @property
    def ok(self) -> bool:
        """Whether every prediction could be replayed, and the release's own came out as recorded."""
        return not self.repeated.mismatches and not self.bad_evidence


@dataclass(frozen=True)
class Replayed:
    """A record and what came out now."""

    record: Record
    inference: Inference


@dataclass
class _Tally:
    """The report as it grows; of a prediction only what the report needs is kept."""

    release: Release
    predictions: int = 0
    bit_for_bit: int = 0
    by_tolerance: int = 0
    largest_difference: float = 0.0
    mismatches: list[Mismatch] = field(default_factory=list)
    bad_evidence: list[BadEvidence] = field(default_factory=list)
    others: dict[str, _Comparison] = field(default_factory=dict)

    def add(self, outcome: Replayed | BadEvidence) -> None:
        self.predictions += 1
        if isinstance(outcome, BadEvidence):
            self.bad_evidence.append(outcome)
        elif outcome.record.release_digest == self.release.digest:
            self._repeat(outcome)
        else:
            self.others.setdefault(outcome.record.release, _Comparison()).add(outcome)

    def _repeat(self, outcome: Replayed) -> None:
        standard, differs = _differences(outcome)
        if standard == "tolerance":
            moved = (abs(change) for change in _score_changes(outcome).values())
            self.largest_difference = max(self.largest_difference, *moved)
        if differs:
            self.mismatches.append(Mismatch(outcome.record.prediction_id, standard, differs))
        elif standard == "bit_for_bit":
            self.bit_for_bit += 1
        else:
            self.by_tolerance += 1

    def report(self) -> Report:
        return Report(
            release=self.release.id,
            predictions=self.predictions,
            repeated=Repeated(
                self.bit_for_bit,
                self.by_tolerance,
                self.largest_difference,
                tuple(sorted(self.mismatches, key=lambda each: each.prediction_id)),
            ),
            compared=tuple(other.summarize(release) for release, other in sorted(self.others.items())),
            bad_evidence=tuple(sorted(self.bad_evidence, key=lambda each: each.prediction_id)),
        )


@dataclass
class _Comparison:
    """What changed against one other release, as it grows."""

    predictions: int = 0
    decisions: int = 0
    agreeing: int = 0
    changes: defaultdict[Change, list[str]] = field(default_factory=lambda: defaultdict(list))
    scores: defaultdict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, outcome: Replayed) -> None:
        prediction_id = outcome.record.prediction_id
        self.predictions += 1
        for model, change in _score_changes(outcome).items():
            self.scores[model].append((prediction_id, change))
        before, after = outcome.record.decision, outcome.inference.decision
        if before is None or after is None:
            return
        self.decisions += 1
        changed = changes_of(before, after)
        self.agreeing += not changed
        for kind in changed:
            self.changes[kind].append(prediction_id)

    def summarize(self, release: str) -> Compared:
        return Compared(
            release=release,
            predictions=self.predictions,
            decisions=self.decisions,
            agreeing=self.agreeing,
            changes={change: tuple(sorted(self.changes[change])) for change in CHANGES},
            scores={model: _summary(changes) for model, changes in sorted(self.scores.items())},
        )


def select_predictions(
    reader: Reader, since: datetime | None, release: str | None, sample: int | None, seed: int
) -> Iterable[Record]:
    """The live predictions on record at or after `since`, of one release or all; all of them, or a sample.

    The sample is those whose ids have the smallest hashes with the seed: it hangs on nothing but ids and seed.

    Raises:
        StoreError: the store does not answer.
        ReplayError: an entry cannot be read.
    """
    found = _predictions(reader, since, release)
    if sample is None:
        return found
    return heapq.nsmallest(sample, found, key=lambda record: digest_of(f"{seed}:{record.prediction_id}".encode()))


def _predictions(reader: Reader, since: datetime | None, release: str | None) -> Iterator[Record]:
    try:
        for entry in read_entries(reader, since, release):
            if isinstance(entry, Record) and entry.kind == "prediction" and entry.arm == "live":
                yield entry
    except ValueError:
        raise ReplayError(
            "The archive holds an entry that cannot be read; `pneumoserve archive verify` finds it."
        ) from None


def replay(
    store: Store,
    release: Release,
    scorers: dict[str, Scorer],
    records: Iterable[Record],
    progress: Progress,
) -> Report:
    """Replay predictions through a release whose models are loaded; `progress` hears of each prediction.

    Raises:
        StoreError: the store does not answer.
    """
    return asyncio.run(_replay(store, release, scorers, records, progress))


async def _replay(
    store: Store,
    release: Release,
    scorers: dict[str, Scorer],
    records: Iterable[Record],
    progress: Progress,
) -> Report:
    tally = _Tally(release)
    async for outcome in replay_each(store, release, scorers, records):
        tally.add(outcome)
        progress("predictions", 1)
    return tally.report()


async def replay_each(
    store: Store, release: Release, scorers: dict[str, Scorer], records: Iterable[Record]
) -> AsyncIterator[Replayed | BadEvidence]:
    """What comes out for each record, in their order, through a release whose models are loaded.

    Raises:
        StoreError: the store does not answer.
    """
    count = min(_MAX_THREADS, len(os.sched_getaffinity(0)) + 1)
    with ThreadPoolExecutor(count, thread_name_prefix="replay") as threads:
        player = _Player(store, release, InProcess(scorers, threads), threads)
        async for outcome in _in_order(player, records, 2 * count):
            yield outcome


async def _in_order(player: _Player, records: Iterable[Record], ahead: int) -> AsyncIterator[Replayed | BadEvidence]:
    """The outcomes in the order of the records; `ahead` are worked on at once."""
    working: deque[asyncio.Task[Replayed | BadEvidence]] = deque()
    try:
        for record in records:
            working.append(asyncio.create_task(player.play(record)))
            if len(working) >= ahead:
                yield await working.popleft()
        while working:
            yield await working.popleft()
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


@dataclass(frozen=True)
class _Player:
    """Takes a record to what comes out now."""

    store: Store
    release: Release
    models: InProcess
    threads: ThreadPoolExecutor

    async def play(self, record: Record) -> Replayed | BadEvidence:
        film = await asyncio.get_running_loop().run_in_executor(self.threads, self._film, record)
        if not isinstance(film, PreparedImage):
            return BadEvidence(record.prediction_id, film)
        return Replayed(record, await infer(self.release, self.models, record.call.model, film))

    def _film(self, record: Record) -> PreparedImage | EvidenceFault:
        """The film as the models get it, or why it cannot be had."""
        if record.image is None or record.call.model not in (DECISION, DETECTOR, TYPER):
            return "incomplete_record"
        if record.preprocessing_version != PREPROCESSING_VERSION:
            return "other_preprocessing"
        try:
            data = self.store.get(record.image.stored_key)
        except NotFoundError:
            return "missing_image"
        return _prepare(data, record.image)


def _prepare(data: bytes, image: ImageDetail) -> PreparedImage | EvidenceFault:
    digest = digest_of(data)
    if digest != image.stored_sha256 or not image.stored_key.endswith(digest):
        return "altered_image"
    try:
        film = shared_pool().prepare(data)
    except NotDecodedError as error:
        raise ReplayError(str(error)) from None
    except ImageError:
        return "unreadable_image"
    if film.pixels_sha256 != image.pixels_sha256:
        return "other_pixels"
    return _with_recorded_age(film, image) or "other_facts"


def _with_recorded_age(film: PreparedImage, image: ImageDetail) -> PreparedImage | None:
    """The film with the age that was judged, None where its copy states other facts.

    Records of before state ages to .01 year, and their copies whole years or rounded months: less than a year apart.
    """
    recorded, copied = image.age_years, film.facts.age_years
    near = recorded == copied or (recorded is not None and copied is not None and abs(recorded - copied) < 1.0)
    facts = replace(film.facts, age_years=recorded)
    return replace(film, facts=facts) if near and facts == image.facts else None


def _differences(outcome: Replayed) -> tuple[Standard, tuple[Difference, ...]]:
    """The standard that a prediction of the release itself is held to, and what misses it."""
    before, after = outcome.record.models, outcome.inference.models
    pairs = _pairs(outcome)
    exact = all(_of_bits(old) == _of_bits(new) for old, new in pairs)
    allowed = 0.0 if exact else TOLERANCE
    misses: dict[Difference, bool] = {
        "models": [_identity(use) for use in before] != [_identity(use) for use in after],
        "logit": exact and any(old.logit != new.logit for old, new in pairs),
        "probability": not all(
            _near(old.probability, new.probability, allowed)
            and _near(old.chest_probability, new.chest_probability, allowed)
            for old, new in pairs
        ),
        "decision": not _same(outcome, allowed),
    }
    return "bit_for_bit" if exact else "tolerance", tuple(name for name, missed in misses.items() if missed)


def _pairs(outcome: Replayed) -> list[tuple[ModelUse, ModelUse]]:
    """What each model that ran both times said, recorded and now."""
    now = {use.name: use for use in outcome.inference.models}
    return [(use, now[use.name]) for use in outcome.record.models if use.name in now]


def _of_bits(use: ModelUse) -> dict[str, str | int]:
    """What the bits of a score depend on: not on what ran the model, since all run the same engine alike."""
    return {key: value for key, value in use.profile.items() if key != "server"}


def _identity(use: ModelUse) -> tuple[str, str, str]:
    return use.name, use.version, use.weights


def _near(old: float | None, new: float | None, allowed: float) -> bool:
    return old == new if old is None or new is None else abs(new - old) <= allowed


def _same(outcome: Replayed, allowed: float) -> bool:
    """Whether two decisions are one but for probabilities that may differ by `allowed`."""
    old, new = outcome.record.decision, outcome.inference.decision
    if old is None or new is None:
        return old is new
    new = outcome.record.restate(new)
    moved = {"confidence": old.confidence, "type_probability": old.type_probability}
    return (
        _near(old.confidence, new.confidence, allowed)
        and _near(old.type_probability, new.type_probability, allowed)
        and old == new.model_copy(update=moved)
    )


def changes_of(before: Decision, after: Decision) -> tuple[Change, ...]:
    """How a decision changed; none where finding, type and referral are kept."""
    kept = (before.finding, before.pneumonia_type, before.referred)
    if kept == (after.finding, after.pneumonia_type, after.referred):
        return ()
    possible: dict[Change, bool] = {
        "normal_to_pneumonia": (before.finding, after.finding) == ("normal", "pneumonia"),
        "pneumonia_to_normal": (before.finding, after.finding) == ("pneumonia", "normal"),
        "bacterial_to_viral": (before.pneumonia_type, after.pneumonia_type) == ("bacterial", "viral"),
        "viral_to_bacterial": (before.pneumonia_type, after.pneumonia_type) == ("viral", "bacterial"),
        "to_referred": after.referred and not before.referred,
        "from_referred": before.referred and not after.referred,
        "referred_otherwise": before.referred and after.referred,
    }
    return tuple(change for change, is_so in possible.items() if is_so)


def _score_changes(outcome: Replayed) -> dict[str, float]:
    """Replayed minus recorded probability of each model that ran both times."""
    return {old.name: new.probability - old.probability for old, new in _pairs(outcome)}


def _summary(changes: list[tuple[str, float]]) -> ScoreChange:
    # Sorted, so that sums do not hang on the order of segments.
    ordered = sorted(changes)
    values = np.array([change for _, change in ordered])
    largest = int(np.abs(values).argmax())
    return ScoreChange(
        count=len(ordered),
        mean=float(values.mean()),
        largest=float(abs(values[largest])),
        largest_id=ordered[largest][0],
        quantiles=tuple(float(value) for value in np.quantile(values, QUANTILES)),
    )
