"""What people and the services for them put on record: alerts, draws for the random check, views, adjudications.

A case is a study: `case_id` is the keyed hash of the caller's study, or the prediction's id where none was named.
Names of people are staff ids or roles; no entry names a patient.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pneumoserve.canonical import Sha256
from pneumoserve.decision import Reason
from pneumoserve.records.label import Finding, PneumoniaType

AlertReason = Literal[Reason, "pneumonia"]
Severity = Literal["urgent", "listed"]
AlertStep = Literal["sent", "failed", "escalated", "acknowledged", "ordered", "retracted", "closed"]
RejectionReason = Literal["quality", "patient_safety", "worklist_entry", "retention"]
Ordered = Literal["blood_test", "expert", "nothing"]
Page = Literal["alert", "answer", "case", "images", "heat_map"]
IncidentKind = Literal["missed_pneumonia", "false_alarm", "late_alert", "other"]
LONGEST_COMMENT: Final = 2000
REVIEW_WRITERS: Final = "review-"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    time: str = Field(description="RFC 3339, UTC, milliseconds")
    release: str = Field(description="the release that made the study's first prediction")


class _OfCase(_Entry):
    case_id: str = Field(
        max_length=64, description="keyed hash of the study, or the prediction where the caller named no study"
    )


class Alert(_OfCase):
    """Asks a practitioner to look at a study. Where two are on record of one study, the first counts."""

    schema_: Literal["pneumoserve.alert/1"] = Field(default="pneumoserve.alert/1", alias="schema")
    alert_id: str = Field(description="UUIDv7, lower case with hyphens")
    prediction_ids: tuple[str, ...] = Field(min_length=1)
    reasons: tuple[AlertReason, ...] = Field(min_length=1, description="`pneumonia`: the answer states one")
    severity: Severity = Field(description="urgent: goes out at any hour; listed: counted, and sent to nobody")


class AlertEvent(_OfCase):
    """What became of an alert: who was told, who took note, what they ordered."""

    schema_: Literal["pneumoserve.alert_event/1"] = Field(default="pneumoserve.alert_event/1", alias="schema")
    event_id: str = Field(description="UUIDv7, lower case with hyphens")
    alert_id: str
    what: AlertStep
    step: int = Field(default=0, ge=0, description="0: the alert itself; n: its nth escalation, or what retracts it")
    channel: str | None = Field(default=None, description="of sent and failed: the channel's name in the routes")
    fault: str = Field(default="", max_length=200, description="of failed: why, without a word of the message")
    by: str | None = Field(
        default=None, max_length=255, description="staff id; null: nobody signed in, or the service itself"
    )
    ordered: Ordered | None = Field(default=None, description="of ordered: what the practitioner asked for")


class SamplePlan(_Entry):
    """With which probability confident answers of a release are drawn, in each stratum, from a day on.

    A stratum is a finding and how far the score lies from where that finding is not confident any more, in logits.
    """

    schema_: Literal["pneumoserve.sample_plan/1"] = Field(default="pneumoserve.sample_plan/1", alias="schema")
    plan_id: str = Field(description="UUIDv7, lower case with hyphens")
    first_day: str = Field(description="YYYY-MM-DD, UTC: the first day whose studies it is for")
    key_id: Sha256 = Field(description="SHA-256 of the key, which is published later")
    capacity: float = Field(gt=0, description="studies to draw on an average day")
    days: int = Field(ge=1, description="how many days were counted")
    normal_below: float = Field(ge=0, le=1, description="confident normals have a lower probability of pneumonia")
    pneumonia_from: float = Field(ge=0, le=1, description="confident pneumonias have this one or a higher one")
    counted: dict[str, int] = Field(description="confident studies of these days, by stratum")
    probabilities: dict[str, float]


class Draw(_OfCase):
    """A study with a confident answer that chance chose to be read."""

    schema_: Literal["pneumoserve.draw/1"] = Field(default="pneumoserve.draw/1", alias="schema")
    draw_id: str = Field(description="UUIDv7, lower case with hyphens")
    prediction_ids: tuple[str, ...] = Field(min_length=1)
    plan_id: str
    stratum: str
    probability: float = Field(gt=0, le=1)
    key_id: Sha256


class Flag(_OfCase):
    """A radiologist chose a study after it was answered; one that was chosen before has `origin` on its records."""

    schema_: Literal["pneumoserve.flag/1"] = Field(default="pneumoserve.flag/1", alias="schema")
    flag_id: str = Field(description="UUIDv7, lower case with hyphens")
    title: str | None = Field(
        default=None,
        max_length=64,
        description="CODE^SCHEME of the key object selection; null: it was sent to the AE title for chosen studies",
    )


class Withdrawal(_OfCase):
    """Answers that count no more, since their images were rejected at the source (IHE RAD, IOCM)."""

    schema_: Literal["pneumoserve.withdrawal/1"] = Field(default="pneumoserve.withdrawal/1", alias="schema")
    withdrawal_id: str = Field(description="UUIDv7, lower case with hyphens")
    prediction_ids: tuple[str, ...] = Field(min_length=1, description="those of the rejected images")
    why: RejectionReason = Field(
        description="title of the rejection note: 113001, 113037, 113038 or 113039 of DCM, in this order: quality, "
        "patient_safety, worklist_entry, retention"
    )


class View(_OfCase):
    """A person opened a page of a study.

    All but `images` tell, or may tell, what the model answered: who opened one no longer reads the study blind.
    """

    schema_: Literal["pneumoserve.view/1"] = Field(default="pneumoserve.view/1", alias="schema")
    view_id: str = Field(description="UUIDv7, lower case with hyphens")
    by: str = Field(max_length=255)
    page: Page
    why: str = Field(
        default="", max_length=200, description="what a person stated who opened it without having the right to"
    )


class Adjudication(_OfCase):
    """What a lead decided of a study whose readers differ; the last one counts."""

    schema_: Literal["pneumoserve.adjudication/1"] = Field(default="pneumoserve.adjudication/1", alias="schema")
    adjudication_id: str = Field(description="UUIDv7, lower case with hyphens")
    prediction_ids: tuple[str, ...] = Field(min_length=1)
    by: str = Field(max_length=255)
    finding: Finding | None = Field(description="null: nobody can tell from these images")
    pneumonia_type: PneumoniaType | None = None
    label_ids: tuple[str, ...] = Field(min_length=2, description="the readings that were looked at")
    comment: str = Field(default="", max_length=LONGEST_COMMENT)


class Incident(_Entry):
    """Something that is to be reviewed: it went wrong with a study, or the studies of a source drift."""

    schema_: Literal["pneumoserve.incident/1", "pneumoserve.incident/2"] = Field(
        default="pneumoserve.incident/2", alias="schema", description="1 was of studies alone"
    )
    incident_id: str = Field(description="UUIDv7, lower case with hyphens")
    case_id: str | None = Field(default=None, max_length=64, description="the study; null: it is of drift")
    prediction_ids: tuple[str, ...] = Field(default=(), description="the study's")
    drift_id: str | None = Field(default=None, description="the window that alarmed; null: it is of a study")
    by: str = Field(max_length=255)
    kind: IncidentKind | Literal["drift"]
    comment: str = Field(default="", max_length=LONGEST_COMMENT)

    @model_validator(mode="after")
    def _check_subject(self) -> Incident:
        is_drift = self.kind == "drift"
        if is_drift != (self.drift_id is not None) or is_drift == (
            self.case_id is not None and bool(self.prediction_ids)
        ):
            raise ValueError("an incident is of a study with its predictions, or of drift")
        return self


class _OfSource(_Entry):
    site: str | None = Field(default=None, max_length=255, description="the verified caller; null: none was verified")
    source: str = Field(max_length=16, description="modality of the DICOM objects, or the format of other images")


class Baseline(_OfSource):
    """The studies of a source that later ones are compared with, as a person chose them; the last one counts."""

    schema_: Literal["pneumoserve.baseline/1"] = Field(default="pneumoserve.baseline/1", alias="schema")
    baseline_id: str = Field(description="UUIDv7, lower case with hyphens")
    first: str = Field(description="time of the first study, RFC 3339, UTC")
    last: str = Field(description="time of the last study")
    studies: int = Field(ge=1)
    by: str = Field(max_length=255, description="staff id of who chose them")
    why: str = Field(max_length=LONGEST_COMMENT)


class DriftWindow(_OfSource):
    """A window of studies beside its baseline: one look at a source, whether or not it is an alarm."""

    schema_: Literal["pneumoserve.drift/1", "pneumoserve.drift/2"] = Field(
        default="pneumoserve.drift/2", alias="schema", description="1 was of alarms alone, and had no shares"
    )
    drift_id: str = Field(description="UUIDv7, lower case with hyphens")
    baseline_id: str
    first: str = Field(description="time of the window's first study, RFC 3339, UTC")
    last: str = Field(description="time of the window's last study")
    studies: int = Field(ge=1)
    scores_p: float = Field(description="p-value of the test of Kolmogorov and Smirnov")
    images_p: float = Field(description="p-value of the maximum mean discrepancy")
    referrals_p: float = Field(description="p-value of Fisher's test")
    cause: Literal["case_mix", "images"] | None = Field(
        description="null: no alarm; case_mix: another share of sick patients explains it; images: it does not"
    )
    baseline_share: float | None = Field(
        default=None, description="share of sick patients in the baseline, as the scores have it"
    )
    sick_share: float | None = Field(default=None, description="the same of the window")


class LimitResult(BaseModel):
    """A limit of a site's plan beside what blind readings show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figure: str = Field(description="name of the figure, as `pneumoserve metrics --json` has it")
    limit: float
    value: float | None = Field(description="the estimate; null: too few readings for one")
    bound: float | None = Field(description="one-sided, on the limit's side: it is passed where even this is beyond")
    passed: bool


