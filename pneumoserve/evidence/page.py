"""The page of evidence: HTML that needs no network and no script, to be read and to be printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Final

from pneumoserve.evidence.contents import Part, Period, Table

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1c2733;"
    "background:#fff}h2{border-bottom:2px solid #1f3f75;margin-top:3rem}a{color:#1f3f75}"
    ".asks{font-style:italic}table{border-collapse:collapse;width:100%;margin:1rem 0;font-size:.875rem}"
    "caption{text-align:left;font-weight:600;font-size:1rem;padding:.3rem 0}"
    "td,th{border:1px solid #9aa5b1;padding:.3rem .5rem;text-align:left;vertical-align:top}"
    ".long{overflow-wrap:anywhere;min-width:8rem}td:first-child:not(.long){white-space:nowrap}th{background:#eef2f7}"
    "svg{max-width:100%;height:auto;display:block}code{font-size:.95em}"
    "@media print,(max-width:70rem){table{font-size:.75rem}.long{min-width:0}td:first-child:not(.long)"
    "{white-space:normal}}@media screen and (max-width:50rem){td,th{overflow-wrap:anywhere}}"
    "@page{size:A4 landscape;margin:12mm}"
    "@media print{body{font-size:10pt;max-width:none;margin:0}nav{break-after:page}tr{break-inside:avoid}"
    "thead{display:table-header-group}a{color:inherit;text-decoration:none}}"
)
_LONG_WORD: Final = 24
_CODE: Final = re.compile(r"`([^`]+)`")


def render_page(parts: Sequence[Part], period: Period, software: str) -> str:
    """The page of all parts."""
    contents = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in parts)
    intro = [
        f"<p>Of {escape(period.words)}; made by pneumoserve {escape(software)} of what is on record, and of nothing "
        "else.</p>",
        "<p><strong>Not cleared by any regulator, not for clinical use.</strong></p>",
        "<p>Each row's record is named as <code>WRITER:SEQUENCE:HASH</code>, which <code>pneumoserve archive show"
        "</code> finds. Counts name the segments that they were made of in the part's JSON file. Times are UTC.</p>",
        "<p><code>pneumoserve evidence verify FILE --trust DIR</code> says whether this is what was signed.</p>",
    ]
    body = "\n".join(
        [
            "<header><h1>Evidence</h1>", *intro, "</header>",
            f'<nav aria-label="Contents"><ol>{contents}</ol></nav>', "<main>", *map(_render_part, parts), "</main>",
        ]
    )  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Evidence</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _render_part(part: Part) -> str:
    return "\n".join(
        [
            f'<section id="{part.name}" aria-labelledby="{part.name}-title">',
            f'<h2 id="{part.name}-title">{escape(part.title)}</h2>',
            f'<p class="asks">{escape(part.asks)}</p>',
            *(f"<p>{_words(line)}</p>" for line in part.lines),
            *part.pictures,
            *map(_render_table, part.tables),
            f'<p>For machines: <a href="{part.name}.json">{part.name}.json</a></p>',
            "</section>",
        ]
    )


def _render_table(table: Table) -> str:
    if not table.rows:
        return f"<h3>{escape(table.title)}</h3>\n<p>{_words(table.empty)}</p>"
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "\n".join("<tr>" + "".join(map(_render_cell, row)) + "</tr>" for row in table.rows)
    return (
        f"<table><caption>{escape(table.title)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>"
    )


def _render_cell(cell: str) -> str:
    # A digest or a key may break anywhere, a word may not.
    is_long = any(len(word) > _LONG_WORD for word in cell.split())
    return f"<td{' class=long' if is_long else ''}>{escape(cell)}</td>"


def _words(line: str) -> str:
    """A line of ours: what stands between backticks is code."""
    return _CODE.sub(r"<code>\1</code>", escape(line))
