"""A lineage drawn as SVG: ten boxes in fixed places, arrows with the relation they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import Final, Literal
from xml.sax.saxutils import escape

from pneumoserve.archive.record import ModelUse
from pneumoserve.lineage.trace import Lineage
from pneumoserve.names import DETECTOR, TYPER

# Pixels: boxes, the distance from one to the next, the room around all, the line height of text.
_WIDTH, _HEIGHT = 270, 104
_ACROSS, _DOWN = 370, 176
_GAP: Final = _DOWN - _HEIGHT
_MARGIN, _TOP = 32, 84
_LINE: Final = 18
# So many characters fit into a box, and into a line below all, at the size of their text.
_FIT: Final = 34
_FIT_LINE: Final = 140
_FONT: Final = "font-family='system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif'"
_PLAIN, _FAULT = ("#f4f7fb", "#5b7083"), ("#fdecea", "#b3261e")
_KEY: Final = ("#e8f1ea", "#3c6e47")
_STROKES: Final = {"plain": _PLAIN[1], "warning": "#8a5300", "fault": _FAULT[1]}

_Kind = Literal["plain", "warning", "fault"]

# Column and row of each box.
_PLACES: Final = {
    "image": (0, 0),
    "dataset": (1, 0),
    "preprocessing": (0, 1),
    "training run": (1, 1),
    "release": (1, 2),
    "signer": (2, 2),
    "detector": (0, 3),
    "typer": (1, 3),
    "policy": (2, 3),
    "prediction": (1, 4),
}


@dataclass(frozen=True)
class _Box:
    title: str
    lines: tuple[str, ...]
    fault: bool = False


@dataclass(frozen=True)
class _Arrow:
    """From box to box; `leaves` and `enters` move its ends sideways, in pixels from the boxes' middles."""

    start: str
    end: str
    relation: str
    leaves: int = 0
    enters: int = 0
    kind: _Kind = "plain"


def svg(lineage: Lineage) -> str:
    """The picture as a document of its own: no script, no link, nothing to load."""
    boxes, arrows = _boxes(lineage), _arrows(lineage)
    told = [
        (line, _STROKES[kind])
        for kind, texts in (("fault", lineage.faults), ("warning", lineage.warnings))
        for text in texts
        for line in wrap(text, _FIT_LINE)
    ]
    width = 2 * _MARGIN + 2 * _ACROSS + _WIDTH
    bottom = _TOP + 4 * _DOWN + _HEIGHT + _MARGIN
    height = bottom + _LINE * len(told) + (_MARGIN // 2 if told else 0)
    record = lineage.record
    heading = f"Lineage of prediction {record.prediction_id}"
    return "\n".join(
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
            f"role='img' {_FONT} font-size='13' fill='#1c2733'>",
            f"<title>{escape(heading)}</title>",
            "<defs>" + "".join(_head(name, colour) for name, colour in _STROKES.items()) + "</defs>",
            f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
            f"<text x='{_MARGIN}' y='38' font-size='19' font-weight='600'>{escape(heading)}</text>",
            f"<text x='{_MARGIN}' y='60' fill='#45525f'>{escape(_under(lineage))}</text>",
            *(_drawn_arrow(arrow) for arrow in arrows),
            *(_relation(arrow) for arrow in arrows),
            *(_drawn_box(name, box) for name, box in boxes.items()),
            *(
                f"<text x='{_MARGIN}' y='{bottom + _LINE * index}' fill='{colour}'>{escape(line)}</text>"
                for index, (line, colour) in enumerate(told)
            ),
            "</svg>\n",
        )
    )


def _under(lineage: Lineage) -> str:
    record = lineage.record
    holds = "every step holds" if not lineage.faults else f"{len(lineage.faults)} faults, told below"
    return f"{record.kind} of {record.time}, asked of {record.call.model} over {record.call.protocol}; {holds}"


# --- what the boxes say


def _boxes(lineage: Lineage) -> dict[str, _Box]:
    uses = {model.recorded.name: model.recorded for model in lineage.models}
    weights_fault = {model.recorded.name: model.in_release is False for model in lineage.models}
    return {
        "image": _image_box(lineage),
        "dataset": _dataset_box(lineage),
        "preprocessing": _Box(f"version {lineage.record.preprocessing_version}", ("one decode, 224 x 224 gray",)),
        "training run": _training_box(lineage),
        "release": _release_box(lineage),
        "signer": _signer_box(lineage),
        "detector": _model_box(uses.get(DETECTOR), DETECTOR, weights_fault.get(DETECTOR, False)),
        "typer": _model_box(uses.get(TYPER), TYPER, weights_fault.get(TYPER, False)),
        "policy": _policy_box(lineage),
        "prediction": _prediction_box(lineage),
    }


