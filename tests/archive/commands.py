"""Running a command inside the test's process: a process of its own takes seconds to start on a busy machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typer.testing import CliRunner

from pneumoserve.cli import app
from pneumoserve.cli.output import Failure


@dataclass(frozen=True)
class Ran:
    """How a command ended; `stderr` has the sentence of a failure."""

    returncode: int
    stdout: str
    stderr: str


def invoke(words: Sequence[str], environment: Mapping[str, str]) -> Ran:
    """Run `pneumoserve WORDS…`."""
    done = CliRunner().invoke(app, list(words), env=dict(environment))
    if isinstance(done.exception, Failure):
        return Ran(done.exception.code, done.stdout, str(done.exception))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)
