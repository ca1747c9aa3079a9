"""The policy of a site's alerts, one YAML file: by which channels who is told, and who is told next.

How urgent an alert is and what it advises is no matter of policy: that follows from the reason (`advice`).
"""

from __future__ import annotations

from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from pneumoserve.alerts.errors import AlertPolicyError
from pneumoserve.decision import Reason
from pneumoserve.records import Severity
from pneumoserve.yaml_files import YamlFile

_DEFAULT: Final = Path(__file__).with_name("default.yaml")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Shown = Literal["practitioner", "reference"]
# Nothing that could end a line of a mail's head.
Address = Annotated[str, Field(pattern=r"^[^\s@<>,;:\x00-\x1f]+@[^\s@<>,;:\x00-\x1f]+$", max_length=254)]
ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, KeyError, ValueError):
        raise ValueError("is no time zone; give one such as Europe/Berlin") from None
    return name


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, alias_generator=to_camel)


class _Channel(_Form):
    shows: tuple[Shown, ...] = Field(
        default=(), description="what the caller told of the study that this channel may carry; by default nothing"
    )


class Webhook(_Channel):
    """A CloudEvent in a POST; with `secretFile` signed as Standard Webhooks has it."""

    kind: Literal["webhook"]
    url: str = Field(pattern=r"^https?://[^\s@]+$")
    secret_file: Path | None = Field(default=None, description="file of the key that signs: base64 of 24 bytes or more")
    ca_file: Path | None = Field(default=None, description="PEM of the authority of the receiver's certificate")

    @model_validator(mode="after")
    def _names_need_tls(self) -> Self:
        if self.shows and not self.url.startswith("https://"):
            raise ValueError("a channel that shows names needs an https:// address")
        return self


class Email(_Channel):
    """A mail by SMTP. It is never sent without TLS."""

    kind: Literal["email"]
    host: str
    port: int = Field(default=587, ge=1, le=65535)
    tls: Literal["starttls", "implicit"] = "starttls"
    ca_file: Path | None = Field(default=None, description="PEM of the authority of the server's certificate")
    user: str | None = None
    password_file: Path | None = None
    sender: Address
    to: tuple[Address, ...] = Field(min_length=1)
    practitioners: dict[str, Address] = Field(
        default={}, description="address of each practitioner that a call may name; all others: `to`"
    )


class Apprise(_Channel):
    """Chats, pagers and all else that Apprise knows."""

    kind: Literal["apprise"]
    url_file: Path = Field(description="file of one Apprise address, which holds secrets")


Channel = Annotated[Webhook | Email | Apprise, Field(discriminator="kind")]


class Hours(_Form):
    """From one time of day to another, of `timeZone`; over midnight where the second is earlier."""

    days: tuple[Day, ...] = Field(default=_DAYS, min_length=1, description="days on which the span begins")
    begin: time = Field(alias="from")
    until: time

    def hold(self, moment: datetime) -> bool:
        """Whether a moment of local time lies in these hours."""
        at, today = moment.time().replace(tzinfo=None), moment.weekday()
        if self.begin <= self.until:
            return self._begins_on(today) and self.begin <= at < self.until
        return (self._begins_on(today) and at >= self.begin) or (self._begins_on(today - 1) and at < self.until)

    def _begins_on(self, weekday: int) -> bool:
        return _DAYS[weekday % 7] in self.days


class Step(_Form):
    """Who is told once nobody has answered for so long; the first step is the alert itself."""

    after_minutes: int = Field(ge=0, description="minutes since the alert was raised")
    channels: tuple[str, ...] = Field(min_length=1, description="all are used; one that takes it is enough")
    who: str | None = Field(default=None, min_length=1, description="the person or on-call duty that is reached by it")


