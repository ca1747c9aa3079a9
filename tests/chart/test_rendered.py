"""What the chart makes, by its properties."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.release.signing import load_trust
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, TRIAL, Cluster, Helm, inference_service, nested, of_kind, the
from tests.chart.restricted import violations

RELEASE = "0123456789ab"
STANDBY = "ba9876543210"
ARMS = {"release": {"id": RELEASE, "standby": [STANDBY]}}
# As KServe's own chart describes the container that it adds.
STORAGE_INITIALIZER = {
    "name": "storage-initializer",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}


def pods(objects: list[Object]) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Every pod that comes of the objects, as its name, spec and labels; KServe's as it puts them together."""
    for item in objects:
        if item["kind"] in ("Deployment", "Job"):
            template = item["spec"]["template"]
            yield item["metadata"]["name"], template["spec"], template["metadata"]["labels"]
    for item in of_kind(objects, "InferenceService"):
        predictor = item["spec"]["predictor"]
        runtime = the(objects, "ServingRuntime", predictor["model"]["runtime"])["spec"]
        spec = {**{key: runtime[key] for key in ("containers", "volumes")}, **predictor}
        yield item["metadata"]["name"], {**spec, "initContainers": [STORAGE_INITIALIZER]}, item["metadata"]["labels"]


def containers(objects: list[Object]) -> dict[str, dict[str, Any]]:
    (runtime,) = of_kind(objects, "ServingRuntime")
    return {container["name"]: container for container in runtime["spec"]["containers"]}


@pytest.fixture
def trial(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ARMS)


@pytest.fixture
def everything(helm: Helm) -> list[Object]:
    return helm.render(EVERYTHING)


@pytest.mark.parametrize("given", [TRIAL, EVERYTHING], ids=["trial", "everything"])
def test_every_pod_passes_the_restricted_pod_security_standard(helm: Helm, given: Path) -> None:
    found = list(pods(helm.render(given, ARMS)))
    assert len(found) == (4 if given == TRIAL else 3)
    for name, spec, _ in found:
        assert violations(spec) == [], name


def test_the_checker_of_pod_security_finds_what_is_wrong() -> None:
    pod = {"containers": [{"name": "c", "securityContext": {"privileged": True}}], "hostPID": True,
           "volumes": [{"name": "v", "hostPath": {}}]}  # fmt: skip
    assert len(violations(pod)) == 7


@pytest.mark.parametrize("given", [TRIAL, EVERYTHING], ids=["trial", "everything"])
def test_every_container_of_ours_has_a_read_only_root_and_resources(helm: Helm, given: Path) -> None:
    for name, spec, _ in pods(helm.render(given, ARMS)):
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]["requests"]) == set(container["resources"]["limits"]) == {"cpu", "memory"}
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_models_container_has_no_credential_and_no_port(trial: list[Object], everything: list[Object]) -> None:
    for rendered in (trial, everything):
        models = containers(rendered)["kserve-container"]
        assert not {"env", "envFrom", "ports"} & set(models)
        volumes = {volume["name"]: volume for volume in the(rendered, "ServingRuntime")["spec"]["volumes"]}
        assert all("secret" not in volumes[mount["name"]] for mount in models["volumeMounts"])
        assert "exec" in models["readinessProbe"]


def test_the_front_alone_has_the_archives_credential(everything: list[Object]) -> None:
    front = containers(everything)["transformer-container"]
    environment = {entry["name"]: entry for entry in front["env"]}
    for name, key in (("S3_ACCESS_KEY", "AWS_ACCESS_KEY_ID"), ("S3_SECRET_KEY", "AWS_SECRET_ACCESS_KEY")):
        reference = environment[name]["valueFrom"]["secretKeyRef"]
        assert reference == {"name": "pneumoserve-archive", "key": key}
    assert environment["S3_ENDPOINT"]["value"] == "https://s3.example.org:9443"


