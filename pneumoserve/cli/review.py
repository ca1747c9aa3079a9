"""`review …`: the database of what waits for people, how far readers agree, and the sets that come of it."""
# ruff: noqa: PLC0415

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.markup import escape
from rich.table import Table

from pneumoserve.cli.app import reviews
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, print_json

if TYPE_CHECKING:
    from pneumoserve.review import Estimate


@reviews.command(epilog="Example: pneumoserve review rebuild")
def rebuild(
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Make the review database anew from the archive. Studies that somebody reads at this moment stay theirs."""
    from pneumoserve.cli.reviews import review_of

    with review_of(state, database, archive_trust, sealer_trust, follow=False) as review:
        taken = review.database.rebuild(review.reader)
    console.print(f"the review database is made of {taken:,} entries of the archive")


@reviews.command(epilog="Example: pneumoserve review agreement --json")
def agreement(
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Say how far first and second readers agree, weighted by how likely each study was to be read twice."""
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.review import measure_agreement

    with review_of(state, database, archive_trust, sealer_trust) as review:
        found = measure_agreement(review.database)
    if as_json:
        print_json(asdict(found))
        return
    console.print(f"{found.studies} studies count that two people read blind, each by a known probability")
    for name in ("kappa", "positive", "negative"):
        console.print(f"  {name}{'' if name == 'kappa' else ' agreement'}: {_describe(getattr(found, name))}")
    for reason, count in found.left_out.items():
        console.print(f"  left out: {count} ({reason})")


def _describe(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not estimable"
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"


@reviews.command(epilog="Example: pneumoserve review freeze")
def freeze(
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Keep what people have read so far as an adjudicated set, by digest, which a rollout's plan can name."""
    from pneumoserve.cli.stores import reader_of, store_of
    from pneumoserve.rollout.evidence import freeze_set, set_from_labels

    with store_of(state) as store:
        found = set_from_labels(reader_of(store, state, archive_trust, sealer_trust))
        key = freeze_set(found, store)
    films = found.stored.films
    sick = sum(film.finding == "pneumonia" for film in films)
    if as_json:
        print_json({"evidence": key, "digest": found.digest, "normal": len(films) - sick, "pneumonia": sick})
    else:
        console.print(
            f"{len(films)} images, {sick} of them with pneumonia; let a plan name the set: evidence: {key}",
            soft_wrap=True,
        )


@reviews.command(epilog="Example: pneumoserve review incident 8BCD-9AEB --kind missed_pneumonia --by dr.5")
def incident(  # noqa: PLR0913, PLR0917 - each is an option of the command
    study: Annotated[str, typer.Argument(help="The study's number, or the id of it or one of its predictions.")],
    kind: Annotated[str, typer.Option(help="missed_pneumonia, false_alarm, late_alert or other.")],
    by: Annotated[str, typer.Option(help="Staff id of who reports it.")],
    comment: Annotated[str, typer.Option(help="What happened, without naming the patient.")] = "",
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key (PEM) to sign with; default: the state's.")
    ] = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Put on record that something went wrong with a study. Leads and auditors see it in the console."""
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.cli.stores import signing_key_of
    from pneumoserve.records import IncidentKind
    from pneumoserve.review import CaseBook, check_name, commit_to, study_number

    stated: IncidentKind | None = next((each for each in get_args(IncidentKind) if each == kind), None)
    if stated is None:
        raise Failure(f"--kind is one of {', '.join(get_args(IncidentKind))}.", 2)
    check_name(by)
    with review_of(state, database, archive_trust, sealer_trust) as review:
        cases = CaseBook(review.database, commit_to(review.store, signing_key_of(state, key)))
        case_id = cases.find(study)
        made = cases.report_incident(case_id, by, stated, comment)
    console.print(f"incident {made.incident_id} of study {study_number(case_id)} is on record", soft_wrap=True)


@reviews.command(epilog="Example: pneumoserve review incidents --json")
def incidents(
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List the last 200 incidents, the newest first."""
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.review import find_incidents, study_number

    with review_of(state, database, archive_trust, sealer_trust) as review:
        found = find_incidents(review.database)
    if as_json:
        print_json([each.model_dump(by_alias=True) for each in found])
    elif found:
        table = Table("when", "what", "study", "by", "comment")
        for each in found:
            study = "" if each.case_id is None else study_number(each.case_id)
            table.add_row(each.time, each.kind, study, each.by, escape(each.comment))
        console.print(table)
    else:
        console.print("none was reported")
