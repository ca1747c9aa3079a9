"""The command line, `pneumoserve`. Exit codes: 0 done, 1 a check failed, 2 used wrongly."""

from __future__ import annotations

import sys

from pneumoserve.cli import audit, export, labels, lineage, queue, replay, rollout  # noqa: F401 - they register their commands
from pneumoserve.cli.app import app
from pneumoserve.cli.output import Failure, fail

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    try:
        app()
    except Failure as failure:
        sys.exit(fail(failure))
