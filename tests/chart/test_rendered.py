"""What the chart makes, by its properties."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer.core
import typer.main

from pneumoserve.cli import app
from pneumoserve.front.settings import FrontSettings
from pneumoserve.ledger import load_authorities
from pneumoserve.models.settings import ModelsSettings
from pneumoserve.signing import load_trust
from tests.chart.api import Object
from tests.chart.conftest import (
    EVERYTHING,
    KNATIVE,
    NAMESPACE,
    TRIAL,
    Cluster,
    Helm,
    inference_service,
    nested,
    of_kind,
    policies,
    the,
)
from tests.chart.restricted import violations
from tools.generate.chart_values import CHART

RELEASE = "0123456789ab"
STANDBY = "ba9876543210"
ARMS = {"release": {"id": RELEASE, "standby": [STANDBY]}}
ARCHIVE_KEYS = ("signing", "sealer", "references")
GIVEN_KEYS = {name: {"existingSecret": f"given-{name}"} for name in ARCHIVE_KEYS}
BELIEVED = ("--archive-trust", "/etc/pneumoserve/archive-trust", "--sealer-trust", "/etc/pneumoserve/sealer-trust")
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
    for item in of_kind(objects, "CronJob"):
        template = item["spec"]["jobTemplate"]["spec"]["template"]
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
    assert len(found) == (17 if given == EVERYTHING else 8)
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
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert set(container["resources"]["limits"]) - {"nvidia.com/gpu"} == {"cpu", "memory"}
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_models_container_has_no_credential_and_no_port(trial: list[Object], everything: list[Object]) -> None:
    for rendered in (trial, everything):
        models = containers(rendered)["kserve-container"]
        assert not {"envFrom", "ports"} & set(models)
        # What values add, and how logs look.
        assert [each["name"] for each in models["env"]] in (["LOG_FORMAT"], ["LOG_FORMAT", "OMP_WAIT_POLICY"])
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
    assert ports == [("http1", 8080), ("h2c", 8081), ("metrics", 8082)]


def test_a_release_is_reached_from_the_pods_of_its_own_gateway(helm: Helm) -> None:
    def pods(*given: dict[str, Any]) -> dict[str, str]:
        policy = the(helm.render(TRIAL, *given), "NetworkPolicy", "pneumoserve-predictor")
        (source,) = policy["spec"]["ingress"][0]["from"]
        found: dict[str, str] = source["podSelector"]["matchLabels"]
        return found

    gateway = {"name": "edge", "namespace": "infra"}
    assert pods({"route": {"gateway": gateway}}) == {
        "gateway.envoyproxy.io/owning-gateway-name": "edge",
        "gateway.envoyproxy.io/owning-gateway-namespace": "infra",
    }
    assert pods({"networkPolicies": {"gatewayPods": {"app": "gate"}}}) == {"app": "gate"}


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
        ("front.resources.limits", {"memory": "2Gi"}),
        ("front.preStopSeconds", 11),
        ("models.workers", 2),
        ("terminationGracePeriodSeconds", 121),
        ("nodeSelector", {"disk": "ssd"}),
        ("tolerations", [{"key": "dedicated", "operator": "Exists"}]),
        ("affinity", {"podAntiAffinity": {}}),
        ("archive.signing.existingSecret", "given"),
        ("archive.references.existingSecret", "given"),
        ("archive.journal", {"existingClaim": "journal"}),
        ("archive.lock", {"days": 1, "sealedDays": 1}),
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
        ("archive.sealer.existingSecret", "given"),
        ("archive.lock.sealedDays", 1),
        ("archive.export.to", "s3://pneumoserve/parquet"),
    ],
)
def test_any_other_value_leaves_the_runtime_alone(helm: Helm, path: str, value: Any) -> None:
    before = the(helm.render(TRIAL, ARMS), "ServingRuntime")
    assert the(helm.render(TRIAL, ARMS, nested(path, value)), "ServingRuntime") == before


def test_a_runtimes_name_tells_the_version(trial: list[Object]) -> None:
    assert the(trial, "ServingRuntime")["metadata"]["name"].startswith("pneumoserve-0-2-0-")


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


@pytest.mark.parametrize("mode", [ARMS, KNATIVE])
def test_both_containers_are_told_which_release_they_run(helm: Helm, mode: Any) -> None:
    rendered = helm.render(TRIAL, mode)
    for container in containers(rendered).values():
        # KServe puts the InferenceService's label there.
        assert "--release-id={{.Labels.pneumoserve_release}}" in container["args"]
    for item in of_kind(rendered, "InferenceService"):
        uri = item["spec"]["predictor"]["model"]["storageUri"]
        assert uri.endswith(f"/{item['metadata']['labels']['pneumoserve_release']}")


def test_a_frozen_torchserve_is_restarted_without_the_hook_that_waits_for_the_front(trial: list[Object]) -> None:
    probe = containers(trial)["kserve-container"]["livenessProbe"]
    assert probe["exec"]["command"] == ["python", "-m", "pneumoserve.models.probe", "--alive"]
    assert probe["periodSeconds"] * probe["failureThreshold"] + probe["terminationGracePeriodSeconds"] <= 60


@pytest.mark.parametrize(("values", "probes"), [((TRIAL, ARMS), 3), ((KNATIVE,), 0)])
def test_the_other_engine_is_another_runtime_whose_containers_share_its_sockets(
    helm: Helm, values: tuple[Path | dict[str, Any], ...], probes: int
) -> None:
    usual, other = helm.render(*values), helm.render(*values, {"engine": "inprocess"})
    assert the(usual, "ServingRuntime")["metadata"]["name"] != the(other, "ServingRuntime")["metadata"]["name"]
    assert not any("engine" in word for each in containers(usual).values() for word in each["args"])
    models, front = (containers(other)[name] for name in ("kserve-container", "transformer-container"))
    asked, asking = ModelsSettings.from_flags(models["args"]), FrontSettings.from_flags(front["args"])
    assert (asked.engine, asking.engine) == ("inprocess", "inprocess")
    assert asking.models_sockets == asked.sockets
    assert mounted_at(asked.sockets, front) == mounted_at(asked.sockets, models)
    commands = [probe["exec"]["command"] for name, probe in models.items() if name.endswith("Probe")]
    assert len(commands) == probes
    assert all(f"--sockets={asked.sockets}" in command for command in commands)


def mounted_at(path: Path, container: dict[str, Any]) -> str:
    """The volume that a path lies in."""
    (name,) = (each["name"] for each in container["volumeMounts"] if path.is_relative_to(each["mountPath"]))
    return str(name)


def test_the_route_leads_to_the_release_that_answers_and_to_no_other(everything: list[Object]) -> None:
    route = the(everything, "HTTPRoute", "pneumoserve")
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
        # The Gateway's own policy stands beside the Gateway.
        assert (item["metadata"]["namespace"] == "pneumo") == (item["kind"] != "ClientTrafficPolicy")


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


def caller(source: dict[str, Any]) -> str:
    """Whom a policy lets in: a namespace, or pods of the install by their component."""
    if "namespaceSelector" in source:
        return str(source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
    selector = source["podSelector"]
    return " ".join(
        [selector["matchLabels"].get("app.kubernetes.io/component", "")]
        + [value for expression in selector.get("matchExpressions", []) for value in expression["values"]]
    ).strip()


def test_a_release_is_reached_from_the_gateway_alone_and_metrics_from_where_they_are_read(
    everything: list[Object],
) -> None:
    labels = of_kind(everything, "InferenceService")[0]["metadata"]["labels"]
    rules = {
        (caller(source), port["port"])
        for policy in of_kind(everything, "NetworkPolicy")
        if allows(policy, labels)
        for rule in policy["spec"].get("ingress", [])
        for source in rule["from"]
        for port in rule["ports"]
    }
    # `helm test` and a rollout that warms it, and at the payload logger's port whoever calls by HTTP.
    assert rules == {
        ("gateways", 8080),
        ("gateways", 8081),
        ("monitoring", 8082),
        ("test", 8080),
        ("rollout", 8080),
        # DICOM intake.
        ("intake", 8080),
        ("gateways", 9081),
        ("load test rollout intake", 9081),
    }


def test_releases_and_jobs_reach_dns_and_the_store_alone(everything: list[Object], trial: list[Object]) -> None:
    dns, store = the(everything, "NetworkPolicy", "pneumoserve-egress")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert [port["port"] for port in store["ports"]] == [9443, 9000]
    assert store["to"][0] == {"ipBlock": {"cidr": "192.0.2.0/24"}}
    _, store = the(trial, "NetworkPolicy", "pneumoserve-egress")["spec"]["egress"]
    (target,) = store["to"]
    assert target["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "store"
    egress = the(trial, "NetworkPolicy", "pneumoserve-egress")
    others = {name for name, _, labels in pods(trial) if not allows(egress, labels)}
    assert others == {"pneumoserve-store", "pneumoserve-keys-1"}


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


def test_the_trial_store_answers_releases_and_jobs_alone(trial: list[Object]) -> None:
    policies = of_kind(trial, "NetworkPolicy")
    (labels,) = [labels for name, _, labels in pods(trial) if name == "pneumoserve-store"]
    rules = [rule for policy in policies if allows(policy, labels) for rule in policy["spec"].get("ingress", [])]
    ((source,),) = [rule["from"] for rule in rules]
    named = source["podSelector"]["matchExpressions"][0]["values"]
    assert named == ["predictor", "setup", "archive", "training", "signing", "rollout"]
    assert not [rule for policy in policies if allows(policy, labels) for rule in policy["spec"].get("egress", [])]


# --- credentials and trust


def test_kserve_reads_releases_with_a_credential_of_its_own(everything: list[Object]) -> None:
    account = the(everything, "ServiceAccount", "pneumoserve")
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
    given = {
        "s3": {name: {"accessKey": "", "secretKey": ""} for name in ("seal", "rollout", "releases", "setup")},
        "payloadLogger": {"enabled": False, "releases": []},
        # These have one of their own, or do not run.
        **{part: {"enabled": False} for part in ("console", "alerts", "sample")},
        "intake": {"enabled": False, "web": {"enabled": False}},
    }
    rendered = helm.render(EVERYTHING, given)
    assert the(rendered, "ServiceAccount", "pneumoserve")["secrets"] == [{"name": "pneumoserve-archive"}]
    credentials = [item for item in of_kind(rendered, "Secret") if "AWS_ACCESS_KEY_ID" in item["stringData"]]
    assert [item["metadata"]["name"] for item in credentials] == ["pneumoserve-archive"]
    jobs = of_kind(rendered, "Job") + [item["spec"]["jobTemplate"] for item in of_kind(rendered, "CronJob")]
    keys = {_key_of(job["spec"]) for job in jobs if "S3_ACCESS_KEY" in str(job)}
    assert keys == {"pneumoserve-archive"}


def test_given_secrets_are_used_and_none_is_made(helm: Helm) -> None:
    given = {
        name: {"accessKey": "", "secretKey": "", "existingSecret": f"given-{name}"}
        for name in ("archive", "seal", "rollout", "console", "alerts", "intake", "releases", "setup")
    }
    rendered = helm.render(EVERYTHING, {"s3": given, "archive": GIVEN_KEYS})
    assert of_kind(rendered, "Secret") == []
    assert the(rendered, "ServiceAccount", "pneumoserve")["secrets"] == [{"name": "given-releases"}]
    environment = {entry["name"]: entry for entry in containers(rendered)["transformer-container"]["env"]}
    assert environment["S3_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "given-archive"
    assert _key_of(the(rendered, "Job", "pneumoserve-setup")["spec"]) == "given-setup"
    for job, secret in {
        "training": "setup", "seal": "seal", "verify": "seal", "export": "seal", "replay": "seal", "rollout": "rollout",
        "sample": "console", "drift": "rollout", "evidence": "seal",
    }.items():  # fmt: skip
        spec = the(rendered, "CronJob", f"pneumoserve-{job}")["spec"]["jobTemplate"]["spec"]
        assert _key_of(spec) == f"given-{secret}", job


def _key_of(job: dict[str, Any]) -> str:
    """The Secret that a Job reaches the store with."""
    (container,) = job["template"]["spec"]["containers"]
    (key,) = (entry for entry in container["env"] if entry["name"] == "S3_ACCESS_KEY")
    name: str = key["valueFrom"]["secretKeyRef"]["name"]
    return name


def test_each_of_the_trial_stores_credentials_has_the_rights_of_its_name(trial: list[Object]) -> None:
    known = json.loads(the(trial, "Secret", "pneumoserve-store")["stringData"]["identities.json"])
    for name, policy in policies(trial).items():
        text = (CHART / "files" / "rights" / f"{name}.json").read_text()
        assert policy == json.loads(text.replace("BUCKET", "pneumoserve"))
    for identity in known["identities"]:
        assert identity["policyNames"] == [identity["name"]]
        assert "actions" not in identity
        made = the(trial, "Secret", f"pneumoserve-{identity['name']}")
        (credential,) = identity["credentials"]
        assert [credential["accessKey"], credential["secretKey"]] == list(made["stringData"].values())
        assert made["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert len(credential["secretKey"]) == 40


def test_values_that_write_elsewhere_bring_the_right_to_it(helm: Helm) -> None:
    """And the store, which reads rights when it starts, starts anew."""
    plain = helm.render(TRIAL)
    exporting = helm.render(TRIAL, {"archive": {"export": {"to": "s3://pneumoserve/parquet/"}}})
    assert policies(exporting)["seal"]["Statement"][-1]["Resource"] == ["arn:aws:s3:::pneumoserve/parquet/*"]
    stamps = [
        _store_pod(rendered)["annotations"]["pneumoserve/rights"] for rendered in (plain, helm.render(TRIAL), exporting)
    ]
    assert stamps[0] == stamps[1] != stamps[2]


def _store_pod(rendered: list[Object]) -> dict[str, Any]:
    metadata: dict[str, Any] = the(rendered, "Deployment", "pneumoserve-store")["spec"]["template"]["metadata"]
    return metadata


def test_the_trial_stores_credentials_and_claim_outlive_upgrades(helm: Helm, cluster: Cluster) -> None:
    first = cluster.render(helm, TRIAL)
    for name in ("archive", "seal", "rollout", "releases", "setup"):
        made = the(first, "Secret", f"pneumoserve-{name}")
        data = {key: base64.b64encode(value.encode()).decode() for key, value in made.pop("stringData").items()}
        cluster.add({**made, "data": data})
    second, third = cluster.render(helm, TRIAL), cluster.render(helm, TRIAL)
    assert the(second, "Secret", "pneumoserve-store") == the(first, "Secret", "pneumoserve-store")
    assert the(second, "Secret", "pneumoserve-archive") == the(third, "Secret", "pneumoserve-archive")
    claim = the(first, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_trust_folder_is_one_that_the_containers_accept(everything: list[Object], tmp_path: Path) -> None:
    for name, text in the(everything, "ConfigMap", "pneumoserve-trust")["data"].items():
        (tmp_path / name).write_text(text)
    trust = load_trust(tmp_path)
    assert len(trust.keys) == 1
    assert trust.revoked_keys == {"0011223344556677"}
    assert trust.revoked_releases == {"3" * 64}
    assert trust.signatures == 1


def test_a_given_trust_config_map_is_mounted_and_none_is_made(helm: Helm) -> None:
    rendered = helm.render(TRIAL, {"trust": {"keys": None, "existingConfigMap": "approvers"}})
    assert of_kind(rendered, "ConfigMap") == []
    volumes = {volume["name"]: volume for volume in the(rendered, "ServingRuntime")["spec"]["volumes"]}
    assert volumes["trust"]["configMap"] == {"name": "approvers"}


# --- set-up


def test_the_bucket_is_set_up_after_each_install_and_upgrade(everything: list[Object], helm: Helm) -> None:
    job = the(everything, "Job", "pneumoserve-setup")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][:3] == ["pneumoserve", "archive", "setup"]
    assert "--timeout 60" in " ".join(container["command"])
    without = of_kind(helm.render(EVERYTHING, nested("s3.setup.enabled", False)), "Job")
    assert [each["metadata"]["name"] for each in without] == ["pneumoserve-keys-1"]


def test_the_set_up_says_all_that_expires_and_what_does_not(everything: list[Object], trial: list[Object]) -> None:
    """An upgrade whose values no longer ask for a rule removes it, and no other."""
    for objects, images, raw, rollups in ((everything, "3660", "60", "3660"), (trial, "none", "none", "none")):
        (container,) = the(objects, "Job", "pneumoserve-setup")["spec"]["template"]["spec"]["containers"]
        assert container["command"][7:] == [
            "--expire-images-days", images, "--expire-raw-days", raw, "--expire-rollups-days", rollups,
        ]  # fmt: skip


# --- the archive


def kept(made: Object) -> Object:
    """A Secret as the cluster has it once it was applied."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in made["stringData"].items()}
    return {**{key: value for key, value in made.items() if key != "stringData"}, "data": data}


