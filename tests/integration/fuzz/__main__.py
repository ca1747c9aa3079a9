"""`python -m tests.integration.fuzz run | show | check`: see README.md beside this file."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

from tests.integration.fuzz.mutators import make_mutant
from tests.integration.fuzz.runner import Runner, collect, save_faults

_TARGETS = "pool: the decode workers, as in the front; direct: in the process itself; http://…: a running service"


def main() -> int:
    """Do what the command line says; 1 where a film broke a rule."""
    given = _parser().parse_args()
    if given.command == "show":
        sys.stdout.buffer.write(make_mutant(given.number)[1])
        return 0
    if given.command == "check":
        names = [str(each) for path in given.paths for each in (sorted(path.iterdir()) if path.is_dir() else [path])]
    else:
        first = random.randrange(10**9) if given.first is None else given.first
        print(f"mutants from {first} on")
        names = map(str, range(first, first + given.mutants))
    runner = Runner(given.target, given.workers)
    signal.signal(signal.SIGINT, runner.interrupt)
    report = runner.run(iter(names), given.seconds, progress=True)
    print("\n".join(f"  {count:8} {reason}" for reason, count in report.reasons.most_common()))
    print(report.text())
    save_faults(report, given.out)
    if given.collect:
        collect(report, given.collect)
    return 1 if report.faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.fuzz", description="films changed at random, decoded"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="write a mutant to standard output")
    show.add_argument("number", type=int)
    run = commands.add_parser("run", help="judge mutants")
    run.add_argument("--mutants", type=int, default=10**9, help="how many")
    run.add_argument("--first", type=int, help="number of the first; else by chance")
    check = commands.add_parser("check", help="judge files, or all files of folders")
    check.add_argument("paths", type=Path, nargs="+")
    for each in (run, check):
        each.add_argument("--seconds", type=float, default=10**9, help="stop after so long")
        each.add_argument("--workers", type=int, default=1, help="processes beside each other")
        each.add_argument("--target", default="pool", help=_TARGETS)
        each.add_argument("--out", type=Path, default=Path("fuzz-faults"), help="folder for films that broke a rule")
        each.add_argument("--collect", type=Path, help="folder for the smallest film of each end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
