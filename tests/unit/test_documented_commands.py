"""Commands in documents are commands that exist, with the options that they have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

import pneumoserve
from pneumoserve.cli.app import PANELS, app
from pneumoserve.front.settings import FrontSettings
from pneumoserve.intake.settings import IntakeSettings
from pneumoserve.models.settings import ModelsSettings
from pneumoserve.rollout.plan import Plan, Step, read_plan
from pneumoserve.settings import ProcessSettings
from tests.support.documents import ROOT, blocks, commands, name_of, pages, repository_pages

REFERENCE = ROOT / "docs" / "reference"
TYPED = [(name_of(page), command) for page in repository_pages() for command in commands(page.read_text())]
_PNEUMOSERVE = re.compile(r"(?:^|[ (|/;])pneumoserve (?=[a-z])(.*)")
# What a shell would read as something else than words.
_SHELL_ENDS = re.compile(r"[;|)&\n]|\s>\s| < ")


def pneumoserve_commands() -> Iterator[tuple[str, str]]:
    for page, command in TYPED:
        if command.startswith(("helm ", "kubectl ", "docker ")):
            continue
        for found in _PNEUMOSERVE.findall(re.sub(r"\$\([^()]*\)", "", command)):
            yield page, _SHELL_ENDS.split(re.sub(r"<[a-z_]+>", "given", found))[0].strip()


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(path)
        return
    # A group that does something by itself, such as `evidence`.
    if path and command.invoke_without_command:
        yield " ".join(path)
    for name, each in command.commands.items():
        yield from leaves(each, (*path, name))


def parse_command(command: str) -> list[str]:
    """The words of a command of pneumoserve's that none of its arguments and options takes."""
    words = shlex.split(command)
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands") and words and not words[0].startswith("-"):
        found = found.commands[words.pop(0)]
    _, rest, _ = found.make_parser(type(found).context_class(found)).parse_args(words)
    return list(rest)


@pytest.mark.parametrize(("page", "command"), sorted(set(pneumoserve_commands())))
def test_commands_of_pneumoserve_have_these_options(page: str, command: str) -> None:
    assert parse_command(command) == []


@pytest.mark.parametrize("name", sorted(leaves(typer.main.get_command(app))))
def test_every_command_has_an_example_with_the_options_that_it_has(name: str) -> None:
    found: Any = typer.main.get_command(app)
    for word in name.split():
        found = found.commands[word]
    begin, *then = str(found.epilog).split("   then   ")
    assert begin.startswith(f"Example: pneumoserve {name}")
    for example in (begin.removeprefix("Example: "), *then):
        assert parse_command(example.removeprefix("pneumoserve ")) == []


def test_help_shows_every_command_by_what_somebody_comes_to_do() -> None:
    program: Any = typer.main.get_command(app)
    assert program.list_commands(None) == list(dict.fromkeys(program.list_commands(None)))
    assert set(program.list_commands(None)) == set(program.commands)
    shown = CliRunner().invoke(app, ["--help"]).stdout
    listed = re.findall(r"^(?:│|╭─) ([A-Z][a-z ]+|[a-z]+) ", shown, re.MULTILINE)
    assert [word.strip() for word in listed if word.strip() != "Options"] == [
        word for panel, names in PANELS.items() for word in (panel, *names)
    ]


def test_the_version_is_printed() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"pneumoserve {pneumoserve.__version__}\n")


def test_the_reference_lists_every_command() -> None:
    text = (REFERENCE / "cli.md").read_text()
    listed = {re.split(r" [^a-z]", found)[0] for found in re.findall(r"^\| `pneumoserve ([^`]+)`", text, re.MULTILINE)}
    known = set(leaves(typer.main.get_command(app)))
    assert {
        next(name for name in sorted(known, key=len, reverse=True) if each.startswith(name)) for each in listed
    } == known


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    texts = [*(command for _, command in TYPED), *re.findall(r"`(make [^`]+)`", (REFERENCE / "cli.md").read_text())]
    asked = {found for text in texts for found in re.findall(r"(?:^|&& )make ([a-z][a-z0-9-]*)", text)}
    assert {target for target in asked if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()
    assert len(asked) > 5


def test_modules_that_are_run_exist() -> None:
    asked = {
        found
        for _, command in TYPED
        for found in re.findall(r"python3? -m ((?:pneumoserve|training|loadtest)[\w.]*)", command)
    }
    for module in asked:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize(
    ("heading", "settings"),
    [("The front", FrontSettings), ("The models container", ModelsSettings), ("DICOM intake", IntakeSettings)],
)
def test_the_reference_lists_every_option_of_a_container(heading: str, settings: type[ProcessSettings]) -> None:
    section = (REFERENCE / "settings.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    listed = {
        found
        for row in re.findall(r"^\| (`--.*?) \|", section, re.MULTILINE)
        for found in re.findall(r"--[a-z-]+", row)
    }
    assert listed == set(settings.flags())


def test_the_reference_lists_every_metric() -> None:
    made = {
        found
        for file in (ROOT / "pneumoserve").rglob("*.py")
        for found in re.findall(r'(?:Counter|Gauge|Histogram)(?:MetricFamily)?\(\s*"(\w+)"', file.read_text())
    }
    assert set(re.findall(r"^\| `(\w+)` \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE)) == made
    texts = "".join(page.read_text() for page in pages())
    named = set(re.findall(r"`(pneumoserve_[a-z_]+)`", texts)) - {"pneumoserve_release"}
    assert {name.removesuffix("_total") for name in named} <= made


def test_the_reference_lists_every_alert() -> None:
    made = {
        found
        for file in (ROOT / "charts" / "pneumoserve" / "templates").rglob("*.yaml")
        for found in re.findall(r"- alert: (\w+)", file.read_text())
    }
    assert set(re.findall(r"^\| (Pneumoserve\w+) \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE)) == made


def plans() -> Iterator[str]:
    for page in pages():
        yield from (block.text for block in blocks(page.read_text()) if block.text.startswith("# plan.yaml"))


def test_plans_can_be_followed() -> None:
    (text,) = plans()
    plan = read_plan(text)
    assert plan.steps[-1].percent == 100


def test_the_reference_lists_every_setting_of_a_plan() -> None:
    text = (REFERENCE / "rollout-plan.md").read_text()
    named = {part for found in re.findall(r"`([\w.\[\]]+)`", text) for part in re.split(r"[.\[\]]+", found)}
    parts = [field.annotation for field in Plan.model_fields.values()]
    models: list[type[BaseModel]] = [
        Plan,
        Step,
        *(part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)),
    ]
    assert {name for model in models for name in model.model_json_schema(by_alias=True)["properties"]} <= named


def test_a_page_that_is_typed_is_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\n# why\na \\\n  b   # c\n```\n\n```console\n$ d\ne\n```\n")
    assert commands(page.read_text()) == ["a    b", "d"]
