"""What goes wrong with alerts: their policy, their links, their channels."""

from __future__ import annotations

from pneumoserve.errors import PneumoserveError


class AlertPolicyError(PneumoserveError):
    """A policy that cannot be followed; the sentence says what to change."""

    exit_code = 2


class LinkError(PneumoserveError, ValueError):
    """A link that leads to no alert; the sentence says what to do."""


class ChannelError(PneumoserveError):
    """A channel did not take a message. The text names no address and repeats nothing that was sent or answered."""
