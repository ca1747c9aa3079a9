"""The command line, `pneumoserve`. Exit codes: 0 done, 1 a check failed, 2 used wrongly."""

from __future__ import annotations

import sys

from pneumoserve.cli.app import app
from pneumoserve.cli.output import print_error
from pneumoserve.errors import exit_code_of

# isort: off
# They add their commands, those of one noun in the order in which its --help shows them.
from pneumoserve.cli import archive_list, archive_show, archive, archive_replay, archive_export  # noqa: F401
from pneumoserve.cli import serve, predict, intake, label, queue, console, sample, review, alerts, lineage  # noqa: F401
from pneumoserve.cli import metrics, drift, evidence, train, release, release_stop, accept, rollout  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    try:
        app()
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        print_error(error)
        sys.exit(code)
