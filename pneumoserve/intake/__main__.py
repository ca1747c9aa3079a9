"""`python -m pneumoserve.intake`: X-rays by DICOM, and results back."""

from __future__ import annotations

import sys

from pneumoserve.errors import PneumoserveError
from pneumoserve.intake.running import run
from pneumoserve.intake.settings import IntakeSettings


def main() -> int:
    """Run the process."""
    try:
        run(IntakeSettings.from_flags())
    except PneumoserveError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
