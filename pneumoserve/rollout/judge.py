"""The judge of a rollout: its evidence, its comparisons and its minutes, all in the object store."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from pneumoserve.archive.append import append
from pneumoserve.archive.replay import ReplayError
from pneumoserve.archive.store import NotFoundError, ObjectStore, StoreError
from pneumoserve.ids import uuid7
from pneumoserve.release import Release, ReleaseError
from pneumoserve.release.fetch import fetch
from pneumoserve.rollout.comparison import Arm, arm_of, compare
from pneumoserve.rollout.engine import Judgement, RolloutError
from pneumoserve.rollout.evidence import Evidence, EvidenceError, check_unseen, freeze, of_dataset, of_labels
from pneumoserve.rollout.gates import judge_candidate
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.records import WRITERS, RolloutEvent
from pneumoserve.rollout.shadow import shadow
from pneumoserve.rollout.state import Note, State
from pneumoserve.rollout.tail import Tail
from pneumoserve.rollout.verdict import Verdict

LABELS: Final = "labels"


class StoreJudge:
    """Judges by what the store holds; releases are fetched into `folder` and verified with `trust`."""

    def __init__(self, store: ObjectStore, key: Ed25519PrivateKey, trust: Path, folder: Path) -> None:
        self._store = store
        self._key = key
        self._trust = trust
        self._folder = folder
        self._releases: dict[str, Release] = {}
        self._evidence: dict[str, Evidence] = {}
        self._tails: dict[str, tuple[datetime, Tail]] = {}

    def check(self, plan: Plan, stable: str) -> None:
        try:
            releases = [self._release(each) for each in (stable, plan.candidate)]
            evidence = self._set(plan)
            for release in releases:
                check_unseen(evidence, release)
        except (ReleaseError, EvidenceError) as error:
            raise RolloutError(str(error)) from None

    def gates(self, state: State, progress: Callable[[], None]) -> Judgement:
        try:
            stable, candidate = self._release(state.stable), self._release(state.candidate)
            evidence = self._set(state.plan)
            uses = freeze(evidence, self._store, state.rollout)
            verdicts = judge_candidate(stable, candidate, evidence, state.plan.gates, progress)
        except (ReleaseError, EvidenceError) as error:
            return Judgement((_failed("evidence", str(error)),))
        films = len(evidence.frozen.films)
        used = Verdict(
            gate="evidence",
            outcome="pass",
            sentence=f"The adjudicated set {evidence.digest[:12]} has {films} films; {uses} rollout(s) have used it.",
            numbers={"films": films, "uses": uses},
        )
        return Judgement((used, *verdicts), evidence=evidence.digest)

    def shadow(self, state: State, progress: Callable[[], None]) -> Judgement:
        try:
            stable, candidate = self._release(state.stable), self._release(state.candidate)
            settings = state.plan.shadow
            found = shadow(self._store, self._key, stable, candidate, settings, state.rollout, progress)
        except (ReleaseError, ReplayError) as error:
            return Judgement((_failed("shadow", str(error)),))
        return Judgement((found.verdict,), disagreements=found.disagreements)

    def compare(self, state: State, since: datetime) -> Judgement:
        try:
            arms = {release: self._arm(release, since) for release in (state.stable, state.candidate)}
        except ValueError as error:
            raise StoreError(str(error)) from error
        verdicts = compare(arms[state.stable], arms[state.candidate], state.plan.comparison, len(state.plan.steps))
        return Judgement(verdicts, calls={release: len(arm.calls) for release, arm in arms.items()})

    def _arm(self, release: str, since: datetime) -> Arm:
        """The calls of a release since a step began; what was read for an earlier step is let go."""
        kept = self._tails.get(release)
        if kept is None or kept[0] != since:
            kept = self._tails[release] = (since, Tail(self._store, release, since))
        return arm_of(release, kept[1].read())

    def record(self, state: State, note: Note) -> None:
        event = RolloutEvent(
            event_id=uuid7(),
            rollout_id=state.rollout,
            number=note.number,
            time=note.time,
            release=state.candidate,
            stable=state.stable,
            what=note.what,
            percent=note.percent,
            verdicts=note.verdicts,
            evidence=note.evidence,
            disagreements=note.disagreements,
            why=note.sentence,
        )
        append(self._store, self._key, [event], WRITERS)

    def film(self) -> bytes:
        """Of nobody: even gray, which is referred as no chest film."""
        picture = io.BytesIO()
        Image.new("L", (224, 224), 128).save(picture, "PNG")
        return picture.getvalue()

    def _release(self, release: str) -> Release:
        if release not in self._releases:
            self._releases[release] = fetch(self._store, release, self._folder, self._trust)
        return self._releases[release]

    def _set(self, plan: Plan) -> Evidence:
        if plan.evidence not in self._evidence:
            try:
                found = of_labels(self._store) if plan.evidence == LABELS else of_dataset(self._store, plan.evidence)
            except NotFoundError:
                raise EvidenceError(
                    f"The store has no adjudicated set {plan.evidence}; copy one there with `pneumoserve ingest`, or "
                    "let the plan's evidence be `labels`."
                ) from None
            except ValueError as error:
                raise EvidenceError(str(error)) from None
            self._evidence[plan.evidence] = found
        return self._evidence[plan.evidence]


def _failed(gate: str, sentence: str) -> Verdict:
    return Verdict(gate=gate, outcome="fail", sentence=sentence)
