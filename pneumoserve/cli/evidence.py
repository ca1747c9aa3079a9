"""`evidence`: one signed file of what a site does with releases, and the check of one."""
# ruff: noqa: PLC0415

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pneumoserve.cli.app import app
from pneumoserve.cli.options import (
    DEFAULT_STATE,
    SEALERS,
    WRITERS,
    ArchiveTrust,
    Database,
    SealerTrust,
    StateFolder,
    Trust,
)
from pneumoserve.cli.output import AsJson, Failure, console, print_json, show_progress

if TYPE_CHECKING:
    from pneumoserve.evidence import Period

evidence = typer.Typer(invoke_without_command=True)
app.add_typer(evidence, name="evidence")
_DAY: Final = "%Y-%m-%d"


@evidence.callback(epilog="Example: pneumoserve evidence --out evidence.zip --since 2026-11-01 --until 2026-11-30")
def collect(  # noqa: PLR0913, PLR0917 - each is an option of the command
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.zip", help="The file to write; in a folder it is named by its last day."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=[_DAY], help="First day (UTC); default: the archive's.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=[_DAY], help="Last day (UTC); default: today.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="Private key (PEM) to sign with, as a release is; default: the state's.")
    ] = None,
    trust: Trust = None,
    time_stamp_trust: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of certificates of authorities whose time stamps count.")
    ] = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Collect what is on record into one signed file: releases, owners, approvals, figures, incidents, access, faults.

    The archive is verified whole for it. Exit code 1: the file is written, and says that the archive has faults.
    """
    if context.invoked_subcommand is not None:
        return
    if out is None:
        raise Failure("Say with --out which file to write, such as evidence.zip.", 2)
    import pneumoserve
    from pneumoserve.canonical import digest_of
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.evidence import Trusts, build_files, collect_evidence, pack
    from pneumoserve.ledger import load_authorities
    from pneumoserve.local.state import State
    from pneumoserve.signing import load_key, load_trust

    period, where = _period_of(since, until), State(state)
    if out.is_dir():
        out /= f"evidence-{period.until}.zip"
    authorities = [] if time_stamp_trust is None else load_authorities(time_stamp_trust)
    with review_of(state, database, archive_trust, sealer_trust) as review:
        signing = where.signing_key if key is None else load_key(key)
        trusts = Trusts(
            load_trust(trust or where.trust),
            load_trust(archive_trust or where.archive_trust, WRITERS),
            load_trust(sealer_trust or where.sealer_trust, SEALERS),
        )
        with show_progress() as progress:
            found = collect_evidence(
                review.reader, review.database, where.releases, trusts, period, authorities, progress
            )
    files = build_files(found, pneumoserve.__version__)
    packed = pack(files, period, pneumoserve.__version__, signing)
    out.write_bytes(packed)
    faults = len(found.verification.findings)
    if as_json:
        print_json({"file": str(out), "sha256": digest_of(packed), "files": sorted(files), "faults": faults})
    else:
        console.print(f"evidence of {period.words} is in {out}: {len(files)} files", soft_wrap=True)
        console.print(f"its SHA-256 is {digest_of(packed)}", soft_wrap=True)
    if faults:
        raise Failure(
            "The evidence is written. It says how many objects of the archive are not as they were written: "
            f"{faults}; see `pneumoserve archive verify`.",
            1,
        )


def _period_of(since: datetime | None, until: datetime | None) -> Period:
    from datetime import UTC

    from pneumoserve.evidence import Period

    today = datetime.now(UTC).date()
    first, last = since.date() if since else None, until.date() if until else today
    if last > today:
        raise Failure("--until is a day to come; give today or an earlier one.", 2)
    if first is not None and first > last:
        raise Failure("--since is a day after --until; exchange them.", 2)
    return Period(first, last)


@evidence.command(epilog="Example: pneumoserve evidence verify evidence.zip --trust trust")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="What `pneumoserve evidence` made.")],
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """See that a file of evidence is as a trusted key signed it: nothing altered, added or left out; 1 if it is not."""
    from pneumoserve.evidence import check_package
    from pneumoserve.local.state import State
    from pneumoserve.signing import load_trust

    checked = check_package(file.read_bytes(), load_trust(trust or State(state).trust))
    manifest = checked.manifest
    if as_json:
        document = manifest.model_dump(mode="json", by_alias=True)
        print_json({**document, "sha256": checked.digest, "signers": checked.signers})
        return
    console.print(
        f"{file.name} is as {' and '.join(checked.signers)} signed it: {len(manifest.files)} files, of "
        f"{manifest.since or 'the beginning'} to {manifest.until}, made by pneumoserve {manifest.software}",
        soft_wrap=True,
    )


@evidence.command(epilog="Example: pneumoserve evidence site site.yaml --release 919e240e759e --by lead-2")
def site(
    file: Annotated[Path, typer.Argument(help="What the site uses the release for, and who answers for it: YAML.")],
    release: Annotated[str, typer.Option(metavar="ID", help="The release that it is said of.")],
    by: Annotated[str, typer.Option(help="Your staff id.")],
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign with; default: the state's.")] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Put on record what a release is used for here, on whom, and which clinician answers for it."""
    from datetime import UTC

    from pneumoserve.cli.stores import signing_key_of, store_of
    from pneumoserve.evidence import load_site_use
    from pneumoserve.local.state import State
    from pneumoserve.records import SITE_WRITERS, append
    from pneumoserve.release.fetch import find_policy

    stated = load_site_use(file, release, by, datetime.now(UTC))
    with store_of(state) as store:
        if find_policy(release, State(state).releases, store) is None:
            raise Failure(
                f"There is no release {release} here, nor in the store; give --release as an answer has it.", 2
            )
        append(store, signing_key_of(state, key), [stated], SITE_WRITERS)
    if as_json:
        print_json(stated.model_dump(mode="json", by_alias=True))
    else:
        console.print(
            f"{stated.owner}, {stated.role}, answers for release {release} at {stated.site}; it is on record",
            soft_wrap=True,
        )
