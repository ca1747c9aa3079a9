"""`archive export`: the records as Parquet."""
# ruff: noqa: PLC0415

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pneumoserve.cli.app import archive
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, errors, needs, print_json

if TYPE_CHECKING:
    from pneumoserve.records import ExportReport


@archive.command("export", epilog="Example: pneumoserve archive export --to s3://pneumoserve/exports")
def export_archive(
    to: Annotated[str, typer.Option(help="Folder, or s3://bucket/prefix in the same store.")],
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day to export, in UTC; default: all.")
    ] = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Write what is new as Parquet, by date and release; 1 if something was left out that no trusted key signed."""
    from pneumoserve.cli.stores import reader_of, settings_of
    from pneumoserve.records import export, open_target, parse_address
    from pneumoserve.store import S3Store

    # Before a store is started for it.
    parse_address(to)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # Where nobody watches, in a CronJob for one, it would only leave empty lines.
    shown = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    with settings_of(state) as settings, shown as progress:
        task = progress.add_task("exporting", total=None)

        def show(report: ExportReport) -> None:
            progress.update(task, description=f"exporting: {_describe(report)}")

        store = S3Store(settings)
        try:
            reader = reader_of(store, state, archive_trust, sealer_trust)
            with needs("This command needs {}; install pneumoserve[archive]."), open_target(to, settings) as target:
                report = export(reader, target, None if since is None else since.date(), show)
        finally:
            store.close()
    if as_json:
        print_json(asdict(report))
    else:
        console.print(f"{_describe(report)}; the export is in {to}")
    if report.unreadable:
        raise Failure(
            f"{len(report.unreadable)} objects could not be believed and were left out; `pneumoserve archive verify` "
            f"says what is wrong with them: {', '.join(report.unreadable)}",
            1,
        )


def _describe(report: ExportReport) -> str:
    return f"{report.predictions} records and {report.labels} labels in {report.files} new files"