def test_kserve_publishes_the_fronts_ports_as_http_and_as_http2(trial: list[Object]) -> None:
    # KServe: the first port becomes the Service's 80; a name with "h2c" in it gets the application protocol h2c.
    ports = [(port["name"], port["containerPort"]) for port in containers(trial)["transformer-container"]["ports"]]
    assert ports == [("http1", 8080), ("h2c", 8081)]


def test_the_models_outlast_the_front(everything: list[Object]) -> None:
    found = containers(everything)
    lock = found["transformer-container"]["args"][0].removeprefix("--drain-lock=")
    stop = found["kserve-container"]["lifecycle"]["preStop"]["exec"]["command"]
    assert f"--lock={lock}" in stop
    assert "--seconds=170" in stop
    assert found["transformer-container"]["lifecycle"]["preStop"] == {"sleep": {"seconds": 15}}
    for container in found.values():
        (mount,) = [mount for mount in container["volumeMounts"] if lock.startswith(mount["mountPath"] + "/")]
        assert mount["name"] == "run"
        assert not mount.get("readOnly")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("images.front.tag", "0.1.1"),
        ("images.models.digest", "sha256:" + "a" * 64),
        ("images.pullPolicy", "Always"),
        ("images.pullSecrets", ["registry"]),
        ("s3.bucket", "films"),
        ("s3.region", "eu-central-1"),
        ("front.resources.limits", {"memory": "3Gi"}),
        ("front.preStopSeconds", 11),
        ("models.workers", 2),
        ("terminationGracePeriodSeconds", 121),
        ("nodeSelector", {"disk": "ssd"}),
        ("tolerations", [{"key": "dedicated", "operator": "Exists"}]),
        ("affinity", {"podAntiAffinity": {}}),
    ],
)
def test_a_value_that_changes_the_runtime_makes_another_one(helm: Helm, path: str, value: Any) -> None:
    before, after = the(helm.render(TRIAL, ARMS), "ServingRuntime"), helm.render(TRIAL, ARMS, nested(path, value))
    changed = the(after, "ServingRuntime")
    assert changed["spec"] != before["spec"]
    assert changed["metadata"]["name"] != before["metadata"]["name"]
    used = {item["spec"]["predictor"]["model"]["runtime"] for item in of_kind(after, "InferenceService")}
    assert used == {changed["metadata"]["name"]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("replicas", 5),
        ("release.standby", []),
        ("route.hostnames", ["pneumonia.example.org"]),
        ("podAnnotations", {"a": "b"}),
        ("podDisruptionBudget.enabled", False),
        ("networkPolicies.enabled", False),
        ("topologySpread.maxSkew", 2),
        ("trust.revoked.keys", ["0011223344556677"]),
        ("trialStore.size", "20Gi"),
    ],
)
def test_any_other_value_leaves_the_runtime_alone(helm: Helm, path: str, value: Any) -> None:
    before = the(helm.render(TRIAL, ARMS), "ServingRuntime")
    assert the(helm.render(TRIAL, ARMS, nested(path, value)), "ServingRuntime") == before


def test_a_runtimes_name_tells_the_version(trial: list[Object]) -> None:
    assert the(trial, "ServingRuntime")["metadata"]["name"].startswith("pneumoserve-0-1-0-")


def test_no_inference_service_selects_the_runtime_by_itself(trial: list[Object]) -> None:
    (supported,) = the(trial, "ServingRuntime")["spec"]["supportedModelFormats"]
    assert supported == {"name": "pneumonia-release", "version": "1", "autoSelect": False}


