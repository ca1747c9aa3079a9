"""Logs and traces as values ask for them: which containers are told, and what the network lets out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, KNATIVE, TRIAL, Helm, nested, of_kind, the
from tests.chart.test_reading_room import ROOM
from tests.chart.test_rendered import ARMS, allows, containers, pods

COLLECTOR = nested("tracing.endpoint", "http://collector.monitoring:4318")


def variables(container: dict[str, Any], beginning: str) -> dict[str, str]:
    """Those of a container's variables that begin so."""
    found = container.get("env", [])
    return {each["name"]: each["value"] for each in found if each["name"].startswith(beginning)}


def test_all_that_run_for_long_log_as_values_say(helm: Helm) -> None:
    for form in ("json", "text"):
        rendered = helm.render(EVERYTHING, ROOM, nested("logging.format", form))
        told = {
            container["name"]
            for _, spec, _ in pods(rendered)
            for container in spec["containers"]
            if variables(container, "LOG_FORMAT") == {"LOG_FORMAT": form}
        }
        told |= {name for name, each in containers(rendered).items() if variables(each, "LOG_FORMAT")}
        assert {"transformer-container", "kserve-container", "console", "alerts", "rollout"} <= told
    assert "format: nonsense" not in helm.refusal(TRIAL, nested("logging.format", "nonsense"))
    assert "logging" in helm.refusal(TRIAL, nested("logging.format", "nonsense"))


def test_nothing_is_traced_by_default(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS)
    assert "OTEL_" not in str(rendered)
    assert "pneumoserve-traces" not in {item["metadata"]["name"] for item in of_kind(rendered, "NetworkPolicy")}


@pytest.mark.parametrize("values", [(TRIAL, ARMS), (KNATIVE,)])
def test_fronts_alone_are_told_of_the_collector_and_may_reach_it(helm: Helm, values: tuple[Any, ...]) -> None:
    rendered = helm.render(*values, COLLECTOR)
    assert variables(containers(rendered)["transformer-container"], "OTEL_") == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.monitoring:4318",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    assert not variables(containers(rendered)["kserve-container"], "OTEL_")
    policy = the(rendered, "NetworkPolicy", "pneumoserve-traces")
    assert policy["spec"]["egress"] == [{"ports": [{"port": 4318, "protocol": "TCP"}]}]
    assert {name for name, _, labels in pods(rendered) if allows(policy, labels)} <= predictors(rendered)


def predictors(rendered: list[Object]) -> set[str]:
    """Names of the pods of releases."""
    return {name for name, _, labels in pods(rendered) if labels.get("app.kubernetes.io/component") == "predictor"}


def test_the_collector_is_where_values_say(helm: Helm) -> None:
    (rule,) = the(helm.render(EVERYTHING), "NetworkPolicy", "pneumoserve-traces")["spec"]["egress"]
    assert rule["ports"] == [{"port": 4319, "protocol": "TCP"}]
    assert [*rule["to"][0]] == ["ipBlock"]
    assert rule["to"][1]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "tracing"}
