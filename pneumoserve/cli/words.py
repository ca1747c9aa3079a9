"""What a record says, in words for people."""

from __future__ import annotations

from pneumoserve.decision import Decision, Scores, complete
from pneumoserve.local.answers import describe_answer
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records import Record


def describe_outcome(record: Record) -> str:
    """The answer in words, "pneumonia, viral pattern" or "a human must look; leans normal"; or why there is none."""
    if record.error is not None:
        return f"{'refused' if record.kind == 'refusal' else 'failed'}, status {record.error.status}"
    decision = read_decision(record)
    return "a score, no decision" if decision is None else describe_answer(decision)


def read_decision(record: Record) -> Decision | None:
    """The decision on record, with what it leans to, whatever version the record is of."""
    if record.decision is None:
        return None
    scores = {use.name: use.probability for use in record.models}
    return complete(record.decision, Scores(pneumonia=scores.get(DETECTOR), bacterial=scores.get(TYPER)))
