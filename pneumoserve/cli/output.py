"""How commands speak: people's text on stderr and tables, machines' JSON on stdout, errors in one sentence."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from pneumoserve.errors import PneumoserveError
from pneumoserve.progress import Progress

# Redirected output is read by people and pagers, not cut to a terminal of 80 columns. What is printed may hold
# brackets, such as pneumoserve[train], so none is taken for markup: what has a style is a `Text`.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, markup=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]


class Failure(PneumoserveError):  # noqa: N818 - an outcome that travels as an exception
    """A command that ends without success."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def print_error(error: BaseException) -> None:
    """Show people the one sentence of an error."""
    errors.print(mark("pneumoserve:", "red", f" {error}"), soft_wrap=True)


def mark(word: str, style: str, rest: str) -> Text:
    """A line whose first word has a style; brackets in it stay."""
    return Text.assemble((word, style), rest)


def confirm(sentence: str, is_given: bool) -> bool:
    """Say on stderr what will be done, and ask a person who sits there; whether to do it.

    Nobody is asked who has given leave (`is_given`), or where no terminal is: a Job was told what to do.
    """
    errors.print(sentence, soft_wrap=True)
    return is_given or not is_terminal() or typer.confirm("Go on?", err=True)


def is_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()


@contextlib.contextmanager
def needs(sentence: str) -> Iterator[None]:
    """Name the packages that a command needs where one is missing; `{}` in the sentence stands for its name.

    Raises:
        Failure: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(sentence.format(error.name), 2) from None


def needs_training() -> contextlib.AbstractContextManager[None]:
    """Name what training needs where it is missing; see `needs`."""
    return needs(
        "This command needs the training packages ({} is missing); install pneumoserve[train], in a checkout by "
        "`make .venv/.train`."
    )


@contextlib.contextmanager
def show_progress(**totals: int) -> Iterator[Progress]:
    """Show on stderr how many of what is done, where somebody watches; a total may be known for each name."""
    import threading  # noqa: PLC0415 - as below, only what shows progress needs it

    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Shown  # noqa: PLC0415

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()
    # Where nobody watches, in a CronJob for one, it would only leave empty lines.
    with Shown(*columns, console=errors, transient=True, disable=not errors.is_terminal) as shown:

        def advance(what: str, count: int) -> None:
            with lock:
                if what not in tasks:
                    tasks[what] = shown.add_task(what, total=totals.get(what))
            shown.advance(tasks[what], count)

        yield advance


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
