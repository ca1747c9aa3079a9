"""What the chart's three documents of its values say: values.yaml, values.schema.json, the table of README.md.

`python -m tests.chart.documents` writes the table, and the schema's descriptions, from the comments of values.yaml.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "charts" / "pneumoserve"
README: Final = CHART / "README.md"
SCHEMA: Final = CHART / "values.schema.json"
VALUES: Final = CHART / "values.yaml"
_START: Final = "<!-- values: made by `python -m tests.chart.documents` -->\n"
_END: Final = "<!-- end of values -->\n"
_KEY: Final = re.compile(r"( *)([A-Za-z0-9]+):")


def values() -> dict[str, Any]:
    """The default values."""
    loaded: dict[str, Any] = yaml.safe_load(VALUES.read_text())
    return loaded


def schema() -> dict[str, Any]:
    """The schema of the values."""
    loaded: dict[str, Any] = json.loads(SCHEMA.read_text())
    return loaded


def comments() -> dict[str, str]:
    """The comment right above each key of values.yaml, by the key's path."""
    found: dict[str, str] = {}
    path: list[str] = []
    above: list[str] = []
    for line in VALUES.read_text().splitlines():
        if line.lstrip().startswith("# "):
            above.append(line.lstrip()[2:])
            continue
        if key := _KEY.match(line):
            path = [*path[: len(key[1]) // 2], key[2]]
            if above:
                found[".".join(path)] = " ".join(above)
        above = []
    return found


def nodes(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of a schema that values.yaml can have, with its path."""
    for key, node in tree.get("properties", {}).items():
        path = f"{above}.{key}" if above else key
        yield path, node
        if not is_open(node):
            yield from nodes(node, path)


def is_open(node: dict[str, Any]) -> bool:
    """Whether a value is one thing to the chart, be it an object: a map of the user's, or a piece of a pod's spec."""
    if node["type"] != "object" or "properties" not in node:
        return True
    return set(node["properties"]) in ({"requests", "limits"}, {"nodeAffinity", "podAffinity", "podAntiAffinity"})


def leaves() -> list[str]:
    """Paths of the values a user sets."""
    return [path for path, node in nodes(schema()) if is_open(node)]


def default_of(path: str) -> Any:
    """A value's default."""
    found: Any = values()
    for key in path.split("."):
        found = found[key]
    return found


def table() -> str:
    """The README's table of values."""
    told = comments()
    rows = ["| Value | Default | Meaning |", "| --- | --- | --- |"]
    for path in leaves():
        default = json.dumps(default_of(path), ensure_ascii=False)
        rows.append(f"| `{path}` | `{default}` | {told[path]} |")
    return "\n".join(rows) + "\n"


def table_of_readme() -> str:
    """The table as README.md has it."""
    return README.read_text().partition(_START)[2].partition(_END)[0]


def _write() -> None:
    before, _, rest = README.read_text().partition(_START)
    README.write_text(before + _START + table() + _END + rest.partition(_END)[2])
    described = schema()
    told = comments()
    for path, node in nodes(described):
        node["description"] = told.get(path, node.get("description", ""))
    SCHEMA.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _write()
