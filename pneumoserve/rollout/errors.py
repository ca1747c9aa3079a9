"""Why a rollout does not begin or does not go on; the cluster's own errors stand in `cluster`."""

from __future__ import annotations

from pneumoserve.errors import PneumoserveError


class RolloutError(PneumoserveError):
    """A rollout that was refused; nothing was changed. The sentence says what to do."""

    exit_code = 2


class LeaseLostError(PneumoserveError):
    """Another process runs the rollout now."""
