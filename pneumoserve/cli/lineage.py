"""`pneumoserve lineage`: where an answer comes from."""
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder, Trust
from pneumoserve.cli.output import AsJson, console, mark, print_json

if TYPE_CHECKING:
    from pneumoserve.lineage import Lineage


@app.command(epilog="Example: pneumoserve lineage 01890a5d-ac96-774b-bcce-b302099a8057 --svg lineage.svg")
def lineage(  # noqa: PLR0913, PLR0917 - each is an option of the command
    prediction_id: Annotated[str, typer.Argument(help="The id an answer came with.")],
    svg: Annotated[Path | None, typer.Option(help="File to draw it into.")] = None,
    images: Annotated[bool, typer.Option("--images", help="List the films it learned from, one a line.")] = False,
    trust: Trust = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Follow a prediction to its film, models, thresholds, release, signer, training and films; 1 if a step fails."""
    from pneumoserve.cli.stores import reader_of, record_of, store_of
    from pneumoserve.lineage import trace
    from pneumoserve.lineage.svg import draw
    from pneumoserve.local.state import State

    where = State(state)
    with store_of(state) as store:
        record = record_of(reader_of(store, state, archive_trust, sealer_trust), prediction_id)
        found = trace(record, store, where.releases, trust or where.trust)
    if svg is not None:
        svg.write_text(draw(found), encoding="utf-8")
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        console.print(_tree(found))
        _print_films(found, images)
    if found.faults:
        raise typer.Exit(1)


def _print_films(found: Lineage, images: bool) -> None:
    if images and found.films is not None:
        for split, digests in found.films.digests.items():
            for digest in digests:
                console.print(f"{digest} {split}", soft_wrap=True)


def _tree(found: Lineage) -> Tree:
    from pneumoserve.lineage.nodes import heading, nodes

    tree = Tree(Text(heading(found), "bold"))
    branches: dict[str, Tree] = {}
    for node in nodes(found):
        style = "red" if node.fault else ""
        branch = branches.get(node.within, tree).add(Text(node.heading, style))
        for line in node.lines:
            branch.add(Text(line))
        branches[node.name] = branch
    for text in found.warnings:
        tree.add(mark("warning:", "bold yellow", f" {text}"))
    for text in found.faults:
        tree.add(Text.assemble(("fault:", "bold red"), (f" {text}", "red")))
    return tree
