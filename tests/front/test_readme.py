"""The README's calls, as they are typed there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Stack

ROOT = Path(__file__).parents[2]
CALLS = re.findall(r"```sh\n(curl .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_there_is_one_call_for_v1_v2_and_dicom() -> None:
    assert len(CALLS) == 3


@pytest.mark.parametrize("call", CALLS)
def test_calls_of_the_readme(call: str, stack: Stack) -> None:
    typed = call.replace("http://127.0.0.1:8080", stack.url)
    done = subprocess.run(["bash", "-c", typed], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prediction_id" in done.stdout
