"""`intake …`: what waits of what came by DICOM, what a person must look at, and whether a peer answers."""
# ruff: noqa: PLC0415

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pneumoserve.cli.app import intake
from pneumoserve.cli.options import DEFAULT_STATE, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, needs, print_json

if TYPE_CHECKING:
    from pneumoserve.intake import Batch, Spool

Study = Annotated[str, typer.Argument(help="Number of the study, as `intake list` shows it.")]
_DIGITS = 8


@intake.command(name="list", epilog="Example: pneumoserve intake list --json")
def list_(state: StateFolder = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List studies whose objects are in the spool, and objects that came again with other content."""
    with _spool_of(state) as spool:
        studies = [_describe(spool, study) for study in spool.studies()]
        refused = [{"study": study[:_DIGITS], "time": time} for study, time in spool.list_refused()]
    if as_json:
        print_json({"studies": studies, "refused": refused})
        return
    if studies:
        table = Table("study", "objects", "since", "state")
        for each in studies:
            table.add_row(each["study"], str(each["objects"]), each["since"], "\n".join(each["failed"]) or "waits")
        console.print(table)
    else:
        console.print("the spool is empty")
    for each in refused:
        console.print(f"study {each['study']}: an object came again with other content at {each['time']}")


@intake.command(epilog="Example: pneumoserve intake retry 8f14e45f")
def retry(study: Study, state: StateFolder = DEFAULT_STATE) -> None:
    """Try once more what failed of a study, after its cause is gone."""
    with _spool_of(state) as spool:
        failures = [each for each in spool.all_failures() if each.batch.study.startswith(_check_number(study))]
        if not failures:
            raise Failure("Nothing failed of such a study; `pneumoserve intake list` shows what did.", 1)
        for failure in failures:
            spool.retry(failure)
    console.print(f"study {study}: what failed is tried again")


@intake.command(epilog="Example: pneumoserve intake drop 8f14e45f")
def drop(study: Study, state: StateFolder = DEFAULT_STATE) -> None:
    """Give up what waits of a study, and erase its objects. What is on record stays there."""
    with _spool_of(state) as spool:
        batches = [
            each for whole in spool.studies() if whole.startswith(_check_number(study)) for each in _open(spool, whole)
        ]
        for batch in batches:
            spool.drop(batch, "dropped")
        refused = [whole for whole, _ in spool.list_refused() if whole.startswith(study)]
        for whole in refused:
            spool.forget_refused(whole)
    if not batches and not refused:
        raise Failure("Nothing waits of such a study; `pneumoserve intake list` shows what does.", 1)
    console.print(f"study {study}: dropped")


@intake.command(name="echo", epilog="Example: pneumoserve intake echo ORTHANC@10.0.0.7:4242")
def echo_(
    address: Annotated[str, typer.Argument(help="AE@HOST:PORT of the peer, with /tls where it takes TLS.")],
    as_: Annotated[str, typer.Option("--as", help="Our own AE title.")] = "PNEUMOSERVE",
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM of our certificate and its chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM of its private key.")] = None,
    tls_authority: Annotated[Path | None, typer.Option(help="PEM of the authority of the peer's certificate.")] = None,
) -> None:
    """Ask a DICOM peer whether it answers (C-ECHO)."""
    with needs("This command needs {}; install pneumoserve[intake]."):
        from pneumoserve.intake import Tls, echo, parse_address
    to = parse_address(address)
    echo(as_, to, Tls(tls_certificate, tls_key, tls_authority))
    console.print(f"{to} answers")


@contextlib.contextmanager
def _spool_of(state: Path) -> Iterator[Spool]:
    """The spool: the state's, or of the bucket that the S3_* variables name."""
    with needs("This command needs {}; install pneumoserve[intake]."):
        from pneumoserve.intake import Spool
    from pneumoserve.cli.stores import is_own_store, settings_of
    from pneumoserve.names import INTAKE_BUCKET
    from pneumoserve.records import Pseudonyms
    from pneumoserve.store import S3Store

    with settings_of(state) as settings:
        store = S3Store(settings.in_bucket(INTAKE_BUCKET) if is_own_store() else settings)
        with contextlib.closing(store):
            store.ensure_bucket(lockable=False)
            # Nothing is hashed here, so whoever looks needs no key of the service.
            yield Spool(store, Pseudonyms(secrets.token_bytes()))


def _describe(spool: Spool, study: str) -> dict[str, Any]:
    here = spool.objects(study)
    failed = [
        failure.reason for batch, names in spool.batches(study).items() for failure in spool.failures(batch, names)
    ]
    since = min((moment.isoformat(timespec="seconds") for moment in here.values()), default="")
    return {"study": study[:_DIGITS], "objects": len(here), "since": since, "failed": failed}


def _open(spool: Spool, study: str) -> list[Batch]:
    return [batch for batch, names in spool.batches(study).items() if "done" not in names]


def _check_number(study: str) -> str:
    if len(study) < _DIGITS:
        raise Failure("A study's number has eight hex digits; copy it from `pneumoserve intake list`.", 2)
    return study
