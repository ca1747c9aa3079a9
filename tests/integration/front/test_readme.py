"""Calls and commands of README.md, the protocol and the tutorial, as they are typed there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Stack, start_stack
from tests.support.documents import ROOT, blocks
from tools.generate import walkthrough

TYPED = {
    page: [block.text for block in blocks((ROOT / page).read_text()) if block.language == "sh"]
    for page in ("README.md", "docs/reference/protocol.md")
}
CALLS = [
    text for page in ("README.md", "docs/reference/protocol.md") for text in TYPED[page] if text.startswith("curl ")
]


def run(typed: str, stack: Stack, folder: Path) -> subprocess.CompletedProcess[str]:
    script = typed.replace("http://127.0.0.1:8080", stack.url)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_there_is_a_call_for_each_form() -> None:
    assert len(CALLS) == 6
    assert len([text for text in TYPED["docs/reference/protocol.md"] if text in CALLS]) == 5


@pytest.mark.parametrize("call", CALLS)
def test_calls_are_answered(call: str, stack: Stack) -> None:
    done = run(call, stack, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prediction_id" in done.stdout


def test_the_protocols_program_prints_an_answer(stack: Stack) -> None:
    page = (ROOT / "docs/reference/protocol.md").read_text()
    (program,) = [block.text for block in blocks(page) if block.language == "python"]
    typed = program.replace("http://127.0.0.1:8080", stack.url)
    done = subprocess.run([sys.executable, "-c", typed], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'finding': 'pneumonia'" in done.stdout


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack whose archive the tutorial may seal."""
    running = start_stack(tmp_path / "state")
    yield running
    assert running.stop() == 0


def test_the_tutorial_works_as_it_is_typed(own_stack: Stack, tmp_path: Path) -> None:
    steps = walkthrough.play((ROOT / walkthrough.TUTORIAL).read_text(), ROOT, tmp_path, own_stack.url)
    assert len(steps) == 8
    printed = "".join(step.printed for step in steps)
    assert "no upright chest X-ray" in printed
    assert "it is as it was written" in printed
    assert "6 are its own: 6 equal bit for bit" in printed
    assert "r.17" in steps[-2].printed
    # Pages and pictures show what the present release answers; else `python -m tools.generate walkthrough`.
    for path, text in walkthrough.show(ROOT, tmp_path, steps).items():
        assert (ROOT / path).read_text() == text, path
