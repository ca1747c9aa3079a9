"""What became of a load: figures, thresholds and the verdict. Times count from when a call was due.

A call that failed has no time that could count, so it stands at the end of the order, later than every answer: a
service cannot look quick by failing. A percentile that falls among failed calls is none (null).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

# The generator has fallen behind where more than this share of calls was sent later than that.
LATE_SHARE: Final = 0.01
LATE_SECONDS: Final = 0.1
_WINDOWS: Final = 10
NOT_SENT: Final = "not sent: too many calls under way"


@dataclass(frozen=True)
class Outcome:
    """One call: seconds from the start at which it was due, sent and ended, and what was wrong, if anything was."""

    kind: str
    due: float
    sent: float
    ended: float
    problem: str | None
    release: str | None = None


@dataclass(frozen=True)
class Thresholds:
    """What must hold; None asks nothing. `rate` is right answers a second."""

    failed_share: float
    rate: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Checked:
    """A threshold, and what was measured; a time of None is that of a call that failed."""

    name: str
    limit: float
    measured: float | None
    met: bool


@dataclass(frozen=True)
class Summary:
    """All of a load's figures. `invalid` says why they mean nothing, where they do not."""

    parameters: dict[str, Any]
    outcomes: list[Outcome]
    thresholds: Thresholds
    # What the shape takes, in seconds.
    seconds: float
    most_under_way: int
    processor_share: float

    @property
    def invalid(self) -> str | None:
        """Why the result says nothing about the service, where it does not."""
        late = self._late_share
        if late > LATE_SHARE:
            return (
                f"The generator fell behind: {late:.1%} of the calls were sent more than {LATE_SECONDS * 1000:.0f} ms "
                f"after they were due (at most {LATE_SHARE:.0%} may). The times hold its own delay. Ask for a lower "
                "rate, or run it on a machine with a core to spare."
            )
        unsent = sum(outcome.problem == NOT_SENT for outcome in self.outcomes)
        if unsent:
            return (
                f"{unsent} calls were due and not sent, since {self.most_under_way} were under way, the most that the "
                "generator keeps. Ask for a lower rate, or raise --most-under-way if the machine has the memory."
            )
        return None

    @property
    def checks(self) -> list[Checked]:
        """Each threshold that was set."""
        wanted = self.thresholds
        share = share_of_failures(self.outcomes)
        rate = round(self._rate, 3)
        found = [
            Checked("failed_share", wanted.failed_share, share, share <= wanted.failed_share),
            Checked("rate", round(wanted.rate, 3), rate, rate >= round(wanted.rate, 3)),
        ]
        times = latencies(self.outcomes)
        for name, limit in (("p50_ms", wanted.p50_ms), ("p95_ms", wanted.p95_ms), ("p99_ms", wanted.p99_ms)):
            if limit is not None:
                measured = times[name]
                found.append(Checked(name, limit, measured, measured is not None and measured <= limit))
        return found

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or `invalid`."""
        if self.invalid:
            return "invalid"
        return "met" if all(check.met for check in self.checks) else "missed"

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        kinds = sorted({outcome.kind for outcome in self.outcomes})
        return {
            "verdict": self.verdict,
            "invalid_because": self.invalid,
            "thresholds": [vars(check) for check in self.checks],
            "parameters": self.parameters,
            "calls_per_second": {
                "due": round(len(self.outcomes) / self.seconds, 3),
                "answered": round(self._rate, 3),
            },
            **figures(self.outcomes),
            "releases": dict(Counter(outcome.release for outcome in self.outcomes if outcome.release)),
            "by_kind": {kind: figures([o for o in self.outcomes if o.kind == kind]) for kind in kinds},
            "windows": self._windows(),
            "generator": {
                "late_share": round(self._late_share, 4),
                "sent_late_ms": _milliseconds([o.sent - o.due for o in self.outcomes]),
                "most_under_way": self.most_under_way,
                "processor_share": round(self.processor_share, 3),
            },
        }

    @property
    def _late_share(self) -> float:
        return sum(o.sent - o.due > LATE_SECONDS for o in self.outcomes) / len(self.outcomes)

    @property
    def _rate(self) -> float:
        """Right answers a second, until the last of them had come: a queue that is worked off later is not a rate."""
        right = [outcome.ended for outcome in self.outcomes if outcome.problem is None]
        return len(right) / max([self.seconds, *right])

    def _windows(self) -> list[dict[str, Any]]:
        """The same figures by tenths of the time, each call where it was due: they show a drift, and a ramp's knee."""
        length = self.seconds / _WINDOWS
        groups: list[list[Outcome]] = [[] for _ in range(_WINDOWS)]
        for outcome in self.outcomes:
            groups[min(_WINDOWS - 1, int(outcome.due / length))].append(outcome)
        return [
            {"from_seconds": round(number * length, 3), "due_per_second": round(len(group) / length, 3)}
            | figures(group)
            for number, group in enumerate(groups)
        ]


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts, latency and reasons of some calls."""
    problems = Counter(outcome.problem for outcome in outcomes if outcome.problem is not None)
    return {
        "due": len(outcomes),
        "failed": sum(problems.values()),
        "failed_share": share_of_failures(outcomes),
        "latency": latencies(outcomes),
        "problems": dict(problems.most_common()),
    }


def share_of_failures(outcomes: Sequence[Outcome]) -> float:
    """How many of the calls that were due got no right answer, as a share."""
    return round(sum(o.problem is not None for o in outcomes) / len(outcomes), 6) if outcomes else 0.0


def latencies(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Percentiles in milliseconds from when calls were due."""
    return _milliseconds([math.inf if o.problem is not None else o.ended - o.due for o in outcomes])


