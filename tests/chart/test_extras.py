"""What an install may add to the chart's pods, and the name that it may give to its objects."""

from __future__ import annotations

from typing import Any

import pytest

from pneumoserve.rollout import fullname
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, KNATIVE, TRIAL, Cluster, Helm, nested, of_kind, the
from tests.chart.test_rendered import ARMS, containers, cron_jobs, pods

PROXY = {"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"}
# Pods by what they are called, and the part of the values that adds to them.
JOBS = {
    "pneumoserve-setup": "archive",
    "pneumoserve-seal": "archive",
    "pneumoserve-verify": "archive",
    "pneumoserve-export": "archive",
    "pneumoserve-replay": "archive",
    "pneumoserve-rollout": "rollout",
    "pneumoserve-training": "training",
    "pneumoserve-sample": "review",
    "pneumoserve-drift": "review",
    "pneumoserve-evidence": "review",
}
SERVERS = ["pneumoserve-console", "pneumoserve-alerts"]
ROLLING = {"rollout": {"enabled": True, "plan": {"candidate": "000000000000", "steps": [{"percent": 100}]}}}


@pytest.fixture
def everything(helm: Helm) -> list[Object]:
    return helm.render(EVERYTHING)


def test_containers_of_a_release_get_what_is_theirs(everything: list[Object]) -> None:
    found = containers(everything)
    assert PROXY in found["transformer-container"]["env"]
    assert found["kserve-container"]["env"][-1] == {"name": "OMP_WAIT_POLICY", "value": "PASSIVE"}
    for name, part in (("transformer-container", "front"), ("kserve-container", "models")):
        extra = [mount for mount in found[name]["volumeMounts"] if mount["name"].startswith("extra-")]
        assert extra == [{"name": f"extra-{part}", "mountPath": "/etc/extra", "readOnly": True}]
    volumes = {volume["name"]: volume for volume in the(everything, "ServingRuntime")["spec"]["volumes"]}
    assert volumes["extra-front"]["configMap"] == {"name": "front"}
    assert volumes["extra-models"]["configMap"] == {"name": "models"}


def test_a_volume_that_both_containers_mount_is_named_once(helm: Helm) -> None:
    shared = {"extraVolumes": [{"name": "extra-ca", "configMap": {"name": "authorities"}}]}
    (runtime,) = of_kind(helm.render(TRIAL, {"front": shared, "models": shared}), "ServingRuntime")
    assert [volume["name"] for volume in runtime["spec"]["volumes"]].count("extra-ca") == 1


@pytest.mark.parametrize(("name", "part"), JOBS.items())
def test_jobs_get_what_is_theirs(everything: list[Object], name: str, part: str) -> None:
    (spec,) = [spec for found, spec, _ in pods(everything) if found == name]
    (container,) = spec["containers"]
    assert PROXY in container["env"]
    assert {"name": f"extra-{part}", "mountPath": "/etc/extra", "readOnly": True} in container["volumeMounts"]
    assert {"name": f"extra-{part}", "configMap": {"name": part}} in spec["volumes"]
    if name != "pneumoserve-setup":
        template = the(everything, "CronJob", name)["spec"]["jobTemplate"]["spec"]["template"]
        assert template["metadata"]["annotations"] == {"example.org/of": part}
        assert spec["priorityClassName"] == f"{part}-jobs"
        account = the(everything, "ServiceAccount", spec["serviceAccountName"])
        assert account["metadata"]["annotations"] == {"example.org/role": part}


