"""Commands where the review packages are missing."""

from __future__ import annotations

import subprocess
import sys

_RUN = """
import sys

sys.modules["sqlalchemy"] = None
from pneumoserve.cli import main

sys.argv = ["pneumoserve", "queue"]
main()
"""


def test_a_command_names_the_packages_that_it_needs() -> None:
    done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("pneumoserve: This command needs sqlalchemy; install pneumoserve[review].\n")