def _milliseconds(seconds: list[float]) -> dict[str, float | None]:
    """Nearest-rank percentiles."""
    ordered = sorted(seconds)

    def at(share: float) -> float | None:
        if not ordered:
            return None
        value = ordered[max(0, math.ceil(share * len(ordered)) - 1)]
        return None if math.isinf(value) else round(1000 * value, 1)

    return {"p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1.0)}


def table(summary: Summary) -> str:
    """What a person reads first."""
    document = summary.document()
    lines = [_HEAD.format(""), _row("all", document), *(_row(*item) for item in document["by_kind"].items())]
    if summary.parameters.get("shape") != "constant":
        lines += ["", _HEAD.format("from s, due/s")]
        windows = document["windows"]
        lines += [_row(f"{of['from_seconds']:.0f}, {of['due_per_second']:.1f}", of) for of in windows]
        lines.append("")
    rates, lag = document["calls_per_second"], document["generator"]["sent_late_ms"]
    lines += [
        f"calls a second: {rates['due']:.2f} due, {rates['answered']:.2f} answered right; "
        f"sent late (the generator's own delay): p99 {lag['p99_ms']} ms",
        *(f"failed: {count} x {problem}" for problem, count in document["problems"].items()),
    ]
    if summary.invalid:
        return "\n".join([*lines, f"INVALID. {summary.invalid}"])
    for check in summary.checks:
        text = "none, since calls failed" if check.measured is None else f"{check.measured:g}"
        sign = ">=" if check.name == "rate" else "<="
        lines.append(f"{'met   ' if check.met else 'MISSED'} {check.name} {sign} {check.limit:g}: {text}")
    return "\n".join(lines)


_HEAD: Final = f"{{:14}} {'due':>7} {'failed':>7} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'max ms':>9}"


def _row(name: str, of: dict[str, Any]) -> str:
    none = "failed" if of["due"] else "-"
    times = "".join(f" {none if value is None else f'{value:.1f}':>9}" for value in of["latency"].values())
    return f"{name:14} {of['due']:>7} {of['failed']:>7}{times}"