def _image_box(lineage: Lineage) -> _Box:
    if lineage.image is None:
        return _Box("not decoded", ("no image is on record",))
    image = lineage.image.recorded
    return _Box(
        f"{image.format}, {image.width} x {image.height}",
        (
            f"input {image.input_sha256[:16]}",
            f"stored {image.stored_sha256[:16]}",
            f"in the store: {lineage.image.stored}",
        ),
        lineage.image.stored != "whole",
    )


def _dataset_box(lineage: Lineage) -> _Box:
    if lineage.data is None:
        return _Box("not known", ())
    films = "films not listed" if lineage.films is None else f"{lineage.films.count} films by digest"
    left_out = f"{lineage.data.excluded_patients} patients left out"
    return _Box(lineage.data.digest[:16], (lineage.data.source, films, left_out), lineage.films is None)


def _training_box(lineage: Lineage) -> _Box:
    if lineage.training is None:
        return _Box("not known", ())
    facts = lineage.training.facts
    return _Box(
        facts.run_id,
        (
            f"seed {facts.seed}, code {facts.code_version}",
            f"{facts.parameters.get('architecture')}, {facts.parameters.get('steps')} steps",
            f"OpenLineage {lineage.training.openlineage_run[:18]}…",
        ),
    )


def _release_box(lineage: Lineage) -> _Box:
    release = lineage.release
    files = {None: "not found", True: "every file is whole", False: "altered"}[release.intact]
    read = () if release.found is None else (f"read from the {release.found}",)
    return _Box(release.id, (f"digest {release.digest[:16]}", files, *read), not release.intact)


def _signer_box(lineage: Lineage) -> _Box:
    if lineage.release.signer is None:
        return _Box("not verified", ("no trusted key is known to have signed",), True)
    return _Box(lineage.release.signer, ("ed25519, a trusted key",))


def _model_box(use: ModelUse | None, name: str, fault: bool) -> _Box:
    if use is None:
        return _Box(name, ("not asked for this film",))
    engine = f"{use.profile.get('engine', '')} {use.profile.get('engine_version', '')}"
    return _Box(name, (f"version {use.version}", f"probability {use.probability:.6f}", engine), fault)


def _policy_box(lineage: Lineage) -> _Box:
    policy = lineage.policy
    if policy is None:
        return _Box("not known", ())
    band, typed = policy.detector_band, policy.typer_band
    return _Box(
        f"pneumonia from {policy.detector_threshold}",
        (
            f"referred {band.low} to {band.high}",
            f"bacterial from {policy.typer_threshold}",
            f"type referred {typed.low} to {typed.high}",
        ),
    )


def _prediction_box(lineage: Lineage) -> _Box:
    record = lineage.record
    if lineage.decision is None:
        told = "raw scores" if record.error is None else f"{record.kind}, status {record.error.status}"
        return _Box(told, (record.prediction_id,))
    decision = lineage.decision.recorded
    finding = ", ".join(filter(None, (decision.finding, decision.pneumonia_type))) or "a human must look"
    sure = "" if decision.confidence is None else f"confidence {decision.confidence:.3f}, "
    follows = {True: "follows from scores and policy", False: "does not follow from the scores", None: "not derived"}
    return _Box(
        finding,
        (f"{sure}{'referred' if decision.referred else 'not referred'}", follows[lineage.decision.agrees]),
        lineage.decision.agrees is False,
    )


