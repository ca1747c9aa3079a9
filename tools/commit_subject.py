"""The commit-msg hook: refuse a commit whose subject is empty or longer than 72 characters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

LONGEST: Final = 72


def find_fault(message: str) -> str | None:
    """What to change in a commit's message, or None where it is fine."""
    subject, _, rest = message.partition("\n")
    if not subject.strip() or subject.startswith("#"):
        return "Say in the first line what the commit does."
    if len(subject) > LONGEST:
        return f"The first line has {len(subject)} characters; say it in {LONGEST}, and the why below."
    if rest.split("\n", 1)[0].strip(" ") and not rest.startswith("#"):
        return "Leave the second line empty; the why comes after it."
    return None


def main() -> int:
    """Check the file that git names; returns the exit code."""
    fault = find_fault(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if fault:
        print(fault, file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
