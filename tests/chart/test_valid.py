"""Every combination that the chart and the manifests have, against the API's own schemas and the usual checks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, KNATIVE, TRIAL, Helm, nested, the
from tests.chart.lint import EXCEPTIONS, _all, findings, lonely
from tests.chart.schemas import problems, read_folder
from tools.generate.manifests import MANIFESTS

ARMS: dict[str, Any] = {"release": {"id": "0123456789ab", "standby": ["ba9876543210"]}}
NOBODY_SIGNS_IN = {"method": "none", "gatewaySecret": "", "jwt": {"issuer": "", "audiences": [], "jwksUri": ""}}
COMBINATIONS: dict[str, tuple[Path | dict[str, Any], ...]] = {
    "trial, nothing runs": (TRIAL,),
    "trial": (TRIAL, ARMS),
    "everything": (EVERYTHING,),
    "no route": (EVERYTHING, {"route": {"enabled": False, "signIn": NOBODY_SIGNS_IN}, "rollout": {"enabled": False}}),
    "api keys": (
        TRIAL, ARMS, {"route": {"signIn": {"method": "apiKeys", "apiKeys": {"existingSecrets": ["clients"]}}}}
    ),
    "keys from a ConfigMap": (
        TRIAL, ARMS, {"route": {"signIn": {"method": "jwt", "jwt": {"issuer": "a", "jwksConfigMap": "keys"}}}}
    ),
    "limits alone": (TRIAL, ARMS, {"route": {"limits": {"callsPerMinute": 60, "bodyMebibytes": 68}}}),
    "no policies, no budget, no spread": (
        EVERYTHING,
        {name: {"enabled": False} for name in ("networkPolicies", "podDisruptionBudget", "topologySpread")},
    ),
    "the archive left alone": (TRIAL, ARMS, {"archive": {"seal": {"enabled": False}, "verify": {"enabled": False}}}),
    "training on the cpu": (TRIAL, ARMS, {"training": {"enabled": True, "films": "s3://films/in", "device": "cpu"}}),
    "a release is signed": (
        TRIAL, {"training": {"signing": {"release": "0123456789ab", "existingSecret": "approver"}}}
    ),
    "load through a gateway": (TRIAL, ARMS, {"loadTest": {"enabled": True, "url": "http://gateway.gateways.svc"}}),
    "pods by the custom metrics API, payloads in the trial store": (
        TRIAL,
        ARMS,
        {"autoscaling": {"enabled": True}, "payloadLogger": {"enabled": True}},
        nested("networkPolicies.metricsNamespaces", ["monitoring"]),
    ),
    "a rollout": (
        TRIAL, ARMS, {"rollout": {"enabled": True, "plan": {"candidate": "000000000000", "steps": [{"percent": 100}]}}}
    ),
    "a reading room with files of its own": (
        TRIAL,
        ARMS,
        {
            "alerts": {"enabled": True},
            "console": {
                "enabled": True,
                "url": "https://console.example.org",
                "signIn": {"issuer": "https://id.example.org", "clientId": "console", "existingSecret": "client"},
            },
        },
    ),
    "the random sample alone": (TRIAL, ARMS, {"sample": {"enabled": True}}),
    "drift alone, without a plan": (TRIAL, ARMS, {"drift": {"enabled": True}}),
    "knative": (KNATIVE,),
    "the store over TLS": (EVERYTHING, nested("s3.caConfigMap", "authorities")),
}  # fmt: skip
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())


@pytest.fixture(params=COMBINATIONS)
def rendered(helm: Helm, request: pytest.FixtureRequest) -> list[Object]:
    return helm.render(*COMBINATIONS[request.param])


def test_the_api_would_take_every_object_whole(rendered: list[Object]) -> None:
    sentence = [f"{each['kind']} {each['metadata']['name']}: {what}" for each in rendered for what in problems(each)]
    assert sentence == []


def test_nothing_is_found_that_is_not_explained(rendered: list[Object]) -> None:
    assert [what for each in rendered for what in findings(each)] == []


@pytest.mark.parametrize("name", ["base", "examples", *(f"overlays/{each}" for each in OVERLAYS)])
def test_the_manifests_are_taken_whole_and_nothing_is_found(name: str) -> None:
    objects = read_folder(MANIFESTS / name)
    assert objects
    assert [f"{each['kind']}: {what}" for each in objects for what in problems(each)] == []
    assert [what for each in objects for what in findings(each)] == []


def test_every_pod_has_a_policy_and_every_release_a_budget_and_a_spread(helm: Helm) -> None:
    for given in ((TRIAL, ARMS), (EVERYTHING,)):
        assert list(lonely(helm.render(*given))) == []
    off = COMBINATIONS["no policies, no budget, no spread"]
    assert {each.partition(":")[0] for each in lonely(helm.render(*off))} == {
        "no-network-policy", "no-disruption-budget", "no-spread",
    }  # fmt: skip


def test_every_exception_is_needed(helm: Helm) -> None:
    objects = [*helm.render(TRIAL, ARMS), *helm.render(EVERYTHING), *helm.render(KNATIVE)]
    assert {found for each in objects for found in _all(each)} >= EXCEPTIONS.keys()


# --- the checks can fail


def at(item: Object, *path: str | int) -> Any:
    for key in path:
        item = item[key]  # type: ignore[index]
    return item


CHANGES: dict[str, tuple[str, Callable[[Object], object]]] = {
    "replicas: ": ("Deployment", lambda each: each["spec"].update(replicas="two")),
    "spec: Additional properties": ("Deployment", lambda each: each["spec"].update(replica=2)),
    "spec.template.spec.containers.0: Additional": (
        "Deployment", lambda each: at(each, "spec", "template", "spec", "containers", 0).update(resource={})
    ),
    "predictor: Additional properties": (
        "InferenceService", lambda each: at(each, "spec", "predictor").update(minReplica=1)
    ),
    "minReplicas: ": ("InferenceService", lambda each: at(each, "spec", "predictor").update(minReplicas="2")),
    "spec.rules.0: Additional": ("HTTPRoute", lambda each: at(each, "spec", "rules", 0).update(backends=[])),
    "spec: Additional": ("SecurityPolicy", lambda each: each["spec"].update(jwks={})),
    "triggers.0: Additional": ("ScaledObject", lambda each: at(each, "spec", "triggers", 0).update(target=4)),
    "podMetricsEndpoints.0: Additional": (
        "PodMonitor", lambda each: at(each, "spec", "podMetricsEndpoints", 0).update(url="/metrics")
    ),
    "rules.0: Additional": ("PrometheusRule", lambda each: at(each, "spec", "groups", 0, "rules", 0).update(on="x")),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_field_that_the_api_does_not_know_or_a_wrong_type_is_told(helm: Helm, sentence: str) -> None:
    kind, change = CHANGES[sentence]
    objects = [*helm.render(*COMBINATIONS["api keys"]), *helm.render(EVERYTHING)]
    item = copy.deepcopy(next(each for each in objects if each["kind"] == kind))
    change(item)
    assert any(sentence in what for what in problems(item)), list(problems(item))


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "latest-tag": lambda c: c.update(image="pneumoserve/front:latest"),
    "no-pull-policy": lambda c: c.pop("imagePullPolicy"),
    "unset-cpu-requirements": lambda c: c.pop("resources"),
    "unset-memory-requirements": lambda c: c["resources"]["limits"].pop("memory"),
    "writable-root": lambda c: c["securityContext"].pop("readOnlyRootFilesystem"),
    "run-as-root": lambda c: c["securityContext"].update(runAsUser=0),
    "env-secret": lambda c: c["env"].append({"name": "S3_SECRET_KEY", "value": "abc"}),
    "no-termination-message": lambda c: c.pop("terminationMessagePolicy"),
    "readiness-probe": lambda c: c.pop("readinessProbe"),
    "liveness-probe": lambda c: c.pop("livenessProbe"),
    "same-probes": lambda c: c.update(livenessProbe=c["readinessProbe"]),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_finds_what_it_is_for(helm: Helm, rule: str) -> None:
    runtime = copy.deepcopy(the(helm.render(TRIAL, ARMS), "ServingRuntime"))
    front = next(each for each in runtime["spec"]["containers"] if each["name"] == "transformer-container")
    BROKEN[rule](front)
    assert rule in {what.partition(":")[0] for what in findings(runtime)}


def test_rights_that_are_too_wide_are_found() -> None:
    def role(kind: str, **rule: Any) -> Object:
        return {"kind": kind, "metadata": {"name": "r"}, "rules": [rule]}

    wide = [
        role("Role", apiGroups=["*"], resources=["pods"], verbs=["get"]),
        role("Role", apiGroups=[""], resources=["secrets"], verbs=["get"]),
        role("ClusterRole", apiGroups=[""], resources=["pods"], verbs=["delete"]),
    ]
    assert [what.partition(":")[0] for each in wide for what in findings(each)] == [
        "wildcard-rights", "reads-every-secret", "writes-in-every-namespace",
    ]  # fmt: skip
