"""Options that several commands take, with one wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ArchiveTrust = Annotated[
    Path | None,
    typer.Option("--archive-trust", help="Folder of the archive writers' public keys; default: the state's."),
]
SealerTrust = Annotated[
    Path | None, typer.Option("--sealer-trust", help="Folder of the sealers' public keys; default: the state's.")
]
StateFolder = Annotated[Path, typer.Option("--state", help="Folder of the local stack's keys, releases and data.")]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="REVIEW_DATABASE",
        help="Review database, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; default: the state's.",
    ),
]
Trust = Annotated[Path | None, typer.Option("--trust", help="Folder of trusted public keys; default: the state's.")]
DEFAULT_STATE = Path("state")
# Whose keys a trust folder is for, as an error says it.
WRITERS = "the archive writers'"
SEALERS = "the sealers'"
