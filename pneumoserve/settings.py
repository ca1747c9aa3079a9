"""What a process reads when it starts: one class of typed settings, whose fields are the flags of its command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, PydanticBaseSettingsSource, SettingsConfigDict

__all__ = ["ProcessSettings"]


class ProcessSettings(BaseSettings):
    """Settings from flags alone: a field `http_port` is `--http-port`, one of bool has a `--no-` form too.

    A process reads credentials from the environment, by classes of their own: what else stands there is not its.
    """

    model_config = SettingsConfigDict(
        frozen=True, cli_kebab_case=True, cli_implicit_flags=True, cli_avoid_json=True, cli_hide_none_type=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - as below, the form of the library
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags only."""
        return (init_settings,)

    @classmethod
    def flags(cls) -> list[str]:
        """The flags, in the order of their fields."""
        return [_flag_of(name) for name in cls.model_fields]

    @classmethod
    def from_flags(cls, arguments: Sequence[str] | None = None) -> Self:
        """The settings of these arguments, by default the process's own; ends it with 2 where they are wrong."""
        try:
            return CliApp.run(cls, cli_args=list(sys.argv[1:] if arguments is None else arguments))
        except ValidationError as error:
            for each in error.errors(include_url=False):
                # What several flags say together has no place of its own.
                place = "".join(f"{_flag_of(str(name))}: " for name in each["loc"][:1])
                print(f"{cls.model_config.get('cli_prog_name')}: error: {place}{each['msg']}", file=sys.stderr)  # noqa: T201
            sys.exit(2)


def _flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"
