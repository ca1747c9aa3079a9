"""Knative mode: what it makes, what Knative would refuse of it, and what it cannot be switched on with."""

from __future__ import annotations

from typing import Any

import pytest

from pneumoserve.rollout import OWNER, STABLE
from tests.chart.api import Object
from tests.chart.conftest import (
    KNATIVE,
    NAMESPACE,
    TRIAL,
    Cluster,
    Helm,
    check_storage_patch,
    nested,
    of_kind,
    storage_container,
    the,
)
from tests.chart.knative import refusal, service_of
from tests.chart.restricted import violations
from tests.chart.test_rendered import ARMS, RELEASE

OTHER = "ba9876543210"
PLAN = {"candidate": OTHER, "evidence": "labels", "steps": [{"percent": 100}]}
ROLLOUT: dict[str, Any] = {"rollout": {"enabled": True, "plan": PLAN}}
# What the storage-initializer needs where the pod has no security settings.
WHOLE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture
def knative(helm: Helm) -> list[Object]:
    return helm.render(KNATIVE)


@pytest.fixture
def serving(cluster: Cluster) -> Cluster:
    """A cluster with Knative Serving on its defaults."""
    cluster.knative = True
    cluster.add(storage_container(WHOLE))
    return cluster


def service(objects: list[Object]) -> Any:
    return the(objects, "InferenceService", "pneumonia")


def runtime(objects: list[Object]) -> Any:
    return the(objects, "ServingRuntime")["spec"]


def features(**flags: str) -> Object:
    data = {f"kubernetes.podspec-{name.replace('_', '-')}": value for name, value in flags.items()}
    metadata = {"name": "config-features", "namespace": "knative-serving"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


# --- what it makes


def test_one_inference_service_asks_for_knative_and_nothing_of_standard_mode_is_made(knative: list[Object]) -> None:
    (made,) = of_kind(knative, "InferenceService")
    assert made["metadata"]["name"] == "pneumonia"
    assert made["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Knative"}
    kinds = {item["kind"] for item in knative}
    assert not kinds & {"HTTPRoute", "HorizontalPodAutoscaler", "ScaledObject", "PodDisruptionBudget", "Pod"}


def test_nobody_reaches_it_from_outside_without_being_asked_who_they_are(knative: list[Object]) -> None:
    assert service(knative)["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"


def test_knative_scales_it_and_always_keeps_two_pods(knative: list[Object], helm: Helm) -> None:
    predictor = service(knative)["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleTarget"]) == (2, 6, 4)
    other = service(helm.render(KNATIVE, {"autoscaling": {"minReplicas": 3, "maxReplicas": 9, "target": 8}}))
    predictor = other["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleTarget"]) == (3, 9, 8)


def test_another_release_is_another_revision_of_the_same_service_with_a_share_of_the_calls(
    knative: list[Object], helm: Helm
) -> None:
    given = nested("knative.canaryTrafficPercent", 10) | nested("release.id", OTHER)
    first, second = service(knative)["spec"]["predictor"], service(helm.render(KNATIVE, given))["spec"]["predictor"]
    assert first["model"].pop("storageUri") == f"s3://pneumoserve/releases/{RELEASE}"
    assert second["model"].pop("storageUri") == f"s3://pneumoserve/releases/{OTHER}"
    assert (first.pop("canaryTrafficPercent"), second.pop("canaryTrafficPercent")) == (100, 10)
    assert first == second


def test_the_grace_period_is_the_timeout_of_a_call(helm: Helm) -> None:
    predictor = service(helm.render(KNATIVE, {"terminationGracePeriodSeconds": 90}))["spec"]["predictor"]
    assert predictor["timeout"] == 90
    assert "terminationGracePeriodSeconds" not in predictor


def test_without_a_release_there_is_none(helm: Helm) -> None:
    assert not of_kind(helm.render(KNATIVE, nested("release.id", "")), "InferenceService")


# --- what Knative takes


def test_it_has_a_runtime_of_its_own_that_says_so(knative: list[Object], helm: Helm) -> None:
    name = the(knative, "ServingRuntime")["metadata"]["name"]
    assert name == service(knative)["spec"]["predictor"]["model"]["runtime"]
    assert name.startswith("pneumoserve-0-2-0-knative-")
    assert "knative" not in the(helm.render(TRIAL, ARMS), "ServingRuntime")["metadata"]["name"]


def test_one_port_over_all_containers_and_it_speaks_http(knative: list[Object]) -> None:
    ports = [port for container in runtime(knative)["containers"] for port in container.get("ports", [])]
    assert ports == [{"name": "http1", "containerPort": 8080, "protocol": "TCP"}]
    assert runtime(knative)["protocolVersions"] == ["v1", "v2"]


