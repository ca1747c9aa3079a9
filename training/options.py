"""Options of a training, which the command line and the Job word alike."""

from __future__ import annotations

from typing import Annotated

import typer

Source = Annotated[str, typer.Option(help="Where the films come from, for the record.")]
Exclude = Annotated[
    str, typer.Option(help="File of patients to leave out, or 'none'; default: those of the test sample.")
]
Steps = Annotated[int, typer.Option(help="Batches to learn from.")]
Audit = Annotated[bool, typer.Option(help="Measure shifts, shortcuts and the gate.")]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="CPU threads; part of what makes a run repeatable.")]
