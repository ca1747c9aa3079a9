"""Shadow: what the stable release answered last, once more through the candidate, on record but told to nobody."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.archive.append import append
from pneumoserve.archive.chain import now_text
from pneumoserve.archive.reading import WRITERS, ReadingRequest
from pneumoserve.archive.record import Record
from pneumoserve.archive.replay import BadEvidence, Replayed, changes_of, recorded, replayed
from pneumoserve.archive.store import ObjectStore
from pneumoserve.ids import uuid7
from pneumoserve.models.inprocess import loaded
from pneumoserve.models.scorer import Scorer
from pneumoserve.names import DECISION
from pneumoserve.release import Release
from pneumoserve.rollout.verdict import Verdict


class ShadowSettings(BaseModel):
    """How much of the archive's tail is replayed, and how much of it may be decided otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    films: int = Field(default=200, ge=0, le=10_000, description="latest answers of the stable release; 0: no shadow")
    disagreeing: float = Field(default=0.25, ge=0, le=1, description="share that may be decided otherwise")


@dataclass(frozen=True)
class Shadowed:
    """What a shadow found: its verdict, and the predictions that the candidate decides otherwise."""

    verdict: Verdict
    disagreements: tuple[str, ...]


def shadow(
    store: ObjectStore,
    key: Ed25519PrivateKey,
    stable: Release,
    candidate: Release,
    settings: ShadowSettings,
    rollout_id: str,
    progress: Callable[[], None] = lambda: None,
) -> Shadowed:
    """Replay the tail and put the candidate's answers on record, marked `arm: shadow`.

    A shadow's record repeats the call it is of, so both stand under one `call_id` and `index`. What the two releases
    decide otherwise goes to the reading queue.

    Raises:
        StoreError: the store does not answer.
        ReplayError: an entry cannot be read.
        ModuleNotFoundError: there is no ONNX Runtime.
    """
    tail = _tail(store, stable, settings.films)
    with loaded(candidate) as scorers:
        outcomes = asyncio.run(_played(store, candidate, scorers, tail, progress))
    judged = [outcome for outcome in outcomes if isinstance(outcome, Replayed)]
    append(store, key, [_record(outcome, candidate) for outcome in judged], "shadow")
    differing = tuple(outcome.record.prediction_id for outcome in judged if _differs(outcome))
    append(store, key, [_request(each, stable, rollout_id) for each in differing], WRITERS)
    share = len(differing) / len(judged) if judged else 0.0
    return Shadowed(
        Verdict(
            gate="shadow",
            outcome="fail" if share > settings.disagreeing else "pass",
            sentence=f"{len(differing)} of the last {len(judged)} answers would have been others (tolerated: "
            f"{settings.disagreeing:.0%}); {len(outcomes) - len(judged)} could not be replayed.",
            numbers={"films": len(judged), "differing": len(differing), "tolerated": settings.disagreeing},
        ),
        differing,
    )


def _tail(store: ObjectStore, stable: Release, films: int) -> list[Record]:
    of_stable = recorded(store, None, stable.id, None, 0)
    decided = (record for record in of_stable if record.call.model == DECISION and record.decision is not None)
    return sorted(heapq.nlargest(films, decided, key=lambda record: record.time), key=lambda record: record.time)


async def _played(
    store: ObjectStore,
    candidate: Release,
    scorers: dict[str, Scorer],
    tail: Sequence[Record],
    progress: Callable[[], None],
) -> list[Replayed | BadEvidence]:
    outcomes = []
    async for outcome in replayed(store, candidate, scorers, tail):
        outcomes.append(outcome)
        progress()
    return outcomes


def _differs(outcome: Replayed) -> bool:
    before, after = outcome.record.decision, outcome.verdict[1]
    return before is None or after is None or bool(changes_of(before, after))


def _record(outcome: Replayed, candidate: Release) -> Record:
    uses, decision = outcome.verdict
    return outcome.record.model_copy(
        update={
            "schema_": "pneumoserve.record/4",
            "prediction_id": uuid7(),
            "time": now_text(),
            "arm": "shadow",
            "release": candidate.id,
            "release_digest": candidate.digest,
            "preprocessing_version": candidate.manifest.preprocessing_version,
            "duration_ms": None,
            "models": uses,
            "decision": decision,
        }
    )


def _request(prediction_id: str, stable: Release, rollout_id: str) -> ReadingRequest:
    return ReadingRequest(
        request_id=uuid7(),
        prediction_id=prediction_id,
        time=now_text(),
        release=stable.id,
        reason="shadow_disagreement",
        rollout_id=rollout_id,
    )