@pytest.mark.parametrize("name", SERVERS)
def test_console_and_alert_sender_get_what_is_theirs(everything: list[Object], name: str) -> None:
    template = the(everything, "Deployment", name)["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert PROXY in container["env"]
    assert {"name": "extra-review", "mountPath": "/etc/extra", "readOnly": True} in container["volumeMounts"]
    assert {"name": "extra-review", "configMap": {"name": "review"}} in template["spec"]["volumes"]
    assert template["metadata"]["annotations"]["example.org/of"] == "review"
    assert template["spec"]["priorityClassName"] == "review-jobs"
    account = the(everything, "ServiceAccount", template["spec"]["serviceAccountName"])
    assert account["metadata"]["annotations"] == {"example.org/role": "review"}


def test_releases_have_a_priority_and_their_account_its_annotations(helm: Helm, everything: list[Object]) -> None:
    for item in of_kind(everything, "InferenceService"):
        assert item["spec"]["predictor"]["priorityClassName"] == "serving"
    account = the(everything, "ServiceAccount", "pneumoserve")
    assert account["metadata"]["annotations"] == {"example.org/role": "serving"}
    (knative,) = of_kind(helm.render(KNATIVE, {"priorityClassName": "serving"}), "InferenceService")
    assert knative["spec"]["predictor"]["priorityClassName"] == "serving"
    assert "priorityClassName" not in str(helm.render(TRIAL, ARMS))


def test_knative_is_asked_whether_it_takes_a_priority(helm: Helm, cluster: Cluster) -> None:
    cluster.knative = True
    metadata = {"name": "config-features", "namespace": "knative-serving"}
    cluster.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})
    refused = cluster.refusal(helm, KNATIVE, {"priorityClassName": "serving"})
    assert '{"data":{"kubernetes.podspec-priorityclassname":"enabled"}}' in refused


@pytest.mark.parametrize("part", ["front", "models", "archive", "rollout", "training", "review", "intake"])
@pytest.mark.parametrize(
    "name", ["S3_SECRET_KEY", "PNEUMOSERVE_GATEWAY_SECRET", "REVIEW_DATABASE", "OTEL_TRACES_SAMPLER_ARG"]
)
def test_what_the_chart_sets_itself_is_refused(helm: Helm, part: str, name: str) -> None:
    refused = helm.refusal(TRIAL, {part: {"extraEnv": [{"name": name, "value": "mine"}]}})
    assert f"{part}.extraEnv sets {name}, which the chart sets itself; leave it out." in refused


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("front.extraEnv", [{"name": "A", "vlaue": "b"}]),
        ("front.extraEnv", [{"name": "A", "value": 1}]),
        ("front.extraVolumes", [{"name": "tmp", "emptyDir": {}}]),
        ("archive.extraVolumes", [{"name": "extra-nothing"}]),
        ("training.extraVolumeMounts", [{"name": "extra-a", "mountPath": "relative"}]),
        ("serviceAccountAnnotations", {"a": True}),
        ("fullnameOverride", "pneumonia"),
        ("fullnameOverride", "Pneumoserve"),
        ("fullnameOverride", f"pneumoserve-{'a' * 30}"),
    ],
)
def test_extras_of_the_wrong_form_are_refused_by_their_path(helm: Helm, path: str, value: Any) -> None:
    assert f"/{path.replace('.', '/')}" in helm.refusal(TRIAL, nested(path, value))


@pytest.mark.parametrize("name", ["pneumoserve", "ward-pneumoserve", "pneumoserve-2"])
def test_every_object_is_named_after_the_override(helm: Helm, name: str) -> None:
    objects = helm.render(TRIAL, ARMS, ROLLING, {"fullnameOverride": name})
    # KServe's names, and so a rollout's and the callers', go by release.
    by_release = {"InferenceService", "PodDisruptionBudget"}
    named = {item["metadata"]["name"] for item in objects if item["kind"] not in by_release}
    assert {each for each in named if not each.startswith(name)} == set()
    words = cron_jobs(objects, "rollout")[f"{name}-rollout"]["command"]
    assert fullname(words[words.index("--name") + 1]) == name
    rights = the(objects, "Role", f"{name}-rollout")["rules"]
    (routes,) = [rule["resourceNames"] for rule in rights if rule["resources"] == ["httproutes"]]
    assert routes == [the(objects, "HTTPRoute")["metadata"]["name"]] == [name]
