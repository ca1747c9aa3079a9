"""The dashboards as Grafana 10 and later read them. Its server cannot be had here: what can be checked is checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.generate.__main__ import ROOT
from tools.generate.dashboards import DASHBOARDS, format_dashboard

# Units that the panels use, as Grafana's list of formats calls them.
UNITS = {"short", "s", "bytes", "reqps", "ops", "percentunit"}
SHOWN = {name: json.loads(format_dashboard(name, dashboard)) for name, dashboard in DASHBOARDS.items()}


@pytest.mark.parametrize("name", SHOWN)
def test_a_dashboard_says_what_it_is_and_whose_figures_it_shows(name: str) -> None:
    shown = SHOWN[name]
    assert (shown["uid"], shown["schemaVersion"]) == (f"pneumoserve-{name}", 38)
    assert shown["description"].endswith(".")
    assert [each["name"] for each in shown["templating"]["list"]] == ["datasource", "namespace", "release"]
    ids = [panel["id"] for panel in shown["panels"]]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("name", SHOWN)
def test_panels_explain_themselves_and_ask_the_chosen_prometheus(name: str) -> None:
    for panel in (each for each in SHOWN[name]["panels"] if each["type"] != "row"):
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHI"[: len(panel["targets"])])
        for target in panel["targets"]:
            assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert set(re.findall(r"\$\w+", target["expr"])) <= {"$namespace", "$release", "$__rate_interval"}
            for matchers in re.findall(r"[a-z_]\{([^}]*)\}", target["expr"]):
                assert 'namespace=~"$namespace"' in matchers


@pytest.mark.parametrize("name", SHOWN)
def test_panels_lie_side_by_side_and_within_the_page(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in SHOWN[name]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_every_metric_of_ours_is_on_a_dashboard() -> None:
    asked = " ".join(_queries(SHOWN))
    page = (ROOT / Path("docs/reference/metrics.md")).read_text()
    metrics = re.findall(r"^\| `(pneumoserve_\w+)` \|", page, re.MULTILINE)
    assert metrics
    assert [name for name in metrics if name not in asked] == []


def _queries(shown: dict[str, Any]) -> list[str]:
    panels = [panel for dashboard in shown.values() for panel in dashboard["panels"]]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]
