"""What records offers costs nothing before it is asked for."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_line_does_not_wait_for_the_archives_code() -> None:
    heavy = ("pneumoserve.ledger", "pneumoserve.store", "duckdb", "kserve", "torch")
    code = f"import sys, pneumoserve.cli; print([each for each in {heavy} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
