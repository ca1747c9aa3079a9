"""What a training says when it cannot go on."""

from __future__ import annotations

from pneumoserve.errors import PneumoserveError


class TrainingError(PneumoserveError):
    """A training that cannot go on; its text says what to do. What was reached stays in the run's checkpoint."""