def test_no_hooks_no_probe_beside_the_fronts_and_no_wait_for_a_hook(knative: list[Object]) -> None:
    by_name = {container["name"]: container for container in runtime(knative)["containers"]}
    assert set(by_name) == {"kserve-container", "transformer-container"}
    assert [name for name, container in by_name.items() if "lifecycle" in container] == []
    assert {key for key in by_name["kserve-container"] if key.endswith("Probe")} == set()
    front = by_name["transformer-container"]
    assert {key for key in front if key.endswith("Probe")} == {"startupProbe", "readinessProbe", "livenessProbe"}
    assert front["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert not [word for word in front.get("args", []) if "drain" in word]


def test_the_fronts_other_arguments_stay(helm: Helm) -> None:
    given = {"archive": {"lock": {"days": 30, "sealedDays": 60}}}
    (args,) = (each["args"] for each in runtime(helm.render(KNATIVE, given))["containers"] if "ports" in each)
    assert args == [
        "--release-id={{.Labels.pneumoserve_release}}",
        "--proxy=0.0.0.0/0",
        "--proxy=::/0",
        "--lock-days=30",
        "--lock-mode=GOVERNANCE",
    ]


def test_otherwise_the_runtime_is_that_of_standard_mode(knative: list[Object], helm: Helm) -> None:
    left_out = {"lifecycle", "ports", "args", "startupProbe", "readinessProbe", "livenessProbe"}

    def compared(spec: dict[str, Any]) -> dict[str, Any]:
        kept = [{k: v for k, v in each.items() if k not in left_out} for each in spec["containers"]]
        return {**spec, "containers": kept, "protocolVersions": None}

    assert compared(runtime(knative)) == compared(runtime(helm.render(TRIAL, ARMS)))


def test_knatives_own_validation_takes_it(knative: list[Object], helm: Helm) -> None:
    assert refusal(service_of(knative)) == ""
    given = {"archive": {"lock": {"days": 30, "sealedDays": 60}}, "images": {"pullSecrets": ["registry"]}}
    assert refusal(service_of(helm.render(KNATIVE, given, nested("terminationGracePeriodSeconds", 600)))) == ""


def test_and_refuses_standard_mode_for_what_the_variant_leaves_out(helm: Helm) -> None:
    sentence = refusal(service_of(helm.render(TRIAL, nested("release.id", RELEASE))))
    assert "more than one container port is set" in sentence
    for field in (
        "containers[0].lifecycle",
        "containers[0].startupProbe",
        "containers[0].readinessProbe",
        "containers[1].lifecycle",
        "securityContext",
        "terminationGracePeriodSeconds",
        "topologySpreadConstraints",
    ):
        assert f"spec.template.spec.{field}" in sentence


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (nested("topologySpread.enabled", True), "topologySpreadConstraints"),
        (nested("nodeSelector", {"disk": "ssd"}), "nodeSelector"),
        (nested("tolerations", [{"key": "gpu", "operator": "Exists"}]), "tolerations"),
        (nested("affinity", {"nodeAffinity": {}}), "affinity"),
        (nested("archive.journal.existingClaim", "journal"), "persistentVolumeClaim"),
    ],
)
def test_what_the_preflight_asks_flags_for_is_what_knative_refuses_without(
    helm: Helm, given: dict[str, Any], field: str
) -> None:
    assert field in refusal(service_of(helm.render(KNATIVE, given)))


def test_every_container_is_restricted_by_itself_since_the_pod_says_nothing(knative: list[Object]) -> None:
    assert violations({"containers": runtime(knative)["containers"], "volumes": runtime(knative)["volumes"]}) == []


def test_knatives_gateway_activator_and_autoscaler_may_call_its_proxy_and_nobody_the_front(
    knative: list[Object],
) -> None:
    rules = the(knative, "NetworkPolicy", "pneumoserve-predictor")["spec"]["ingress"]
    allowed = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in rules
        for peer in rule["from"]
        for port in rule["ports"]
    }
    gateway, serving = "kourier-system", "knative-serving"
    assert allowed == {(gateway, 8012), (gateway, 8112), (serving, 8012), (serving, 8112), (serving, 9090)}


