"""`archive show`: one record, for people or machines."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.color import Color
from rich.style import Style
from rich.text import Text

from pneumoserve.cli.app import archive
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, errors, print_json
from pneumoserve.names import DETECTOR, TYPER

if TYPE_CHECKING:
    from PIL.Image import Image

    from pneumoserve.ledger import Reader
    from pneumoserve.records import EntryPlace, FollowUp, ImageDetail, Label, ModelUse, ReadingRequest, Record
    from pneumoserve.store import Store

_HERE: Final = "-"
# Columns of a terminal that a picture takes at most; each shows two pixels, one above the other.
_COLUMNS: Final = 72
_DIGITS: Final = 12
_MARGIN: Final = 12


@archive.command(epilog="Example: pneumoserve archive show 01890a5d-ac96-774b-bcce-b302099a8057 --image xray.png")
def show(
    prediction_id: Annotated[
        str, typer.Argument(help="The id an answer or an error came with; or WRITER:SEQUENCE:HASH, as evidence has it.")
    ],
    image: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="New PNG file for the image; - draws it here."),
    ] = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show what was asked and answered, and what became known later; --json has the whole record.

    Reads the S3_* settings, else the state's store (started if down). Only what trusted keys signed is shown.
    """
    from pneumoserve.cli.stores import reader_of, record_of, store_of
    from pneumoserve.records import EntryPlace, follow_up

    if image == _HERE and (as_json or console.color_system is None):
        raise Failure("--image - draws in a terminal with colours, and not beside JSON; give --image FILE.png.", 2)
    place = EntryPlace.parse(prediction_id)
    if place is not None and image is not None:
        raise Failure("Only predictions have an image; give the id of one.", 2)
    with store_of(state) as store:
        reader = reader_of(store, state, archive_trust, sealer_trust)
        if place is not None:
            _print_entry(reader, place)
            return
        record = record_of(reader, prediction_id)
        later = follow_up(reader, prediction_id)
        # Not only once the store has stopped, which takes seconds.
        if as_json:
            # The record as it is, and beside its fields what became known later.
            document = record.model_dump(mode="json", by_alias=True)
            document["labels"] = [label.model_dump(mode="json", by_alias=True) for label in later.labels]
            print_json(document)
        else:
            _print_record(record, later)
        if image is not None:
            picture = _read_picture(store, record)
            _draw(picture) if image == _HERE else _write(picture, Path(image))


def _print_entry(reader: Reader, place: EntryPlace) -> None:
    """Any entry of the archive, as JSON: most have no other words."""
    import json

    from pneumoserve.records import find_line

    line = find_line(reader, place)
    if line is None:
        raise Failure("The archive has no such entry that a trusted key signed; copy the reference whole.", 1)
    print_json(json.loads(line))


# --- the record in words


def _print_record(record: Record, later: FollowUp) -> None:
    for name, lines in _sections(record, later):
        for number, line in enumerate(lines):
            # Keys and commands are to be copied: no line of them is broken.
            console.print(Text.assemble((f"{'' if number else name:{_MARGIN}}", "bold"), line), soft_wrap=True)


def _sections(record: Record, later: FollowUp) -> Iterator[tuple[str, list[str]]]:
    yield record.kind, [record.prediction_id, f"{_moment(record.time)}{_of_arm(record)}"]
    yield "answer", list(_answer(record))
    yield "asked", list(_call(record))
    yield "release", [record.release, f"preprocessing version {record.preprocessing_version}"]
    yield "image", list(_image(record))
    yield "models", [_model(use) for use in record.models] or ["none was asked"]
    yield "labels", [_label(each) for each in later.labels] or ["none so far"]
    yield "readings", [_request(each) for each in later.requests] or ["none asked for"]
    yield "next", list(_next(record))


def _of_arm(record: Record) -> str:
    return ", in shadow: nobody got this answer" if record.arm == "shadow" else ""


def _answer(record: Record) -> Iterator[str]:
    from pneumoserve.cli.words import describe_outcome, read_decision
    from pneumoserve.local.answers import describe_confidence, describe_reasons, describe_type
    from pneumoserve.release.schema import TYPE_NOTICE

    yield describe_outcome(record)
    if record.error is not None:
        yield record.error.message
    decision = read_decision(record)
    if decision is None:
        return
    probabilities = [each for each in (describe_confidence(decision), describe_type(decision)) if each]
    if probabilities:
        yield f"probability {', '.join(probabilities)}"
    yield f"referred: {describe_reasons(decision)}" if decision.referred else "not referred"
    if decision.pneumonia_type:
        yield TYPE_NOTICE


