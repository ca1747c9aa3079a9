"""What an alert says: why, and what to do. It follows from the reasons alone, the same at every site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pneumoserve.review import study_number

NOT_CLEARED: Final = "Not cleared for clinical use. This message is no diagnosis."
# Subjects are shown on locked screens, and kept by every server on the way.
SUBJECT: Final = "Chest X-ray: please look at a study"
SUBJECT_AGAIN: Final = "Chest X-ray: nobody has answered for a study"
SUBJECT_RETRACTED: Final = "Chest X-ray: an alert is withdrawn"
SUBJECT_TEST: Final = "Chest X-ray: a test of this channel"
SUBJECT_OPERATOR: Final = "Chest X-ray: alerts reach nobody"

WHY: Final[dict[str, str]] = {
    "pneumonia": "The model states a pneumonia.",
    "uncertain_finding": "The model cannot tell whether there is a pneumonia.",
    "uncertain_type": "The model cannot tell the type of the pneumonia.",
    "not_a_chest_film": "An image is no chest X-ray that the model can judge.",
    "outside_population": "The patient is of an age that the model was not trained on, or of unknown age.",
    "lateral_view": "An image is a lateral view, which the model cannot judge.",
    "release_stopped": "The model is stopped: it judges no image until a person resumes it.",
}
ADVICE: Final[dict[str, str]] = {
    "pneumonia": "Look at the patient and the X-ray at once.",
    "uncertain_finding": "Order a blood test, or ask an expert to read the X-ray.",
    "uncertain_type": "The type is a pattern only: never withhold antibiotics on it.",
    "not_a_chest_film": "Send the frontal chest X-ray, or have this one read by a person.",
    "outside_population": "Have the X-ray read by a person.",
    "lateral_view": "Send the frontal view, or have this one read by a person.",
    "release_stopped": "Have the X-ray read by a person, as if there were no model.",
}


@dataclass(frozen=True)
class Text:
    """What a message says; it names nobody. `shown` is what the channel may carry of the caller's own names."""

    subject: str
    lines: tuple[str, ...]
    shown: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        """All of it, as plain text."""
        return "\n".join((*self.lines, *self.shown, NOT_CLEARED)) + "\n"


def write_alert(case_id: str, step: int, reasons: Sequence[str], link: str | None) -> Text:
    """The text of an alert (`step` 0), or of its nth escalation."""
    again = () if step == 0 else ("Nobody has answered this alert yet.",)
    lines = (
        *again,
        *(WHY[reason] for reason in reasons),
        *(ADVICE[reason] for reason in reasons),
        f"Study number: {study_number(case_id)}",
    )
    where = () if link is None else (f"Answer for it here: {link}",)
    return Text(SUBJECT_AGAIN if step else SUBJECT, (*lines, *where))


def write_retraction(case_id: str) -> Text:
    """The text for those who were told of an alert whose images were rejected since."""
    lines = (
        "The images of this study were rejected where they were made, so its alert is withdrawn.",
        "Do not act on the alert. Images that are sent in their place get an answer of their own.",
        f"Study number: {study_number(case_id)}",
    )
    return Text(SUBJECT_RETRACTED, lines)


def write_test() -> Text:
    """The text of a test: that it came is all it says."""
    return Text(SUBJECT_TEST, ("This is a test. It is about no study, and there is nothing to do.",))
