"""A lineage drawn as SVG: ten boxes in fixed places, arrows with the relation they stand for.

Drawn here, since no library of Python's draws a graph without a program or a network beside it whose pictures say what
they were given: see docs/decisions.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final, Literal
from xml.sax.saxutils import escape

from pneumoserve.lineage.nodes import Node, heading, nodes
from pneumoserve.lineage.trace import Lineage
from pneumoserve.names import DETECTOR, TYPER

# Pixels: boxes, the distance from one to the next, the room around all, the line height of text.
_WIDTH, _HEIGHT = 270, 140
_ACROSS, _DOWN = 370, 212
_GAP: Final = _DOWN - _HEIGHT
_MARGIN, _TOP = 32, 84
_LINE: Final = 18
# So many rows fit into a box below its title, and so many characters into a row, a title, and a line below all boxes.
_ROWS: Final = 5
_FIT: Final = 34
_FIT_TITLE: Final = 26
_FIT_LINE: Final = 140
# A picture is no place to compare digests in: the beginning says which it is.
_DIGEST: Final = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{48}\b")
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
class _Arrow:
    """From box to box; `leaves` and `enters` move its ends sideways, in pixels from the boxes' middles."""

    start: str
    end: str
    relation: str
    leaves: int = 0
    enters: int = 0
    kind: _Kind = "plain"


def draw(lineage: Lineage) -> str:
    """The picture as a document of its own: no script, no link, nothing to load."""
    boxes, arrows = [node for node in nodes(lineage) if node.name in _PLACES], _arrows(lineage)
    notes = [
        (line, _STROKES[kind])
        for kind, texts in (("fault", lineage.faults), ("warning", lineage.warnings))
        for text in texts
        for line in wrap(text, _FIT_LINE)
    ]
    width = 2 * _MARGIN + 2 * _ACROSS + _WIDTH
    bottom = _TOP + 4 * _DOWN + _HEIGHT + _MARGIN
    height = bottom + _LINE * len(notes) + (_MARGIN // 2 if notes else 0)
    return "\n".join(
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
            f"role='img' {_FONT} font-size='13' fill='#1c2733'>",
            f"<title>{escape(heading(lineage))}</title>",
            "<defs>" + "".join(_head(name, colour) for name, colour in _STROKES.items()) + "</defs>",
            f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
            f"<text x='{_MARGIN}' y='38' font-size='19' font-weight='600'>{escape(heading(lineage))}</text>",
            f"<text x='{_MARGIN}' y='60' fill='#45525f'>{escape(_under(lineage))}</text>",
            *(_draw_arrow(arrow) for arrow in arrows),
            *(_draw_relation(arrow) for arrow in arrows),
            *(_draw_box(node) for node in boxes),
            *(
                f"<text x='{_MARGIN}' y='{bottom + _LINE * index}' fill='{colour}'>{escape(line)}</text>"
                for index, (line, colour) in enumerate(notes)
            ),
            "</svg>\n",
        )
    )


def _under(lineage: Lineage) -> str:
    record = lineage.record
    holds = "every step holds" if not lineage.faults else f"{len(lineage.faults)} faults, listed below"
    return f"{record.kind} of {record.time}, asked of {record.call.model} over {record.call.protocol}; {holds}"


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


def _draw_arrow(arrow: _Arrow) -> str:
    x1, y1, x2, y2 = _ends(arrow)
    # Down past the boxes between, then across.
    turn, half = y2 - _GAP, y2 - _GAP // 2
    path = f"L{x2} {y2}" if y1 == y2 else f"L{x1} {turn} C{x1} {half} {x2} {half} {x2} {y2}"
    return (
        f"<path d='M{x1} {y1} {path}' fill='none' stroke='{_STROKES[arrow.kind]}' stroke-width='1.6' "
        f"marker-end='url(#{arrow.kind})'/>"
    )


def _draw_relation(arrow: _Arrow) -> str:
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


def _draw_box(node: Node) -> str:
    left, top = _corner(node.name)
    fill, stroke = _FAULT if node.fault else _KEY if node.name in {"prediction", "image"} else _PLAIN
    (title,) = _rows([node.title], 1, _FIT_TITLE)
    lines = "".join(
        f"<text x='{left + 14}' y='{top + 60 + _LINE * index}'>{escape(row)}</text>"
        for index, row in enumerate(_rows(node.lines, _ROWS, _FIT))
    )
    return (
        f"<g id='{node.name.replace(' ', '-')}'>"
        f"<rect x='{left}' y='{top}' width='{_WIDTH}' height='{_HEIGHT}' rx='9' fill='{fill}' stroke='{stroke}' "
        "stroke-width='1.4'/>"
        f"<text x='{left + 14}' y='{top + 21}' font-size='11' fill='#45525f'>{escape(node.name)}</text>"
        f"<text x='{left + 14}' y='{top + 40}' font-size='15' font-weight='600'>{escape(title)}</text>"
        f"{lines}</g>"
    )


def _rows(lines: Sequence[str], most: int, width: int) -> list[str]:
    """Lines as at most so many rows of so many characters, the last with an ellipsis where there would be more."""
    rows = [row for line in lines for row in wrap(_DIGEST.sub(r"\1", line), width)]
    if len(rows) <= most:
        return rows
    return [*rows[: most - 1], f"{rows[most - 1][: width - 2]} …"]


def _head(name: str, colour: str) -> str:
    return (
        f"<marker id='{name}' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0 0 L8 4 L0 8 z' fill='{colour}'/></marker>"
    )