# --- what it cannot be switched on with


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (nested("route.enabled", True), "set route.enabled=false"),
        (nested("route.limits.callsPerMinute", 60), "set route.limits.callsPerMinute to 0"),
        (nested("podDisruptionBudget.enabled", True), "set podDisruptionBudget.enabled=false"),
        (nested("autoscaling.enabled", True), "set autoscaling.enabled=false"),
        (nested("autoscaling.minReplicas", 7), "autoscaling.maxReplicas is less than autoscaling.minReplicas"),
        (nested("release.standby", [OTHER]), "leave release.standby empty"),
        (nested("payloadLogger.enabled", True), "set payloadLogger.enabled=false"),
        (nested("monitoring.rules.enabled", True), "monitoring.rules.enabled=false"),
        (nested("loadTest.enabled", True), "set loadTest.url to it"),
        (nested("loadTest.enabled", True), "remove grpc from loadTest.kinds"),
        (nested("terminationGracePeriodSeconds", 601), "600 at most; lower it"),
    ],
)
def test_what_contradicts_it_is_refused_with_what_to_do(helm: Helm, given: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(KNATIVE, given)


def test_a_share_of_the_calls_is_refused_in_standard_mode(helm: Helm) -> None:
    refused = helm.refusal(TRIAL, ARMS, nested("knative.canaryTrafficPercent", 10))
    assert "knative.canaryTrafficPercent counts with mode Knative only" in refused


@pytest.mark.parametrize(
    ("path", "value"), [("mode", "Serverless"), ("mode", "knative"), ("knative.canaryTrafficPercent", 101)]
)
def test_a_mode_or_a_share_that_there_is_not_is_refused(helm: Helm, path: str, value: Any) -> None:
    assert "/" + path.replace(".", "/") in helm.refusal(KNATIVE, nested(path, value))


# --- the cluster


def test_a_cluster_with_knative_is_taken(helm: Helm, serving: Cluster) -> None:
    assert service(serving.render(helm, KNATIVE))


def test_a_cluster_without_knative_is_told_what_to_do(helm: Helm, serving: Cluster) -> None:
    serving.knative = False
    refused = serving.refusal(helm, KNATIVE)
    assert "1. The cluster has no Knative Serving; install it with a networking layer" in refused
    assert "kubectl rollout restart deployment/kserve-controller-manager -n kserve; or set mode=Standard." in refused
    assert "\n2. " not in refused


def test_a_gateway_and_a_gateway_api_are_not_asked_for(helm: Helm, serving: Cluster) -> None:
    serving.gateway = False
    assert serving.render(helm, KNATIVE)


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (nested("topologySpread.enabled", True), ["topologyspreadconstraints"]),
        (nested("nodeSelector", {"disk": "ssd"}), ["nodeselector"]),
        (nested("tolerations", [{"key": "gpu", "operator": "Exists"}]), ["tolerations"]),
        (nested("affinity", {"nodeAffinity": {}}), ["affinity"]),
        (
            nested("archive.journal.existingClaim", "journal"),
            ["persistent-volume-claim", "persistent-volume-write"],
        ),
    ],
)
def test_a_field_that_knative_takes_by_a_flag_only_is_told_with_its_command(
    helm: Helm, serving: Cluster, given: dict[str, Any], flags: list[str]
) -> None:
    patch = ",".join(f'"kubernetes.podspec-{flag}":"enabled"' for flag in flags)
    command = f"kubectl patch configmap config-features -n knative-serving --type merge -p '{{\"data\":{{{patch}}}}}'"
    assert command in serving.refusal(helm, KNATIVE, given)
    serving.add(features(**dict.fromkeys((flag.replace("-", "_") for flag in flags), "disabled")))
    assert command in serving.refusal(helm, KNATIVE, given)
    serving.add(features(**dict.fromkeys((flag.replace("-", "_") for flag in flags), "Enabled")))
    assert serving.render(helm, KNATIVE, given)


def test_a_storage_container_that_leaves_its_safety_to_the_pod_is_told_with_its_patch(
    helm: Helm, serving: Cluster
) -> None:
    serving.add(storage_container({key: WHOLE[key] for key in ("allowPrivilegeEscalation", "capabilities")}))
    check_storage_patch(helm, serving, KNATIVE, '{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}}')


def running(name: str, mode: str, install: str = "pneumoserve") -> Object:
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/instance": install},
        "annotations": {"serving.kserve.io/deploymentMode": mode},
    }
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, "spec": {}}


def test_an_install_keeps_its_mode(helm: Helm, serving: Cluster) -> None:
    serving.add(running(f"pneumonia-{RELEASE}", "Standard"))
    refused = serving.refusal(helm, KNATIVE)
    assert f"InferenceService pneumonia-{RELEASE} runs in Standard mode and mode is Knative" in refused
    assert serving.render(helm, TRIAL, ARMS)
    serving.objects.pop(f"InferenceService/pneumonia-{RELEASE}")
    serving.add(running("pneumonia", "Knative"))
    assert "keep mode=Knative here" in serving.refusal(helm, TRIAL, ARMS)
    assert serving.render(helm, KNATIVE)


