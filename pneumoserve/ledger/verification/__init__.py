"""Verifying a whole ledger, step by step: seals, roll-ups, the segments beside and behind them, attachments."""

from pneumoserve.ledger.verification.whole import Summary, VerificationReport, verify

__all__ = ["Summary", "VerificationReport", "verify"]
