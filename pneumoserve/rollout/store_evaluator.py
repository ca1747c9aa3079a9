"""The evaluator of a rollout: its evidence, its comparisons and its records are all in the object store."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from pneumoserve.ids import uuid7
from pneumoserve.ledger import Reader
from pneumoserve.records import AcceptanceError, GateResult, RolloutEvent, append, check_acceptance
from pneumoserve.release import Release, ReleaseError
from pneumoserve.release.fetch import fetch
from pneumoserve.replay import ReplayError
from pneumoserve.rollout.comparison import Arm, arm_of, compare
from pneumoserve.rollout.errors import RolloutError
from pneumoserve.rollout.evaluator import Evaluation, Evaluator
from pneumoserve.rollout.events import WRITERS
from pneumoserve.rollout.evidence import (
    FOLDER,
    AdjudicatedSet,
    EvidenceError,
    check_unseen,
    set_from_dataset,
    set_from_frozen,
    set_from_labels,
    store_set,
)
from pneumoserve.rollout.gates import evaluate_candidate
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.shadow import run_shadow
from pneumoserve.rollout.state import PendingEvent, RolloutState
from pneumoserve.rollout.tail import Tail
from pneumoserve.signing import load_trust
from pneumoserve.store import NotFoundError, StoreError

LABELS: Final = "labels"


class StoreEvaluator(Evaluator):
    """Evaluates by what the store holds; releases are fetched into `folder` and verified with `trust`."""

    def __init__(self, reader: Reader, key: Ed25519PrivateKey, trust: Path, folder: Path) -> None:
        self._reader = reader
        self._store = reader.store
        self._key = key
        self._trust = trust
        self._folder = folder
        self._releases: dict[str, Release] = {}
        self._evidence: dict[str, AdjudicatedSet] = {}
        self._tails: dict[str, tuple[datetime, Tail]] = {}

    def check_plan(self, plan: Plan, stable: str) -> None:
        try:
            releases = [self._release(each) for each in (stable, plan.candidate)]
            evidence = self._set(plan)
            for release in releases:
                check_unseen(evidence, release)
            if plan.acceptance is not None:
                check_acceptance(self._reader, plan.acceptance, plan.candidate, load_trust(self._trust))
        except (ReleaseError, EvidenceError, AcceptanceError) as error:
            raise RolloutError(str(error)) from None

    def run_gates(self, state: RolloutState, progress: Callable[[], None]) -> Evaluation:
        try:
            stable, candidate = self._release(state.stable), self._release(state.candidate)
            evidence = self._set(state.plan)
            uses = store_set(evidence, self._store, state.rollout)
            results = evaluate_candidate(stable, candidate, evidence, state.plan.gates, progress)
        except (ReleaseError, EvidenceError) as error:
            return Evaluation((_failed_gate("evidence", str(error)),))
        films = len(evidence.stored.films)
        used = GateResult(
            gate="evidence",
            outcome="pass",
            sentence=f"The adjudicated set {evidence.digest[:12]} has {films} films; {uses} rollout(s) have used it.",
            numbers={"films": films, "uses": uses},
        )
        return Evaluation((used, *results), evidence=evidence.digest)

    def run_shadow(self, state: RolloutState, progress: Callable[[], None]) -> Evaluation:
        try:
            stable, candidate = self._release(state.stable), self._release(state.candidate)
            settings = state.plan.shadow
            found = run_shadow(self._reader, self._key, stable, candidate, settings, state.rollout, progress)
        except (ReleaseError, ReplayError) as error:
            return Evaluation((_failed_gate("shadow", str(error)),))
        return Evaluation((found.result,), disagreements=found.disagreements)

    def compare_releases(self, state: RolloutState, since: datetime) -> Evaluation:
        try:
            arms = {release: self._arm(release, since) for release in (state.stable, state.candidate)}
        except ValueError as error:
            raise StoreError(str(error)) from error
        results = compare(arms[state.stable], arms[state.candidate], state.plan.comparison, len(state.plan.steps))
        return Evaluation(results, calls={release: len(arm.calls) for release, arm in arms.items()})

    def _arm(self, release: str, since: datetime) -> Arm:
        """The calls of a release since a step began; what was read for an earlier step is dropped."""
        tail = self._tails.get(release)
        if tail is None or tail[0] != since:
            tail = self._tails[release] = (since, Tail(self._reader, release, since))
        return arm_of(release, tail[1].read())

    def record_event(self, state: RolloutState, event: PendingEvent) -> None:
        recorded = RolloutEvent(
            event_id=uuid7(),
            rollout_id=state.rollout,
            number=event.number,
            time=event.time,
            release=state.candidate,
            stable=state.stable,
            what=event.what,
            percent=event.percent,
            verdicts=event.verdicts,
            evidence=event.evidence,
            disagreements=event.disagreements,
            why=event.sentence,
        )
        append(self._store, self._key, [recorded], WRITERS)

    def warm_up_film(self) -> bytes:
        """Of nobody: even gray, which is referred as no chest film."""
        picture = io.BytesIO()
        Image.new("L", (224, 224), 128).save(picture, "PNG")
        return picture.getvalue()

    def _release(self, release: str) -> Release:
        if release not in self._releases:
            self._releases[release] = fetch(self._store, release, self._folder, self._trust)
        return self._releases[release]

    def _set(self, plan: Plan) -> AdjudicatedSet:
        if plan.evidence not in self._evidence:
            try:
                found = self._open_set(plan.evidence)
            except NotFoundError:
                raise EvidenceError(
                    f"The store has no adjudicated set {plan.evidence}; copy one there with `pneumoserve ingest`, or "
                    "let the plan's evidence be `labels`."
                ) from None
            except ValueError as error:
                raise EvidenceError(str(error)) from None
            self._evidence[plan.evidence] = found
        return self._evidence[plan.evidence]

    def _open_set(self, evidence: str) -> AdjudicatedSet:
        if evidence == LABELS:
            return set_from_labels(self._reader)
        open_set = set_from_frozen if evidence.startswith(f"{FOLDER}/") else set_from_dataset
        return open_set(self._store, evidence)


def _failed_gate(gate: str, sentence: str) -> GateResult:
    return GateResult(gate=gate, outcome="fail", sentence=sentence)
