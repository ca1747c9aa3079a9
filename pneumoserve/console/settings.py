"""What the console reads when it starts."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from pneumoserve.console.access import ROLES, Role
from pneumoserve.errors import PneumoserveError
from pneumoserve.settings import ProcessSettings

_ARCHIVE: Final = Path("/etc/pneumoserve/archive")


class ConsoleError(PneumoserveError):
    """The console cannot start as it is set; the text says what to change."""

    exit_code = 2


class ConsoleSettings(ProcessSettings):
    """Where the console listens, whose keys it trusts, and who signs people in.

    Without `oidc_issuer` it runs for one built-in user, and listens on loopback alone.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m pneumoserve.console")

    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    url: str = ""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    archive_key: Path = _ARCHIVE / "key.pem"
    archive_trust: Path = _ARCHIVE / "trust"
    sealer_trust: Path = Path("/etc/pneumoserve/sealer-trust")
    chance_key: Path = Path("/etc/pneumoserve/chance/key")
    link_keys: Path = Path("/etc/pneumoserve/links/keys")
    envelope_key: Path | None = None
    releases: Path = Path("/tmp/pneumoserve/releases")  # noqa: S108 - where none are, they are looked for in the store
    trust: Path = Path("/etc/pneumoserve/trust")
    session_key: Path | None = None
    session_minutes: int = Field(default=30, ge=1, le=720)
    prevalence: float | None = Field(default=None, gt=0, lt=1)
    oidc_issuer: str | None = None
    oidc_client_id: str = ""
    oidc_client_secret: Path | None = None
    oidc_scopes: str = "openid profile"
    oidc_name_claim: str = "sub"
    oidc_roles_claim: str = "roles"
    oidc_roles: dict[str, Role] = Field(default_factory=lambda: {role: role for role in ROLES})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.oidc_issuer is None:
            if not _is_loopback(self.host):
                raise ValueError(
                    "without --oidc-issuer anybody who reaches the console is its one user, so it listens on loopback "
                    "alone; give --oidc-issuer, or leave --host out"
                )
        elif not (self.oidc_client_id and self.oidc_client_secret and self.url):
            raise ValueError(
                "--oidc-issuer needs --oidc-client-id, the file --oidc-client-secret, and --url as browsers see the "
                "console"
            )
        return self

    @property
    def secure(self) -> bool:
        """Whether browsers reach the console by https."""
        return urlsplit(self.url).scheme == "https"

    @property
    def host_names(self) -> list[str]:
        """The names by which browsers may call the console; any other is somebody else's trick."""
        named = urlsplit(self.url).hostname
        return [named] if named else ["127.0.0.1", "localhost", "[::1]"]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