def cron_job_objects(objects: list[Object], component: str = "archive") -> list[Object]:
    labelled = [(item, item["metadata"]["labels"]) for item in of_kind(objects, "CronJob")]
    return [item for item, labels in labelled if labels["app.kubernetes.io/component"] == component]


def cron_jobs(objects: list[Object], component: str = "archive") -> dict[str, dict[str, Any]]:
    """The one container of each CronJob of a component, by the CronJob's name."""
    found = {}
    for item in cron_job_objects(objects, component):
        (container,) = item["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        found[item["metadata"]["name"]] = container
    return found


def mounted(objects: list[Object], pod: str, container: str, path: str) -> dict[str, Object]:
    """Which keys of which Secrets and ConfigMaps a container sees as files below a path: {file: {object: key}}."""
    (spec,) = [spec for name, spec, _ in pods(objects) if name == pod]
    (mounts,) = [item["volumeMounts"] for item in spec["containers"] if item["name"] == container]
    (mount,) = [mount for mount in mounts if mount["mountPath"] == path]
    assert mount["readOnly"] is True
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    sources = volume.get("projected", {}).get("sources", [volume])
    files: dict[str, Object] = {}
    for source in sources:
        if "configMap" in source:
            found = the(objects, "ConfigMap", source["configMap"]["name"])
            files |= {key: {"object": found, "key": key} for key in found["data"]}
        else:
            name = source["secret"].get("name", source["secret"].get("secretName"))
            # The archive's keys are no objects of the chart: a Job makes them.
            found = {"metadata": {"name": name}}
            files |= {item["path"]: {"object": found, "key": item["key"]} for item in source["secret"]["items"]}
    return files


def write_files(files: dict[str, Object], folder: Path) -> Path:
    folder.mkdir()
    for name, file in files.items():
        content = file["object"].get("stringData") or file["object"]["data"]
        (folder / name).write_text(content[file["key"]])
    return folder


def keys_job(objects: list[Object]) -> Object | None:
    """The Job that makes the archive's keys, None where there is none to make."""
    found = [item for item in of_kind(objects, "Job") if "-keys-" in item["metadata"]["name"]]
    return found[0] if found else None


def test_no_template_holds_a_key_of_the_archive(trial: list[Object], everything: list[Object]) -> None:
    for objects in (trial, everything):
        assert "PRIVATE KEY" not in json.dumps(objects)
        made = [item["metadata"]["name"] for item in of_kind(objects, "Secret")]
        assert not [name for name in made if name.startswith("pneumoserve-archive-")]


def test_a_job_makes_the_keys_that_are_not_there(helm: Helm, cluster: Cluster) -> None:
    job = keys_job(cluster.render(helm, TRIAL))
    assert job is not None
    spec = job["spec"]["template"]["spec"]
    assert violations(spec) == []
    names = {f"--{name}=pneumoserve-archive-{name}" for name in ARCHIVE_KEYS}
    assert names < set(spec["containers"][0]["command"])
    for name in ("pneumoserve-archive-signing", "mine"):
        cluster.add(secret_of(name, "key.pem", "public.pem"))
    some = keys_job(cluster.render(helm, TRIAL, nested("archive.sealer.existingSecret", "mine")))
    assert some is not None
    words = some["spec"]["template"]["spec"]["containers"][0]["command"]
    assert [word for word in words if "archive-" in word] == ["--references=pneumoserve-archive-references"]
    for name in ("sealer", "references"):
        cluster.add(secret_of(f"pneumoserve-archive-{name}", "key", "key.pem", "public.pem"))
    # Nothing is left that could touch them: not a Job, not its rights, not a Secret that Helm would own.
    assert not [item for item in cluster.render(helm, TRIAL) if "pneumoserve-keys" in item["metadata"]["name"]]


def test_the_job_that_makes_keys_reads_none_and_reaches_the_api_server_alone(trial: list[Object]) -> None:
    role = the(trial, "Role", "pneumoserve-keys")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]
    job = keys_job(trial)
    assert job is not None
    labels = job["spec"]["template"]["metadata"]["labels"]
    rules = [rule for policy in of_kind(trial, "NetworkPolicy") if allows(policy, labels)
             for rule in policy["spec"].get("egress", [])]  # fmt: skip
    assert rules == [{"ports": [{"port": port, "protocol": "TCP"} for port in (443, 6443)]}]
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "pneumoserve-keys"


