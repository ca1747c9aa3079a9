"""`pneumoserve release …`: what each command's help shows."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from pneumoserve.cli.app import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands["release"].commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_has_an_example_of_itself(name: str) -> None:
    assert (COMMANDS[name].epilog or "").startswith(f"Example: pneumoserve release {name} ".rstrip())
