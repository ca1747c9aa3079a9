"""Bringing a message to people: by mail, by webhook, by all that Apprise knows.

A channel either takes a message or raises `ChannelError`, whose text names no address and repeats nothing that was
sent, nor what a server said: servers like to repeat what they got.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import logging
import smtplib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import apprise
import httpx

from pneumoserve.alerts.advice import ADVICE, Text
from pneumoserve.alerts.errors import ChannelError
from pneumoserve.alerts.policy import Apprise, Channel, Email, Webhook
from pneumoserve.records import Addressee
from pneumoserve.review import study_number

_SECONDS: Final = 5.0
_SOURCE: Final = "urn:pneumoserve:alerts"
_SHORTEST_SECRET: Final = 24
# What they log holds addresses, and these hold secrets.
for _name in ("apprise", "httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Outgoing:
    """A message. `key` is the same for each try of it, and `time` (RFC 3339) when it was first due.

    `event` is the last part of a CloudEvent's type, `facts` what its data says beside the text; `addressee` is shown by
    channels that may.
    """

    key: str
    time: str
    event: str
    text: Text
    facts: dict[str, Any] = field(default_factory=dict)
    addressee: Addressee = field(default=Addressee(), repr=False)


def describe(case_id: str, severity: str, reasons: Sequence[str], link: str | None) -> dict[str, Any]:
    """An alert as a webhook's receiver reads it."""
    return {
        "study": study_number(case_id),
        "severity": severity,
        "reasons": list(reasons),
        "advice": [ADVICE[reason] for reason in reasons],
        "link": link,
    }


def send(channel: Channel, message: Outgoing) -> None:
    """Have a channel take a message, within seconds.

    Raises:
        ChannelError: it did not take it.
    """
    told = {"practitioner": message.addressee.practitioner, "reference": message.addressee.reference}
    shown = {str(name): value for name in channel.shows if (value := told[name]) is not None}
    match channel:
        case Webhook():
            _post(channel, message, shown)
        case Email():
            _mail(channel, message, shown)
        case Apprise():
            _notify(channel, message, shown)


def _body(message: Outgoing, shown: dict[str, str]) -> str:
    named = tuple(f"{name.capitalize()}: {value}" for name, value in shown.items())
    return Text(message.text.subject, message.text.lines, named).body


def _post(channel: Webhook, message: Outgoing, shown: dict[str, str]) -> None:
    """A CloudEvent 1.0 in structured mode. What answers with a redirect has not taken it."""
    event = {
        "specversion": "1.0",
        "id": message.key,
        "source": _SOURCE,
        "type": f"org.pneumoserve.{message.event}",
        "time": message.time,
        "datacontenttype": "application/json",
        "data": {"text": list(message.text.lines), **message.facts, **shown},
    }
    body = json.dumps(event).encode()
    headers = {"content-type": "application/cloudevents+json"}
    if channel.secret_file is not None:
        headers |= _signature(_read(channel.secret_file), message, body)
    try:
        with (
            httpx.Client(timeout=_SECONDS, verify=_trust(channel.ca_file), follow_redirects=False) as client,
            # Whatever it says beside its status is not read.
            client.stream("POST", channel.url, content=body, headers=headers) as answer,
        ):
            status = answer.status_code
    except (httpx.HTTPError, OSError) as error:
        raise ChannelError(f"the receiver does not answer ({type(error).__name__})") from None
    if 300 <= status < 400:
        raise ChannelError(f"the receiver redirects ({status}); give its final address")
    if not 200 <= status < 300:
        raise ChannelError(f"the receiver answers {status}")


def _signature(secret: str, message: Outgoing, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks (standardwebhooks.com), by which a receiver knows us."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if len(key) < _SHORTEST_SECRET:
        raise ChannelError("the secret is no base64 of 24 bytes or more; make another")
    stamp = str(int(time.time()))
    digest = hmac.new(key, f"{message.key}.{stamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": message.key, "webhook-timestamp": stamp, "webhook-signature": signature}


def _mail(channel: Email, message: Outgoing, shown: dict[str, str]) -> None:
    mail = EmailMessage()
    mail["Subject"] = message.text.subject
    mail["From"] = channel.sender
    known = channel.practitioners.get(message.addressee.practitioner or "")
    mail["To"] = ", ".join(channel.to if known is None else (known,))
    # Mail servers and programs drop a second one of the same id.
    mail["Message-ID"] = f"<{message.key}@pneumoserve.invalid>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_body(message, shown))
    try:
        with _connect(channel, _trust(channel.ca_file)) as server:
            if channel.user is not None and channel.password_file is not None:
                server.login(channel.user, _read(channel.password_file))
            server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        raise ChannelError(f"the mail server refuses all recipients ({', '.join(map(str, codes))})") from None
    except smtplib.SMTPResponseException as error:
        raise ChannelError(f"the mail server answers {error.smtp_code}") from None
    except (smtplib.SMTPException, OSError) as error:
        raise ChannelError(f"the mail server does not answer ({type(error).__name__})") from None


@functools.cache
def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """Certificates of authorities; reading the machine's own takes longer than sending a message."""
    return ssl.create_default_context(cafile=ca_file)


def _connect(channel: Email, context: ssl.SSLContext) -> smtplib.SMTP:
    if channel.tls == "implicit":
        return smtplib.SMTP_SSL(channel.host, channel.port, timeout=_SECONDS, context=context)
    server = smtplib.SMTP(channel.host, channel.port, timeout=_SECONDS)
    try:
        server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def _notify(channel: Apprise, message: Outgoing, shown: dict[str, str]) -> None:
    target = apprise.Apprise()
    if not target.add(_read(channel.url_file)):
        raise ChannelError(f"{channel.url_file.name} holds no address that Apprise knows; correct it")
    if not target.notify(title=message.text.subject, body=_body(message, shown)):
        raise ChannelError("Apprise could not deliver it")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ChannelError(f"{path.name} cannot be read; correct the channel") from None
