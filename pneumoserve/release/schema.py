"""The schemas of `run.json` (what training found) and `release.json` (what is signed and deployed).

Both are canonical JSON: sorted keys, no spaces, UTF-8. Nothing in them is measured at packaging time, so that
packaging the same run twice gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.decision import Policy

Sha256 = str
ClassName = Literal["normal", "bacterial", "viral"]


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
    beside: dict[str, str] = Field(
        default_factory=dict,
        description="what other runs of the recipe held out, on which the policy must hold too: their run ids",
    )


class Metric(_Strict):
    """A value with its two-sided 95 % interval (bootstrap by patient where nothing else is said)."""

    value: float
    low: float
    high: float
    n: int
    set: str = Field(description="the split it was measured on")


class RunFacts(_Strict):
    """`run.json`: everything a finished training states. A run without it is unfinished."""

    schema_: Literal["pneumoserve.run/1", "pneumoserve.run/2"] = Field(
        default="pneumoserve.run/2", alias="schema", description="version 1 had no gate"
    )
    models: tuple[ModelFacts, ModelFacts] = Field(description="detector, typer")
    policy: Policy
    data: DataFacts
    training: TrainingFacts
    metrics: dict[str, Metric]
    preprocessing_version: str
    software: dict[str, str]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ReleaseManifest(RunFacts):
    """`release.json`: the run's facts and the digest of every other file of the release."""

    schema_: Literal["pneumoserve.release/1", "pneumoserve.release/2"] = Field(  # type: ignore[assignment]
        default="pneumoserve.release/2", alias="schema", description="version 1 had no gate"
    )
    files: dict[str, Sha256] = Field(description="path within the release: SHA-256")


def canonical_json(value: BaseModel | dict[str, Any]) -> bytes:
    """Canonical JSON bytes: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: where a number is not finite.
    """
    plain = value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(data: bytes) -> Sha256:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