def _arrows(lineage: Lineage) -> tuple[_Arrow, ...]:
    scores = {model.recorded.name: f"p = {model.recorded.probability:.3f}" for model in lineage.models}
    held: _Kind = "plain" if lineage.release.intact else "fault"
    signed = lineage.release.signer is not None
    asked = lineage.films.asked if lineage.films is not None else None
    known = () if asked is None else (_Arrow("image", "dataset", f"is in ({asked.split})", kind="warning"),)
    return (
        *known,
        _Arrow("image", "preprocessing", "decoded by"),
        _Arrow("preprocessing", "detector", "pixels for" if DETECTOR in scores else "not asked", -40, -40),
        _Arrow("preprocessing", "typer", "pixels for" if TYPER in scores else "not asked", 60, -60),
        _Arrow("dataset", "training run", "taught"),
        _Arrow("training run", "release", "packaged as"),
        _Arrow("signer", "release", "signed" if signed else "no signature", kind="plain" if signed else "fault"),
        _Arrow("release", "detector", "holds", -60, 40, held),
        _Arrow("release", "typer", "holds", 0, 0, held),
        _Arrow("release", "policy", "holds", 60, 0, held),
        _Arrow("detector", "prediction", scores.get(DETECTOR, "no score"), 0, -70),
        _Arrow("typer", "prediction", scores.get(TYPER, "no score")),
        _Arrow("policy", "prediction", "decides", 0, 70),
    )


# --- drawing


def _corner(name: str) -> tuple[int, int]:
    column, row = _PLACES[name]
    return _MARGIN + column * _ACROSS, _TOP + row * _DOWN


def _ends(arrow: _Arrow) -> tuple[int, int, int, int]:
    """Where an arrow begins and ends: from side to side in one row, else from bottom to top."""
    (left, top), (end_left, end_top) = _corner(arrow.start), _corner(arrow.end)
    if top == end_top:
        middle, rightwards = top + _HEIGHT // 2, left < end_left
        return (left + _WIDTH * rightwards, middle, end_left - 3 if rightwards else end_left + _WIDTH + 3, middle)
    middle = _WIDTH // 2
    return left + middle + arrow.leaves, top + _HEIGHT, end_left + middle + arrow.enters, end_top - 3


def _drawn_arrow(arrow: _Arrow) -> str:
    x1, y1, x2, y2 = _ends(arrow)
    # Down past the boxes between, then across.
    turn, half = y2 - _GAP, y2 - _GAP // 2
    path = f"L{x2} {y2}" if y1 == y2 else f"L{x1} {turn} C{x1} {half} {x2} {half} {x2} {y2}"
    return (
        f"<path d='M{x1} {y1} {path}' fill='none' stroke='{_STROKES[arrow.kind]}' stroke-width='1.6' "
        f"marker-end='url(#{arrow.kind})'/>"
    )


def _relation(arrow: _Arrow) -> str:
    x1, y1, x2, y2 = _ends(arrow)
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    if y1 == y2:
        y -= 14
    elif y2 - y1 > _DOWN:
        x, y = x1, (y1 + y2 - _GAP) // 2
    else:
        # A quarter on its way: half way down is where arrows cross.
        x, y = x1 + (x2 - x1) * 5 // 32, y1 + (y2 - y1) * 3 // 8
    room = 7 * len(arrow.relation) + 8
    colour = "#1c2733" if arrow.kind == "plain" else _STROKES[arrow.kind]
    return (
        f"<rect x='{x - room // 2}' y='{y - 9}' width='{room}' height='18' fill='#ffffff'/>"
        f"<text x='{x}' y='{y + 4}' text-anchor='middle' font-size='12' fill='{colour}'>{escape(arrow.relation)}</text>"
    )


def _drawn_box(name: str, box: _Box) -> str:
    left, top = _corner(name)
    fill, stroke = _FAULT if box.fault else _KEY if name in {"prediction", "image"} else _PLAIN
    lines = "".join(
        f"<text x='{left + 14}' y='{top + 60 + _LINE * index}'>{escape(_fitting(line))}</text>"
        for index, line in enumerate(box.lines)
    )
    return (
        f"<g id='{name.replace(' ', '-')}'>"
        f"<rect x='{left}' y='{top}' width='{_WIDTH}' height='{_HEIGHT}' rx='9' fill='{fill}' stroke='{stroke}' "
        "stroke-width='1.4'/>"
        f"<text x='{left + 14}' y='{top + 21}' font-size='11' fill='#45525f'>{escape(name)}</text>"
        f"<text x='{left + 14}' y='{top + 40}' font-size='15' font-weight='600'>{escape(_fitting(box.title))}</text>"
        f"{lines}</g>"
    )


def _fitting(text: str) -> str:
    return text if len(text) <= _FIT else f"{text[: _FIT - 1]}…"


def _head(name: str, colour: str) -> str:
    return (
        f"<marker id='{name}' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0 0 L8 4 L0 8 z' fill='{colour}'/></marker>"
    )
