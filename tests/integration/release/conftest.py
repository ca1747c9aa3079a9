"""A release made from the reference run, and a copy of it to break."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release.package import package
from pneumoserve.signing import generate_key, write_public_key


@dataclass(frozen=True)
class Made:
    """A signed release and the folder of the key that signed it."""

    folder: Path
    trust: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("release")
    key = generate_key(root / "key.pem")
    write_public_key(key, root / "trust")
    return Made(package(REFERENCE_RUN, root / "releases", key), root / "trust")


@pytest.fixture
def broken(made: Made, tmp_path: Path) -> Path:
    """A copy of the release, for a test to break."""
    return Path(shutil.copytree(made.folder, tmp_path / made.folder.name))
