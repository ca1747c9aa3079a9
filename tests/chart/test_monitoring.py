"""What watches an install: PodMonitor, alerts, `helm test`, and what Artifact Hub is told."""

from __future__ import annotations

import importlib.util
import json
import re
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import generate_latest

import pneumoserve.alerts.metrics
import pneumoserve.console.metrics
import pneumoserve.intake.metrics  # noqa: F401
from pneumoserve.front.metrics import CallOutcome
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, TRIAL, Cluster, Helm, nested, of_kind, the
from tests.chart.restricted import violations
from tests.chart.test_intake import DICOM
from tests.chart.test_reading_room import ROOM
from tests.chart.test_rendered import ARMS, RELEASE, allows, containers
from tests.support import films
from tools.generate.chart_values import CHART, values

READ = nested("networkPolicies.metricsNamespaces", ["monitoring"])
ON = {"monitoring": {"podMonitor": {"enabled": True}, "rules": {"enabled": True}}} | READ
KINDS = {"PodMonitor", "PrometheusRule"}
SERVERS = ("alerts", "console", "intake")


@pytest.fixture
def watched(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ARMS, ON)


# --- PodMonitor


def test_nothing_of_the_operators_is_made_by_default(helm: Helm) -> None:
    assert not KINDS & {item["kind"] for item in helm.render(TRIAL, ARMS)}


def test_every_front_is_asked_where_it_listens(watched: list[Object]) -> None:
    spec = the(watched, "PodMonitor", "pneumoserve")["spec"]
    for item in of_kind(watched, "InferenceService"):
        assert spec["selector"]["matchLabels"].items() <= item["metadata"]["labels"].items()
    (endpoint,) = spec["podMetricsEndpoints"]
    ports = {port["name"]: port["containerPort"] for port in containers(watched)["transformer-container"]["ports"]}
    assert ports[endpoint["port"]] == 8082
    assert (endpoint["path"], endpoint["interval"]) == ("/metrics", "15s")
    (relabeled,) = endpoint["relabelings"]
    assert relabeled["targetLabel"] == "release"
    name = of_kind(watched, "InferenceService")[0]["metadata"]["name"]
    found = re.fullmatch(relabeled["regex"], name)
    assert found is not None
    assert found[1] == RELEASE


def test_what_prometheus_selects_by_is_on_its_objects_alone(helm: Helm) -> None:
    marked = {item["kind"] for item in helm.render(EVERYTHING) if "prometheus" in item["metadata"]["labels"]}
    assert marked == KINDS


def test_metrics_that_nobody_may_read_are_refused(helm: Helm) -> None:
    assert "monitoring.podMonitor needs metrics that nobody may read" in helm.refusal(
        TRIAL, ARMS, nested("monitoring.podMonitor.enabled", True)
    )


def test_a_cluster_without_the_operator_is_told(helm: Helm, cluster: Cluster) -> None:
    assert cluster.render(helm, TRIAL, ARMS, ON)
    cluster.metrics = False
    refused = cluster.refusal(helm, TRIAL, ARMS, ON)
    assert [kind for kind in sorted(KINDS) if f"The cluster knows no {kind}; install" not in refused] == []


# --- alerts


def alerts(objects: list[Object]) -> dict[str, Any]:
    return {rule["alert"]: rule for rule in rules(objects) if "alert" in rule}


def rules(objects: list[Object]) -> list[dict[str, Any]]:
    return [rule for group in the(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]


def test_an_operator_is_alerted_to_what_stops_or_spoils_the_service(watched: list[Object]) -> None:
    assert set(alerts(watched)) == {
        "PneumoserveNotReady",
        "PneumoservePodsMissing",
        "PneumoserveNotWatched",
        "PneumoserveErrorBudgetBurnsFast",
        "PneumoserveErrorBudgetBurnsSlowly",
        "PneumoserveSlowAnswers",
        "PneumoserveReleaseStopped",
        "PneumoserveStoreAway",
        "PneumoserveArchiveFault",
        "PneumoserveNotSealed",
    }
    for rule in alerts(watched).values():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}