def test_each_release_runs_as_its_own_inference_service(trial: list[Object]) -> None:
    found = {item["metadata"]["name"]: item for item in of_kind(trial, "InferenceService")}
    assert list(found) == [f"pneumonia-{RELEASE}", f"pneumonia-{STANDBY}"]
    for name, item in found.items():
        predictor = item["spec"]["predictor"]
        assert predictor["model"]["storageUri"] == f"s3://pneumoserve/releases/{name.removeprefix('pneumonia-')}"
        assert predictor["minReplicas"] == predictor["maxReplicas"] == 2
        assert predictor["deploymentStrategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert item["metadata"]["labels"]["networking.kserve.io/visibility"] == "cluster-local"
        assert item["metadata"]["annotations"] == {
            "serving.kserve.io/deploymentMode": "Standard",
            "serving.kserve.io/autoscalerClass": "none",
        }


def test_nothing_on_an_inference_service_changes_with_the_charts_version(trial: list[Object]) -> None:
    # KServe copies its labels to the pods: a version among them would replace every pod at every upgrade.
    for item in of_kind(trial, "InferenceService"):
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(item["metadata"]["labels"])


def test_a_revocation_replaces_the_pods(helm: Helm) -> None:
    def annotations(*values: Any) -> dict[str, str]:
        found: dict[str, str] = the(helm.render(TRIAL, ARMS, *values), "InferenceService", f"pneumonia-{RELEASE}")[
            "spec"
        ]["predictor"]["annotations"]
        return found

    assert annotations() == annotations()
    assert annotations() != annotations(nested("trust.revoked.releases", ["3" * 64]))


def test_the_route_leads_to_the_release_that_answers_and_to_no_other(everything: list[Object]) -> None:
    route = the(everything, "HTTPRoute")
    backends = [rule["backendRefs"] for rule in route["spec"]["rules"]]
    assert [(backend["name"], backend["port"], backend["weight"]) for (backend,) in backends] == [
        (f"pneumonia-{RELEASE}-predictor", 8081, 100),
        (f"pneumonia-{RELEASE}-predictor", 80, 100),
    ]
    assert route["spec"]["rules"][0]["matches"][0]["path"]["value"] == "/inference.GRPCInferenceService"
    assert route["metadata"]["name"] not in {
        item["metadata"]["name"] for item in of_kind(everything, "InferenceService")
    }


def test_without_a_release_there_is_no_route_and_no_inference_service(helm: Helm) -> None:
    kinds = {item["kind"] for item in helm.render(TRIAL)}
    assert not {"HTTPRoute", "InferenceService", "PodDisruptionBudget"} & kinds
    assert {"ServingRuntime", "ServiceAccount", "Job"} <= kinds


def test_every_object_has_the_common_labels(trial: list[Object], everything: list[Object]) -> None:
    for item in [*trial, *everything]:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "pneumoserve"
        assert labels["app.kubernetes.io/instance"] == "pneumoserve"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/component"]
        assert item["metadata"]["namespace"] == "pneumo"


def test_a_disruption_budget_selects_the_pods_of_its_release(trial: list[Object]) -> None:
    budgets = of_kind(trial, "PodDisruptionBudget")
    assert [item["spec"]["selector"]["matchLabels"]["app"] for item in budgets] == [
        f"isvc.pneumonia-{RELEASE}-predictor",
        f"isvc.pneumonia-{STANDBY}-predictor",
    ]


# --- network


def allows(policy: Object, labels: dict[str, str]) -> bool:
    """Whether a policy selects pods of these labels."""
    selector = policy["spec"]["podSelector"]
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(expression["key"]) in expression["values"] for expression in selector.get("matchExpressions", [])
    )


def test_every_pod_is_denied_what_no_policy_names(trial: list[Object]) -> None:
    deny = the(trial, "NetworkPolicy", "pneumoserve-deny")
    assert set(deny["spec"]) == {"podSelector", "policyTypes"}
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert [name for name, _, labels in pods(trial) if not allows(deny, labels)] == []