class MetricsLook(_Entry):
    """A look at a release's metrics that a site's plan of stop rules asks for, whether or not a limit is passed."""

    schema_: Literal["pneumoserve.metrics_look/1"] = Field(default="pneumoserve.metrics_look/1", alias="schema")
    look_id: str = Field(description="UUIDv7, lower case with hyphens")
    site: str | None = Field(default=None, max_length=255, description="the verified caller; null: all")
    plan: Sha256 = Field(description="SHA-256 of the site's plan, as canonical JSON")
    look: int = Field(ge=1, description="its number in the plan")
    first_day: str = Field(description="first day (UTC) whose studies count: the plan's, or the first after a resume")
    before: str = Field(description="day after the last one whose studies count")
    level: float = Field(gt=0, lt=1, description="each bound is wrong with this probability at most")
    studies: int = Field(ge=0, description="studies that count")
    readings: int = Field(ge=0, description="of these, those that were read blind")
    results: tuple[LimitResult, ...] = Field(min_length=1)

    @property
    def passed(self) -> tuple[LimitResult, ...]:
        """The limits that are passed."""
        return tuple(each for each in self.results if each.passed)


class _OfStop(_Entry):
    """A person, or the site's plan, acts on a whole release. `signature` is theirs, over the entry without it."""

    by: str = Field(max_length=255, description="staff id; of a plan, the site that it is of")
    why: str = Field(min_length=1, max_length=LONGEST_COMMENT)
    signature: str = Field(
        default="",
        description="one document of signatures, as release.json.sig, over this entry as canonical JSON with none",
    )


