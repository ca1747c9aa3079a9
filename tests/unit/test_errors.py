"""The tree of errors that `pneumoserve.errors` draws is the one that the code has, exit codes included."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pneumoserve import cli, errors
from pneumoserve.cli import output
from pneumoserve.errors import PneumoserveError, exit_code_of
from pneumoserve.signing import KeyFileError
from pneumoserve.store import NotFoundError

ROOT = Path(__file__).parents[2]
PACKAGES = ("pneumoserve", "training", "loadtest")
BUILT_IN = {"Exception", "ValueError", "RuntimeError", "OSError", "KeyError", "TypeError", "LookupError"}


@dataclass(frozen=True)
class Drawn:
    """An error's parent and its own exit code, None where the parent's counts."""

    parent: str | None
    exit_code: int | None


def drawn() -> dict[str, Drawn]:
    """The errors as the docstring draws them."""
    found: dict[str, Drawn] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: (\d))?(?: {2,}.+)?", line)
        if match is not None:
            depth = len(match[1]) // 4
            del parents[depth:]
            found[match[2]] = Drawn(parents[-1] if parents else None, int(match[3]) if match[3] else None)
            parents.append(match[2])
    return found


def classes() -> Iterator[ast.ClassDef]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def bases(node: ast.ClassDef) -> list[str]:
    return [base.id if isinstance(base, ast.Name) else ast.unparse(base) for base in node.bases]


def own_code(node: ast.ClassDef) -> int | None:
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name) and target.id == "exit_code":
            assert isinstance(statement, ast.Assign | ast.AnnAssign)
            return int(ast.literal_eval(statement.value or ast.Constant(0)))
    return None


def coded() -> dict[str, Drawn]:
    """The errors as the code has them; it is read, not imported: training needs torch."""
    found = {"PneumoserveError": Drawn(None, 1)}
    every = [node for node in classes() if not node.name.startswith("_")]
    while True:
        more = {
            node.name: Drawn(bases(node)[0], own_code(node))
            for node in every
            if node.name not in found and bases(node) and bases(node)[0] in found
        }
        if not more:
            return found
        found |= more


def test_the_tree_that_is_drawn_is_the_one_that_the_code_has() -> None:
    assert drawn() == coded()


def test_every_error_but_private_ones_hangs_in_the_tree() -> None:
    loose = {node.name for node in classes() if BUILT_IN & set(bases(node))} - set(coded())
    assert {name for name in loose if not name.startswith("_")} == set()


def test_an_error_without_a_sentence_for_people_has_no_exit_code() -> None:
    assert exit_code_of(KeyError("x")) is None
    assert [exit_code_of(error) for error in (NotFoundError(""), KeyFileError(""), FileNotFoundError())] == [1, 2, 2]
    assert exit_code_of(output.Failure("", 7)) == 7


@pytest.mark.parametrize("error", [PneumoserveError("install pneumoserve[train]."), output.Failure("No.", 2)])
def test_the_command_line_ends_with_the_sentence_and_the_code(
    error: PneumoserveError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == error.exit_code
    assert capsys.readouterr().err == f"pneumoserve: {error}\n"


def test_a_fault_of_ours_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda: {}["x"])
    with pytest.raises(KeyError):
        cli.main()