def test_a_release_is_reached_from_the_gateway_alone_and_metrics_from_where_they_are_read(
    everything: list[Object],
) -> None:
    labels = of_kind(everything, "InferenceService")[0]["metadata"]["labels"]
    rules = [
        (source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for policy in of_kind(everything, "NetworkPolicy")
        if allows(policy, labels)
        for rule in policy["spec"].get("ingress", [])
        for source in rule["from"]
        for port in rule["ports"]
    ]
    assert rules == [("gateways", 8080), ("gateways", 8081), ("monitoring", 8080)]


def test_a_release_reaches_dns_and_the_store_alone(everything: list[Object], trial: list[Object]) -> None:
    dns, store = the(everything, "NetworkPolicy", "pneumoserve-egress")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert [port["port"] for port in store["ports"]] == [9443, 9000]
    assert store["to"][0] == {"ipBlock": {"cidr": "192.0.2.0/24"}}
    _, store = the(trial, "NetworkPolicy", "pneumoserve-egress")["spec"]["egress"]
    (target,) = store["to"]
    assert target["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "store"


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("https://s3.example.org", 443), ("http://s3.example.org", 80), ("http://s3.example.org:9000/", 9000)],
)
def test_the_stores_port_is_that_of_its_endpoint(helm: Helm, endpoint: str, port: int) -> None:
    given = {"s3": {"endpoint": endpoint}, "networkPolicies": {"store": {"ports": []}}}
    rendered = helm.render(EVERYTHING, given)
    assert the(rendered, "NetworkPolicy", "pneumoserve-egress")["spec"]["egress"][1]["ports"][0]["port"] == port
    environment = {entry["name"]: entry.get("value") for entry in containers(rendered)["transformer-container"]["env"]}
    assert environment["S3_ENDPOINT"] == endpoint.removesuffix("/")


def test_the_trial_store_answers_releases_and_the_set_up_job_alone(trial: list[Object]) -> None:
    policies = of_kind(trial, "NetworkPolicy")
    (labels,) = [labels for name, _, labels in pods(trial) if name == "pneumoserve-store"]
    rules = [rule for policy in policies if allows(policy, labels) for rule in policy["spec"].get("ingress", [])]
    ((source,),) = [rule["from"] for rule in rules]
    assert source["podSelector"]["matchExpressions"][0]["values"] == ["predictor", "setup"]
    assert not [rule for policy in policies if allows(policy, labels) for rule in policy["spec"].get("egress", [])]


# --- credentials and trust


