"""Releases that a rollout has to tell apart, made from the reference run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pneumoserve.canonical import canonical_json
from pneumoserve.local.stack import REFERENCE_RUN


def altered(folder: Path, **changes: Any) -> Path:
    """The reference run in another folder, with some facts of run.json changed; `policy` and the detector's
    `calibration` are added to what is there."""
    shutil.copytree(REFERENCE_RUN, folder)
    facts = json.loads((folder / "run.json").read_bytes())
    facts["policy"] |= changes.get("policy", {})
    facts["models"][0]["calibration"] |= changes.get("calibration", {})
    (folder / "run.json").write_bytes(canonical_json(facts))
    return folder


def equal(folder: Path) -> Path:
    """The same models and thresholds under another id."""
    return altered(folder, policy={"why": "The reference's policy under another name."})


def negated(folder: Path) -> Path:
    """A detector that takes the sick for well and the well for sick."""
    calibration = json.loads((REFERENCE_RUN / "run.json").read_bytes())["models"][0]["calibration"]
    return altered(folder, calibration={"slope": -calibration["slope"], "intercept": -calibration["intercept"]})


def hardly_ever(folder: Path) -> Path:
    """A detector whose threshold is .99, with nobody asked below it."""
    return altered(folder, policy={"detector_threshold": 0.99, "detector_band": {"low": 0.99, "high": 0.99}})


def always_asking(folder: Path) -> Path:
    """A policy that refers every film."""
    return altered(folder, policy={"detector_band": {"low": 0.0, "high": 1.0}})
