"""The page of obligations names commands that exist, with the options that they have; test_documents follows links."""

from __future__ import annotations

import re

import pytest

from tests.support.documents import ROOT
from tests.unit.test_documented_commands import parse_command

PAGE = (ROOT / "docs" / "reference" / "obligations.md").read_text()
COMMANDS = sorted(set(re.findall(r"`pneumoserve ([^`]+)`", PAGE)))
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| ---")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command: str) -> None:
    assert parse_command(command) == []


def test_each_row_says_what_answers_and_what_is_left() -> None:
    assert len(ROWS) > 25
    for row in ROWS:
        assert len(row) == 3, row
        assert all(cell.strip("| ") for cell in row), row


def test_every_article_that_was_asked_for_has_a_table() -> None:
    assert re.findall(r"^### Article (\d+)", PAGE, re.MULTILINE) == ["12", "14", "15", "26", "72"]
