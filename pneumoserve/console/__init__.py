"""The console: pages on which people answer alerts, read studies, decide between readers and see what waits."""

from pneumoserve.console.access import ACCESS, ROLES, Access, Role
from pneumoserve.console.app import create_app
from pneumoserve.console.services import Services
from pneumoserve.console.settings import ConsoleError, ConsoleSettings

__all__ = ["ACCESS", "ROLES", "Access", "ConsoleError", "ConsoleSettings", "Role", "Services", "create_app"]
