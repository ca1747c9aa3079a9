"""The objects that a rollout writes: copies of what runs, and rules with weights."""

from __future__ import annotations

from typing import Any

import pytest

from pneumoserve.rollout.cluster import (
    OWNER,
    STABLE,
    copy_for,
    is_accepted,
    route_patch,
    weights_of,
    with_pods,
    with_weights,
)

OLD, NEW = "00000000000a", "00000000000b"


def service(low: int = 2, high: int = 2) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": f"pneumonia-{OLD}",
            "namespace": "pneumo",
            "uid": "1",
            "resourceVersion": "7",
            "labels": {"networking.kserve.io/visibility": "cluster-local", "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": "pneumoserve",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": low,
                "maxReplicas": high,
                "topologySpreadConstraints": [
                    {"labelSelector": {"matchLabels": {"app": f"isvc.pneumonia-{OLD}-predictor"}}}
                ],
                "model": {"storageUri": f"s3://films/releases/{OLD}", "runtime": "pneumoserve-0-1-0-abcdef12"},
            }
        },
        "status": {"conditions": []},
    }


def rule(path: str, port: int, weights: dict[str, int]) -> dict[str, Any]:
    backends = [
        {"group": "", "kind": "Service", "name": f"pneumonia-{release}-predictor", "port": port, "weight": weight}
        for release, weight in weights.items()
    ]
    return {"matches": [{"path": {"value": path}}], "timeouts": {"request": "60s"}, "backendRefs": backends}


def route(weights: dict[str, int], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "pneumoserve", "namespace": "pneumo", "generation": 3, **metadata},
        "spec": {"parentRefs": [{"name": "g"}], "rules": [rule("/inference", 8081, weights), rule("/", 80, weights)]},
    }


def test_a_copy_names_the_other_release_everywhere_and_keeps_the_rest() -> None:
    copy = copy_for(service(), OLD, NEW)
    assert OLD not in str(copy)
    assert copy["metadata"]["name"] == f"pneumonia-{NEW}"
    assert set(copy["metadata"]) == {"name", "namespace", "labels", "annotations"}
    # Who installs adopts it by these.
    assert copy["metadata"]["annotations"] == {"meta.helm.sh/release-name": "pneumoserve"}
    assert copy["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert copy["spec"]["predictor"]["model"]["storageUri"] == f"s3://films/releases/{NEW}"
    assert "status" not in copy


@pytest.mark.parametrize(
    ("low", "high", "pods", "wanted"), [(2, 2, 1, (1, 1)), (2, 8, 1, (1, 8)), (2, 3, 5, (5, 5)), (2, 2, 3, (3, 3))]
)
def test_pods_are_fixed_unless_the_release_scales_by_load(low: int, high: int, pods: int, wanted: Any) -> None:
    predictor = with_pods(service(low, high), pods)["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == wanted


def test_an_autoscaler_keeps_its_most_and_gets_a_new_least() -> None:
    spec = {"scaleTargetRef": {"name": f"pneumonia-{OLD}-predictor"}}
    hpa = with_pods({"kind": "HorizontalPodAutoscaler", "spec": {**spec, "minReplicas": 2, "maxReplicas": 8}}, 4)
    assert hpa["spec"] == {**spec, "minReplicas": 4, "maxReplicas": 8}
    keda = with_pods({"kind": "ScaledObject", "spec": {"minReplicaCount": 2, "maxReplicaCount": 8}}, 1)
    assert keda["spec"] == {"minReplicaCount": 1, "maxReplicaCount": 8}
    budget = {"kind": "PodDisruptionBudget", "spec": {"maxUnavailable": 1}}
    assert with_pods(budget, 4) == budget


def test_all_rules_get_the_same_weights_and_nothing_else_changes() -> None:
    elsewhere = {"backendRefs": [{"name": "status-page", "port": 80}]}
    rules = [*route({OLD: 100})["spec"]["rules"], elsewhere]
    turned = with_weights(rules, {OLD: 75, NEW: 25})
    assert turned[2] == elsewhere
    for before, after, port in zip(rules[:2], turned[:2], (8081, 80), strict=True):
        assert {key: after[key] for key in ("matches", "timeouts")} == {
            key: before[key] for key in ("matches", "timeouts")
        }
        assert [(each["name"], each["port"], each["weight"]) for each in after["backendRefs"]] == [
            (f"pneumonia-{OLD}-predictor", port, 75),
            (f"pneumonia-{NEW}-predictor", port, 25),
        ]
    assert weights_of(turned) == {OLD: 75, NEW: 25}


def test_rules_that_disagree_have_no_weights() -> None:
    rules = [rule("/inference", 8081, {OLD: 100}), rule("/", 80, {OLD: 90, NEW: 10})]
    assert weights_of(rules) == {}
    assert weights_of([]) == {}


def test_what_is_patched_is_rules_and_who_owns_them() -> None:
    patch = route_patch(route({OLD: 100}), {OLD: 99, NEW: 1}, "a-rollout", OLD)
    assert patch["metadata"]["annotations"] == {OWNER: "a-rollout", STABLE: OLD}
    assert set(patch["spec"]) == {"rules"}
    assert route_patch(route({OLD: 100}), {NEW: 100}, "", NEW)["metadata"]["annotations"] == {STABLE: NEW}


def parent(accepted: str = "True", resolved: str = "True", generation: int = 3) -> dict[str, Any]:
    found = {"Accepted": accepted, "ResolvedRefs": resolved}
    return {
        "conditions": [
            {"type": kind, "status": status, "observedGeneration": generation} for kind, status in found.items()
        ]
    }


@pytest.mark.parametrize(
    ("parents", "taken"),
    [
        ([parent()], True),
        ([parent(), parent(accepted="False")], False),
        ([parent(resolved="False")], False),
        ([parent(generation=2)], False),
        ([{"conditions": []}], False),
        ([], False),
    ],
)
def test_a_route_is_taken_once_every_gateway_has_its_newest_version(parents: list[Any], taken: bool) -> None:
    assert is_accepted({**route({OLD: 100}), "status": {"parents": parents}}) is taken
