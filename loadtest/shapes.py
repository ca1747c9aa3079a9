"""When calls are due: a rate that changes with time, and the moments that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

SHAPES: Final = ("constant", "ramp", "soak")
DEFAULT_SECONDS: Final = {"constant": 60.0, "ramp": 120.0, "soak": 3600.0}
# A soak begins gently: a cold service is not what it asks about.
_SOAK_RISE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Phase:
    """Some seconds in which the rate goes evenly from one value to another, both in calls a second."""

    seconds: float
    start: float
    end: float

    @property
    def calls(self) -> float:
        """How many calls fall due."""
        return (self.start + self.end) / 2 * self.seconds

    def moment(self, calls: float) -> float:
        """Seconds until that many calls have fallen due: the integral of the rate, turned round."""
        if calls == 0:
            return 0.0
        growth = (self.end - self.start) / self.seconds
        return 2 * calls / (self.start + math.sqrt(self.start**2 + 2 * growth * calls))


@dataclass(frozen=True)
class Shape:
    """Phases, one after the other."""

    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def rate(self) -> float:
        """Calls a second over the whole of it."""
        return sum(phase.calls for phase in self.phases) / self.seconds

    def due(self) -> Iterator[float]:
        """The moment at which each call is due, in seconds from the start."""
        number, calls, seconds = 0, 0.0, 0.0
        for phase in self.phases:
            while number < calls + phase.calls:
                yield seconds + phase.moment(max(0.0, number - calls))
                number += 1
            calls += phase.calls
            seconds += phase.seconds


def shape(name: str, rate: float, seconds: float) -> Shape:
    """A shape by its name: `rate` is that of the constant part, or the ramp's last one, in calls a second."""
    if name == "ramp":
        return Shape((Phase(seconds, 0.0, rate),))
    if name == "soak":
        rise = min(_SOAK_RISE_SECONDS, seconds / 10)
        return Shape((Phase(rise, 0.0, rate), Phase(seconds - rise, rate, rate)))
    return Shape((Phase(seconds, rate, rate),))