def secret_of(name: str, *keys: str) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": dict.fromkeys(keys, "eA==")}


def test_the_front_has_its_own_private_key_and_the_sealer_its(everything: list[Object]) -> None:
    release = f"pneumonia-{RELEASE}"
    front = mounted(everything, release, "transformer-container", "/etc/pneumoserve/archive")
    assert list(front) == ["key.pem"]
    assert front["key.pem"]["object"]["metadata"]["name"] == "pneumoserve-archive-signing"
    references = mounted(everything, release, "transformer-container", "/etc/pneumoserve/reference")
    assert references["key"]["object"]["metadata"]["name"] == "pneumoserve-archive-references"
    sealer = mounted(everything, "pneumoserve-seal", "seal", "/etc/pneumoserve/sealer")
    assert list(sealer) == ["key.pem"]
    assert sealer["key.pem"]["object"]["metadata"]["name"] == "pneumoserve-archive-sealer"


def test_no_other_container_sees_a_private_key(everything: list[Object]) -> None:
    seen = {
        (name, container["name"], volume["name"])
        for name, spec, _ in pods(everything)
        for container in spec["containers"]
        for volume in spec["volumes"]
        if volume["name"] in {mount["name"] for mount in container["volumeMounts"]}
        and '"secret' in json.dumps(volume)
        and '"key": "public.pem"' not in json.dumps(volume)
    }
    # What the load sends with its calls is a caller's credential; a rollout's events are on record as calls are.
    others = {("pneumoserve-load", "load", "headers"), ("pneumoserve-rollout", "rollout", "archive-key")}
    # So is what people and the alert sender do, and which keys they have beside is another test's.
    room = {part: {"archive", "review"} for part in ("console", "alerts", "sample")}
    room |= {"drift": {"archive"}, "evidence": {"evidence-key"}}
    room["console"].add("oidc")
    room["alerts"].add("alerts")
    # DICOM intake hashes as fronts do, and calls them as their gateway does.
    room["intake"] = {"reference-key", "archive-key", "gateway-secret", "tls", "netrc"}
    others |= {(f"pneumoserve-{part}", part, volume) for part, volumes in room.items() for volume in volumes}
    assert seen - others == {("pneumoserve-seal", "seal", "sealer")} | {
        (f"pneumonia-{release}", "transformer-container", volume)
        for release in (RELEASE, STANDBY, "000000000000")
        for volume in ("archive-key", "reference-key", "gateway-secret", "envelope-key")
    }


