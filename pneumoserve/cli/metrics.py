"""`metrics`: how the service does where it is used."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, console, needs, print_json

if TYPE_CHECKING:
    from pneumoserve.monitoring import Counted, Figure, Metrics


@app.command(epilog="Example: pneumoserve metrics --prevalence 0.01 --since 2026-11-01")
def metrics(  # noqa: PLR0913, PLR0917 - each is an option of the command
    prevalence: Annotated[
        float | None, typer.Option(help="Give the figures at this prevalence too, such as 0.01.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(metavar="ID", help="Only of this release; default: of each one.")
    ] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day of answer (UTC).")] = None,
    site: Annotated[str | None, typer.Option(help="Only of this site, a verified caller.")] = None,
    closed_after: Annotated[
        int, typer.Option(min=1, help="Days after its answer until a study counts; what is said later does not.")
    ] = 14,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Count from this export of the archive, which takes no review database."),
    ] = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Estimate sensitivity, predictive values, misses and referrals from what people read, with 95 % intervals."""
    from datetime import UTC, timedelta

    from pneumoserve.cli.reviews import review_of
    from pneumoserve.local.state import State
    from pneumoserve.monitoring import check_prevalence, count_cohorts, describe_release, measure
    from pneumoserve.records import Scope
    from pneumoserve.release.fetch import find_threshold
    from pneumoserve.review import list_cohorts

    check_prevalence(prevalence)
    now, scope, closing = datetime.now(UTC), Scope(since, release, site), timedelta(days=closed_after)
    releases = State(state).releases
    if export is None:
        with review_of(state, database, archive_trust, sealer_trust) as review:
            cohorts = list_cohorts(review.database, now, scope, closing)
            counted = count_cohorts(cohorts, lambda name: find_threshold(name, releases, review.store))
    else:
        with needs("This command needs {}; install pneumoserve[archive]."):
            from pneumoserve.monitoring.exported import count_exported

            counted = count_exported(export, now, scope, closing, lambda name: find_threshold(name, releases, None))
    measured = [(each, measure(each.tally, prevalence)) for each in counted]
    if as_json:
        print_json([describe_release(each, found, closed_after) for each, found in measured])
        return
    for each, found in measured:
        _show(each, found, closed_after)


def _show(counted: Counted, found: Metrics, closed_after: int) -> None:
    from pneumoserve.monitoring import REFERENCE, describe_counts, describe_effort, describe_tested

    tally = counted.tally
    console.print(f"release {counted.release}", style="bold")
    for line in describe_counts(tally, counted.open, closed_after, counted.stopped):
        console.print(line, soft_wrap=True)
    if not tally.studies:
        return
    strata = Table(
        "answer and score band", "studies", "to be read", "read", "cannot tell", "undecided", "not blind", "unread"
    )
    for each in tally.strata:
        outcomes = (each.outcomes.get(name, 0) for name in ("read", "cannot_tell", "undecided", "not_blind", "unread"))
        strata.add_row(each.name, f"{each.studies:,}", f"{each.chosen:,}", *(f"{count:,}" for count in outcomes))
    console.print(strata)
    console.print(_figures("as observed", found.observed))
    if found.prevalence is not None:
        console.print(_figures(f"at a prevalence of {100 * found.prevalence:g} %", found.at_prevalence))
    for line in (*describe_effort(tally, counted.effort), *describe_tested(counted.tested), REFERENCE):
        console.print(line, soft_wrap=True)


def _figures(title: str, figures: Mapping[str, Figure]) -> Table:
    from pneumoserve.monitoring import describe_figures

    table = Table(
        title, "value (95 % interval)", "all unjudged sick or well", "naive", "always normal", title_justify="left"
    )
    for row in describe_figures(figures):
        table.add_row(row.name, row.shown, row.bounds, row.naive, row.always_normal)
    return table
