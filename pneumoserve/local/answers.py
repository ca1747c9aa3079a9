"""Answers as a person reads them: in words, and as a table that fits in a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pneumoserve.decision import Decision, Reason, at_prevalence

# What stands beside a file's name takes this much of a table's width.
_OTHER_COLUMNS: Final = 53
_SHORTEST_NAME: Final = 12
_REASONS: Final[dict[Reason, str]] = {
    "uncertain_finding": "not sure enough either way",
    "uncertain_type": "type not sure enough",
    "not_a_chest_film": "no upright chest X-ray",
    "outside_population": "age unknown or out of range",
    "lateral_view": "no frontal view",
    "release_stopped": "the release is stopped",
}


@dataclass(frozen=True)
class FileAnswer:
    """The answer for a file, by the name it is shown under."""

    name: str
    decision: Decision


def decision_of(answer: Mapping[str, Any]) -> Decision:
    """The decision in an answer of the V1 form; what a service of before did not say is None.

    Raises:
        ValidationError: it is none.
    """
    return Decision.model_validate({name: answer.get(name) for name in Decision.model_fields})


def describe_answer(decision: Decision) -> str:
    """An answer in words: "pneumonia, type unsure", "a human must look; leans normal"."""
    if decision.finding is None:
        return "a human must look" + (f"; leans {decision.leaning}" if decision.leaning else "")
    if decision.finding == "normal":
        return "normal"
    kind = f"{decision.pneumonia_type} pattern" if decision.pneumonia_type else "type unsure"
    return f"pneumonia, {kind}"


def describe_confidence(decision: Decision) -> str:
    """How sure the answer is, and of what: "0.975 normal"; empty where no detector ran."""
    return "" if decision.confidence is None else f"{format_probability(decision.confidence)} {decision.leaning or ''}"


def describe_prevalence(decision: Decision, assumed: float | None, prevalence: float | None) -> str:
    """Which prevalence a confidence assumes, and what it is where `prevalence` are sick; empty without a confidence.

    `assumed` is None where nobody has the release, `prevalence` where nobody says how many are sick.
    """
    if decision.confidence is None:
        return ""
    if assumed is None:
        return "The prevalence that this confidence assumes is not known: the store has no such release."
    said = describe_assumption(assumed)
    if prevalence is None or not 0 < assumed < 1:
        return said
    is_sick = decision.leaning == "pneumonia"
    sick = at_prevalence(decision.confidence if is_sick else 1 - decision.confidence, assumed, prevalence)
    there = format_probability(sick if is_sick else 1 - sick)
    return f"{said} At this site's {100 * prevalence:g} % it is {there} {decision.leaning}."


def describe_assumption(assumed: float) -> str:
    """Which prevalence a confidence assumes."""
    return f"Confidence assumes a prevalence of {100 * assumed:g} %."


def describe_type(decision: Decision) -> str:
    """How likely the stated type is: "0.865 viral"; empty where none is stated."""
    if decision.type_probability is None:
        return ""
    return f"{format_probability(decision.type_probability)} {decision.pneumonia_type}"


def describe_reasons(decision: Decision) -> str:
    """Why a human must look, in words; empty where nobody must."""
    return ", ".join(_REASONS[reason] for reason in decision.reasons)


def print_answers(console: Console, answers: Sequence[FileAnswer], title: str | None = None) -> None:
    """A table of answers; a name that is too long loses its middle."""
    width = min(max((len(each.name) for each in answers), default=0), console.width - _OTHER_COLUMNS)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title=title)
    table.title_justify = "left"
    table.add_column("file", no_wrap=True)
    table.add_column("answer", min_width=28)
    table.add_column("confidence", no_wrap=True)
    table.add_column("type", no_wrap=True)
    for each in answers:
        decision = each.decision
        words = Text(describe_answer(decision).replace("; ", ";\n"))
        # That its type is unsure the answer says itself.
        if decision.finding is None:
            words.append(f"\n{describe_reasons(decision).replace(', ', chr(10))}", style="dim")
        kind = "-" if decision.type_probability is None else format_probability(decision.type_probability, 2)
        sure = describe_confidence(decision) or "-"
        table.add_row(shorten(each.name, max(width, _SHORTEST_NAME)), words, sure, kind)
    if title is not None:
        console.print()
    console.print(table)


def shorten(name: str, width: int) -> str:
    """A name of at most `width` characters, without its middle where it is longer; numbers stand near its end."""
    if len(name) <= width:
        return name
    tail = (width - 1) * 2 // 3
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def format_probability(probability: float, digits: int = 3) -> str:
    """A probability rounded down, so that none looks like certainty."""
    return f"{math.floor(probability * 10**digits) / 10**digits:.{digits}f}"
