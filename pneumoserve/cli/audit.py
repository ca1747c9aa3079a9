"""The auditor's commands: seal the archive, and verify all of it."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pneumoserve.cli.app import DEFAULT_STATE, StateFolder, archive
from pneumoserve.cli.output import AsJson, Failure, console, errors, print_json, told

if TYPE_CHECKING:
    from pneumoserve.archive.seal import SealReport
    from pneumoserve.archive.verify import Verdict

WriterTrust = Annotated[
    Path | None, typer.Option("--trust", help="Folder of the writers' public keys; default: the state's.")
]
SealerTrust = Annotated[
    Path | None, typer.Option("--sealer-trust", help="Folder of the sealers' public keys; default: the state's.")
]


@archive.command(epilog="Example: pneumoserve archive seal --lock-days 3650")
def seal(  # noqa: PLR0913, PLR0917 - each is an option of the command
    key: Annotated[Path | None, typer.Option(help="The sealer's private key (PEM); default: the state's.")] = None,
    trust: WriterTrust = None,
    sealer_trust: SealerTrust = None,
    lock_days: Annotated[
        int | None,
        typer.Option(min=0, help="Lock of roll-ups, seals and films; default: ten years where the bucket has locks."),
    ] = None,
    lock_mode: Annotated[
        Literal["GOVERNANCE", "COMPLIANCE"], typer.Option(help="COMPLIANCE locks cannot be lifted by anybody.")
    ] = "GOVERNANCE",
    segment_days: Annotated[
        int, typer.Option(min=0, help="Days that segments stay beside their roll-ups; gone earlier is a finding.")
    ] = 7,
    abandoned_days: Annotated[int, typer.Option(min=1, help="Silent days after which a writer is closed.")] = 7,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Verify what is new, keep it in roll-ups, and sign how far each writer had come; 1 if something new is bad."""
    from dataclasses import asdict
    from datetime import UTC, datetime

    from pneumoserve.archive.seal import SealerError, SealSettings
    from pneumoserve.archive.seal import seal as run
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.state import State
    from pneumoserve.release.signing import load_key, load_trust

    where = State(state)
    settings = SealSettings(lock_days, lock_mode, segment_days, abandoned_days)
    with told(), store_of(state) as store:
        signing = load_key(key) if key else where.sealer_key
        writers, sealers = load_trust(trust or where.archive_trust), load_trust(sealer_trust or where.sealer_trust)
        try:
            report = run(store, signing, writers, sealers, datetime.now(UTC), settings)
        except SealerError as error:
            raise Failure(str(error), 1) from error
    if as_json:
        print_json(asdict(report))
    else:
        _show_report(report)
    if report.problems:
        raise typer.Exit(1)


def _show_report(report: SealReport) -> None:
    if report.number is None:
        console.print("nothing is new; no seal was made")
    else:
        console.print(
            f"seal {report.number}: segments {report.segments}, records {report.records}; "
            f"writers closed {len(report.closed)}, open {report.open}"
        )
        console.print(f"its SHA-256 is {report.hash}")
        if report.lock_days:
            console.print(f"it, its roll-ups and their films are locked for {report.lock_days} days")
        else:
            reason = "as asked" if report.bucket_has_lock else "the bucket was made without object lock"
            console.print(f"nothing is locked: {reason}")
    for key, sentence in report.problems.items():
        console.print(f"[red]not as it should be:[/red] {key}: {sentence}", soft_wrap=True)


@archive.command(epilog="Example: pneumoserve archive verify --trust writers/ --sealer-trust sealers/ --json")
def verify(
    trust: WriterTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Walk the whole archive; 1 if anything is not as it was written. Reads S3_* settings, else the state's store."""
    from dataclasses import asdict
    from datetime import UTC, datetime

    from pneumoserve.archive.verify import verify as run
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.state import State
    from pneumoserve.release.signing import load_trust

    where = State(state)
    with told(), store_of(state) as store:
        writers, sealers = load_trust(trust or where.archive_trust), load_trust(sealer_trust or where.sealer_trust)
        with _progress() as count:
            verdict = run(store, writers, sealers, datetime.now(UTC), count)
    if as_json:
        print_json(asdict(verdict))
    else:
        _show_verdict(verdict)
    if verdict.findings:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Counts on stderr of what was verified; threads may count."""
    import threading

    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:>10,.0f} {task.description}"), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()
    with Progress(*columns, console=errors, transient=True) as shown:

        def count(what: str, number: int) -> None:
            with lock:
                if what not in tasks:
                    tasks[what] = shown.add_task(what, total=None)
            shown.advance(tasks[what], number)

        yield count


def _show_verdict(verdict: Verdict) -> None:
    summary = verdict.summary
    for finding in verdict.findings:
        # In lines, not in a table: a key that is broken over two of them cannot be looked for, nor copied.
        sealed = "sealed" if finding.sealed else "not sealed"
        console.print(f"[red]{finding.kind}[/red] ({sealed})  {finding.key}\n    {finding.sentence}", soft_wrap=True)
    console.print(
        f"segments {summary.segments} ({summary.sealed_segments} sealed), records {summary.records}, "
        f"writers {summary.writers}, films {summary.images} ({summary.unnamed_images} that no record names), "
        f"roll-ups {summary.rollups}, seals {summary.seals}; {summary.seconds:.1f} s"
    )
    if summary.last_seal:
        console.print(
            f"the last seal is {summary.last_seal} of {summary.last_seal_time}, SHA-256 {summary.last_seal_hash}"
        )
    found = len(verdict.findings)
    console.print(f"findings {found}: it is not as it was written" if found else "it is as it was written")
