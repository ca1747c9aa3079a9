"""Entry point of the console's container."""

from __future__ import annotations

import os
import sys

from pneumoserve.console.run import run
from pneumoserve.console.settings import ConsoleSettings
from pneumoserve.errors import PneumoserveError, exit_code_of
from pneumoserve.imaging.confinement import forbid_tracing
from pneumoserve.logs import set_up_logs
from pneumoserve.store import S3Settings, S3Store
from pneumoserve.termination import explain_end


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; an error's exit code where it cannot start.

    The store and REVIEW_DATABASE come from the environment, which holds their credentials.
    """
    settings = ConsoleSettings.from_flags(arguments)
    set_up_logs()
    # The signing key and the store's credential are in this memory.
    forbid_tracing()
    try:
        run(settings, os.environ.get("REVIEW_DATABASE", ""), S3Store(S3Settings.from_env()))
    except PneumoserveError as error:
        explain_end(str(error))
        return exit_code_of(error) or 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
