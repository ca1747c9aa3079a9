"""Build the site of these pages into site/, with strict links: `make docs`.

Pages also link to files of the repository outside of docs/, such as `../../charts/pneumoserve/README.md`, as a forge
wants it. The site gets copies of these files below repository/, so the links are checked too and need no internet.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_CONFIG: Final = "zensical.toml"
_COPIES: Final = "docs/repository"
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def main() -> int:
    """Build in a folder of its own, then put the site in place of the last one; the exit status is the builder's."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copy(_ROOT / _CONFIG, work)
        _copy_pages(work)
        zensical = Path(sys.executable).with_name("zensical")
        status = subprocess.run([zensical, "build", "--strict"], cwd=work, check=False).returncode
        if status == 0:
            shutil.rmtree(_ROOT / "site", ignore_errors=True)
            shutil.copytree(work / "site", _ROOT / "site")
    return status


def _copy_pages(work: Path) -> None:
    """Copy docs/, then the files outside of it that its pages link to."""
    shutil.copytree(_ROOT / "docs", work / "docs", ignore=shutil.ignore_patterns("*.py"))
    pages = [page.relative_to(work).as_posix() for page in sorted((work / "docs").rglob("*.md"))]
    copied = {target for page in pages for target in _targets(page) if not target.startswith("docs/")}
    for target in copied:
        (work / _COPIES / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / target, work / _COPIES / target)
    for page in pages:
        _lead_links(work / page, page, page, copied)
    for target in copied:
        if target.endswith(".md"):
            _lead_links(work / _COPIES / target, target, f"{_COPIES}/{target}", copied)


def _targets(page: str) -> list[str]:
    """The files that a page links to, as paths from the repository's root."""
    text = (_ROOT / page).read_text(encoding="utf-8")
    found = [posixpath.normpath(posixpath.join(posixpath.dirname(page), link[2])) for link in _LINK.finditer(text)]
    return [target for target in found if (_ROOT / target).is_file()]


def _lead_links(file: Path, source: str, place: str, copied: set[str]) -> None:
    """Lead the links of `source`, which stands at `place` in the site's sources, to what the site has.

    A link from a copy to a file that the site lacks becomes its text. In a page of docs/ it stays, and is an error.
    """

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        if target in copied:
            target = f"{_COPIES}/{target}"
        elif not target.startswith("docs/"):
            return link[0] if place == source else link[1]
        return f"[{link[1]}]({posixpath.relpath(target, posixpath.dirname(place))}{link[3] or ''})"

    file.write_text(_LINK.sub(lead, file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