@pytest.mark.parametrize("job", ["seal", "verify"])
def test_jobs_trust_the_keys_in_use_and_earlier_ones(everything: list[Object], job: str, tmp_path: Path) -> None:
    words = cron_jobs(everything)[f"pneumoserve-{job}"]["command"]
    trusted = []
    for option, name in (("--trust", "signing"), ("--sealer-trust", "sealer")):
        path = words[words.index(option) + 1]
        files = mounted(everything, f"pneumoserve-{job}", job, path)
        assert files.keys() == {"in-use.pem", "until-2026.pem"}
        in_use = files.pop("in-use.pem")
        assert (in_use["object"]["metadata"]["name"], in_use["key"]) == (f"pneumoserve-archive-{name}", "public.pem")
        trusted.append(set(load_trust(write_files(files, tmp_path / name)).keys))
    assert [len(keys) for keys in trusted] == [1, 1]
    assert not trusted[0] & trusted[1]


def test_given_keys_are_mounted_and_trusted(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS, {"archive": GIVEN_KEYS})
    assert not [item for item in of_kind(rendered, "Secret") if "-archive-" in item["metadata"]["name"]]
    volumes = {volume["name"]: volume for volume in the(rendered, "ServingRuntime")["spec"]["volumes"]}
    assert volumes["archive-key"]["secret"]["secretName"] == "given-signing"
    assert volumes["reference-key"]["secret"]["secretName"] == "given-references"
    (spec,) = [spec for name, spec, _ in pods(rendered) if name == "pneumoserve-seal"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["sealer"]["secret"]["secretName"] == "given-sealer"
    for name, given in (("archive-trust", "given-signing"), ("sealer-trust", "given-sealer")):
        (source,) = volumes[name]["projected"]["sources"]
        assert source["secret"] == {"name": given, "items": [{"key": "public.pem", "path": "in-use.pem"}]}


@pytest.mark.parametrize(
    ("limit", "count"),
    [("", 1024**3), ("1", 1), ("1000000", 10**6), ("64Ki", 64 * 1024), ("512Mi", 512 * 1024**2), ("2Ti", 2 * 1024**4)],
)
def test_a_journal_is_mounted_with_its_limit_in_bytes(helm: Helm, limit: str, count: int) -> None:
    rendered = helm.render(TRIAL, ARMS, nested("archive.journal", {"existingClaim": "journal", "limit": limit}))
    front = containers(rendered)["transformer-container"]
    assert "--journal=/journal" in front["args"]
    assert f"--journal-bytes={count}" in front["args"]
    (mount,) = [mount for mount in front["volumeMounts"] if mount["name"] == "journal"]
    assert mount == {"name": "journal", "mountPath": "/journal"}
    (volume,) = [item for item in the(rendered, "ServingRuntime")["spec"]["volumes"] if item["name"] == "journal"]
    assert volume["persistentVolumeClaim"] == {"claimName": "journal"}
    # Of a claim that is made for root, only the group can be given to a user without rights.
    predictor = the(rendered, "InferenceService", f"pneumonia-{RELEASE}")["spec"]["predictor"]
    assert predictor["securityContext"]["fsGroup"] == front["securityContext"]["runAsGroup"]


def test_without_a_journal_and_a_lock_the_front_is_asked_for_neither(trial: list[Object]) -> None:
    front = containers(trial)["transformer-container"]
    assert not [each for each in front["args"] if each.startswith(("--journal", "--lock"))]
    assert "journal" not in {mount["name"] for mount in front["volumeMounts"]}
    words = cron_jobs(trial)["pneumoserve-seal"]["command"]
    # Left out, the sealer would lock for ten years.
    assert words[-4:] == ["--lock-days", "0", "--lock-mode", "GOVERNANCE"]


@pytest.mark.parametrize("given", [TRIAL, EVERYTHING], ids=["trial", "everything"])
def test_the_front_takes_its_arguments_and_finds_its_keys(helm: Helm, given: Path) -> None:
    rendered = helm.render(given, ARMS)
    taken = FrontSettings.from_flags(containers(rendered)["transformer-container"]["args"])
    for path in (taken.archive_key, taken.reference_key):
        folder = mounted(rendered, f"pneumonia-{RELEASE}", "transformer-container", str(path.parent))
        assert list(folder) == [path.name]
    assert (taken.lock_days, taken.journal) == ((0, None) if given == TRIAL else (30, Path("/journal")))


def test_what_is_written_is_locked_for_days_and_what_is_sealed_for_years(everything: list[Object]) -> None:
    front = containers(everything)["transformer-container"]["args"]
    assert front[-2:] == ["--lock-days=30", "--lock-mode=COMPLIANCE"]
    words = cron_jobs(everything)["pneumoserve-seal"]["command"]
    assert "--lock-days 3650 --lock-mode COMPLIANCE --segment-days 60" in " ".join(words)


def test_jobs_of_the_archive_run_when_they_are_told_to(everything: list[Object]) -> None:
    found = {item["metadata"]["name"]: item["spec"] for item in cron_job_objects(everything)}
    assert {name: spec["schedule"] for name, spec in found.items() if not spec.get("suspend")} == {
        "pneumoserve-seal": "@hourly",
        "pneumoserve-verify": "0 1,13 * * *",
        "pneumoserve-export": "*/30 * * * 1-5",
    }
    assert found["pneumoserve-replay"]["suspend"] is True
    for spec in found.values():
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec["failedJobsHistoryLimit"] == 3
        assert spec["jobTemplate"]["spec"]["ttlSecondsAfterFinished"] == 7 * 24 * 3600
        assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] == "pneumoserve-archive"


