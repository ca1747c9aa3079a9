"""`archive export`: the records as Parquet."""
# ruff: noqa: PLC0415

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pneumoserve.cli.app import DEFAULT_STATE, StateFolder, archive
from pneumoserve.cli.output import AsJson, Failure, console, errors, print_json, told

if TYPE_CHECKING:
    from pneumoserve.archive.export import Report


@archive.command("export", epilog="Example: pneumoserve archive export --to s3://pneumoserve/exports")
def export_archive(
    to: Annotated[str, typer.Option(help="Folder, or s3://bucket/prefix in the same store.")],
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day to export, in UTC; default: all.")
    ] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Write what is new as Parquet, by date and release; 1 if a segment could not be read."""
    from pneumoserve.archive.export import ExportError, export, target_of
    from pneumoserve.archive.store import ObjectStore
    from pneumoserve.cli.stores import settings_of

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # Where nobody watches, in a CronJob for one, it would only leave empty lines.
    shown = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    with told(), settings_of(state) as settings, shown as progress:
        task = progress.add_task("exporting", total=None)

        def tell(report: Report) -> None:
            progress.update(task, description=f"exporting: {_said(report)}")

        store = ObjectStore(settings)
        try:
            with target_of(to, settings) as target:
                report = export(store, target, None if since is None else since.date(), tell)
        except ExportError as error:
            raise Failure(str(error), 1) from error
        except ModuleNotFoundError as error:
            raise Failure(f"This command needs {error.name}; install pneumoserve[archive].", 2) from None
        finally:
            store.close()
    if as_json:
        print_json(asdict(report))
    else:
        console.print(f"{_said(report)}; the export is in {to}")
    if report.unreadable:
        raise Failure(
            f"{len(report.unreadable)} segments could not be read and were left out; `pneumoserve archive verify` says "
            f"what is wrong with them: {', '.join(report.unreadable)}",
            1,
        )


def _said(report: Report) -> str:
    return f"{report.predictions} records and {report.labels} labels in {report.files} new files"
