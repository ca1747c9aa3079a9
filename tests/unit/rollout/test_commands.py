"""The rollout's commands where they cannot run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = "import sys; sys.modules[{package!r}] = None; from pneumoserve.cli import main; main()"


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("scipy.stats", ["status"]),
        ("kubernetes", ["start", "--plan", "none.yaml"]),
    ],
)
@pytest.mark.slow
def test_without_a_package_it_says_what_to_install(package: str, words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT.format(package=package), "rollout", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"Rollouts need {package}, which is missing" in " ".join(done.stderr.split())
