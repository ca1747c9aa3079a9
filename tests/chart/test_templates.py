"""The page about the templates' helpers, in step with them; and templates that fit a screen."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from tools.generate.chart_values import CHART

TEMPLATES = CHART / "templates"
PAGE = (TEMPLATES / "README.md").read_text()


def helpers() -> dict[str, set[str]]:
    """Names of the helpers, by the heading that the page has for their file."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in TEMPLATES.rglob("*.tpl"):
        heading = "preflight/" if path.parent.name == "preflight" else str(path.relative_to(TEMPLATES))
        found[heading] |= set(re.findall(r'define "pneumoserve\.([\w.]+)"', path.read_text()))
    return found


def described() -> dict[str, set[str]]:
    """The same, as the page has it."""
    _, *parts = re.split(r"^### `([^`]+)`\n", PAGE, flags=re.MULTILINE)
    return {
        heading: set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_page_describes_every_helper_where_it_stands() -> None:
    assert described() == helpers()


def test_the_page_describes_every_folder() -> None:
    folders = {path.name for path in TEMPLATES.iterdir() if path.is_dir()}
    assert set(re.findall(r"^\| `(\w+)/` \|", PAGE, re.MULTILINE)) == folders


def test_no_line_is_longer_than_a_screen_is_wide() -> None:
    lines = (
        (path, number, line)
        for path in TEMPLATES.rglob("*.*")
        for number, line in enumerate(path.read_text().splitlines(), 1)
    )
    long: list[tuple[Path, int]] = [(path, number) for path, number, line in lines if len(line) > 120]
    assert long == []
