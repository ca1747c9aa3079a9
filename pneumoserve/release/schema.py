"""The schemas of `run.json` (what training found) and `release.json` (what is signed and deployed).

Both are canonical JSON: sorted keys, no spaces, UTF-8. Nothing in them is measured at packaging time, so that
packaging the same run twice gives the same bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.canonical import Sha256
from pneumoserve.decision import Policy

ClassName = Literal["normal", "bacterial", "viral"]
# What a site's image may show besides: a pneumonia of which nobody said the type.
SiteClass = Literal["normal", "bacterial", "viral", "pneumonia"]

Statement = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]

INTENDED_USE: Final = (
    "Research and evaluation only, not cleared for clinical use: a hint to a person who looks at the image, for "
    "frontal chest X-rays of children of 1 to 5 years."
)
_VERSIONS: Final = (
    "1 had no gate, 2 neither intended_use nor type_notice nor type_evidence; 4 is 3 with a recalibration, 5 with one "
    "by labels of the archive"
)
TYPE_NOTICE: Final = "A pattern on the image, not microbiology. Never withhold antibiotics on it."


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Calibration(_Strict):
    """Platt scaling: p = 1 / (1 + exp(-(slope * logit + intercept))) (Platt 1999)."""

    method: Literal["platt"] = "platt"
    slope: float
    intercept: float


class ModelInput(_Strict):
    """What the ONNX graph takes: prepared pixels, uint8 of shape [N, height, width], and gives logits [N]."""

    height: int = 224
    width: int = 224
    dtype: Literal["uint8"] = "uint8"


class ModelFacts(_Strict):
    """One model. `weights` and `graph` are the digests of its safetensors file and of its ONNX graph."""

    name: Literal["pneumonia-detector", "pneumonia-typer"]
    version: str
    architecture: str
    output: Literal["pneumonia_probability", "bacterial_probability"]
    classes: tuple[str, str] = Field(description="negative class, positive class")
    input: ModelInput = ModelInput()
    weights: Sha256
    graph: Sha256
    calibration: Calibration


class Count(_Strict):
    """How many images, of how many patients."""

    images: int
    patients: int


class DataFacts(_Strict):
    """The dataset: its digest, and counts per split and class. Patients are counted by group."""

    digest: Sha256
    source: str
    grouping: str
    counts: dict[str, dict[ClassName, Count]]
    excluded_patients: int


class TrainingFacts(_Strict):
    """The run that made the models: enough to run it again."""

    run_id: str
    code_version: str
    seed: int
    parameters: dict[str, Any]
    image_digest: str | None = None
    reference_runs: dict[str, str] = Field(
        default_factory=dict,
        validation_alias="beside",
        serialization_alias="beside",
        description="what other runs of the recipe held out, on which the policy must hold too: their run ids",
    )

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Metric(_Strict):
    """A value with its two-sided 95 % interval (bootstrap by patient where nothing else is said)."""

    value: float
    low: float
    high: float
    n: int
    set: str = Field(description="the split it was measured on")


# Those of the archive are weighted by the inverse of their probability of being read.
Drawn = Literal["consecutive", "random", "weighted", "not stated"]


class Recalibration(_Strict):
    """The policy was fitted again, on labelled images of a site; models and training are those of `base`."""

    base: Sha256 = Field(description="SHA-256 of the release.json or run.json whose models these are")
    labels: Sha256 = Field(description="SHA-256 of data/labels.json: the images by digest, with class and patient")
    drawn: Drawn = Field(
        description="how the site chose the images; weighted: labels of the archive, each by the inverse of its "
        "probability of being read; not stated: by a version that did not ask"
    )
    counts: dict[SiteClass, Count] = Field(description="by class; pneumonia: one of which nobody said the type")
    code_version: str


class RunFacts(_Strict):
    """`run.json`: everything a finished training states. A run without it is unfinished."""

    schema_: Literal[
        "pneumoserve.run/1", "pneumoserve.run/2", "pneumoserve.run/3", "pneumoserve.run/4", "pneumoserve.run/5"
    ] = Field(default="pneumoserve.run/3", alias="schema", description=_VERSIONS)
    models: tuple[ModelFacts, ModelFacts] = Field(description="detector, typer")
    policy: Policy
    intended_use: Statement = Field(
        default=INTENDED_USE, description="one sentence that goes with every answer; versions before 3 mean the default"
    )
    type_notice: Statement = Field(
        default=TYPE_NOTICE, description="what goes with every stated type; versions before 3 mean the default"
    )
    data: DataFacts
    training: TrainingFacts
    metrics: dict[str, Metric]
    preprocessing_version: str
    software: dict[str, str]
    # Left out where there is none: a release that was never recalibrated keeps its bytes, and so its id.
    recalibration: Recalibration | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="that its policy was fitted to a site; absent: it is training's own",
    )

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


_ReleaseVersion = Literal[
    "pneumoserve.release/1",
    "pneumoserve.release/2",
    "pneumoserve.release/3",
    "pneumoserve.release/4",
    "pneumoserve.release/5",
]


class ReleaseManifest(RunFacts):
    """`release.json`: the run's facts and the digest of every other file of the release."""

    schema_: _ReleaseVersion = Field(  # type: ignore[assignment]
        default="pneumoserve.release/3", alias="schema", description=_VERSIONS
    )
    files: dict[str, Sha256] = Field(description="path within the release: SHA-256")