def test_a_fault_that_was_found_is_one_failed_job(everything: list[Object]) -> None:
    limits = {item["metadata"]["name"]: item["spec"]["jobTemplate"]["spec"]["backoffLimit"]
              for item in cron_job_objects(everything)}  # fmt: skip
    assert limits == {
        "pneumoserve-seal": 2,
        "pneumoserve-verify": 0,
        "pneumoserve-export": 2,
        "pneumoserve-replay": 0,
    }


def test_jobs_of_the_archive_run_our_commands_on_its_store(everything: list[Object]) -> None:
    found = cron_jobs(everything)
    front = containers(everything)["transformer-container"]
    for name, container in found.items():
        assert container["command"][:3] == ["pneumoserve", "archive", name.removeprefix("pneumoserve-")]
        # The same store, with another credential than the fronts'.
        store = [each for each in front["env"] if not each["name"].startswith(("LOG_", "OTEL_"))]
        assert _plain(container["env"]) == _plain(store)
        assert "pneumoserve-seal" in str(container["env"])
    assert found["pneumoserve-export"]["command"][3:] == ["--to", "s3://films/parquet", *BELIEVED]
    assert found["pneumoserve-verify"]["image"] == front["image"]
    assert found["pneumoserve-verify"]["resources"]["limits"]["cpu"] == "4"


