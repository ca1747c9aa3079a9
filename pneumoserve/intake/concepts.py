"""The words and codes of results: what is said of an image or a study, in whatever form it is sent."""

from __future__ import annotations

from typing import Final

from highdicom.sr import CodedConcept

from pneumoserve.decision import Decision, Finding, Reason
from pneumoserve.records import RejectionReason

MANUFACTURER: Final = "pneumoserve"
SCHEME: Final = "99PNEUMO"
CHEST_XRAY: Final = CodedConcept("399208008", "SCT", "Plain X-ray of chest")
FINDING: Final = CodedConcept("121071", "DCM", "Finding")
FINDINGS: Final[dict[Finding | None, CodedConcept]] = {
    "normal": CodedConcept("17621005", "SCT", "Normal"),
    "pneumonia": CodedConcept("233604007", "SCT", "Pneumonia"),
    None: CodedConcept("373068000", "SCT", "Undetermined"),
}
CERTAINTY: Final = CodedConcept("111012", "DCM", "Certainty of Finding")
COMMENT: Final = CodedConcept("121106", "DCM", "Comment")
YES: Final = CodedConcept("373066001", "SCT", "Yes")
NO: Final = CodedConcept("373067005", "SCT", "No")
PERCENT: Final = CodedConcept("%", "UCUM", "Percent")
# No standard code says these; a pattern that graders saw is no microbiology, so SNOMED's pneumonias would be wrong.
PREVALENCE: Final = CodedConcept("prevalence", SCHEME, "Prevalence that the certainty assumes")
LEANING: Final = CodedConcept("leaning", SCHEME, "Finding that the certainty is of")
REFERRED: Final = CodedConcept("referred", SCHEME, "A human must look")
REASON: Final = CodedConcept("reason", SCHEME, "Reason why a human must look")
PATTERN: Final = CodedConcept("pattern", SCHEME, "Pattern of pneumonia on the image")
REASONS: Final[dict[Reason, str]] = {
    "uncertain_finding": "The finding is uncertain",
    "uncertain_type": "The pattern of pneumonia is uncertain",
    "not_a_chest_film": "The image shows no upright chest",
    "outside_population": "The age is unknown, or none that the models learned from",
    "lateral_view": "The view is lateral",
    "release_stopped": "The release is stopped, so that it judges no image",
}
REJECTIONS: Final[dict[RejectionReason, CodedConcept]] = {
    "quality": CodedConcept("113001", "DCM", "Rejected for Quality Reasons"),
    "patient_safety": CodedConcept("113037", "DCM", "Rejected for Patient Safety Reasons"),
    "worklist_entry": CodedConcept("113038", "DCM", "Incorrect Modality Worklist Entry"),
    "retention": CodedConcept("113039", "DCM", "Data Retention Policy Expired"),
}
WITHDRAWN: Final = CodedConcept("withdrawn", SCHEME, "Why the answer is withdrawn")
DISREGARD: Final = "The answer for this image is withdrawn, since the image was rejected; disregard earlier reports."
UNREADABLE: Final = CodedConcept("unreadable", SCHEME, "The image could not be read")


def evaluate(decision: Decision) -> list[tuple[CodedConcept, CodedConcept]]:
    """What is said of a decision beside its finding, each by its name."""
    said = [(REFERRED, YES if decision.referred else NO)]
    said += [(REASON, _own(reason, REASONS[reason])) for reason in decision.reasons]
    if decision.pneumonia_type is not None:
        pattern = f"{decision.pneumonia_type.capitalize()} pattern, no microbiology"
        said.append((PATTERN, _own(decision.pneumonia_type, pattern)))
    if decision.confidence is not None and decision.leaning is not None:
        said.append((LEANING, FINDINGS[decision.leaning]))
    return said


def measure(decision: Decision, prevalence: float | None) -> list[tuple[CodedConcept, float]]:
    """How certain a decision is, and what that assumes, in percent, each by its name."""
    if decision.confidence is None:
        return []
    measured = [(CERTAINTY, round(decision.confidence * 100, 1))]
    if prevalence is not None:
        measured.append((PREVALENCE, round(prevalence * 100, 1)))
    return measured


def _own(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, SCHEME, meaning)
