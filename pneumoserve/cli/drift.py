"""`drift`: whether the studies of a release still look like those of its baseline."""
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, SealerTrust, StateFolder, Trust
from pneumoserve.cli.output import AsJson, Failure, console, errors, needs, print_json

if TYPE_CHECKING:
    from pneumoserve.cli.release_stop import PlanStop
    from pneumoserve.monitoring.drift_watch import SourceDrift, Window
    from pneumoserve.monitoring.stop_plan import DriftRule, StopPlan
    from pneumoserve.records import Baseline, DriftWindow

_CAUSES: Final = {
    "case_mix": "another share of sick patients explains it, such as a winter",
    "images": "another share of sick patients does not explain it: look at scanner, export and protocol",
}


@app.command(epilog="Example: pneumoserve drift --release 919e240e759e")
def drift(  # noqa: PLR0913, PLR0917 - each is an option of the command
    release: Annotated[str, typer.Option(metavar="ID", help="Release whose answers are compared.")],
    site: Annotated[str | None, typer.Option(help="Only of this verified caller.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day (UTC) that is read, baseline included.")
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make the last 1,000 studies of each source its baseline, on record.")
    ] = False,
    by: Annotated[str | None, typer.Option(help="With --renew: your staff id.")] = None,
    why: Annotated[str | None, typer.Option(help="With --renew: why, such as a new detector plate.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="The site's stop rules (YAML): which alarms stop the release by themselves.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Take the studies from this export of the archive.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign with; default: the state's.")] = None,
    trust: Trust = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Compare a release's studies with a baseline, 200 at a time, for each source. Each new window goes on record.

    With --plan, alarms can stop the release: every answer is then referred until a person resumes it.

    Exit code 1: the newest window of a source does not look like its baseline, or the plan can stop nothing more.
    """
    from datetime import UTC

    from pneumoserve.cli.release_stop import PlanStop, stopping_of
    from pneumoserve.cli.stores import reader_of, signing_key_of, store_of
    from pneumoserve.local.state import State

    with needs("This command needs {}; install pneumoserve[local]."):
        from pneumoserve.monitoring.drift_watch import (
            choose_baselines,
            find_drift,
            list_new_windows,
            open_incidents,
            read_history,
        )
        from pneumoserve.monitoring.stop_plan import load_stop_plan
    from pneumoserve.records import REVIEW_WRITERS, append, read_entries
    from pneumoserve.release.fetch import find_policy

    if renew and not (by and why):
        raise Failure("A new baseline is a person's decision; name them with --by, and the reason with --why.", 2)
    stop_plan = None if plan is None else load_stop_plan(plan)
    rule = None if stop_plan is None else stop_plan.rule_of_drift()
    role = REVIEW_WRITERS.rstrip("-")
    with store_of(state) as store:
        policy = find_policy(release, State(state).releases, store)
        if policy is None:
            raise Failure(
                f"There is no release {release} here, nor in the store; give --release as an answer has it.", 2
            )
        start = None if since is None else since.replace(tzinfo=UTC)
        reader = reader_of(store, state, archive_trust, sealer_trust)
        if export is None:
            history = read_history(read_entries(reader, start, release), release, policy, site)
        else:
            with needs("This command needs {}; install pneumoserve[archive]."):
                from pneumoserve.monitoring.exported_drift import read_exported_history

                history = read_exported_history(export, reader, release, policy, site, start)
        if renew:
            chosen = choose_baselines(history, by or "", why or "", datetime.now(UTC))
            append(store, signing_key_of(state, key), chosen, role)
            _show_baselines(chosen, as_json)
            return
        found = find_drift(history, policy.assumed_prevalence)
        made = list_new_windows(history, found, datetime.now(UTC))
        if made:
            append(store, signing_key_of(state, key), [*made, *open_incidents(history, made, datetime.now(UTC))], role)
        if stop_plan is not None and rule is not None:
            signing = signing_key_of(state, key)
            act = PlanStop(store, signing, stopping_of(state, trust, signing), release, stop_plan)
            _follow(rule, stop_plan, act, found, (*history.windows, *made))
    if as_json:
        print_json([_describe(each) for each in found])
    else:
        _show(found, release)
    if any(each.windows and each.windows[-1].comparison.alarm for each in found):
        raise Failure("The newest studies of a source do not look like its baseline.", 1)
    if stop_plan is not None and rule is not None and (spent := rule.list_spent(stop_plan.select(found))):
        names = "; ".join(_name(each.source.site, each.source.kind) for each in spent)
        raise Failure(
            f"All {rule.looks} looks of the plan are taken, so it stops nothing more for {names}; renew the baseline.",
            1,
        )


def _follow(
    rule: DriftRule, plan: StopPlan, act: PlanStop, found: Sequence[SourceDrift], windows: Sequence[DriftWindow]
) -> None:
    """Stop the release where the rule says so."""
    errors.print(
        f"the plan stops the release at {rule.windows} windows in a row; a source that does not change does that in at "
        f"most {rule.false_stops:.2g} of cases within its {rule.looks} looks",
        soft_wrap=True,
    )
    due = rule.find_stop(plan.select(found), act.resumed)
    if due is None:
        act.show_standing()
        return
    source, alarms = due
    name = _name(source.source.site, source.source.kind)
    on_record = {(each.baseline_id, each.first): each.drift_id for each in windows}
    baseline_id = "" if source.baseline is None else source.baseline.baseline_id
    why = f"{len(alarms)} windows in a row do not look like the baseline: {name}"
    act.stop(why, [on_record[baseline_id, window.first] for window in alarms])


def _show_baselines(chosen: Sequence[Baseline], as_json: bool) -> None:
    if as_json:
        print_json([baseline.model_dump(mode="json", by_alias=True) for baseline in chosen])
        return
    for each in chosen:
        console.print(
            f"{_name(each.site, each.source)}: {each.studies} studies from {each.first[:10]} to {each.last[:10]} are "
            "the baseline",
            soft_wrap=True,
        )


def _show(found: Sequence[SourceDrift], release: str) -> None:
    if not found:
        console.print(f"the archive has no answers of release {release} in that time")
    for each in found:
        name = _name(each.source.site, each.source.kind)
        if each.baseline is None:
            console.print(
                f"{name}: {each.studies} studies, and no baseline; choose one with --renew once there are 500",
                soft_wrap=True,
            )
            continue
        console.print(
            f"{name}: {len(each.windows)} windows since the baseline of {each.baseline.last[:10]}, "
            f"{len(each.alarms)} of them unlike it; {each.waiting} studies wait for the next window",
            soft_wrap=True,
        )
        for window in each.alarms:
            _show_alarm(window)


def _show_alarm(window: Window) -> None:
    result = window.comparison
    console.print(
        f"  {window.first[:10]} to {window.last[:10]}: scores p = {result.scores_p:.2g}, images p = "
        f"{result.images_p:.2g}, referrals p = {result.referrals_p:.2g}; {_CAUSES[result.cause or 'images']} (share of "
        f"sick patients {result.baseline_share:.0%} before, {result.sick_share:.0%} now, as the scores have it)",
        soft_wrap=True,
    )


def _name(site: str | None, source: str) -> str:
    return f"{site or 'callers without a name'}, {source}"


def _describe(each: SourceDrift) -> dict[str, Any]:
    return {
        "site": each.source.site or None,
        "source": each.source.kind,
        "studies": each.studies,
        "baseline": None if each.baseline is None else each.baseline.baseline_id,
        "waiting": each.waiting,
        "windows": [
            {"first": window.first, "last": window.last, "studies": window.studies, **asdict(window.comparison)}
            for window in each.windows
        ],
    }