@pytest.mark.parametrize("job", ["export", "replay", "rollout"])
def test_who_reads_records_is_given_the_keys_to_believe(everything: list[Object], job: str) -> None:
    (spec,) = [spec for name, spec, _ in pods(everything) if name == f"pneumoserve-{job}"]
    words = spec["containers"][0]["command"]
    for option in ("--archive-trust", "--sealer-trust"):
        files = mounted(everything, f"pneumoserve-{job}", job, words[words.index(option) + 1])
        assert files.keys() == {"in-use.pem", "until-2026.pem"}


def _plain(environment: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(each["name"], each.get("value")) for each in environment]


def test_seals_are_stamped_and_copied_where_values_say_so(
    trial: list[Object], everything: list[Object], tmp_path: Path
) -> None:
    for name in ("seal", "verify"):
        assert not {"--time-stamps", "--copy-to", "--copies"} & set(cron_jobs(trial)[f"pneumoserve-{name}"]["command"])
    assert "pneumoserve-time-stamps" not in {item["metadata"]["name"] for item in of_kind(trial, "NetworkPolicy")}
    jobs = cron_jobs(everything)
    seal, verify = jobs["pneumoserve-seal"], jobs["pneumoserve-verify"]
    folder = "/var/lib/pneumoserve/seals"
    assert seal["command"][-4:] == ["--time-stamps", "https://tsa.example.org:8318/rfc3161", "--copy-to", folder]
    assert verify["command"][-2:] == ["--copies", folder]
    for container, read_only in ((seal, False), (verify, True)):
        (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == folder]
        assert mount["readOnly"] is read_only
        (volume,) = [
            volume
            for name, spec, _ in pods(everything)
            if name == f"pneumoserve-{container['name']}"
            for volume in spec["volumes"]
            if volume["name"] == mount["name"]
        ]
        assert volume["persistentVolumeClaim"] == {"claimName": "seals"}
    trust = verify["command"][verify["command"].index("--time-stamp-trust") + 1]
    files = mounted(everything, "pneumoserve-verify", "verify", trust)
    written = write_files(files, tmp_path / "authorities")
    assert len(load_authorities(written)) == 1
    (rule,) = the(everything, "NetworkPolicy", "pneumoserve-time-stamps")["spec"]["egress"]
    assert rule == {
        "ports": [{"port": 8318, "protocol": "TCP"}],
        "to": [{"ipBlock": {"cidr": "198.51.100.7/32"}}],
    }


