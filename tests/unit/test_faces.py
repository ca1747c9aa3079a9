"""Packages that others use: what they offer stands in `__all__`, and is imported from there."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ledger", "records", "review", "signing", "store")
USERS = ("pneumoserve", "training", "loadtest", "handlers")


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_offers_is_there(package: str) -> None:
    module = import_module(f"pneumoserve.{package}")
    assert module.__all__
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_reaches_into_a_package(package: str) -> None:
    inner = f"pneumoserve.{package}."
    files = [file for user in USERS for file in (ROOT / user).rglob("*.py")]
    outside = [file for file in files if ROOT / "pneumoserve" / package not in file.parents]
    assert len(outside) > 50
    reached = [
        f"{file.relative_to(ROOT)}: {node.module}"
        for file in outside
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(inner)
    ]
    assert reached == []
