"""What keeps a contributor's habits: hooks, attributes of generated files, templates, the workflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.commit_subject import LONGEST, find_fault
from tools.generate.__main__ import GENERATORS, ROOT

HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Refuse films of two sizes\n\nThe decoder believed one.\n", None),
        ("x" * LONGEST, None),
        ("Say it\n# what git adds\n", None),
        ("x" * (LONGEST + 1), "has 73 characters"),
        ("\n\nwhy", "in the first line"),
        ("# nothing but a comment\n", "in the first line"),
        ("Say it\nwithout a pause", "second line empty"),
    ],
)
def test_a_subject_is_short_and_alone(message: str, fault: str | None) -> None:
    found = find_fault(message)
    assert found is None if fault is None else fault in (found or "")


@pytest.mark.parametrize(("subject", "code"), [("Say what it does", 0), ("x" * 73, 1)])
def test_git_asks_about_the_subject(subject: str, code: int, tmp_path: Path) -> None:
    """Through pre-commit, in a repository of its own, as after `make hooks`."""
    pre_commit = Path(sys.executable).with_name("pre-commit")
    (tmp_path / ".pre-commit-config.yaml").write_text((ROOT / ".pre-commit-config.yaml").read_text())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**outer, "PRE_COMMIT_HOME": str(tmp_path / "kept"), "HOME": str(tmp_path)}
    commit = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", "commit", "--allow-empty", "-m", subject]
    for words in (["git", "init", "--quiet"], ["git", "add", ".pre-commit-config.yaml"], [str(pre_commit), "install"]):
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
    done = subprocess.run(commit, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("73 characters" in done.stdout + done.stderr) is bool(code)


def test_hooks_use_the_environments_tools_and_no_network() -> None:
    (repository,) = HOOKS["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff", "ruff-format", "mypy", "commit-subject"]


def test_generated_files_are_marked() -> None:
    """Those that are generated whole; pages with a generated table are people's."""
    files = [path for name in ("schemas",) for path in GENERATORS[name].generate(ROOT)]
    files += [path.relative_to(ROOT) for pattern in GENERATORS["manifests"].owned for path in ROOT.glob(pattern)]
    files += [path.relative_to(ROOT) for path in (ROOT / "requirements").glob("*.txt")]
    for path in files:
        text = (ROOT / path).read_text()
        # A list of JSON holds no comment.
        assert "generated" in text[:200].lower() or path.name == "policies.json", path
    command = ["git", "check-attr", "--stdin", "linguist-generated"]
    given = "".join(f"{path}\n" for path in files)
    outcome = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=True).stdout
    assert [line for line in outcome.splitlines() if not line.endswith(": set")] == []


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_an_issue_asks_for_no_patient_data(name: str) -> None:
    form: dict[str, Any] = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / f"{name}.yaml").read_text())
    assert "No patient data here" in form["body"][0]["attributes"]["value"]
    (option,) = form["body"][-1]["attributes"]["options"]
    assert option["required"] is True


def test_the_workflow_checks_each_python_and_runs_all() -> None:
    versions = WORKFLOW["jobs"]["check"]["strategy"]["matrix"]["python"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()  # type: ignore[union-attr]
    assert versions == [f"3.{minor}" for minor in range(int(low), int(high))]
    runs = [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    assert any(run.startswith("make check") for run in runs)
    assert ".ci/run" in runs


def test_the_changelog_has_this_version() -> None:
    heads = re.findall(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())
    assert heads[:2] == ["Unreleased", PROJECT["version"]]


def test_contributing_names_targets_and_folders_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z0-9]+)", text):
        assert re.search(rf"(?m)^{target}:", makefile), target
    for path in re.findall(r"`((?:tests|pneumoserve|training|handlers|charts|tools|requirements)/[^`*{]*)`", text):
        assert (ROOT / path).exists(), path
