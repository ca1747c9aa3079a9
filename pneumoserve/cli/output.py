"""How commands speak: people's text on stderr and tables, machines' JSON on stdout, errors in one sentence."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

from pneumoserve.archive.store import StoreError
from pneumoserve.local.process import StackError
from pneumoserve.release import ReleaseError
from pneumoserve.release.package import PackageError
from pneumoserve.release.signing import KeyFileError

# Redirected output is read by people and pagers, not cut to a terminal of 80 columns.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]


class Failure(Exception):  # noqa: N818 - an outcome that travels as an exception
    """A command that ends without success."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def fail(failure: Failure) -> int:
    """Say why, and return the exit code."""
    errors.print(f"[red]pneumoserve:[/red] {failure}", soft_wrap=True)
    return failure.code


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn the errors that have a sentence for people into a `Failure`; the others are faults and keep their trace."""
    try:
        yield
    except (ReleaseError, PackageError, StoreError) as error:
        raise Failure(str(error), 1) from error
    except (StackError, KeyFileError, FileNotFoundError) as error:
        raise Failure(str(error), 2) from error


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
