"""Shadow: what the stable release answered last, once more through the candidate, on record but given to nobody."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.ids import uuid7
from pneumoserve.ledger import Reader, now_text
from pneumoserve.models.inprocess import load_scorers
from pneumoserve.models.scorer import Scorer
from pneumoserve.names import DECISION
from pneumoserve.records import READING_WRITERS, GateResult, ReadingRequest, Record, append
from pneumoserve.release import Release
from pneumoserve.replay import BadEvidence, Replayed, changes_of, replay_each, select_predictions
from pneumoserve.store import Store


class ShadowSettings(BaseModel):
    """How much of the archive's tail is replayed, and how much of it may be decided otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    films: int = Field(default=200, ge=0, le=10_000, description="latest answers of the stable release; 0: no shadow")
    disagreeing: float = Field(default=0.25, ge=0, le=1, description="share that may be decided otherwise")


@dataclass(frozen=True)
class ShadowResult:
    """What a shadow found: its result, and the predictions that the candidate decides otherwise."""

    result: GateResult
    disagreements: tuple[str, ...]


def run_shadow(
    reader: Reader,
    key: Ed25519PrivateKey,
    stable: Release,
    candidate: Release,
    settings: ShadowSettings,
    rollout_id: str,
    progress: Callable[[], None] = lambda: None,
) -> ShadowResult:
    """Replay the tail and put the candidate's answers on record, marked `arm: shadow`.

    A shadow's record repeats the call it is of, so both stand under one `call_id` and `index`. What the two releases
    decide otherwise goes to the reading queue.

    Raises:
        StoreError: the store does not answer.
        ReplayError: an entry cannot be read.
        ModuleNotFoundError: there is no ONNX Runtime.
    """
    store = reader.store
    tail = _tail(reader, stable, settings.films)
    with load_scorers(candidate) as scorers:
        outcomes = asyncio.run(_replay_tail(store, candidate, scorers, tail, progress))
    replays = [outcome for outcome in outcomes if isinstance(outcome, Replayed)]
    append(store, key, [_record(outcome, candidate) for outcome in replays], "shadow")
    differing = tuple(outcome.record.prediction_id for outcome in replays if _differs(outcome))
    append(store, key, [_request(each, stable, rollout_id) for each in differing], READING_WRITERS)
    share = len(differing) / len(replays) if replays else 0.0
    return ShadowResult(
        GateResult(
            gate="shadow",
            outcome="fail" if share > settings.disagreeing else "pass",
            sentence=f"{len(differing)} of the last {len(replays)} answers would have been others (tolerated: "
            f"{settings.disagreeing:.0%}); {len(outcomes) - len(replays)} could not be replayed.",
            numbers={"films": len(replays), "differing": len(differing), "tolerated": settings.disagreeing},
        ),
        differing,
    )


def _tail(reader: Reader, stable: Release, films: int) -> list[Record]:
    of_stable = select_predictions(reader, None, stable.id, None, 0)
    asked = (record for record in of_stable if record.call.model == DECISION and record.decision is not None)
    # While a release is stopped, its answers say nothing of it.
    decided = (record for record in asked if record.stop is None)
    return sorted(heapq.nlargest(films, decided, key=lambda record: record.time), key=lambda record: record.time)


async def _replay_tail(
    store: Store,
    candidate: Release,
    scorers: dict[str, Scorer],
    tail: Sequence[Record],
    progress: Callable[[], None],
) -> list[Replayed | BadEvidence]:
    outcomes = []
    async for outcome in replay_each(store, candidate, scorers, tail):
        outcomes.append(outcome)
        progress()
    return outcomes


def _differs(outcome: Replayed) -> bool:
    before, after = outcome.record.decision, outcome.inference.decision
    return before is None or after is None or bool(changes_of(before, after))


def _record(outcome: Replayed, candidate: Release) -> Record:
    return outcome.record.model_copy(
        update={
            "schema_": "pneumoserve.record/6",
            "prediction_id": uuid7(),
            "time": now_text(),
            "arm": "shadow",
            "release": candidate.id,
            "release_digest": candidate.digest,
            "preprocessing_version": candidate.manifest.preprocessing_version,
            "duration_ms": None,
            "traceparent": None,
            "models": outcome.inference.models,
            "decision": outcome.inference.decision,
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
