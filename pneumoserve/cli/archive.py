"""`pneumoserve archive …`: set the bucket up, seal and verify all of it, check receipts."""
# ruff: noqa: PLC0415

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from pneumoserve.cli.app import archive
from pneumoserve.cli.options import DEFAULT_STATE, SEALERS, WRITERS, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, confirm, console, mark, print_json, show_progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pneumoserve.ledger import Expiry, SealReport, SealSettings, VerificationReport
    from pneumoserve.store import Store

WriterTrust = Annotated[
    Path | None, typer.Option("--trust", help="Folder of the writers' public keys; default: the state's.")
]


_FOR_EVER: Final = 0


def _parse_days(text: str) -> int:
    if text == "none":
        return _FOR_EVER
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise typer.BadParameter("give a number of days, 1 or more, or none to keep them for ever")
    return int(text)


def _expire(what: str) -> Any:
    return typer.Option(parser=_parse_days, metavar="DAYS|none", help=f"Days to keep {what}; none: for ever.")


@archive.command(epilog="Example: pneumoserve archive setup --expire-raw-days 90 --expire-images-days none")
def setup(
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a store that does not answer yet.")] = 0.0,
    expire_raw_days: Annotated[int | None, _expire("segments for, then only roll-ups")] = None,
    expire_images_days: Annotated[int | None, _expire("images for, then there is no replay")] = None,
    expire_rollups_days: Annotated[int | None, _expire("sealed roll-ups for, and with them the records")] = None,
    expire_answers_days: Annotated[int | None, _expire("first answers for, then a repeated call is a new one")] = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Show how the bucket is set up, once it takes and gives objects; 1 if it does not. Makes it where there is none.

    What no --expire-… option names stays as it is.
    """
    from pneumoserve.cli.stores import store_of
    from pneumoserve.ledger import Expiry, set_up

    prefixes = _prefixes()
    asked = {
        "raw": expire_raw_days,
        "images": expire_images_days,
        "rollups": expire_rollups_days,
        "answers": expire_answers_days,
    }
    expiries = [Expiry(name, prefixes[name], days or None) for name, days in asked.items() if days is not None]
    with store_of(state) as store:
        set_up(store, timeout, console.print)
        console.print(f"the bucket {store.bucket} is there, and takes and gives objects")
        console.print(_describe_bucket(store))
        console.print(_set_expiry(store, expiries), soft_wrap=True)


def _prefixes() -> dict[str, str]:
    """What an --expire-…-days option is about, by its name."""
    from pneumoserve.ledger import RECORDS, ROLLUPS
    from pneumoserve.names import FIRST_ANSWERS
    from pneumoserve.records import IMAGES

    return {"raw": RECORDS, "images": IMAGES, "rollups": ROLLUPS, "answers": FIRST_ANSWERS}


def _describe_bucket(store: Store) -> str:
    from pneumoserve.store import StoreError

    try:
        versions = "kept" if store.has_versions() else "not kept"
        locks = "possible" if store.has_lock() else "not possible, the bucket was made without object lock"
    except StoreError:
        return "whether it keeps versions and takes locks cannot be read with these keys"
    return f"earlier versions of objects: {versions}; locks: {locks}"


def _set_expiry(store: Store, expiries: Sequence[Expiry]) -> str:
    """Set what is asked for, and say what is set then."""
    from pneumoserve.ledger import list_expiries, set_expiry
    from pneumoserve.store import StoreError

    try:
        changed = set_expiry(store, expiries)
        found = list_expiries(store)
    except StoreError:
        if any(expiry.days for expiry in expiries):
            raise
        # Who may write records need not have the right to see the rules; then no rule is of this command's making.
        return "its lifecycle rules cannot be read with these keys, and stay as they are"
    kept = ", ".join(_describe_expiry(expiry) for expiry in found) or "nothing"
    return f"what expires: {kept}{' (as before)' if expiries and not changed else ''}"


def _describe_expiry(expiry: Expiry) -> str:
    ours = (expiry.name, expiry.prefix) in _prefixes().items()
    return f"{expiry.prefix or 'everything'} after {expiry.days} days{'' if ours else f' (rule {expiry.name})'}"


@archive.command(epilog="Example: pneumoserve archive seal --lock-days 3650 --yes")
def seal(  # noqa: PLR0913, PLR0917 - each is an option of the command
    key: Annotated[Path | None, typer.Option(help="The sealer's private key (PEM); default: the state's.")] = None,
    trust: WriterTrust = None,
    sealer_trust: SealerTrust = None,
    lock_days: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Days to lock seals, roll-ups and images for; 0: none. Default: none in the state's own store; in "
            "that of S3_ENDPOINT ten years, where the bucket has locks.",
        ),
    ] = None,
    lock_mode: Annotated[
        Literal["GOVERNANCE", "COMPLIANCE"], typer.Option(help="COMPLIANCE locks cannot be lifted by anybody.")
    ] = "GOVERNANCE",
    segment_days: Annotated[
        int, typer.Option(min=0, help="Days that segments stay beside their roll-ups; gone earlier is a finding.")
    ] = 7,
    abandoned_days: Annotated[int, typer.Option(min=1, help="Silent days after which a writer is closed.")] = 7,
    time_stamps: Annotated[
        str | None, typer.Option(metavar="URL", help="A time-stamping authority (RFC 3161) that stamps each seal.")
    ] = None,
    copy_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder, not the store's, that gets a copy of each seal.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Lock without a question, which only a terminal is asked.")
    ] = False,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Verify what is new, keep it in roll-ups, and sign how far each writer had come; 1 if something new is bad.

    Before it locks anything it says what, and until when.
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from pneumoserve.cli.stores import store_of
    from pneumoserve.ledger import SealSettings
    from pneumoserve.ledger import seal as run
    from pneumoserve.local.state import State
    from pneumoserve.records import open_ledger
    from pneumoserve.signing import load_key, load_trust

    where = State(state)
    with store_of(state) as store:
        signing = load_key(key) if key else where.sealer_key
        writers = load_trust(trust or where.archive_trust, WRITERS)
        sealers = load_trust(sealer_trust or where.sealer_trust, SEALERS)
        now, days = datetime.now(UTC), _default_lock_days(store) if lock_days is None else lock_days
        settings = SealSettings(days, lock_mode, segment_days, abandoned_days, time_stamps, copy_to)
        if days and not confirm(_describe_lock(settings, now), yes):
            raise Failure("Nothing was sealed. To seal without a lock, give --lock-days 0.", 1)
        report = run(open_ledger(store, writers, sealers), signing, now, settings)
    if as_json:
        print_json(asdict(report))
    else:
        _show_report(report)
    if report.problems:
        raise typer.Exit(1)


def _default_lock_days(store: Store) -> int:
    """None where somebody tries it on a machine of their own; in a store that was named, as long as the law may ask."""
    from pneumoserve.cli.stores import is_own_store
    from pneumoserve.ledger import DEFAULT_LOCK_DAYS

    return 0 if is_own_store() or not store.has_lock() else DEFAULT_LOCK_DAYS


def _describe_lock(settings: SealSettings, now: datetime) -> str:
    until = now + timedelta(days=settings.lock_days)
    who = "nobody" if settings.lock_mode == "COMPLIANCE" else "nobody without the right to bypass locks"
    return (
        f"The seal, its roll-ups and the images of their records are locked until {until:%Y-%m-%d} "
        f"({settings.lock_days} days, {settings.lock_mode}): {who} can remove them or shorten the lock before then. "
        "This cannot be undone."
    )


def _show_report(report: SealReport) -> None:
    if report.number is None:
        console.print("nothing is new; no seal was made")
    else:
        console.print(
            f"seal {report.number}: segments {report.segments}, records {report.records}; "
            f"writers closed {len(report.closed)}, open {report.open}"
        )
        console.print(f"it is {report.number}:{report.hash}; keep that outside of the store", soft_wrap=True)
        if report.lock_days:
            console.print(f"it, its roll-ups and their images are locked for {report.lock_days} days")
        else:
            reason = "no --lock-days asked for it" if report.bucket_has_lock else "the bucket has no object lock"
            console.print(f"nothing is locked: {reason}")
    _show_notes(report.acknowledged, report.late)
    for key, sentence in report.problems.items():
        console.print(mark("not as it should be:", "red", f" {key}: {sentence}"), soft_wrap=True)


def _show_notes(acknowledged: dict[str, str], late: dict[str, str]) -> None:
    for key, reason in acknowledged.items():
        console.print(mark("acknowledged:", "yellow", f" {key}: {reason}"), soft_wrap=True)
    for writer, sentence in late.items():
        console.print(mark("late writer", "yellow", f" {writer}: {sentence}"), soft_wrap=True)


@archive.command(epilog="Example: pneumoserve archive verify --trust writers/ --sealer-trust sealers/ --json")
def verify(
    trust: WriterTrust = None,
    sealer_trust: SealerTrust = None,
    last_seal: Annotated[
        list[str] | None,
        typer.Option(metavar="N:HASH", help="A seal that you kept elsewhere; that it is gone is a finding. Repeat."),
    ] = None,
    copies: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of `archive seal --copy-to`: each must be there.")
    ] = None,
    time_stamp_trust: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of certificates of authorities whose time stamps count.")
    ] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Walk the whole archive; 1 if anything is not as it was written. Reads S3_* settings, else the state's store."""
    from dataclasses import asdict
    from datetime import UTC, datetime

    from pneumoserve.cli.stores import store_of
    from pneumoserve.ledger import load_authorities, read_copied_seals
    from pneumoserve.ledger import verify as run
    from pneumoserve.local.state import State
    from pneumoserve.records import open_ledger
    from pneumoserve.signing import load_trust

    where = State(state)
    kept = tuple(_parse_seal(each) for each in last_seal or [])
    kept += () if copies is None else read_copied_seals(copies)
    authorities = [] if time_stamp_trust is None else load_authorities(time_stamp_trust)
    with store_of(state) as store:
        writers = load_trust(trust or where.archive_trust, WRITERS)
        sealers = load_trust(sealer_trust or where.sealer_trust, SEALERS)
        with show_progress() as progress:
            report = run(open_ledger(store, writers, sealers), datetime.now(UTC), progress, kept, authorities)
    if as_json:
        print_json(asdict(report))
    else:
        _show_verification(report)
    if report.findings:
        raise typer.Exit(1)


def _parse_seal(text: str) -> tuple[int, str]:
    """The number and SHA-256 of a seal, as `archive seal` and `archive verify` print them."""
    match = re.fullmatch(r"([1-9]\d{0,7}):([0-9a-f]{64})", text)
    if match is None:
        raise Failure("--last-seal is N:HASH, a seal's number and SHA-256, as `archive verify` prints them.", 2)
    return int(match[1]), match[2]


@archive.command(epilog="Example: pneumoserve archive acknowledge records/x --reason 'a test of ours, ticket 17'")
def acknowledge(
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY…", help="Keys of findings, as `archive verify` names them.")
    ],
    reason: Annotated[str, typer.Option(help="What was found out, and by whom. No word about a patient.")],
    key: Annotated[Path | None, typer.Option(help="A sealer's private key (PEM); default: the state's.")] = None,
    trust: WriterTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Sign that findings are known: `archive verify` lists them and passes, until something else is written there."""
    from datetime import UTC, datetime

    from pneumoserve.cli.stores import store_of
    from pneumoserve.ledger import acknowledge as run
    from pneumoserve.ledger import key_id_of, verify
    from pneumoserve.local.state import State
    from pneumoserve.records import open_ledger
    from pneumoserve.signing import load_key, load_trust

    where = State(state)
    with store_of(state) as store:
        signing = load_key(key) if key else where.sealer_key
        writers = load_trust(trust or where.archive_trust, WRITERS)
        sealers = load_trust(sealer_trust or where.sealer_trust, SEALERS)
        if key_id_of(signing) not in sealers.keys:
            raise Failure("This key is not among the trusted sealers, so its word would count for nothing.", 2)
        with show_progress() as progress:
            report = verify(open_ledger(store, writers, sealers), datetime.now(UTC), progress)
        found = {finding.key: finding for finding in report.findings}
        unknown = [each for each in keys if each not in found]
        if unknown:
            raise Failure(f"Nothing is found at {', '.join(unknown)}; see what `archive verify` names.", 1)
        for each in keys:
            run(store, found[each], reason, signing, datetime.now(UTC))
            console.print(f"{found[each].kind} at {each} is acknowledged", soft_wrap=True)


@archive.command("check-receipt", epilog="Example: pneumoserve archive check-receipt receipts.json --offline")
def check_receipts(
    file: Annotated[
        Path,
        typer.Argument(allow_dash=True, help="What an answer's pneumoserve-receipts says, in a file; - for stdin."),
    ],
    offline: Annotated[
        bool, typer.Option("--offline", help="Check the signatures alone, and ask no store for the records.")
    ] = False,
    trust: WriterTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """See that a trusted writer signed each receipt, and that the archive holds its record; 1 if not."""
    import sys
    from dataclasses import asdict

    from pneumoserve.cli.stores import store_of
    from pneumoserve.ledger import Reader, check_receipt, check_record, parse_receipts
    from pneumoserve.local.state import State
    from pneumoserve.signing import load_trust

    where = State(state)
    writers = load_trust(trust or where.archive_trust, WRITERS)
    receipts = parse_receipts(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes())
    if offline:
        checked = [check_receipt(each, writers) for each in receipts]
    else:
        sealers = load_trust(sealer_trust or where.sealer_trust, SEALERS)
        with store_of(state) as store:
            checked = [check_record(Reader(store, writers, sealers), each, writers) for each in receipts]
    if as_json:
        print_json([{**asdict(each), "receipt": each.receipt.model_dump()} for each in checked])
    else:
        for each in checked:
            name = f"{each.receipt.writer} {each.receipt.sequence} {each.receipt.hash[:12]}"
            if each.fault is not None:
                console.print(mark(f"{name}:", "red", f" {each.fault}"), soft_wrap=True)
            elif each.kept is None:
                console.print(f"{name}: a trusted writer signed it", soft_wrap=True)
            else:
                sealed = "sealed" if each.kept.sealed else "not sealed yet"
                console.print(f"{name}: on record in {each.kept.key}, {sealed}", soft_wrap=True)
    if any(each.fault is not None for each in checked):
        raise typer.Exit(1)


def _show_verification(report: VerificationReport) -> None:
    summary = report.summary
    for finding in report.findings:
        # In lines, not in a table: a key that is broken over two of them cannot be looked for, nor copied.
        sealed = "sealed" if finding.sealed else "not sealed"
        console.print(mark(finding.kind, "red", f" ({sealed})  {finding.key}\n    {finding.sentence}"), soft_wrap=True)
    console.print(
        f"segments {summary.segments} ({summary.sealed_segments} sealed), records {summary.records}, "
        f"writers {summary.writers}, films {summary.images} ({summary.unnamed_images} that no record names), "
        f"roll-ups {summary.rollups}, seals {summary.seals}; {summary.seconds:.1f} s"
    )
    if summary.last_seal:
        console.print(
            f"the last seal is {summary.last_seal}:{summary.last_seal_hash} of {summary.last_seal_time}; "
            "keep that outside of the store, for --last-seal",
            soft_wrap=True,
        )
    if summary.stamps:
        console.print(f"time stamps {summary.stamps}; the last one is of seal {summary.last_stamped}")
    _show_notes({known.finding.key: known.reason for known in report.acknowledged}, report.late)
    found = len(report.findings)
    console.print(f"findings {found}: it is not as it was written" if found else "it is as it was written")