def _call(record: Record) -> Iterator[str]:
    call = record.call
    yield f"model {call.model}, by {call.protocol} ({call.encoding}), of {call.subject or 'nobody named'}"
    taken = "" if record.duration_ms is None else f"; took {record.duration_ms:.0f} ms"
    yield f"image {call.index + 1} of {call.count} of call {call.call_id}{taken}"
    if record.traceparent is not None:
        sampled = "" if record.traceparent.endswith("1") else ", which was not sampled"
        yield f"trace {record.traceparent.split('-')[1]}{sampled}"


def _image(record: Record) -> Iterator[str]:
    image = record.image
    if image is None:
        size = record.refused.input_bytes if record.refused else None
        yield "not kept, since it was not decoded" + ("" if size is None else f": {size:,} bytes")
        return
    yield f"{image.format}, {image.width} x {image.height} pixels, {image.input_bytes:,} bytes"
    yield ", ".join(_facts(image)) or "the file states neither age nor view"
    yield f"in the archive at {image.stored_key}"


def _facts(image: ImageDetail) -> Iterator[str]:
    yield from (fact for fact in (image.modality, image.body_part, image.view_position) if fact)
    if image.age_years is not None:
        yield f"{image.age_years:g} years"
    if image.sex:
        yield image.sex


def _model(use: ModelUse) -> str:
    what = {DETECTOR: "pneumonia", TYPER: "bacterial"}.get(use.name, "probability")
    chest = "" if use.chest_probability is None else f", an upright chest X-ray {use.chest_probability:.6f}"
    return f"{use.name} {use.version}: {what} {use.probability:.6f}{chest}; weights {use.weights[:_DIGITS]}…"


def _label(label: Label) -> str:
    kind = f", {label.pneumonia_type}" if label.pneumonia_type else ""
    return f"{_moment(label.time)}, {label.source}, {label.author}: {label.finding or 'unknown'}{kind}"


def _request(request: ReadingRequest) -> str:
    return f"{_moment(request.time)}, asked for by rollout {request.rollout_id} ({request.reason})"


def _next(record: Record) -> Iterator[str]:
    yield f"pneumoserve lineage {record.prediction_id}"
    if record.kind == "prediction":
        yield f"pneumoserve archive replay --of {record.release} --since {record.time}"


def _moment(time: str) -> str:
    return f"{time[:10]} {time[11:19]} UTC"


# --- the picture


def _read_picture(store: Store, record: Record) -> Image:
    from pneumoserve.canonical import digest_of
    from pneumoserve.imaging.prepare import decode_gray
    from pneumoserve.store import NotFoundError

    if record.image is None:
        raise Failure("There is no image of this call: only what was decoded is kept.", 1)
    try:
        stored = store.get(record.image.stored_key)
    except NotFoundError:
        raise Failure("The store no longer has the image of this record.", 1) from None
    if digest_of(stored) != record.image.stored_sha256:
        raise Failure("The stored image is not the one of this record; see `pneumoserve archive verify`.", 1)
    return decode_gray(stored)


def _write(picture: Image, file: Path) -> None:
    try:
        with file.open("xb") as target:
            picture.save(target, "PNG")
    except FileExistsError:
        raise Failure(f"{file.name} is there already; name a new file.", 2) from None
    errors.print(f"the image is in {file}", soft_wrap=True)


def _draw(picture: Image) -> None:
    width = min(_COLUMNS, console.width)
    rows = max(1, round(width * picture.height / picture.width / 2))
    small = picture.resize((width, 2 * rows))
    for row in range(rows):
        console.print(
            Text.assemble(
                *(
                    ("▀", Style(color=_gray(small, column, 2 * row), bgcolor=_gray(small, column, 2 * row + 1)))
                    for column in range(width)
                )
            )
        )


def _gray(picture: Image, column: int, row: int) -> Color:
    value = int(str(picture.getpixel((column, row))))
    return Color.from_rgb(value, value, value)