def test_another_installs_mode_is_its_own(helm: Helm, serving: Cluster) -> None:
    serving.add(running("else", "Standard", install="else"))
    assert serving.render(helm, KNATIVE)


# --- rollouts


def traffic(**marks: str) -> Object:
    """The ConfigMap as a rollout leaves it."""
    metadata = {"name": "pneumoserve-traffic", "namespace": NAMESPACE, "annotations": marks}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def test_a_rollouts_account_may_change_the_one_service_and_its_marks_and_make_none(helm: Helm) -> None:
    rules = the(helm.render(KNATIVE, ROLLOUT), "Role", "pneumoserve-rollout")["rules"]
    rights = {
        (resource, verb): rule.get("resourceNames")
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if resource not in {"configmaps", "leases", "events"} or verb == "patch"
    }
    assert rights == {
        ("inferenceservices", "get"): ["pneumonia"],
        ("inferenceservices", "patch"): ["pneumonia"],
        ("configmaps", "patch"): ["pneumoserve-traffic"],
        ("services", "get"): ["pneumonia-predictor"],
        ("revisions", "get"): None,
        ("servingruntimes", "get"): None,
        ("deployments", "get"): None,
        ("pods", "list"): None,
    }


def test_the_marks_have_a_place_that_makes_no_revision(knative: list[Object], helm: Helm) -> None:
    made = the(knative, "ConfigMap", "pneumoserve-traffic")
    assert "annotations" not in made["metadata"]
    names = {item["metadata"]["name"] for item in of_kind(helm.render(TRIAL, ARMS), "ConfigMap")}
    assert "pneumoserve-traffic" not in names


def test_a_rollouts_pod_may_warm_a_revision_past_knatives_proxy(helm: Helm) -> None:
    objects = helm.render(KNATIVE, ROLLOUT, nested("networkPolicies.enabled", True))
    labels = service(objects)["metadata"]["labels"]
    warmed = the(objects, "NetworkPolicy", "pneumoserve-warmed")["spec"]
    assert warmed["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for rule in warmed["ingress"] for port in rule["ports"]] == [8080]


def test_while_a_rollout_is_under_way_no_upgrade_makes_a_revision(helm: Helm, serving: Cluster) -> None:
    serving.add(traffic(**{OWNER: "r", STABLE: RELEASE}))
    refused = serving.refusal(helm, KNATIVE)
    assert f"A rollout beside release {RELEASE} is under way, and in Knative mode" in refused
    assert f"kubectl annotate configmap pneumoserve-traffic -n {NAMESPACE} pneumoserve/rollout-" in refused


def test_an_upgrade_that_would_turn_back_what_a_rollout_settled_is_refused(helm: Helm, serving: Cluster) -> None:
    serving.add(traffic(**{STABLE: OTHER}))
    refused = serving.refusal(helm, KNATIVE)
    assert f"A rollout settled on release {OTHER}, and release.id is {RELEASE}; set release.id={OTHER}." in refused
    assert f"kubectl annotate configmap pneumoserve-traffic -n {NAMESPACE} pneumoserve/stable-" in refused
    assert service(serving.render(helm, KNATIVE, nested("release.id", OTHER)))
    share = nested("knative.canaryTrafficPercent", 10)
    refused = serving.refusal(helm, KNATIVE, nested("release.id", OTHER), share)
    assert "would give calls back to the release before it; set it to 100" in refused


def test_a_rollout_of_nothing_is_refused(helm: Helm) -> None:
    assert "no release answers that a candidate" in helm.refusal(KNATIVE, ROLLOUT, nested("release.id", ""))


# --- what is said of it


def test_the_notes_say_what_is_weaker_and_where_it_answers(helm: Helm) -> None:
    notes = helm.notes(KNATIVE, nested("preflight.enabled", False))
    assert f"Release {RELEASE} answers, with 2 to 6 pod(s)." in notes
    assert "serving.kserve.io/inferenceservice=pneumonia\n" in notes
    assert "helm test" not in notes
    assert "In Knative mode nobody is asked who they are" in notes
    share = helm.notes(KNATIVE, nested("preflight.enabled", False), nested("knative.canaryTrafficPercent", 10))
    assert f"Release {RELEASE} answers 10 % of the calls, with" in share
