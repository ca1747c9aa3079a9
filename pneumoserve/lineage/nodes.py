"""What a lineage says of each of its steps: the words that the text and the picture share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pneumoserve.lineage.trace import Lineage, ModelPart
from pneumoserve.names import DETECTOR, TYPER

_FILES = {None: "not found", True: "every file is whole", False: "altered"}
_FOLLOWS = {True: "yes, the same", False: "no", None: "the policy is not known"}


@dataclass(frozen=True)
class Node:
    """One step: its title, and lines in the order of their weight, of which a picture shows as many as it has room for.

    `within` is the step that holds it: a dataset is of a training run, which is of a release.
    """

    name: str
    title: str
    lines: tuple[str, ...] = ()
    fault: bool = False
    within: str = ""

    @property
    def heading(self) -> str:
        """Name and title."""
        return f"{self.name}: {self.title}"


def heading(lineage: Lineage) -> str:
    """What it is the lineage of."""
    return f"Lineage of prediction {lineage.record.prediction_id}"


def nodes(lineage: Lineage) -> tuple[Node, ...]:
    """All steps, from the call to the films that the models learned from; a step comes after the one that holds it."""
    models = {model.recorded.name: model for model in lineage.models}
    return (
        _record(lineage),
        _image(lineage),
        Node("preprocessing", f"version {lineage.record.preprocessing_version}", ("one decode, 224 x 224 gray",)),
        _model("detector", models.get(DETECTOR)),
        _model("typer", models.get(TYPER)),
        _policy(lineage),
        _prediction(lineage),
        _release(lineage),
        _signer(lineage),
        _training(lineage),
        _dataset(lineage),
    )


def _record(lineage: Lineage) -> Node:
    record, call = lineage.record, lineage.record.call
    lines = [
        f"film {call.index + 1} of {call.count} in call {call.call_id}",
        f"asked of {call.model} over {call.protocol} ({call.encoding}) by {call.subject or 'nobody named'}",
    ]
    if record.error is not None:
        lines.append(f"status {record.error.status}: {record.error.message}")
    return Node("record", f"{record.kind} of {record.time}, {record.arm}", tuple(lines))


def _image(lineage: Lineage) -> Node:
    if lineage.image is None:
        return Node("image", "none on record")
    image = lineage.image.recorded
    return Node(
        "image",
        f"{image.format}, {image.width} x {image.height} pixels",
        (
            f"in the store: {lineage.image.stored}, {image.input_bytes} bytes",
            f"input {image.input_sha256}",
            f"pixels {image.pixels_sha256}",
            f"stored at {image.stored_key}",
        ),
        fault=lineage.image.stored != "whole",
    )


def _model(name: str, model: ModelPart | None) -> Node:
    if model is None:
        return Node(name, "not asked for this film")
    use = model.recorded
    chest = () if use.chest_probability is None else (f"a chest film with {use.chest_probability}",)
    return Node(
        name,
        use.name,
        (
            f"version {use.version}",
            f"probability {use.probability}, logit {use.logit}",
            *chest,
            f"weights {use.weights}",
            f"graph {model.graph or 'not known'}",
            f"profile {_pairs(use.profile)}",
        ),
        fault=model.in_release is False,
    )


def _policy(lineage: Lineage) -> Node:
    policy = lineage.policy
    if policy is None:
        return Node("policy", "not known")
    band, typed, ages = policy.detector_band, policy.typer_band, policy.population
    gate = "no gate" if policy.chest_threshold is None else f"a chest film from {policy.chest_threshold} on"
    return Node(
        "policy",
        f"pneumonia from {policy.detector_threshold} on",
        (
            f"referred from {band.low} to {band.high}",
            f"bacterial from {policy.typer_threshold} on, the type referred from {typed.low} to {typed.high}",
            gate,
            *_recalibration(lineage),
            f"for ages from {ages.min_age_years} to under {ages.below_age_years} years; "
            f"a DICOM age that is not known: {ages.unknown_dicom_age}",
            policy.why,
        ),
    )


def _recalibration(lineage: Lineage) -> Iterator[str]:
    """On which labels a policy was fitted again, and whose models it goes with."""
    found = lineage.recalibration
    if found is not None:
        images = sum(count.images for count in found.counts.values())
        yield f"fitted to {images} labelled images of a site, labels {found.labels}; the models are of {found.base}"


def _prediction(lineage: Lineage) -> Node:
    record = lineage.record
    if lineage.decision is None:
        title = "raw scores" if record.error is None else f"{record.kind}, status {record.error.status}"
        return Node("prediction", title)
    decision = lineage.decision.recorded
    referred = f"referred for {', '.join(decision.reasons)}" if decision.referred else "not referred"
    confidence = f"confidence {decision.confidence} ({decision.leaning or decision.finding or 'the likelier finding'})"
    if decision.confidence is None:
        confidence = "no confidence: " + ("it is no chest film" if record.stop is None else f"stop {record.stop}")
    kind = () if decision.type_probability is None else (f"probability of the type {decision.type_probability}",)
    return Node(
        "prediction",
        ", ".join(filter(None, (decision.finding or "no finding", decision.pneumonia_type))),
        (
            referred,
            confidence,
            *kind,
            f"derived again from the recorded scores and the policy: {_FOLLOWS[lineage.decision.agrees]}",
        ),
        fault=lineage.decision.agrees is False,
    )


def _release(lineage: Lineage) -> Node:
    release = lineage.release
    found = "" if release.found is None else f" (read from the {release.found})"
    lines = (f"files: {_FILES[release.intact]}{found}", f"digest {release.digest}")
    return Node("release", release.id, lines, fault=not release.intact)


def _signer(lineage: Lineage) -> Node:
    signer = lineage.release.signer
    if signer is None:
        return Node("signer", "not verified", ("no trusted key is known to have signed",), fault=True, within="release")
    return Node("signer", f"key {signer}", ("ed25519, a trusted key",), within="release")


def _training(lineage: Lineage) -> Node:
    if lineage.training is None:
        return Node("training run", "not known", within="release")
    facts = lineage.training.facts
    return Node(
        "training run",
        facts.run_id,
        (
            f"seed {facts.seed}, code {facts.code_version}",
            f"OpenLineage run {lineage.training.openlineage_run}",
            f"image {facts.image_digest or 'none (it ran outside of a container)'}",
            f"parameters {json.dumps(facts.parameters, sort_keys=True)}",
            f"software {_pairs(lineage.software)}",
        ),
        within="release",
    )


def _dataset(lineage: Lineage) -> Node:
    data, films = lineage.data, lineage.films
    if data is None:
        return Node("dataset", "not known", within="training run")
    if films is None:
        counted = "films not listed"
    else:
        asked = "not among them" if films.asked is None else f"among them ({films.asked.split})"
        counted = f"{films.count} films by digest; the film asked about is {asked}"
    lines = (counted, data.source, f"patients: {data.grouping}; {data.excluded_patients} left out")
    return Node("dataset", data.digest, (*lines, *_counts(lineage)), fault=films is None, within="training run")


def _counts(lineage: Lineage) -> Iterator[str]:
    """Films and patients of each class, a line for each split."""
    counts = {} if lineage.data is None else lineage.data.counts
    for split, classes in sorted(counts.items()):
        each = (f"{count.images} {cls} of {count.patients} patients" for cls, count in sorted(classes.items()))
        yield f"{split}: {', '.join(each)}"


def _pairs(values: Mapping[str, str | int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(values.items()))
