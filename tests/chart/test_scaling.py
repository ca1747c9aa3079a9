"""Pods that follow the calls in flight: off by default, by a HorizontalPodAutoscaler or by KEDA."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import generate_latest

from pneumoserve.front import metrics
from tests.chart.api import Object
from tests.chart.conftest import TRIAL, Cluster, Helm, nested, of_kind, the
from tests.chart.test_rendered import ARMS, RELEASE, STANDBY

READ = nested("networkPolicies.metricsNamespaces", ["monitoring"])
ON = nested("autoscaling.enabled", True) | READ
KEDA = {"autoscaling": {"enabled": True, "by": "keda", "prometheus": "http://prometheus.monitoring.svc:9090"}} | READ
METRIC = "pneumoserve_calls_in_flight"


@pytest.fixture
def scaled(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ARMS, ON)


def by_release(objects: list[Object], kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"].removeprefix("pneumonia-"): item for item in of_kind(objects, kind)}


def predictors(objects: list[Object]) -> dict[str, Any]:
    return {release: item["spec"]["predictor"] for release, item in by_release(objects, "InferenceService").items()}


def test_by_default_kserve_keeps_the_number_of_pods(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS)
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & {item["kind"] for item in rendered}


def test_each_release_has_an_autoscaler_of_its_own_that_kserve_leaves_alone(scaled: list[Object]) -> None:
    autoscalers = by_release(scaled, "HorizontalPodAutoscaler")
    assert set(autoscalers) == {RELEASE, STANDBY}
    deployments = set()
    for release, item in by_release(scaled, "InferenceService").items():
        assert item["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
        spec = autoscalers[release]["spec"]
        assert spec["scaleTargetRef"]["kind"] == "Deployment"
        assert spec["scaleTargetRef"]["name"] == f"pneumonia-{release}-predictor"
        assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
        assert item["spec"]["predictor"]["minReplicas"] == spec["minReplicas"]
        assert item["spec"]["predictor"]["maxReplicas"] == spec["maxReplicas"]
        deployments.add(spec["scaleTargetRef"]["name"])
    # KServe overwrites an autoscaler that is named like its Deployment.
    assert not deployments & {item["metadata"]["name"] for item in autoscalers.values()}


def test_it_goes_by_a_metric_that_the_front_has(scaled: list[Object]) -> None:
    (metric,) = the(scaled, "HorizontalPodAutoscaler", f"pneumonia-{RELEASE}")["spec"]["metrics"]
    assert metric["type"] == "Pods"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "4"}
    assert metric["pods"]["metric"] == {"name": METRIC}
    metrics.IN_FLIGHT.set(0)
    assert f"\n{METRIC} 0.0\n" in generate_latest().decode()


@pytest.mark.parametrize("given", [ON, KEDA], ids=["hpa", "keda"])
def test_pods_come_at_once_and_go_late_and_one_by_one(helm: Helm, given: dict[str, Any]) -> None:
    rendered = helm.render(TRIAL, ARMS, given)
    if given is ON:
        behavior = the(rendered, "HorizontalPodAutoscaler", f"pneumonia-{RELEASE}")["spec"]["behavior"]
    else:
        advanced = the(rendered, "ScaledObject", f"pneumonia-{RELEASE}")["spec"]["advanced"]
        behavior = advanced["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_keda_asks_prometheus_for_the_same_metric(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS, KEDA)
    assert not of_kind(rendered, "HorizontalPodAutoscaler")
    objects = by_release(rendered, "ScaledObject")
    assert set(objects) == {RELEASE, STANDBY}
    for release, item in objects.items():
        spec = item["spec"]
        assert spec["scaleTargetRef"]["name"] == f"pneumonia-{release}-predictor"
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 6)
        (trigger,) = spec["triggers"]
        assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
        asked = trigger["metadata"]
        assert asked["serverAddress"] == "http://prometheus.monitoring.svc:9090"
        assert asked["threshold"] == "4"
        assert asked["ignoreNullValues"] == "false"
        assert asked["query"] == (
            f'sum(avg_over_time({METRIC}{{namespace="pneumo",pod=~"pneumonia-{release}-predictor-.+"}}[1m]))'
        )


def test_scaling_changes_no_runtime_and_no_pod(helm: Helm, scaled: list[Object]) -> None:
    plain = helm.render(TRIAL, ARMS, READ)
    assert the(scaled, "ServingRuntime") == the(plain, "ServingRuntime")
    counted = {"minReplicas", "maxReplicas"}
    for release, predictor in predictors(plain).items():
        after = predictors(scaled)[release]
        assert {k: v for k, v in predictor.items() if k not in counted} == {
            k: v for k, v in after.items() if k not in counted
        }


def test_every_scaled_release_has_a_disruption_budget(scaled: list[Object]) -> None:
    assert set(by_release(scaled, "PodDisruptionBudget")) == {RELEASE, STANDBY}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (ON | {"autoscaling": {"enabled": True, "minReplicas": 7}}, "autoscaling.maxReplicas is less than"),
        (KEDA | {"autoscaling": {"enabled": True, "by": "keda"}}, "set autoscaling.prometheus to its address"),
        (nested("autoscaling.enabled", True), "set networkPolicies.metricsNamespaces"),
    ],
)
def test_values_that_could_not_scale_are_refused(helm: Helm, given: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(TRIAL, ARMS, given)


def test_without_network_policies_anybody_may_read_metrics(helm: Helm) -> None:
    given = {"autoscaling": {"enabled": True}, "networkPolicies": {"enabled": False}}
    assert helm.render(TRIAL, ARMS, given)


@pytest.mark.parametrize(("given", "sentence"), [(ON, "no custom metrics API"), (KEDA, "The cluster has no KEDA")])
def test_a_cluster_without_what_scales_is_told(
    helm: Helm, cluster: Cluster, given: dict[str, Any], sentence: str
) -> None:
    assert cluster.render(helm, TRIAL, ARMS, given)
    cluster.metrics = False
    assert sentence in cluster.refusal(helm, TRIAL, ARMS, given)


def test_the_notes_tell_how_many_pods_there_may_be(helm: Helm) -> None:
    assert "answers, with 2 to 6 pod(s)." in helm.notes(TRIAL, ARMS, ON, nested("preflight.enabled", False))
    one = nested("autoscaling.minReplicas", 1)
    notes = helm.notes(TRIAL, ARMS, ON | {"autoscaling": {"enabled": True} | one["autoscaling"]},
                       nested("preflight.enabled", False))  # fmt: skip
    assert "One pod per release" in notes