class Route(_Form):
    """Alerts that it takes, and its steps. What is left empty takes all."""

    name: str
    sites: tuple[str, ...] = Field(default=(), description="callers, by the names that the gateway verifies")
    severities: tuple[Severity, ...] = ()
    hours: Hours | None = None
    steps: tuple[Step, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ends_at_a_person(self) -> Self:
        minutes = [step.after_minutes for step in self.steps]
        if minutes[0] != 0 or minutes != sorted(set(minutes)):
            raise ValueError("afterMinutes begins with 0 and rises from step to step")
        if self.steps[-1].who is None:
            raise ValueError("the last step ends the escalation; say `who` is reached by it")
        return self

    @property
    def takes_all(self) -> bool:
        """Whether no alert passes it by."""
        return not self.sites and not self.severities and self.hours is None

    def takes(self, site: str | None, severity: Severity, local: datetime) -> bool:
        """Whether an alert of a site is its at a moment of local time."""
        return (
            (not self.sites or site in self.sites)
            and (not self.severities or severity in self.severities)
            and (self.hours is None or self.hours.hold(local))
        )

    def step(self, number: int) -> Step:
        """The step of a number; the last one's stands for all after it."""
        return self.steps[min(number, len(self.steps) - 1)]


class AlertPolicy(_Form):
    """Channels, routes, and what else a site decides of its alerts."""

    time_zone: Annotated[str, AfterValidator(_check_zone)] = "UTC"
    link: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+/$",
        description="address of the reading room's alerts, with a slash at its end; messages have no link without it",
    )
    also_alert: tuple[Reason, ...] = Field(default=(), description="reasons that are only listed else")
    since_days: int = Field(default=7, ge=1, description="studies that are older raise no alert")
    erase_names_days: int = Field(
        default=30,
        ge=1,
        description="days after a study is over at which its names are erased and its alert is closed",
    )
    keep_names_days: int = Field(
        default=180,
        ge=1,
        description="days after an answer at which its names are erased, whoever is still asked for it",
    )
    channels: dict[ChannelName, Channel] = {}
    routes: tuple[Route, ...] = Field(default=(), description="the first that takes an alert counts")
    operator: tuple[str, ...] = Field(
        default=(), description="channels by which those who run the service hear of alerts that reach nobody"
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        used = {name for route in self.routes for step in route.steps for name in step.channels}
        unknown = sorted((used | set(self.operator)) - set(self.channels))
        if unknown:
            raise ValueError(f"there is no channel {', '.join(unknown)}; add it under channels, or correct the name")
        if self.keep_names_days < self.erase_names_days:
            raise ValueError("keepNamesDays is shorter than eraseNamesDays; make it as long at least")
        if self.routes and not self.routes[-1].takes_all:
            raise ValueError("the last route takes all alerts: it has no sites, severities or hours")
        if any(route.takes_all for route in self.routes[:-1]):
            raise ValueError("only the last route takes all alerts; those behind it are never used")
        return self

    def route(self, site: str | None, severity: Severity, now: datetime) -> Route | None:
        """The route of an alert at a moment; None where there are no routes at all."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        return next((route for route in self.routes if route.takes(site, severity, local)), None)


def load_policy(path: Path | None) -> AlertPolicy:
    """The policy of a file; None is the default one, which sends nothing. Files that it names lie beside it.

    Raises:
        AlertPolicyError: it is no policy, or names a file that is not there; the sentence says where.
    """
    path = path or _DEFAULT
    file = YamlFile(AlertPolicy, "The alert policy", "docs/how-to/alerts.md", AlertPolicyError)
    return _beside(file.load(path), path.parent)


def _beside(policy: AlertPolicy, folder: Path) -> AlertPolicy:
    """The policy with paths that are found from anywhere."""
    channels = {}
    for name, channel in policy.channels.items():
        files = {key: folder / value for key, value in channel if isinstance(value, Path)}
        missing = [path.name for path in files.values() if not path.is_file()]
        if missing:
            raise AlertPolicyError(f"Channel {name} of the alert policy names {missing[0]}, which is not there.")
        channels[name] = channel.model_copy(update=files)
    return policy.model_copy(update={"channels": channels})
