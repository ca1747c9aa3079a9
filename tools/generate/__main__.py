"""Write what is generated, or check it: `python -m tools.generate [--check] [NAME …]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from tools.generate import chart_values, dashboards, manifests, schemas, tables, walkthrough
from tools.generate.generator import Generator, find_differences, write_files

ROOT: Final = Path(__file__).resolve().parents[2]
GENERATORS: Final[dict[str, Generator]] = {
    "schemas": schemas.GENERATOR,
    "benchmarks": tables.BENCHMARKS,
    "experiments": tables.EXPERIMENTS,
    "meanings": tables.MEANINGS_TABLE,
    "metrics": tables.METRICS,
    "readers": tables.READERS,
    "drift": tables.DRIFT,
    "intake": tables.INTAKE,
    "traces": tables.TRACES,
    "chart-values": chart_values.GENERATOR,
    "dashboards": dashboards.GENERATOR,
    "manifests": manifests.GENERATOR,
    "walkthrough": walkthrough.GENERATOR,
}


def main(words: list[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit code."""
    about = "\n".join(f"  {name:14} {generator.about}" for name, generator in GENERATORS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tools.generate",
        description=f"Write what is generated:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them unless you name some")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of step")
    parser.add_argument("--quick", action="store_true", help="leave out what needs helm or a running service")
    given = parser.parse_args(words)
    if unknown := sorted(set(given.names) - set(GENERATORS)):
        parser.error(f"nothing is called {', '.join(unknown)}; there are {', '.join(GENERATORS)}")
    differing: list[str] = []
    for name in given.names or GENERATORS:
        generator = GENERATORS[name]
        if given.quick and generator.needs is not None:
            continue
        paths = (find_differences if given.check else write_files)(generator, root)
        differing += [f"{path} ({name})" for path in paths]
    if given.check and differing:
        print("Out of step, run `make generate`:", *differing, sep="\n  ", file=sys.stderr)
        return 1
    if not given.check:
        print(*(f"wrote {each}" for each in differing), f"{len(differing)} files changed", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
