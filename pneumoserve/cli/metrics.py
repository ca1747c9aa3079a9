"""`metrics`: how the service does where it is used."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder, Trust
from pneumoserve.cli.output import AsJson, Failure, console, errors, needs, print_json

if TYPE_CHECKING:
    from datetime import timedelta

    from pneumoserve.cli.release_stop import PlanStop
    from pneumoserve.cli.reviews import Review
    from pneumoserve.monitoring import Counted, Figure, Metrics
    from pneumoserve.monitoring.metrics_watch import MetricsWatch
    from pneumoserve.records import MetricsLook, Scope


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
    plan: Annotated[
        Path | None, typer.Option(help="The site's stop rules (YAML): at which figures the release stops by itself.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="With --plan: private key (PEM) to sign with; default: the state's.")
    ] = None,
    database: Database = None,
    trust: Trust = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Estimate sensitivity, predictive values, misses and referrals from what people read, with 95 % intervals.

    With --plan, each look that is due goes on record, and a figure beyond its limit stops the release.

    Exit code 1: the plan stopped the release, or can stop nothing more.
    """
    from datetime import UTC, timedelta

    from pneumoserve.cli.release_stop import PlanStop, stopping_of
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.cli.stores import signing_key_of
    from pneumoserve.local.state import State
    from pneumoserve.monitoring import check_prevalence, describe_release, measure
    from pneumoserve.records import Scope
    from pneumoserve.release.fetch import find_threshold

    check_prevalence(prevalence)
    watch = None if plan is None else _watch(plan, release, export)
    now, scope, closing = datetime.now(UTC), Scope(since, release, site), timedelta(days=closed_after)
    releases = State(state).releases
    fault = None
    if export is None:
        with review_of(state, database, archive_trust, sealer_trust) as review:
            find = partial(find_threshold, releases=releases, store=review.store)
            counted = _count(review, find, now, closing, scope)
            if watch is not None:
                signing = signing_key_of(state, key)
                act = PlanStop(review.store, signing, stopping_of(state, trust, signing), watch.release, watch.plan)
                fault = _follow(watch, act, review, partial(_count, review, find, now), now)
    else:
        with needs("This command needs {}; install pneumoserve[archive]."):
            from pneumoserve.monitoring.exported import count_exported

            counted = count_exported(export, now, scope, closing, lambda name: find_threshold(name, releases, None))
    measured = [(each, measure(each.tally, prevalence)) for each in counted]
    if as_json:
        print_json([describe_release(each, found, closed_after) for each, found in measured])
    else:
        for each, found in measured:
            _show(each, found, closed_after)
    if fault is not None:
        raise Failure(fault, 1)


def _count(
    review: Review, find: Callable[[str], float | None], now: datetime, closed_after: timedelta, scope: Scope
) -> list[Counted]:
    from pneumoserve.monitoring import count_cohorts
    from pneumoserve.review import list_cohorts

    return count_cohorts(list_cohorts(review.database, now, scope, closed_after), find)


def _watch(plan: Path, release: str | None, export: Path | None) -> MetricsWatch:
    from pneumoserve.monitoring.metrics_watch import MetricsWatch
    from pneumoserve.monitoring.stop_plan import load_stop_plan

    if release is None:
        raise Failure("A plan stops one release; name it with --release.", 2)
    if export is not None:
        raise Failure("An export may lack what was read since; a plan takes the archive, so leave --export out.", 2)
    stop_plan = load_stop_plan(plan)
    return MetricsWatch(release, stop_plan, stop_plan.rule_of_metrics())


def _follow(
    watch: MetricsWatch,
    act: PlanStop,
    review: Review,
    count: Callable[[timedelta, Scope], Sequence[Counted]],
    now: datetime,
) -> str | None:
    """Take the looks that are due, on record, and stop the release where one says so; what then is to be done."""
    from datetime import timedelta

    rule = watch.rule
    before = watch.select(review.database.list_said("metrics_look"))
    of_plan = partial(count, timedelta(days=rule.closed_after))
    new = watch.take_looks(of_plan, {each.look for each in before}, act.resumed, now)
    if new:
        act.record(new)
    for each in new:
        _show_look(each, rule.looks)
    due = watch.find_stop([*before, *new], act.resumed)
    if due is not None:
        beyond = " and ".join(each.figure for each in due.passed)
        act.stop(f"look {due.look} of {rule.looks} shows {beyond} beyond the limit", [due.look_id])
        return "A figure is beyond the limit of the plan."
    act.show_standing()
    if len(before) + len(new) >= rule.looks:
        return f"All {rule.looks} looks of the plan are taken, so it stops nothing more; make a new plan."
    return None


def _show_look(look: MetricsLook, looks: int) -> None:
    from pneumoserve.monitoring import MEANINGS, describe_value

    errors.print(
        f"look {look.look} of {looks}: {look.studies:,} studies from {look.first_day} to before {look.before}, "
        f"{look.readings:,} of them read",
        soft_wrap=True,
    )
    for each in look.results:
        name, limit = MEANINGS[each.figure].name, describe_value(each.figure, each.limit)
        found = (
            "too few readings"
            if each.bound is None
            else f"{describe_value(each.figure, each.value)}, bound {describe_value(each.figure, each.bound)}"
        )
        errors.print(f"  {name}: {found}; limit {limit}{', which is passed' if each.passed else ''}", soft_wrap=True)


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
