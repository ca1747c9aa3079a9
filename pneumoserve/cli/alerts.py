"""`alerts …`: who was told of a study, who answered, and the process that tells them."""
# ruff: noqa: PLC0415

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from pneumoserve.cli.app import alerts
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, needs, print_json

if TYPE_CHECKING:
    from pneumoserve.alerts import AlertPolicy
    from pneumoserve.review import AlertFigures, OpenAlert

PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", envvar="ALERT_POLICY", help="YAML of channels and routes; default: the state's alerts.yaml, if any."
    ),
]
SigningKey = Annotated[Path | None, typer.Option("--key", help="Private key (PEM) to sign with; default: the state's.")]
_ORDERS = ("blood_test", "expert", "nothing")


@alerts.command(name="list", epilog="Example: pneumoserve alerts list --json")
def list_(
    days: Annotated[int, typer.Option(min=1, help="How many days the figures are of.")] = 30,
    answered: Annotated[bool, typer.Option("--answered", help="Show answered alerts too.")] = False,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List alerts that nobody has answered, and say how many there are for how many X-rays."""
    from datetime import UTC, datetime, timedelta

    from pneumoserve.cli.reviews import review_of
    from pneumoserve.cli.stores import signing_key_of
    from pneumoserve.review import AlertDesk, commit_to, measure_alerts

    with review_of(state, database, archive_trust, sealer_trust) as review:
        desk = AlertDesk(review.database, commit_to(review.store, signing_key_of(state, None)))
        found = desk.list_open(unanswered=not answered)
        figures = measure_alerts(review.database, datetime.now(UTC) - timedelta(days=days))
    if as_json:
        print_json({"alerts": [asdict(each) for each in found], "figures": asdict(figures)})
    else:
        _show(found, figures, days)


@alerts.command(
    epilog="Example: pneumoserve alerts ack 01890a5d-ac96-774b-bcce-b302099a8057 --by dr.5 --ordered expert"
)
def ack(  # noqa: PLR0913, PLR0917 - each is an option of the command
    alert_id: Annotated[str, typer.Argument(help="The alert's id, as `alerts list` shows it.")],
    by: Annotated[
        str | None, typer.Option(help="Staff id of who answers. Without one, an uncertain finding stays unanswered.")
    ] = None,
    ordered: Annotated[str | None, typer.Option(help=f"What was ordered: {', '.join(_ORDERS)}; needs --by.")] = None,
    key: SigningKey = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Put on record that a practitioner took note of an alert, and what they ordered."""
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.cli.stores import signing_key_of
    from pneumoserve.review import AlertDesk, commit_to

    if ordered is not None and (by is None or ordered not in _ORDERS):
        raise Failure(f"--ordered is one of {', '.join(_ORDERS)}, and needs --by.", 2)
    if by is not None and (not by.isprintable() or not 1 <= len(by) <= 255):
        raise Failure("--by is a staff id of 1 to 255 printable characters.", 2)
    with review_of(state, database, archive_trust, sealer_trust) as review:
        desk = AlertDesk(review.database, commit_to(review.store, signing_key_of(state, key)))
        if by is not None and ordered is not None:
            desk.order(alert_id, by, ordered)  # type: ignore[arg-type]  # one of _ORDERS
        else:
            desk.acknowledge(alert_id, by)
    console.print(f"alert {alert_id} is acknowledged" + ("" if by is None else f" by {by}"), markup=False)


@alerts.command(name="test", epilog="Example: pneumoserve alerts test --policy alerts.yaml mail")
def try_channels(
    channels: Annotated[list[str] | None, typer.Argument(help="Names of channels; default: all.")] = None,
    policy: PolicyFile = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Send a test message by channels of the policy. It names no study, and is not on record."""
    from datetime import UTC, datetime

    from pneumoserve.ids import time_text, uuid7

    followed = _policy(state, policy)
    from pneumoserve.alerts import ChannelError, Outgoing, send, write_test

    unknown = sorted(set(channels or ()) - set(followed.channels))
    if unknown:
        raise Failure(
            f"The policy has no channel {', '.join(unknown)}; it has {', '.join(followed.channels) or 'none'}.", 2
        )
    if not followed.channels:
        raise Failure("The policy has no channels, so alerts are only listed; add one to alerts.yaml.", 1)
    failed = []
    for name in channels or followed.channels:
        try:
            send(
                followed.channels[name], Outgoing(f"test-{uuid7()}", time_text(datetime.now(UTC)), "test", write_test())
            )
        except ChannelError as error:
            failed.append(name)
            console.print(f"{name}: {error}", markup=False)
        else:
            console.print(f"{name}: taken", markup=False)
    if failed:
        raise Failure(f"These channels took nothing: {', '.join(failed)}; correct them in the policy.", 1)


@alerts.command(name="send", epilog="Example: pneumoserve alerts send --policy alerts.yaml --hint-port 9125")
def send_(  # noqa: PLR0913, PLR0917 - each is an option of the command
    policy: PolicyFile = None,
    hint_host: Annotated[str, typer.Option(help="Address on which hints of the front are heard.")] = "127.0.0.1",
    hint_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="UDP port for hints; without one, the archive alone is followed."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of Prometheus metrics; default: none.")
    ] = None,
    link_keys: Annotated[
        Path | None, typer.Option(help="File of the keys of links, the newest first; default: the state's.")
    ] = None,
    envelope_key: Annotated[
        Path | None, typer.Option(help="Private key (PEM) that opens envelopes; default: the state's.")
    ] = None,
    key: SigningKey = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Send alerts until SIGTERM: follow the archive, tell people, and tell the next one where nobody answers."""
    from pneumoserve.cli.reviews import review_of
    from pneumoserve.cli.stores import signing_key_of
    from pneumoserve.local.state import State

    followed = _policy(state, policy)
    from pneumoserve.alerts import Links, Resources, run_sender
    from pneumoserve.records import load_opening_key
    from pneumoserve.review import AlertDesk, commit_to

    with review_of(state, database, archive_trust, sealer_trust, follow=False) as review:
        own = State(state)
        given = Resources(
            review.store,
            review.reader,
            review.database,
            AlertDesk(review.database, commit_to(review.store, signing_key_of(state, key))),
            followed,
            Links.read(link_keys or own.link_keys),
            load_opening_key(envelope_key or own.opening_key),
        )
        run_sender(given, None if hint_port is None else (hint_host, hint_port), metrics_port)


def _policy(state: Path, path: Path | None) -> AlertPolicy:
    with needs("This command needs {}; install pneumoserve[review]."):
        from pneumoserve.alerts import load_policy
    own = state / "alerts.yaml"
    return load_policy(path or (own if own.is_file() else None))


def _show(found: list[OpenAlert], figures: AlertFigures, days: int) -> None:
    from pneumoserve.review import study_number

    if found:
        heads = ("study", "raised", "reasons", "sent", "escalations", "answered by", "ordered")
        # An id must be whole, for `alerts ack`.
        table = Table(Column("alert", no_wrap=True), *heads)
        for each in found:
            who = each.acknowledged_by or ("somebody" if each.acknowledged else "")
            table.add_row(
                each.alert_id, study_number(each.case_id), each.time, ", ".join(each.reasons),
                each.sent or "", str(each.escalations), who, each.ordered or "",
            )  # fmt: skip
        console.print(table)
    else:
        console.print("nobody waits for an answer")
    console.print(f"in {days} days: {figures.images:,} X-rays, {figures.alerts:,} alerts{_rates(figures)}")
    for reason, count in sorted(figures.listed.items()):
        console.print(f"  listed, alerting nobody: {count:,} studies ({reason})")


def _rates(figures: AlertFigures) -> str:
    parts = []
    if figures.per_100_images is not None:
        parts.append(f"{figures.per_100_images:.1f} per 100 X-rays")
    if figures.per_person_and_day is not None:
        parts.append(f"{figures.per_person_and_day:.1f} per person and day")
    if figures.share_acted_on is not None:
        parts.append(f"{figures.share_acted_on:.0%} led to a blood test or an expert")
    return f" ({', '.join(parts)})" if parts else ""