def test_every_alert_names_its_page(helm: Helm) -> None:
    pages = {path.stem for path in (CHART.parents[1] / "docs" / "runbooks").glob("Pneumoserve*.md")}
    found = alerts(helm.render(TRIAL, ARMS, ON, ROOM, DICOM))
    assert set(found) == pages
    assert {name: rule["annotations"]["runbook"] for name, rule in found.items()} == {
        name: f"docs/runbooks/{name}.md" for name in pages
    }
    address = nested("monitoring.rules.runbookUrl", "https://docs.hospital.example/runbooks/%s.html")
    for name, rule in alerts(helm.render(TRIAL, ARMS, ON, ROOM, DICOM, address)).items():
        assert rule["annotations"]["runbook_url"] == f"https://docs.hospital.example/runbooks/{name}.html"
        assert "runbook" not in rule["annotations"]


@pytest.mark.parametrize("address", ["docs.hospital.example/%s", "https://docs.hospital.example/", "https://a/%s/%d"])
def test_an_address_that_names_no_alert_is_refused(address: str, helm: Helm) -> None:
    assert "runbookUrl" in helm.refusal(TRIAL, ARMS, ON, nested("monitoring.rules.runbookUrl", address))


def test_an_operator_is_alerted_to_people_who_are_not_told_and_do_not_read(helm: Helm, watched: list[Object]) -> None:
    parts = {**ROOM, **DICOM}
    there = {part: set(alerts(helm.render(TRIAL, ARMS, ON, {part: parts[part]}))) for part in SERVERS}
    assert {part: names - set(alerts(watched)) for part, names in there.items()} == {
        "alerts": {"PneumoserveAlertsUndelivered", "PneumoserveAlertsStopped", "PneumoserveAlertsLate"},
        "console": {"PneumoserveStudiesOverdue"},
        "intake": {"PneumoserveIntakeFailed", "PneumoserveIntakeStopped", "PneumoserveIntakeLate"},
    }


def test_sender_console_and_intake_are_asked_where_they_listen(helm: Helm) -> None:
    room = helm.render(TRIAL, ARMS, ON, ROOM, DICOM)
    for part in SERVERS:
        monitor, deployment = (
            the(room, "PodMonitor", f"pneumoserve-{part}"),
            the(room, "Deployment", f"pneumoserve-{part}"),
        )
        pod = deployment["spec"]["template"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        (container,) = pod["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports[monitor["spec"]["podMetricsEndpoints"][0]["port"]] == 8082
        assert "--metrics-port=8082" in [*container["command"], *container.get("args", [])]
        reached = [
            (peer, port["port"])
            for policy in of_kind(room, "NetworkPolicy")
            if allows(policy, pod["metadata"]["labels"])
            for rule in policy["spec"].get("ingress", [])
            for peer in rule["from"]
            for port in rule["ports"]
        ]
        assert ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}, 8082) in reached


def test_rules_ask_for_metrics_that_there_are_and_for_this_namespace(helm: Helm) -> None:
    watched = helm.render(TRIAL, ARMS, ON, ROOM, DICOM)
    ours = {line.split()[2] for line in generate_latest().decode().splitlines() if line.startswith("# TYPE")}
    ours |= {rule["record"] for rule in rules(watched) if "record" in rule} | {"pneumoserve_call_seconds_bucket"}
    for rule in rules(watched):
        asked = re.findall(r"([\w:]+)(\{[^}]*\})", rule["expr"])
        assert asked
        for metric, where in asked:
            assert metric in ours or metric.removesuffix("_count") in ours or metric.startswith("kube_"), metric
            assert 'namespace="pneumo"' in where


def test_what_the_objective_counts_as_bad_are_outcomes_that_there_are(watched: list[Object]) -> None:
    bad = {found for rule in rules(watched) for found in re.findall(r'outcome=~"([^"]+)"', rule["expr"])}
    assert bad == {"overloaded|failed|unrecorded"}
    assert set(bad.pop().split("|")) == set(get_args(CallOutcome)) - {"answered", "refused", "abandoned"}


