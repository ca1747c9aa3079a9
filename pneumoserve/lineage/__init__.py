"""Lineage: from one prediction back to its film, models, thresholds, release, signer, training run and films."""

from pneumoserve.lineage.trace import Lineage, trace

__all__ = ["Lineage", "trace"]
