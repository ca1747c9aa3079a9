"""`sample`: the random check of confident answers."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, print_json

if TYPE_CHECKING:
    from pneumoserve.review import Sampled


@app.command(epilog="Example: pneumoserve sample --capacity 20")
def sample(  # noqa: PLR0913, PLR0917 - each is an option of the command
    date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day whose studies are drawn from, UTC. [yesterday]")
    ] = None,
    capacity: Annotated[
        float,
        typer.Option(min=0, help="How many studies are read on an average day; more are drawn if there are more."),
    ] = 20,
    chance_key: Annotated[
        Path | None, typer.Option(help="File of the key that draws, of 32 random bytes or more; default: the state's.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign with; default: the state's.")] = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Draw confident answers of a day to be read, and put on record with which probability. Nothing is drawn twice."""
    from datetime import UTC, timedelta

    from pneumoserve.cli.reviews import review_of
    from pneumoserve.cli.stores import signing_key_of
    from pneumoserve.local.state import State
    from pneumoserve.release.fetch import find_policy
    from pneumoserve.review import Chance, Sampler, commit_to

    day = (datetime.now(UTC) - timedelta(days=1)).date() if date is None else date.date()
    with review_of(state, database, archive_trust, sealer_trust) as review:
        own = State(state)
        sampler = Sampler(
            review.database,
            commit_to(review.store, signing_key_of(state, key)),
            Chance.read(chance_key or own.chance_key),
            lambda release: find_policy(release, own.releases, review.store),
        )
        sampled = sampler.sample(day, capacity)
    if as_json:
        print_json(
            {
                "date": day.isoformat(),
                "confident": sampled.confident,
                "drawn_before": sampled.before,
                "readings_needed": sampled.needed,
                "plans": [plan.model_dump(mode="json", by_alias=True) for plan in sampled.plans],
                "draws": [draw.model_dump(mode="json", by_alias=True) for draw in sampled.drawn],
            }
        )
    else:
        _show(day.isoformat(), sampled, capacity)
    if sampled.unknown:
        raise Failure(
            f"The policy of the release that answered {sampled.unknown} studies is not known, so that none of them was "
            "drawn; push that release to the store, and run this again.",
            1,
        )


def _show(day: str, sampled: Sampled, capacity: float) -> None:
    for plan in sampled.plans:
        console.print(f"release {plan.release} has a new plan, for studies of {plan.first_day} and later")
    console.print(
        f"{len(sampled.drawn)} of {sampled.confident} confident studies of {day} are drawn to be read, "
        f"{sampled.before} were before"
    )
    for stratum, count in sorted(Counter(draw.stratum for draw in sampled.drawn).items()):
        console.print(f"  {stratum}: {count}")
    if sampled.needed is not None:
        console.print(
            f"some {sampled.needed:,} confident normals must be read without one miss before a sensitivity of .95 is "
            f"shown; at {capacity:g} a day that takes {sampled.needed / capacity:,.0f} days",
            soft_wrap=True,
        )
