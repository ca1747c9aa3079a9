"""How commands speak: progress where somebody watches, and text with every bracket that it has."""

from __future__ import annotations

import ast
import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from pneumoserve import cli
from pneumoserve.cli import output
from training.progress import track

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("watched", [True, False])
def test_progress_is_counted_by_name_where_somebody_watches(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(output, "errors", Console(file=out, force_terminal=watched, width=80))
    with output.show_progress(records=40) as progress, ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            threads.submit(progress, "records", 4).result()
            progress("images", 1)
    shown = re.sub(r"\x1b\[[0-9;?]*\w", "", out.getvalue())
    if watched:
        assert "40/40 records" in shown
        assert re.search(r"10/\? +images", shown)
    else:
        assert shown.strip() == ""


def test_a_package_that_is_missing_is_named() -> None:
    with (
        pytest.raises(output.Failure, match="needs nowhere; install it") as failed,
        output.needs("needs {}; install it"),
    ):
        raise ModuleNotFoundError(name="nowhere")
    assert failed.value.exit_code == 2


TRICKY = "install pneumoserve[train], not [/red] nor [bold]"


def test_brackets_stay_in_all_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich would take them for markup: leave them out, or fail at `[/red]`."""
    out = io.StringIO()
    console = Console(file=out, width=300, highlight=False, markup=output.console._markup)
    table = Table("sentence")
    table.add_row(TRICKY)
    for each in (TRICKY, table, output.mark("not as it should be:", "red", f" {TRICKY}")):
        console.print(each)
    assert out.getvalue().count(TRICKY) == 3


def test_no_console_of_a_command_takes_markup() -> None:
    """But the demo's, which prints titles of its own."""
    made = [
        (path.name, ast.unparse(call))
        for package in ("pneumoserve", "training", "loadtest")
        for path in sorted((ROOT / package).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Console" and path.name != "demo.py"
    ]
    assert len(made) > 4
    assert [each for each in made if "markup=False" not in each[1]] == []
    written = [
        (path.name, found)
        for path in sorted((ROOT / "pneumoserve" / "cli").rglob("*.py"))
        for found in re.findall(r"\[/?(?:red|yellow|bold|dim|green)[^\]]*\]", path.read_text())
    ]
    assert written == []


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["lineage", "[/red] pneumoserve[train]"], "a UUIDv7"),
        (["archive", "verify", "[/red]"], "([/red])"),
        (["release", "verify", "runs[train]"], "There is no release runs[train]"),
    ],
)
def test_an_error_repeats_brackets_as_they_were_typed(
    words: list[str], kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pneumoserve", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert kept in capsys.readouterr().err


@pytest.mark.parametrize("watched", [True, False])
def test_a_bar_is_drawn_on_stderr_where_somebody_watches(
    watched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR" if watched else "NO_COLOR", "1")
    assert list(track(range(3), "reading films")) == [0, 1, 2]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("reading films" in printed.err) is watched
    assert watched or printed.err == ""


def test_bars_of_commands_are_drawn_for_who_watches() -> None:
    drawn = [
        (path.name, ast.unparse(call))
        for package in ("pneumoserve", "training")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "from rich.progress import track" in path.read_text()
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in {"track", "show"}
    ]
    assert len(drawn) > 1
    assert [each for each in drawn if "disable=not errors.is_terminal" not in each[1]] == []