def test_the_alerts_name_objects_that_there_are(watched: list[Object]) -> None:
    found = alerts(watched)
    cron_jobs = {item["metadata"]["name"] for item in of_kind(watched, "CronJob")}
    (verify,) = re.findall(r'job_name=~"([^"]+)"', found["PneumoserveArchiveFault"]["expr"])
    assert [name for name in cron_jobs if re.fullmatch(verify, f"{name}-29400000")] == ["pneumoserve-verify"]
    assert set(re.findall(r'cronjob="([^"]+)"', found["PneumoserveNotSealed"]["expr"])) <= cron_jobs
    assert f'deployment="pneumonia-{RELEASE}-predictor"' in found["PneumoserveNotReady"]["expr"]


def test_there_is_no_alert_of_a_job_that_does_not_run(helm: Helm) -> None:
    off = {"archive": {"seal": {"enabled": False}, "verify": {"enabled": False}}}
    assert not {"PneumoserveArchiveFault", "PneumoserveNotSealed"} & set(alerts(helm.render(TRIAL, ARMS, ON, off)))


# --- dashboards


def test_grafanas_sidecar_finds_the_dashboards(helm: Helm) -> None:
    found = dashboards(helm.render(TRIAL, ARMS, nested("monitoring.dashboards.enabled", True)))
    files = {path.name: path.read_text() for path in (CHART / "files" / "dashboards").iterdir()}
    assert {name: item["metadata"]["name"] for name, item in found.items()} == {
        f"pneumoserve-{file}": f"pneumoserve-dashboard-{file.removesuffix('.json')}" for file in files
    }
    for file, text in files.items():
        item = found[f"pneumoserve-{file}"]
        assert json.loads(item["data"][f"pneumoserve-{file}"]) == json.loads(text)
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["namespace"] == "pneumo"


def test_dashboards_go_where_a_sidecar_looks_and_are_marked_as_it_wants(helm: Helm) -> None:
    given = {"enabled": True, "namespace": "monitoring", "labels": {"grafana_dashboard": None, "board": "yes"}}
    for item in dashboards(helm.render(TRIAL, ARMS, nested("monitoring.dashboards", given))).values():
        assert item["metadata"]["namespace"] == "monitoring"
        assert item["metadata"]["labels"]["board"] == "yes"
        assert "grafana_dashboard" not in item["metadata"]["labels"]


def test_there_are_no_dashboards_by_default(helm: Helm) -> None:
    assert dashboards(helm.render(TRIAL, ARMS, ON)) == {}


def dashboards(objects: list[Object]) -> dict[str, Object]:
    """ConfigMaps of dashboards, by the name of their file."""
    found = [item for item in of_kind(objects, "ConfigMap") if "-dashboard-" in item["metadata"]["name"]]
    return {next(iter(item["data"])): item for item in found}


# --- helm test


def test_helm_test_sends_a_film_to_the_release_that_answers(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS)
    pod = the(rendered, "Pod")
    assert violations(pod["spec"]) == []
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["command"][2:4] == [f"http://pneumonia-{RELEASE}-predictor.pneumo.svc", RELEASE]
    files = the(rendered, "ConfigMap", "pneumoserve-test")
    assert set(files["data"]) | set(files["binaryData"]) == {
        word.removeprefix("/test/") for word in container["command"] if word.startswith("/test/")
    }
    assert "Pod" not in {item["kind"] for item in helm.render(TRIAL)}


def test_its_pod_reaches_the_release_and_the_release_lets_it_in(helm: Helm) -> None:
    for given, port in (({}, 8080), (nested("payloadLogger.enabled", True), 9081)):
        rendered = helm.render(TRIAL, ARMS, given)
        pod, predictor = the(rendered, "Pod"), of_kind(rendered, "InferenceService")[0]
        for source, target, direction in ((pod, predictor, "egress"), (predictor, pod, "ingress")):
            ports = {
                each["port"]
                for policy in of_kind(rendered, "NetworkPolicy")
                if allows(policy, source["metadata"]["labels"])
                for rule in policy["spec"].get(direction, [])
                for peer in rule.get("to" if direction == "egress" else "from", [])
                if "podSelector" in peer and selects(peer["podSelector"], target["metadata"]["labels"])
                for each in rule["ports"]
            }
            assert port in ports


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return allows({"spec": {"podSelector": selector}}, labels)


