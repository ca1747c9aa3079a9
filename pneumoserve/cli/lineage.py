"""`pneumoserve lineage`: where an answer comes from."""
# ruff: noqa: PLC0415

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from pneumoserve.cli.app import DEFAULT_STATE, StateFolder, Trust, app
from pneumoserve.cli.output import AsJson, console, print_json, told

if TYPE_CHECKING:
    from pneumoserve.lineage import Lineage


@app.command(epilog="Example: pneumoserve lineage 01890a5d-ac96-774b-bcce-b302099a8057 --svg lineage.svg")
def lineage(
    prediction_id: Annotated[str, typer.Argument(help="The id an answer came with.")],
    svg: Annotated[Path | None, typer.Option(help="File to draw it into.")] = None,
    images: Annotated[bool, typer.Option("--images", help="List the films it learned from, one a line.")] = False,
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Follow a prediction to its film, models, thresholds, release, signer, training and films; 1 if a step fails."""
    from pneumoserve.cli.stores import record_of, store_of
    from pneumoserve.lineage import trace
    from pneumoserve.lineage.svg import svg as drawn
    from pneumoserve.local.state import State

    where = State(state)
    with told(), store_of(state) as store:
        found = trace(record_of(store, prediction_id), store, where.releases, trust or where.trust)
    if svg is not None:
        svg.write_text(drawn(found), encoding="utf-8")
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        console.print(_tree(found))
        _print_films(found, images)
    if found.faults:
        raise typer.Exit(1)


def _print_films(found: Lineage, images: bool) -> None:
    if images and found.films is not None:
        for split, digests in found.films.digests.items():
            for digest in digests:
                console.print(f"{digest} {split}", soft_wrap=True)


def _tree(found: Lineage) -> Tree:
    record, call = found.record, found.record.call
    tree = Tree(f"[bold]prediction {record.prediction_id}[/bold]")
    _branch(
        tree,
        f"record: {record.kind} of {record.time}, {record.arm}",
        f"film {call.index + 1} of {call.count} in call {call.call_id}",
        f"asked of {call.model} over {call.protocol} ({call.encoding}) by {call.subject or 'nobody named'}",
        None if record.error is None else f"status {record.error.status}: {record.error.message}",
    )
    _image(tree, found)
    _branch(tree, f"preprocessing version {record.preprocessing_version}")
    for model in found.models:
        use = model.recorded
        _branch(
            tree,
            f"{use.name} {use.version}: probability {use.probability}, logit {use.logit}"
            + ("" if use.chest_probability is None else f", a chest film with {use.chest_probability}"),
            f"weights {use.weights}",
            f"graph {model.graph or 'not known'}",
            "profile " + ", ".join(f"{key} {value}" for key, value in sorted(use.profile.items())),
        )
    _decision(tree, found)
    _release(tree, found)
    for text in found.warnings:
        tree.add(f"[bold yellow]warning:[/bold yellow] {escape(text)}")
    for text in found.faults:
        tree.add(f"[bold red]fault:[/bold red] [red]{escape(text)}[/red]")
    return tree


def _branch(tree: Tree, title: str, *lines: str | None) -> Tree:
    branch = tree.add(escape(title))
    for line in lines:
        if line is not None:
            branch.add(escape(line))
    return branch


def _image(tree: Tree, found: Lineage) -> None:
    if found.image is None:
        _branch(tree, "image: none on record")
        return
    image = found.image.recorded
    _branch(
        tree,
        f"image: {image.format}, {image.width} x {image.height} pixels, {image.input_bytes} bytes",
        f"input {image.input_sha256}",
        f"pixels {image.pixels_sha256}",
        f"stored at {image.stored_key}: {found.image.stored}",
    )


def _decision(tree: Tree, found: Lineage) -> None:
    policy = found.policy
    if policy is not None:
        band, typed, ages = policy.detector_band, policy.typer_band, policy.population
        gate = "no gate" if policy.chest_threshold is None else f"a chest film from {policy.chest_threshold} on"
        _branch(
            tree,
            f"policy: pneumonia from {policy.detector_threshold} on, referred from {band.low} to {band.high}",
            f"bacterial from {policy.typer_threshold} on, the type referred from {typed.low} to {typed.high}",
            gate,
            f"for ages from {ages.min_age_years} to under {ages.below_age_years} years; "
            f"a DICOM age that is not known: {ages.unknown_dicom_age}",
            policy.why,
        )
    if found.decision is None:
        return
    decided = found.decision.recorded
    follows = {True: "yes, the same", False: "no", None: "the policy is not known"}[found.decision.agrees]
    _branch(
        tree,
        f"decision: {decided.finding or 'no finding'}"
        + (f", {decided.pneumonia_type}" if decided.pneumonia_type else "")
        + (", referred: " + ", ".join(decided.reasons) if decided.referred else ", not referred"),
        "no confidence: it is no chest film" if decided.confidence is None else f"confidence {decided.confidence}",
        f"derived again from the recorded scores and the policy: {follows}",
    )


def _release(tree: Tree, found: Lineage) -> None:
    release = found.release
    files = {None: "not found", True: "every file is whole", False: "altered"}[release.intact]
    branch = _branch(
        tree,
        f"release {release.id}",
        f"digest {release.digest}",
        f"files: {files}" + ("" if release.found is None else f" (read from the {release.found})"),
    )
    if release.signer is None:
        branch.add("signer: [red]not verified[/red]")
    else:
        branch.add(f"signer: key {release.signer}, trusted")
    if found.training is None or found.data is None:
        return
    facts = found.training.facts
    run = _branch(
        branch,
        f"training run {facts.run_id}: seed {facts.seed}, code {facts.code_version}, "
        f"image {facts.image_digest or 'none (it ran outside of a container)'}",
        "parameters " + json.dumps(facts.parameters, sort_keys=True),
        "software " + ", ".join(f"{key} {value}" for key, value in sorted(found.software.items())),
        f"OpenLineage run {found.training.openlineage_run}",
    )
    data = _branch(
        run,
        f"dataset {found.data.digest}",
        found.data.source,
        f"patients: {found.data.grouping}; {found.data.excluded_patients} left out",
        *(
            f"{split}: "
            + ", ".join(f"{count.images} {cls} of {count.patients} patients" for cls, count in sorted(counts.items()))
            for split, counts in sorted(found.data.counts.items())
        ),
    )
    if found.films is not None:
        asked = "not among them" if found.films.asked is None else f"among them ({found.films.asked.split})"
        _branch(data, f"{found.films.count} films by digest (--images lists them); the film asked about is {asked}")