def test_kserve_reads_releases_with_a_credential_of_its_own(everything: list[Object]) -> None:
    account = the(everything, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert account["secrets"] == [{"name": "pneumoserve-releases"}]
    secret = the(everything, "Secret", "pneumoserve-releases")
    assert secret["metadata"]["annotations"] == {
        "serving.kserve.io/s3-endpoint": "s3.example.org:9443",
        "serving.kserve.io/s3-usehttps": "1",
        "serving.kserve.io/s3-region": "eu-central-1",
        "serving.kserve.io/s3-usevirtualbucket": "false",
    }
    assert secret["stringData"] == {"AWS_ACCESS_KEY_ID": "releases", "AWS_SECRET_ACCESS_KEY": "not-a-secret-either"}


def test_without_one_it_is_the_archives(helm: Helm) -> None:
    rendered = helm.render(EVERYTHING, {"s3": {"releases": {"accessKey": "", "secretKey": ""}}})
    assert the(rendered, "ServiceAccount")["secrets"] == [{"name": "pneumoserve-archive"}]
    assert [item["metadata"]["name"] for item in of_kind(rendered, "Secret")] == ["pneumoserve-archive"]


def test_given_secrets_are_used_and_none_is_made(helm: Helm) -> None:
    given = {
        name: {"accessKey": "", "secretKey": "", "existingSecret": f"given-{name}"} for name in ("archive", "releases")
    }
    rendered = helm.render(EVERYTHING, {"s3": given})
    assert of_kind(rendered, "Secret") == []
    assert the(rendered, "ServiceAccount")["secrets"] == [{"name": "given-releases"}]
    environment = {entry["name"]: entry for entry in containers(rendered)["transformer-container"]["env"]}
    assert environment["S3_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "given-archive"


def test_the_trial_stores_releases_credential_can_only_read(trial: list[Object]) -> None:
    identities = json.loads(the(trial, "Secret", "pneumoserve-store")["stringData"]["identities.json"])["identities"]
    archive, releases = identities
    assert releases["actions"] == ["Read:pneumoserve", "List:pneumoserve"]
    assert all(action.endswith(":pneumoserve") for action in archive["actions"])
    for identity in identities:
        made = the(trial, "Secret", f"pneumoserve-{identity['name']}")
        (credential,) = identity["credentials"]
        assert [credential["accessKey"], credential["secretKey"]] == list(made["stringData"].values())
        assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert len(credential["secretKey"]) == 40


def test_the_trial_stores_credentials_and_claim_outlive_upgrades(helm: Helm, cluster: Cluster) -> None:
    first = cluster.render(helm, TRIAL)
    for name in ("archive", "releases"):
        made = the(first, "Secret", f"pneumoserve-{name}")
        data = {key: base64.b64encode(value.encode()).decode() for key, value in made.pop("stringData").items()}
        cluster.add({**made, "data": data})
    second, third = cluster.render(helm, TRIAL), cluster.render(helm, TRIAL)
    assert the(second, "Secret", "pneumoserve-store") == the(first, "Secret", "pneumoserve-store")
    assert the(second, "Secret", "pneumoserve-archive") == the(third, "Secret", "pneumoserve-archive")
    claim = the(first, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_trust_folder_is_one_that_the_containers_accept(everything: list[Object], tmp_path: Path) -> None:
    for name, text in the(everything, "ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    trust = load_trust(tmp_path)
    assert len(trust.keys) == 1
    assert trust.revoked_keys == {"0011223344556677"}
    assert trust.revoked_releases == {"3" * 64}


def test_a_given_trust_config_map_is_mounted_and_none_is_made(helm: Helm) -> None:
    rendered = helm.render(TRIAL, {"trust": {"keys": None, "existingConfigMap": "approvers"}})
    assert of_kind(rendered, "ConfigMap") == []
    volumes = {volume["name"]: volume for volume in the(rendered, "ServingRuntime")["spec"]["volumes"]}
    assert volumes["trust"]["configMap"] == {"name": "approvers"}


# --- set-up


def test_the_bucket_is_set_up_after_each_install_and_upgrade(everything: list[Object], helm: Helm) -> None:
    job = the(everything, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["pneumoserve", "archive", "setup", "--timeout", "60"]
    assert of_kind(helm.render(EVERYTHING, nested("s3.setup.enabled", False)), "Job") == []


# --- earlier runtimes


def earlier(name: str, instance: str = "pneumoserve") -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {
            "name": name,
            "namespace": "pneumo",
            "resourceVersion": "7",
            "labels": {
                "app.kubernetes.io/name": "pneumoserve",
                "app.kubernetes.io/instance": instance,
                "kept": "as-is",
            },
        },
        "spec": {"containers": [{"name": "kserve-container", "image": "models:0.0.9", "args": ["--workers=1"]}]},
    }


def test_an_earlier_runtime_that_is_still_used_is_rendered_as_it_is(helm: Helm, cluster: Cluster) -> None:
    used = earlier("pneumoserve-0-0-9-aaaaaaaa")
    for item in (
        used,
        earlier("pneumoserve-0-0-8-bbbbbbbb"),
        earlier("other-0-0-9-cccccccc", "other"),
        inference_service("00000000000a"),
        inference_service("00000000000b", runtime="other-0-0-9-cccccccc"),
    ):
        cluster.add(item)
    rendered = of_kind(cluster.render(helm, TRIAL), "ServingRuntime")
    assert len(rendered) == 2
    (kept,) = [item for item in rendered if item["metadata"]["name"] == used["metadata"]["name"]]
    assert kept["spec"] == used["spec"]
    assert kept["metadata"]["labels"] == used["metadata"]["labels"]
    assert "resourceVersion" not in kept["metadata"]


def test_the_present_runtime_is_rendered_once(helm: Helm, cluster: Cluster) -> None:
    (present,) = of_kind(cluster.render(helm, TRIAL, ARMS), "ServingRuntime")
    cluster.add(present)
    cluster.add(inference_service(RELEASE, runtime=present["metadata"]["name"]))
    assert of_kind(cluster.render(helm, TRIAL, ARMS), "ServingRuntime") == [present]
