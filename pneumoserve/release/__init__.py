"""Releases: immutable, content-addressed, signed folders that hold both models and their policy."""

from pneumoserve.release.verify import Release, ReleaseError, read_manifest, verify

__all__ = ["Release", "ReleaseError", "read_manifest", "verify"]