def test_a_replay_takes_the_release_that_answers_and_the_models_engine(
    trial: list[Object], everything: list[Object], helm: Helm
) -> None:
    of_all = ["--release", RELEASE, "--trust", "/etc/pneumoserve/trust", *BELIEVED]
    replay = cron_jobs(everything)["pneumoserve-replay"]
    assert replay["command"][3:] == [*of_all, "--sample", "200"]
    assert cron_jobs(trial)["pneumoserve-replay"]["command"][3:] == [*of_all, "--of", RELEASE, "--sample", "1000"]
    assert replay["image"] == containers(everything)["kserve-container"]["image"]
    files = mounted(everything, "pneumoserve-replay", "replay", "/etc/pneumoserve/trust")
    assert "approver.pem" in files
    every = cron_jobs(helm.render(EVERYTHING, nested("archive.replay.sample", 0)))["pneumoserve-replay"]
    assert every["command"][3:] == of_all


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, {"seal", "verify"}),
        ({"release": {"id": RELEASE}}, {"seal", "verify", "replay"}),
        (nested("archive.seal.enabled", False), {"verify"}),
        (nested("archive.verify.enabled", False), {"seal"}),
        (nested("archive.export.to", "s3://pneumoserve/parquet"), {"seal", "verify", "export"}),
    ],
)
def test_jobs_of_the_archive_can_be_left_out(helm: Helm, given: dict[str, Any], names: set[str]) -> None:
    assert set(cron_jobs(helm.render(TRIAL, given))) == {f"pneumoserve-{name}" for name in names}


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


