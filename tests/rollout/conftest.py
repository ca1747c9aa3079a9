"""A bucket of each test's own, as the archive's tests have it."""

from __future__ import annotations

from tests.archive.conftest import settings as settings  # noqa: PLC0414 - fixtures are known by name
from tests.archive.conftest import store as store  # noqa: PLC0414
