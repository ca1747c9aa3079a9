"""Generators: each gives the whole text of its files, which are then written or compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# The text of each file, by its path from the repository's root.
Files = dict[Path, str]


@dataclass(frozen=True)
class Generator:
    """One kind of generated files."""

    about: str
    # Takes the repository's root.
    generate: Callable[[Path], Files]
    # Patterns from the root: a file that matches and is not generated is one too many.
    owned: tuple[str, ...] = ()
    # What takes longer to have than a check may.
    needs: Literal["helm", "a service"] | None = None


def find_differences(generator: Generator, root: Path) -> list[Path]:
    """Paths, from the root, of files that are missing, differ or are one too many."""
    files = generator.generate(root)
    stale = [path for path, text in files.items() if _read(root / path) != text]
    return sorted([*stale, *_find_surplus(generator, root, files)])


def write_files(generator: Generator, root: Path) -> list[Path]:
    """Write what differs and remove what is one too many; returns the paths of both, from the root."""
    files = generator.generate(root)
    stale = [path for path, text in files.items() if _read(root / path) != text]
    for path in stale:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path])
    surplus = _find_surplus(generator, root, files)
    for path in surplus:
        (root / path).unlink()
    return sorted([*stale, *surplus])


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _find_surplus(generator: Generator, root: Path, files: Files) -> list[Path]:
    found = {path.relative_to(root) for pattern in generator.owned for path in root.glob(pattern)}
    return sorted(found - set(files))