def test_all_that_it_needs_goes_with_it(helm: Helm) -> None:
    hooks = [
        item for item in helm.render(TRIAL, ARMS) if item["metadata"]["labels"]["app.kubernetes.io/component"] == "test"
    ]
    assert len(hooks) == 4
    for item in hooks:
        assert item["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert item["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_where_callers_sign_in_it_says_who_it_is(helm: Helm) -> None:
    assert the(helm.render(TRIAL, ARMS), "Pod")["spec"]["containers"][0]["command"][-1] == "/test/film.jpeg"
    rendered = helm.render(EVERYTHING)
    header = the(rendered, "Pod")["spec"]["containers"][0]["command"][-1]
    assert f"--subject-header={header}" in containers(rendered)["transformer-container"]["args"]


def test_its_film_is_one_of_the_sample(helm: Helm) -> None:
    film = (CHART / "files" / "film.jpeg").read_bytes()
    assert film in [path.read_bytes() for path in films.sample_films()]
    assert "CC BY 4.0" in (CHART / "files" / "ATTRIBUTION.md").read_text()


@pytest.fixture(scope="module")
def helm_test() -> ModuleType:
    """The program as its pod runs it."""
    spec = importlib.util.spec_from_file_location("helm_test", CHART / "files" / "helm_test.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HEADERS = {
    "pneumoserve-release": RELEASE,
    "pneumoserve-recorded": "store",
    "pneumoserve-receipts": json.dumps([{"writer": "w", "sequence": 0, "hash": "h"}]),
}
BODY = {"predictions": [{"prediction_id": "p", "finding": None}]}


@pytest.mark.parametrize(
    ("status", "headers", "body", "sentence"),
    [
        (200, {}, BODY, ""),
        (503, {}, {"error": "The archive takes no records."}, "The status is 503"),
        (200, {"pneumoserve-release": "ba9876543210"}, BODY, "Release ba9876543210 answered"),
        (200, {"pneumoserve-recorded": ""}, BODY, "does not say that it is on record"),
        (200, {"pneumoserve-receipts": "[]"}, BODY, "no receipt"),
        (200, {"pneumoserve-receipts": '[{"writer": "w"}]'}, BODY, "no receipt"),
        (200, {"pneumoserve-receipts": "none"}, BODY, "not as documented"),
        (200, {}, {"predictions": [{"prediction_id": "", "finding": None}]}, "no prediction_id"),
        (200, {}, {"predictions": [{"prediction_id": "p", "finding": "broken rib"}]}, "none of the documented ones"),
        (200, {}, {"predictions": []}, "not as documented"),
    ],
)
def test_it_sees_what_is_wrong_with_an_answer(
    helm_test: ModuleType, status: int, headers: dict[str, str], body: dict[str, Any], sentence: str
) -> None:
    found = helm_test.problems(RELEASE, status, HEADERS | headers, json.dumps(body).encode())
    if sentence:
        assert sentence in " ".join(found)
    else:
        assert found == []


# --- Artifact Hub


def told_to_artifact_hub(name: str) -> Any:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return yaml.safe_load(chart["annotations"][f"artifacthub.io/{name}"])


def images(tree: dict[str, Any]) -> set[str]:
    """Every image that the default values name."""
    if {"repository", "tag"} <= set(tree):
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        return {f"{tree['repository']}:{tree['tag'] or version}"}
    return {name for below in tree.values() if isinstance(below, dict) for name in images(below)}


def test_artifact_hub_knows_every_image() -> None:
    assert {each["image"] for each in told_to_artifact_hub("images")} == images(values())


def test_artifact_hub_knows_licence_changes_and_that_it_is_no_release_yet() -> None:
    assert told_to_artifact_hub("license") == "Apache-2.0"
    assert told_to_artifact_hub("prerelease") is True
    assert {each["kind"] for each in told_to_artifact_hub("changes")} <= {
        "added",
        "changed",
        "deprecated",
        "removed",
        "fixed",
        "security",
    }
    assert all(each["url"].startswith("https://") for each in told_to_artifact_hub("links"))
