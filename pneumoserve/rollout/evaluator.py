"""What the engine asks of whoever evaluates a candidate, and the form of the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pneumoserve.records import GateResult
from pneumoserve.rollout.plan import Plan
from pneumoserve.rollout.state import PendingEvent, RolloutState


@dataclass(frozen=True)
class Evaluation:
    """The results of some gates, and what they rest on.

    `evidence` is the digest of the adjudicated set. `disagreements` are predictions that the two releases decide
    differently. `calls` counts those of each release that a comparison saw.
    """

    results: tuple[GateResult, ...]
    evidence: str | None = None
    disagreements: tuple[str, ...] = ()
    calls: dict[str, int] = field(default_factory=dict)


class Evaluator(ABC):
    """Says whether a candidate is good enough, and records what happens.

    Every method but `warm_up_film` may raise StoreError. A fault of the candidate is a failed gate, not an error.
    """

    @abstractmethod
    def check_plan(self, plan: Plan, stable: str) -> None:
        """Make sure that both releases and the evidence are there.

        Raises:
            RolloutError: one is not.
        """

    @abstractmethod
    def run_gates(self, state: RolloutState, progress: Callable[[], None]) -> Evaluation:
        """Try both releases on the adjudicated set; `progress` is called after each film."""

    @abstractmethod
    def run_shadow(self, state: RolloutState, progress: Callable[[], None]) -> Evaluation:
        """Replay the stable release's latest answers by the candidate; `progress` is called after each film."""

    @abstractmethod
    def compare_releases(self, state: RolloutState, since: datetime) -> Evaluation:
        """Compare the live calls that both releases have answered since a moment."""

    @abstractmethod
    def record_event(self, state: RolloutState, event: PendingEvent) -> None:
        """Put an event on record."""

    @abstractmethod
    def warm_up_film(self) -> bytes:
        """An encoded image to warm a candidate up with."""
