"""`pneumoserve console`: the reading room's pages on this machine."""
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, Database, StateFolder
from pneumoserve.cli.output import needs


@app.command(epilog="Example: pneumoserve console --port 8090")
def console(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; default: a free one.")] = 0,
    database: Database = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Show the pages on which people read studies and answer alerts, for one user of this machine, until Ctrl-C.

    Prints one line of JSON with the address when it is ready. `python -m pneumoserve.console` serves many people, who
    sign in.
    """
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.state import State

    with needs("This command needs {}; install pneumoserve[review]."):
        from pneumoserve.console import ConsoleSettings
        from pneumoserve.console.run import run

    own = State(state)
    with store_of(state) as store:
        settings = ConsoleSettings(
            port=port,
            archive_key=own.archive_key_file,
            archive_trust=own.archive_trust,
            sealer_trust=own.sealer_trust,
            chance_key=own.chance_key,
            link_keys=own.link_keys,
            envelope_key=own.opening_key,
            releases=own.releases,
            trust=own.trust,
        )
        run(settings, database or own.review_database, store)
