"""What the pages show of a running service: the tutorial is played, and its output shown where the pages show it.

A page's shell block may be followed at once by a `text` or `json` block: that is what it prints. Other pages take an
output of the tutorial into a place of their own. Ids, keys, times and the last digits of probabilities differ each
time; an output that differs in nothing else stays as it is.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from tools.generate.generator import Files, Generator
from tools.generate.places import read_place, replace_place

TUTORIAL: Final = Path("docs/tutorial/first-hour.md")
# The page that shows an output of the tutorial too, the name of its place there, and what the command begins with.
_SHOWN_ELSEWHERE: Final = [
    (Path("docs/how-to/look-into-an-answer.md"), "lineage", "pneumoserve lineage"),
    (Path("docs/how-to/replay.md"), "replay", "pneumoserve archive replay"),
]
_ANSWER: Final = Path("docs/images/answer.svg")
_LINEAGE: Final = Path("docs/images/lineage.svg")
_STEP: Final = re.compile(
    r"^```sh\n(?P<typed>.*?)^```\n(?:\n^```(?P<language>text|json)\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
_CHANGING: Final = [
    # A picture's places depend on what stands before them.
    (re.compile(r' (x|textLength)="[0-9.]+"|&#160;'), " "),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC)?"), "<time>"),
    (re.compile(r"\bkey [0-9a-f]{16}\b"), "key <key>"),
    (re.compile(r"\b\d+(\.\d+)? (s|ms)\b"), "<seconds>"),
    (re.compile(r"│ +\d+ +│"), "│ <ms> │"),
    # The instruction set has names of several lengths, so the line breaks anywhere.
    (re.compile(r"profile cpu .*?threads \d+", re.DOTALL), "<profile>"),
    # Alerts go on record beside, in segments of their own.
    (re.compile(r"\b(segments|records|closed|open|writers) \d+( \(\d+ sealed\))?"), r"\1 <n>"),
    (re.compile(r"\b1:[0-9a-f]{64}\b"), "1:<seal>"),
    (re.compile(r"(\d\.\d{3})\d+"), r"\1"),
    # Columns are as wide as what stands in them.
    (re.compile(r" {2,}|─+|━+"), " "),
]
# What makes the environment and starts the service.
_BEFORE: Final = re.compile(r"^make |pneumoserve serve")
_WIDTH: Final = 80
_END: Final = "\x1e"
# Rich's own without its link to a font on another host.
_PICTURE: Final = """<svg viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<rect width="100%" height="100%" rx="8" fill="#ffffff" stroke="#5b7083"/>
<g transform="translate(9, 9)" class="{unique_id}-matrix">
{backgrounds}
{matrix}
</g>
</svg>
"""


@dataclass(frozen=True)
class Step:
    """A shell block of a page: what is typed, and what it printed."""

    typed: str
    printed: str


def list_steps(page: str) -> list[str]:
    """What a page tells the reader to type once the service runs, block by block."""
    return [step["typed"] for step in _STEP.finditer(page) if not _BEFORE.search(step["typed"])]


def play(page: str, root: Path, folder: Path, url: str) -> list[Step]:
    """Type a page's shell blocks in `folder`, which has the service's state; `url` is where that listens.

    Raises:
        RuntimeError: a command failed.
    """
    for name in ("tests", ".venv"):
        (folder / name).symlink_to(root / name)
    steps = list_steps(page)
    script = f"printf '{_END}'\n".join(step.replace("http://127.0.0.1:8080", url) for step in steps)
    words = ["bash", "-euo", "pipefail", "-c", script]
    environment = {**os.environ, "COLUMNS": str(_WIDTH), "TERM": "dumb"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"a command of the page failed:\n{done.stdout}\n{done.stderr}")
    printed = re.sub(r" +$", "", done.stdout, flags=re.MULTILINE).split(_END)
    return [Step(typed, text) for typed, text in zip(steps, printed, strict=True)]


def show(root: Path, folder: Path, steps: list[Step]) -> Files:
    """Pages and pictures with what was printed; `folder` has what the commands wrote."""
    page = (root / TUTORIAL).read_text()
    files = {TUTORIAL: _show_in_tutorial(page, steps)}
    for path, name, command in _SHOWN_ELSEWHERE:
        text = (root / path).read_text()
        block = f"```text\n{_find(steps, command).printed}```\n"
        files[path] = text if _same(block, read_place(text, name)) else replace_place(text, name, block)
    for path, picture in [
        (_LINEAGE, (folder / "lineage.svg").read_text()),
        (_ANSWER, _draw([step for step in steps if _shows_a_table(step)])),
    ]:
        present = (root / path).read_text() if (root / path).exists() else ""
        files[path] = present if _same(picture, present) else picture
    return files


def _show_in_tutorial(page: str, steps: list[Step]) -> str:
    printed = {step.typed: step.printed for step in steps}

    def replace(found: re.Match[str]) -> str:
        if found["shown"] is None or found["typed"] not in printed:
            return found[0]
        text = printed[found["typed"]]
        if found["language"] == "json":
            text = json.dumps(json.loads(text), indent=2) + "\n"
        if _same(text, found["shown"]):
            return found[0]
        start, end = (edge - found.start() for edge in found.span("shown"))
        return f"{found[0][:start]}{text}{found[0][end:]}"

    return _STEP.sub(replace, page)


def _find(steps: list[Step], command: str) -> Step:
    return next(step for step in steps if command in step.typed)


def _shows_a_table(step: Step) -> bool:
    return "pneumoserve predict " in step.typed and "--json" not in step.typed


def _same(one: str, other: str) -> bool:
    """Whether two outputs differ in nothing but what differs each time."""
    for pattern, stands_for in _CHANGING:
        one, other = pattern.sub(stands_for, one), pattern.sub(stands_for, other)
    return one == other


def _draw(steps: list[Step]) -> str:
    """A terminal in which these commands were typed."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO())
    for step in steps:
        console.print(Text(overflow="fold", text=f"$ {step.typed.removeprefix('.venv/bin/')}{step.printed}"))
    return console.export_svg(title="", theme=DEFAULT_TERMINAL_THEME, code_format=_PICTURE, unique_id="answer")


def _generate(root: Path) -> Files:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        words = [str(root / ".venv" / "bin" / "pneumoserve"), "serve", "--state", str(folder / "state")]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                url = json.loads((process.stdout or io.StringIO()).readline())["url"]
                steps = play((root / TUTORIAL).read_text(), root, folder, url)
            finally:
                process.terminate()
        return show(root, folder, steps)


GENERATOR: Final = Generator("what the pages show of a running service", _generate, needs="a service")
