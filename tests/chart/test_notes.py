"""What helm prints after an install: commands that can be pasted, each for as long as there is something to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import EVERYTHING, KNATIVE, TRIAL, Helm, nested
from tests.unit.test_documented_commands import parse_command

RUNS = nested("release.id", "0123456789ab")
GIVEN: dict[str, tuple[Path | dict[str, Any], ...]] = {
    "first": (TRIAL,),
    "running": (TRIAL, RUNS),
    "everything": (EVERYTHING,),
    "knative": (KNATIVE, nested("preflight.enabled", False)),
}
# Stand in for the programs: each says what it was asked, and answers where an answer goes on to another command.
STANDINS = """
set -euo pipefail
kubectl() { echo "kubectl $*" >> asked; case "$*" in *secret*) echo c2VjcmV0;; *gateway*) echo 192.0.2.1;; esac; }
helm() { echo "helm $*" >> asked; }
pneumoserve() { echo "pneumoserve $*" >> asked; }
curl() { echo "curl $*" >> asked; echo '{"predictions": [{"prediction_id": "01a2"}]}'; }
"""


def typed(notes: str) -> str:
    """The commands: what stands indented by two."""
    return "\n".join(re.findall(r"^  (?! *\*)(.*)$", notes, re.MULTILINE))


@pytest.mark.parametrize("name", GIVEN)
def test_the_commands_run_as_they_are_pasted(name: str, helm: Helm, tmp_path: Path) -> None:
    (tmp_path / "releases" / "0123456789ab").mkdir(parents=True)
    commands = typed(helm.notes(*GIVEN[name]))
    done = subprocess.run(
        ["bash", "-c", STANDINS + commands], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert not [line for line in asked if re.search(r"[<>…]|\$", line)]
    for line in asked:
        if line.startswith("pneumoserve "):
            assert parse_command(line.removeprefix("pneumoserve ")) == []
    shown = [line for line in asked if line.startswith("pneumoserve archive show")]
    wanted = "pneumoserve archive show --archive-trust writers 01a2"
    assert shown == ([wanted] if name in {"running", "everything"} else [])


def test_what_is_done_is_not_told_again(helm: Helm) -> None:
    first, running = (typed(helm.notes(*GIVEN[name])) for name in ("first", "running"))
    assert "pneumoserve release push" in first
    assert '--set-string "release.id=$RELEASE"' in first
    assert "release push" not in running
    assert "helm upgrade" not in running
    assert "helm test pneumoserve" in running
    assert "helm test" not in first


def test_they_fit_a_screen(helm: Helm) -> None:
    """But for the warnings."""
    assert len(helm.notes(*GIVEN["first"]).partition("\nMind\n")[0].splitlines()) <= 24
    assert len(helm.notes(*GIVEN["running"]).partition("\nMind\n")[0].splitlines()) <= 40


def test_they_name_the_objects_of_an_install_of_another_name(helm: Helm) -> None:
    notes = helm.notes(TRIAL, RUNS, nested("fullnameOverride", "ward-pneumoserve"))
    assert "service/ward-pneumoserve-store 8333" in notes
    assert "ward-pneumoserve-archive-signing" in notes
