"""What pages call the values of records."""

from __future__ import annotations

from typing import Final

WORDS: Final[dict[str | None, str]] = {
    None: "none stated",
    "normal": "Normal",
    "pneumonia": "Pneumonia",
    "bacterial": "bacterial",
    "viral": "viral",
    "sure": "sure",
    "unsure": "unsure",
    "cannot_tell": "cannot tell",
    "blood_test": "a blood test",
    "expert": "an expert's opinion",
    "nothing": "nothing",
    "missed_pneumonia": "A pneumonia was missed",
    "false_alarm": "A false alarm",
    "late_alert": "An alert came late",
    "other": "Something else",
    "urgent": "urgent",
    "listed": "listed",
    "opened_alert": "opened the alert",
    "opened_answer": "opened the answer",
    "opened_case": "opened the case page",
    "result_seen": "saw a result elsewhere",
    "sent": "was sent",
    "failed": "could not be sent",
    "escalated": "went on to the next person",
    "acknowledged": "was acknowledged",
    "ordered": "was acted on",
    "closed": "was closed",
    "alert": "the alert",
    "answer": "the answer",
    "case": "the case page",
    "images": "the images",
    "referral": "the model was not sure",
    "qa_draw": "it was drawn at random",
    "disagreement": "two releases differ",
    "second_reading": "a second reader was drawn",
    "third_reading": "two readers differ",
}
