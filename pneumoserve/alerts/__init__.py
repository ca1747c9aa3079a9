"""Alerts to the practitioner: who is told, by which channel, and who is told next.

`Sender` follows the archive and sends; `AlertPolicy` says to whom; `Links` makes and opens the links that messages
hold. The record of an alert, and who answered it, are `pneumoserve.review`'s.
"""

from pneumoserve.alerts.advice import ADVICE, WHY, write_test
from pneumoserve.alerts.channels import Outgoing, send
from pneumoserve.alerts.errors import AlertPolicyError, ChannelError, LinkError
from pneumoserve.alerts.hints import Hints
from pneumoserve.alerts.links import Links
from pneumoserve.alerts.names import erase_names, find_addressee, read_addressee
from pneumoserve.alerts.policy import AlertPolicy, Channel, load_policy
from pneumoserve.alerts.running import run_sender
from pneumoserve.alerts.sender import Resources, Sender

__all__ = [
    "ADVICE",
    "WHY",
    "AlertPolicy",
    "AlertPolicyError",
    "Channel",
    "ChannelError",
    "Hints",
    "LinkError",
    "Links",
    "Outgoing",
    "Resources",
    "Sender",
    "erase_names",
    "find_addressee",
    "load_policy",
    "read_addressee",
    "run_sender",
    "send",
    "write_test",
]
