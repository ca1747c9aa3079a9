"""Pages that lead where they say, and are written as we write."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import ROOT, name_of, pages, prose, repository_pages, without_code

LINK = re.compile(r"!?\[[^\]]*\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)")
COLUMNS = 100


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a forge makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        repeated = sum(
            each == anchor or re.fullmatch(f"{re.escape(anchor)}-[0-9]+", each) is not None for each in found
        )
        found.add(f"{anchor}-{repeated}" if repeated else anchor)
    return found


@pytest.mark.parametrize("page", repository_pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(without_code(page.read_text())):
        to = (page.parent / target).resolve() if target else page
        if not to.exists() or not to.is_relative_to(ROOT) or (anchor and anchor not in anchors(to)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert not broken


def linked(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for to in entry.values():
            if isinstance(to, str):
                yield to
            else:
                yield from linked(to)


def test_the_site_leads_to_every_page() -> None:
    nav = list(linked(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert sorted(nav) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_pages_say_image(page: Path) -> None:
    """The glossary alone says what it was called before."""
    if page.name != "glossary.md":
        assert not re.findall(r"\bfilms?\b", prose(page.read_text()), re.IGNORECASE)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_lines_fit_a_window(page: Path) -> None:
    """Tables and what cannot be broken, such as a long link, are wider."""
    lines = without_code(page.read_text()).splitlines()
    wide = [line for line in lines if len(line) > COLUMNS and not line.startswith("|") and " " in line[: COLUMNS - 40]]
    assert [line for line in wide if not re.search(r"\S{60,}", line)] == []


def test_the_architecture_names_modules_that_exist() -> None:
    named = set(re.findall(r"`([a-z_]+/[a-z_0-9]+)`", (ROOT / "docs" / "explanation" / "architecture.md").read_text()))
    assert len(named) > 50
    missing = []
    for name in named:
        places = [folder / name for folder in (ROOT / "pneumoserve", ROOT)]
        if not any(place.with_suffix(".py").exists() or place.exists() for place in places):
            missing.append(name)
    assert not missing


def test_the_architecture_has_every_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    packages = [name.removeprefix("pneumoserve.") for layer in layers for name in re.findall(r"[\w.]+", layer)]
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    (drawn,) = re.findall(r"```mermaid\nflowchart TB\n(.*?)```", text, re.DOTALL)
    shown = [name for box in re.findall(r'\["(.*?)"\]', drawn) for name in box.split(" · ")]
    assert [name for name in shown if name in packages] == sorted(packages, key=shown.index)
