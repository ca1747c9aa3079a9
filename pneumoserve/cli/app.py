"""The program and its groups of commands. Each noun has a file of its own, which adds its commands here."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import pneumoserve

# What --help shows, by what somebody comes to do, in the order in which most people meet it.
PANELS: Final = {
    "Try and serve": ("serve", "predict", "intake"),
    "Audit": ("archive", "lineage", "evidence"),
    "Read and label": ("console", "alerts", "queue", "label", "sample", "review"),
    "Measure": ("metrics", "drift"),
    "Train and approve": ("ingest", "train", "evaluate", "recalibrate", "package", "release", "accept", "approve"),
    "Roll out": ("rollout",),
}


class _Program(TyperGroup):
    """Shows its commands in panels."""

    def list_commands(self, _ctx: Any) -> list[str]:
        return [name for names in PANELS.values() for name in names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None:
            command.rich_help_panel = next(panel for panel, names in PANELS.items() if cmd_name in names)
        return command


app = typer.Typer(
    name="pneumoserve",
    help="Serve chest X-ray models with every answer on record. Not cleared for clinical use.",
    cls=_Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
releases = typer.Typer(help="Signed, immutable folders of both models and their policy.", no_args_is_help=True)
archive = typer.Typer(help="The records of every call.", no_args_is_help=True)
reviews = typer.Typer(help="What people read and decide.", no_args_is_help=True)
app.add_typer(releases, name="release")
app.add_typer(archive, name="archive")
app.add_typer(reviews, name="review")
alerts = typer.Typer(help="Who is told of a study, and who answered.", no_args_is_help=True)
app.add_typer(alerts, name="alerts")
intake = typer.Typer(help="X-rays that come by DICOM, and results that go back by it.", no_args_is_help=True)
app.add_typer(intake, name="intake")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pneumoserve {pneumoserve.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...
