"""The Markdown files of the repository, as tests read them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its language, and its text."""

    language: str
    text: str


def repository_pages() -> list[Path]:
    """Every Markdown file that git knows or would take."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in sorted(set(names)) if (ROOT / name).exists()]


def pages() -> list[Path]:
    """The pages for people: README.md and docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """A page's path below the repository's root."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(found[2], found[3]) for found in _FENCE.finditer(text)]


def without_code(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def prose(text: str) -> str:
    """A page without blocks of code, what is made by a program, code in a line, and where links lead."""
    text = re.sub(r"<!-- (\w+): generated.*?<!-- end of \1 -->", "", without_code(text), flags=re.DOTALL)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)


def commands(text: str) -> list[str]:
    """What a page tells the reader to type, each command on one line, without comments and prompts."""
    typed: list[str] = []
    for block in blocks(text):
        if block.language == "sh":
            typed += block.text.replace("\\\n", " ").splitlines()
        elif block.language == "console":
            typed += [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
    return [line for command in typed if (line := _COMMENT.sub("", command).strip()) and not line.startswith("#")]
