"""Pictures of evidence, as SVG inside the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from html import escape
from itertools import groupby
from typing import Final

from pneumoserve.monitoring import MEANINGS, Figure

_WIDTH: Final = 460
_LEFT: Final = 240
_ROW: Final = 26
_INK: Final = "#1f3f75"
_GREY: Final = "#c5cbd3"


def draw_days(days_of: Mapping[str, Iterable[str]], first: str, last: str) -> str:
    """On which days each release answered: one bar for days that follow each other."""
    begin = date.fromisoformat(first)
    total = (date.fromisoformat(last) - begin).days + 1
    bars = []
    for number, (release, days) in enumerate(days_of.items()):
        y = 12 + _ROW * number
        bars.append(_text(0, y + 12, f"release {release}"))
        bars.append(f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH}" height="16" fill="none" stroke="{_GREY}"/>')
        for start, length in _spans(sorted((date.fromisoformat(day) - begin).days for day in days)):
            x, width = _LEFT + _WIDTH * start / total, max(1.0, _WIDTH * length / total)
            bars.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{_INK}"/>')
    bottom = 30 + _ROW * len(days_of)
    ends = _text(_LEFT, bottom, first) + _text(_LEFT + _WIDTH, bottom, last, "end")
    return _svg("on which days each release answered", bottom + 8, "".join(bars) + ends)


def _spans(days: list[int]) -> Iterable[tuple[int, int]]:
    """Days that follow each other, as the first of them and how many."""
    for _, group in groupby(enumerate(days), lambda each: each[1] - each[0]):
        span = [day for _, day in group]
        yield span[0], len(span)


def draw_figures(figures: Mapping[str, Figure], title: str) -> str:
    """Each share that could be estimated, with its interval. Empty where none could."""
    shown = {
        meaning.name: figures[name].interval
        for name, meaning in MEANINGS.items()
        if not meaning.counts and name in figures
    }
    rows = [(name, interval) for name, interval in shown.items() if interval is not None]
    if not rows:
        return ""
    marks = []
    for number, (name, found) in enumerate(rows, 1):
        y = 16 + _ROW * number
        low, value, high = (_LEFT + _WIDTH * each for each in (found.low, found.value, found.high))
        marks.append(
            _text(0, y + 4, name)
            + f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{_INK}" stroke-width="3"/>'
            f'<circle cx="{value:.1f}" cy="{y}" r="5" fill="{_INK}"/>'
        )
    bottom = 26 + _ROW * (len(rows) + 1)
    axis = f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{bottom - 14}" y2="{bottom - 14}" stroke="{_GREY}"/>'
    ticks = "".join(_text(_LEFT + _WIDTH * share / 100, bottom + 4, f"{share} %", "middle") for share in (0, 50, 100))
    return _svg(f"{title}, with 95 % intervals", bottom + 12, _text(0, 16, title) + "".join(marks) + axis + ticks)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="14" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(label: str, height: int, body: str) -> str:
    width = _LEFT + _WIDTH + 40
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{escape(label)}">{body}</svg>'