class ReleaseStop(_OfStop):
    """From now on every answer of the release is referred, until a `resume` names this stop."""

    schema_: Literal["pneumoserve.stop/1"] = Field(default="pneumoserve.stop/1", alias="schema")
    stop_id: str = Field(description="UUIDv7, lower case with hyphens")
    plan: Sha256 | None = Field(
        default=None, description="SHA-256 of the site's plan that stopped it, as canonical JSON; null: a person did"
    )
    evidence: tuple[str, ...] = Field(default=(), description="ids of the entries that it rests on")


class ReleaseResume(_OfStop):
    """A person ends stops of a release."""

    schema_: Literal["pneumoserve.resume/1"] = Field(default="pneumoserve.resume/1", alias="schema")
    resume_id: str = Field(description="UUIDv7, lower case with hyphens")
    stop_ids: tuple[str, ...] = Field(min_length=1, description="the stops that it ends")


ReviewEntry = (
    Alert
    | AlertEvent
    | SamplePlan
    | Draw
    | Flag
    | Withdrawal
    | View
    | Adjudication
    | Incident
    | Baseline
    | DriftWindow
    | MetricsLook
    | ReleaseStop
    | ReleaseResume
)
REVIEW_ENTRIES: Final[tuple[type[ReviewEntry], ...]] = (
    Alert, AlertEvent, SamplePlan, Draw, Flag, Withdrawal, View, Adjudication, Incident, Baseline, DriftWindow,
    MetricsLook, ReleaseStop, ReleaseResume,
)  # fmt: skip
