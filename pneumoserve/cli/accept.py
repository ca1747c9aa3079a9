"""`accept` and `approve`: does a release do at a site what was asked of it, and who says so."""
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pneumoserve.cli.app import app
from pneumoserve.cli.labels import DATASET_HELP, AnsweredBy, Since, Site, collect, scope_of, show_collected
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder, Trust
from pneumoserve.cli.output import AsJson, Failure, console, errors, needs, print_json, show_progress

if TYPE_CHECKING:
    from pneumoserve.cli.reviews import Review
    from pneumoserve.monitoring.acceptance import JudgedFilm, Run, Weighting
    from pneumoserve.monitoring.plan import AcceptancePlan
    from pneumoserve.records import Scope
    from pneumoserve.release import Release


@app.command(epilog="Example: pneumoserve accept --release 919e240e759e --dataset films/ --plan acceptance.yaml")
def accept(  # noqa: PLR0913, PLR0917 - each is an option of the command
    release: Annotated[str, typer.Option(help="Id or folder of the release.")],
    dataset: Annotated[str, typer.Option(help=DATASET_HELP)],
    plan: Annotated[Path, typer.Option(help="The plan: a YAML file, fixed beforehand.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: acceptances/ID of this run.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Private key (PEM) to sign the record with; default: the state's.")
    ] = None,
    answered_by: AnsweredBy = None,
    since: Since = None,
    site: Site = None,
    database: Database = None,
    trust: Trust = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Judge a site's labelled films in shadow, by a plan: accepted, refused, or how many more films it takes.

    Every run is on record. Exit code 0: accepted; 1: refused or insufficient.
    """
    from pneumoserve.cli.release import find_folder
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.cli.stores import reader_of, signing_key_of, store_of
    from pneumoserve.local.state import State
    from pneumoserve.release import verify
    from pneumoserve.release.verify import stated_id

    with needs("This command needs {}; install pneumoserve[local]."):
        from pneumoserve.monitoring.acceptance import count_known_patients, read_runs, run_look
        from pneumoserve.monitoring.plan import load_acceptance_plan
    from pneumoserve.records import ACCEPTANCE_WRITERS, append

    wanted, scope = load_acceptance_plan(plan), scope_of(dataset, answered_by, since, site)
    wanted.check_drawn(of_archive=scope is not None)
    if not as_json:
        _show_plan(wanted)
    folder = find_folder(release, state)
    verified = verify(folder, trust or State(state).trust, stated_id(folder))
    weighting = None
    if scope is None:
        films = _judge_dataset(verified, dataset, state)
    else:
        with review_of(state, database, archive_trust, sealer_trust) as review:
            films, weighting = _judge_labels(verified, review, scope, as_json)
    same = count_known_patients(verified, [film.item for film in films])
    with store_of(state) as store:
        earlier = read_runs(reader_of(store, state, archive_trust, sealer_trust), wanted, verified.id)
        done = run_look(verified, wanted, films, earlier, same, weighting)
        append(store, signing_key_of(state, key), [done.entry], ACCEPTANCE_WRITERS)
    written = _write(out or Path("acceptances", done.entry.acceptance_id), done)
    if as_json:
        print_json({**done.document, "report": str(written)})
    else:
        _show(done, written)
    if done.entry.outcome != "accepted":
        raise Failure(f"The release is not accepted: {done.entry.outcome}.", 1)


def _judge_dataset(release: Release, dataset: str, state: Path) -> list[JudgedFilm]:
    from pneumoserve.cli.stores import environment_of
    from pneumoserve.monitoring.acceptance import judge_films
    from training.source import open_dataset

    with environment_of(state, dataset.startswith("s3://")):
        labelled, read = open_dataset(dataset)
        with show_progress(films=len(labelled.items)) as progress:
            return judge_films(release, labelled.items, read, lambda: progress("films", 1))


def _judge_labels(release: Release, review: Review, scope: Scope, as_json: bool) -> tuple[list[JudgedFilm], Weighting]:
    from pneumoserve.canonical import digest_of
    from pneumoserve.monitoring.acceptance import Weighting, judge_archive
    from pneumoserve.records import find_records

    collected = collect(review, scope)
    if not as_json:
        show_collected(collected)
    labels = collected.labels
    records = find_records(review.reader, [item.prediction_id for item in labels.items])
    with show_progress(films=len(labels.items)) as progress:
        films = judge_archive(release, review.store, labels.items, records, lambda: progress("films", 1))
    return films, Weighting(digest_of(labels.document), labels.largest, collected.facts)


@app.command(epilog="Example: pneumoserve approve 019ad3c2-7c1e-7000-8000-000000000000 --key approver.pem")
def approve(
    acceptance: Annotated[str, typer.Argument(help="Id of an acceptance on record, which was accepted.")],
    key: Annotated[Path, typer.Option(help="Your own private key (PEM), whose public half is trusted for releases.")],
    trust: Trust = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Approve an accepted release by your signature; it takes two people, each with a key of their own."""
    from datetime import UTC, datetime

    from pneumoserve.canonical import canonical_json
    from pneumoserve.cli.stores import reader_of, signing_key_of, store_of
    from pneumoserve.ids import time_text
    from pneumoserve.local.state import State
    from pneumoserve.records import (
        ACCEPTANCE_WRITERS,
        APPROVERS,
        AcceptanceApproval,
        append,
        approvers_of,
        find_acceptance,
    )
    from pneumoserve.signing import add_signature, load_key, load_trust

    signing, trusted = load_key(key), load_trust(trust or State(state).trust)
    with store_of(state) as store:
        found, approvals = find_acceptance(reader_of(store, state, archive_trust, sealer_trust), acceptance)
        if found.outcome != "accepted":
            raise Failure(f"This run was not accepted but {found.outcome}; only an accepted one is approved.", 2)
        before = approvers_of(found, approvals, trusted)
        mine = AcceptanceApproval(
            time=time_text(datetime.now(UTC)),
            release=found.release,
            acceptance_id=found.acceptance_id,
            signature=add_signature(canonical_json(found), signing).decode(),
        )
        now = approvers_of(found, [*approvals, mine], trusted)
        if now == before:
            raise Failure(
                "Your key approved this before, or is not trusted here; `pneumoserve release trust` trusts its public "
                "half.",
                2,
            )
        append(store, signing_key_of(state, None), [mine], ACCEPTANCE_WRITERS)
    if as_json:
        print_json({"acceptance_id": acceptance, "release": found.release, "approvers": now, "needed": APPROVERS})
        return
    missing = APPROVERS - len(now)
    rest = "that is enough" if missing <= 0 else f"{missing} more must approve"
    console.print(f"the acceptance of release {found.release} is approved by {' and '.join(now)}; {rest}")


def _show_plan(plan: AcceptancePlan) -> None:
    table = Table(
        "figure", "limit", "believed true", f"power with {plan.sick_patients} sick, {plan.well_patients} well"
    )
    for name, power in plan.power().items():
        table.add_row(name, f"{plan.criteria.named[name]:g}", f"{plan.expected.named[name]:g}", f"{power:.2f}")
    console.print(table)


def _show(done: Run, written: Path) -> None:
    entry = done.entry
    if entry.criteria:
        table = Table("figure", "limit", "found", "bound by patient", "patients", "shown")
        for each in entry.criteria:
            cells: tuple[Any, ...] = (each.limit, each.rate, each.bound, each.patients, "yes" if each.shown else "no")
            table.add_row(each.figure, *map(str, cells))
        console.print(table)
    same = done.document["same_patient_numbers"]
    if same:
        errors.print(
            f"{same} patients have a number that a patient of the training has too. If they are the same people, these "
            "figures are too good.",
            soft_wrap=True,
        )
    look = f"look {entry.look} of {done.document['plan']['looks']}" if entry.look else "no look was spent"
    console.print(
        f"{entry.outcome} ({look}); acceptance {entry.acceptance_id}; the report is in {written}", soft_wrap=True
    )
    if entry.outcome == "accepted":
        console.print("two people approve it: `pneumoserve approve ID --key FILE`")
    elif entry.outcome == "insufficient":
        console.print(
            f"it takes {entry.missing_sick} more patients with pneumonia and {entry.missing_well} more without",
            soft_wrap=True,
        )
        if "archive" in done.document:
            kinds = (done.document["archive"][f"effective_{kind}"] for kind in ("sick", "well"))
            console.print(
                "by their weights, those there are count for {} with pneumonia and {} without".format(*kinds),
                soft_wrap=True,
            )


def _write(folder: Path, done: Run) -> Path:
    from pneumoserve.canonical import canonical_json
    from pneumoserve.monitoring.acceptance_page import render_page

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "acceptance.json").write_bytes(canonical_json(done.document))
    (folder / "report.html").write_text(render_page(done.document), encoding="utf-8")
    return folder
