"""What the commands of the documents write, keys above all, is not taken into git by accident."""

from __future__ import annotations

import itertools
import re
import subprocess

from tests.support.documents import ROOT, commands, repository_pages

# Options that name what is written, or a key or a trust folder that was.
OPTIONS = {"--out", "--to", "--svg", "--key", "--trust", "--archive-trust", "--sealer-trust"}
COMMAND = re.compile(r"(?:^|/)pneumoserve (.*)")
BY_DEFAULT = {"state", "evaluations"}


def find_written() -> set[str]:
    """Paths in the checkout; not those of variables, of the store, or of the machine."""
    found: set[str] = set(BY_DEFAULT)
    for command in (command for page in repository_pages() for command in commands(page.read_text())):
        for words in map(str.split, COMMAND.findall(command)):
            found |= {value for option, value in itertools.pairwise(words) if option in OPTIONS}
            found |= set(words[2:3]) if words[:2] == ["release", "key"] else set()
    return {path.rstrip("/") for path in found if not re.search(r"[$:<…]|^/|^[A-Z]+$", path)}


def test_git_ignores_what_the_documents_have_you_write() -> None:
    paths = find_written()
    assert {"approver.pem", "trust", "releases", "exports", "lineage.svg"} <= paths
    # Most are folders; of a path that need not exist, git has to be told.
    asked = {path if "." in path else f"{path}/" for path in paths}
    words = ["git", "check-ignore", "--no-index", "--stdin"]
    done = subprocess.run(words, cwd=ROOT, input="\n".join(asked), capture_output=True, text=True, check=False)
    assert asked - set(done.stdout.splitlines()) == set()
