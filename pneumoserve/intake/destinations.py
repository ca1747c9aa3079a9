"""Whoever results go to, by their addresses: AE@HOST:PORT for C-STORE, a URL for STOW-RS."""

from __future__ import annotations

from pathlib import Path

from pneumoserve.intake.sender import Destination, Outbox, parse_address
from pneumoserve.intake.spool import Spool
from pneumoserve.intake.stow_sender import StowDestination
from pneumoserve.intake.tls import NO_TLS, Tls
from pneumoserve.intake.web import WebPeer, check_url


def check_destination(text: str) -> str:
    """An address of a destination.

    Raises:
        IntakeRulesError: it is none.
    """
    if _is_url(text):
        return check_url(text)
    return str(parse_address(text))


def open_destination(
    spool: Spool, own_title: str, text: str, tls: Tls = NO_TLS, credentials: Path | None = None
) -> Outbox:
    """The destination at an address; `tls` is for DICOM, `credentials` is a netrc file for web servers.

    Raises:
        IntakeRulesError: the address is none, or the file cannot be used.
    """
    if _is_url(text):
        return StowDestination(spool, WebPeer(text, credentials))
    return Destination(spool, own_title, parse_address(text), tls)


def _is_url(text: str) -> bool:
    return "://" in text