def test_what_expires_is_told_to_the_store(trial: list[Object], everything: list[Object]) -> None:
    def words(objects: list[Object]) -> str:
        (container,) = the(objects, "Job", "pneumoserve-setup")["spec"]["template"]["spec"]["containers"]
        return " ".join(container["command"])

    # First answers stand for a day, always.
    assert all("--expire-answers-days 1 " in words(objects) for objects in (trial, everything))
    for option, days in (("raw", 60), ("images", 3660), ("rollups", 3660)):
        assert f"--expire-{option}-days {days}" in words(everything)


def test_jobs_run_commands_that_there_are(trial: list[Object], everything: list[Object]) -> None:
    root = cast(typer.core.TyperGroup, typer.main.get_command(app))
    for objects in (trial, everything):
        jobs = [job for job in of_kind(objects, "Job") if job != keys_job(objects)]
        setups = [container for job in jobs for container in job["spec"]["template"]["spec"]["containers"]]
        for container in (*cron_jobs(objects).values(), *setups):
            _, group, name, *words = container["command"]
            archive = cast(typer.core.TyperGroup, root.commands[group])
            archive.commands[name].make_context(name, words)


def test_the_stores_authorities_reach_whoever_talks_to_it(helm: Helm) -> None:
    """Front, set-up Job, Jobs of the archive mount the ConfigMap and are told of its file; KServe is by annotation."""
    objects = helm.render(EVERYTHING, nested("s3.caConfigMap", "hospital-authorities"))
    pods = [
        the(objects, "ServingRuntime")["spec"],
        the(objects, "Job", "pneumoserve-setup")["spec"]["template"]["spec"],
    ]
    pods += [
        each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for each in of_kind(objects, "CronJob")
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == "archive"
    ]
    assert len(pods) == 6
    for pod in pods:
        (volume,) = (each for each in pod["volumes"] if each["name"] == "store-ca")
        assert volume["configMap"] == {"name": "hospital-authorities"}
        (container,) = (each for each in pod["containers"] if "S3_ENDPOINT" in str(each.get("env")))
        (sentence,) = (each["value"] for each in container["env"] if each["name"] == "S3_CA_FILE")
        (mount,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "store-ca")
        assert sentence == f"{mount}/cabundle.crt"
    annotations = the(objects, "Secret", "pneumoserve-releases")["metadata"]["annotations"]
    assert annotations["serving.kserve.io/s3-cabundle-configmap"] == "hospital-authorities"
    assert annotations["serving.kserve.io/s3-cabundle"].endswith("/cabundle.crt")
    assert "store-ca" not in str(helm.render(EVERYTHING))
    assert "no certificate is looked at" in helm.refusal(TRIAL, nested("s3.caConfigMap", "hospital-authorities"))
