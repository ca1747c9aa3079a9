"""What a cluster lacks is told before anything is changed, with what to do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.chart.api import Object
from tests.chart.conftest import (
    EVERYTHING,
    NAMESPACE,
    TRIAL,
    Cluster,
    Helm,
    check_storage_patch,
    controller,
    gateway,
    inference_service,
    nested,
    route_to,
    storage_container,
    the,
)

OLD = "00000000000a"
NEW = "00000000000b"


def test_a_cluster_that_has_everything_is_taken(helm: Helm, cluster: Cluster) -> None:
    assert cluster.render(helm, TRIAL)


def test_no_kserve_and_no_gateway_api_are_told_together(helm: Helm, cluster: Cluster) -> None:
    cluster.kserve = cluster.gateway = False
    refused = cluster.refusal(helm, TRIAL)
    assert "1. The cluster has no KServe; install KServe 0.20" in refused
    assert "2. The cluster has no Gateway API; install it" in refused
    assert "nothing was changed" in refused


@pytest.mark.parametrize(
    ("image", "available", "sentence"),
    [
        ("kserve/kserve-controller:v0.19.1", 1, "KServe 0.19.1 is too old; upgrade it to 0.20"),
        ("registry.example.org:5000/kserve-controller:v0.9", 1, "KServe 0.9 is too old"),
        ("kserve/kserve-controller@sha256:abc", 1, "version cannot be read from its controller's image"),
        ("kserve/kserve-controller:v0.20.0", 0, "not available, so its webhooks would refuse"),
    ],
)
def test_a_kserve_that_would_not_do_is_told(
    helm: Helm, cluster: Cluster, image: str, available: int, sentence: str
) -> None:
    cluster.add(controller(image, available))
    assert sentence in cluster.refusal(helm, TRIAL)


@pytest.mark.parametrize("image", ["kserve-controller:v0.20.0", "r.example.org:5000/c:v0.21.0-rc1", "c:1.0.0@sha256:a"])
def test_a_kserve_that_does_is_taken(helm: Helm, cluster: Cluster, image: str) -> None:
    cluster.add(controller(image))
    assert cluster.render(helm, TRIAL)


def test_a_kserve_in_another_namespace_is_looked_for_there(helm: Helm, cluster: Cluster) -> None:
    refused = cluster.refusal(helm, TRIAL, nested("kserve.namespace", "kserve-system"))
    assert "no Deployment kserve-controller-manager in namespace kserve-system; set kserve.namespace" in refused


def test_a_gateway_that_is_not_there_is_told(helm: Helm, cluster: Cluster) -> None:
    refused = cluster.refusal(helm, TRIAL, nested("route.gateway.name", "front-door"))
    assert "no Gateway front-door in namespace kserve" in refused
    assert cluster.render(helm, TRIAL, nested("route", {"enabled": False, "gateway": {"name": "front-door"}}))


@pytest.mark.parametrize(
    ("namespaces", "taken"),
    [
        ({"from": "All"}, True),
        ({"from": "Same"}, False),
        (None, False),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "imaging"}}}, False),
        ({"from": "Selector", "selector": {"matchLabels": {"pod-security.kubernetes.io/enforce": "restricted"}}}, True),
    ],
)
def test_a_gateway_that_takes_no_route_of_this_namespace_is_told(
    helm: Helm, cluster: Cluster, namespaces: dict[str, Any] | None, taken: bool
) -> None:
    cluster.add(gateway(namespaces))
    if taken:
        assert cluster.render(helm, TRIAL)
    else:
        assert f"takes routes of namespace {NAMESPACE}" in cluster.refusal(helm, TRIAL)


@pytest.mark.parametrize(
    "security",
    [None, {"allowPrivilegeEscalation": False}, {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": True}],
)
def test_a_storage_container_that_restricted_would_refuse_is_told_with_its_patch(
    helm: Helm, cluster: Cluster, security: dict[str, Any] | None
) -> None:
    cluster.add(storage_container(security))
    check_storage_patch(helm, cluster, TRIAL, '{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}')


def test_no_storage_container_for_s3_is_told(helm: Helm, cluster: Cluster) -> None:
    other = storage_container(None)
    other["spec"]["supportedUriFormats"] = [{"prefix": "gs://"}]
    cluster.add(other)
    assert "no ClusterStorageContainer takes s3://" in cluster.refusal(helm, TRIAL)


# --- the release that answers


def test_a_switch_to_a_release_that_is_not_ready_is_refused_while_another_one_answers(
    helm: Helm, cluster: Cluster
) -> None:
    for item in (route_to(OLD), inference_service(OLD), inference_service(NEW, "False")):
        cluster.add(item)
    refused = cluster.refusal(helm, TRIAL, {"release": {"id": NEW, "standby": [OLD]}})
    assert f"Release {NEW} is not Ready, and {OLD} answers now" in refused
    assert f"kubectl wait --for=condition=Ready inferenceservice/pneumonia-{NEW} -n {NAMESPACE}" in refused
    assert cluster.render(helm, TRIAL, {"release": {"id": OLD, "standby": [NEW]}})


@pytest.mark.parametrize("old_ready", ["True", "False"])
def test_a_switch_to_a_release_that_never_ran_is_refused_only_while_another_one_answers(
    helm: Helm, cluster: Cluster, old_ready: str
) -> None:
    cluster.add(route_to(OLD))
    cluster.add(inference_service(OLD, old_ready))
    if old_ready == "True":
        assert f"add {NEW} to release.standby" in cluster.refusal(helm, TRIAL, nested("release.id", NEW))
    else:
        assert cluster.render(helm, TRIAL, nested("release.id", NEW))


def test_a_switch_to_a_ready_release_is_made(helm: Helm, cluster: Cluster) -> None:
    for item in (route_to(OLD), inference_service(OLD), inference_service(NEW)):
        cluster.add(item)
    rendered = cluster.render(helm, TRIAL, {"release": {"id": NEW, "standby": [OLD]}})
    backends = {rule["backendRefs"][0]["name"] for rule in the(rendered, "HTTPRoute")["spec"]["rules"]}
    assert backends == {f"pneumonia-{NEW}-predictor"}


def test_the_first_release_needs_nothing_before_it(helm: Helm, cluster: Cluster) -> None:
    assert cluster.render(helm, TRIAL, nested("release.id", NEW))


def test_an_upgrade_of_the_release_that_answers_is_taken_though_it_is_not_ready(helm: Helm, cluster: Cluster) -> None:
    cluster.add(route_to(OLD))
    cluster.add(inference_service(OLD, "False"))
    assert cluster.render(helm, TRIAL, nested("release.id", OLD))


# --- what is named


EXTERNAL: dict[str, Any] = {
    "route": {"gateway": {"name": "kserve-ingress-gateway", "namespace": "kserve"}},
    "kserve": {"namespace": "kserve"},
    "s3": {
        "archive": {"accessKey": "", "secretKey": "", "existingSecret": "archive"},
        "seal": {"accessKey": "", "secretKey": ""},
        "rollout": {"accessKey": "", "secretKey": ""},
        "releases": {"accessKey": "", "secretKey": "", "existingSecret": ""},
    },
    "payloadLogger": {"enabled": False, "releases": []},
}
ANNOTATIONS = {
    "serving.kserve.io/s3-endpoint": "s3.example.org:9443",
    "serving.kserve.io/s3-usehttps": "1",
    "serving.kserve.io/s3-region": "eu-central-1",
    "serving.kserve.io/s3-usevirtualbucket": "false",
}


def secret(*keys: str, name: str = "archive", annotations: dict[str, str] | None = None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations or {}},
        "data": {key: base64.b64encode(b"x").decode() for key in keys},
    }


def add_those_of_intake(cluster: Cluster) -> None:
    """Secrets that EVERYTHING names for DICOM intake, whose lack is another test's."""
    cluster.add(secret("tls.crt", "tls.key", "ca.crt", name="dicom-tls"))
    cluster.add(secret("netrc", name="web-passwords"))


def test_a_secret_that_is_not_there_is_told(helm: Helm, cluster: Cluster) -> None:
    cluster.add(secret("credential", name="gate"))
    add_those_of_intake(cluster)
    refused = cluster.refusal(helm, EVERYTHING, EXTERNAL)
    assert f"There is no Secret archive in namespace {NAMESPACE}; make it: kubectl create secret generic" in refused
    assert "\n2. " not in refused


def test_a_secret_without_a_key_or_without_kserves_annotations_is_told(helm: Helm, cluster: Cluster) -> None:
    cluster.add(secret("AWS_ACCESS_KEY_ID"))
    refused = cluster.refusal(helm, EVERYTHING, EXTERNAL)
    assert "Secret archive has no AWS_SECRET_ACCESS_KEY; add it." in refused
    words = " ".join(f"{key}={value}" for key, value in sorted(ANNOTATIONS.items()))
    assert f"kubectl annotate secret archive -n {NAMESPACE} --overwrite {words}" in refused


def test_authorities_that_are_not_there_are_told(helm: Helm, cluster: Cluster) -> None:
    given = nested("s3.caConfigMap", "authorities") | nested("route.gateway.name", "kserve-ingress-gateway")
    refused = cluster.refusal(helm, EVERYTHING, given)
    assert "kubectl create configmap authorities -n pneumo --from-file=cabundle.crt=FILE" in refused


def test_a_secret_that_has_everything_is_taken(helm: Helm, cluster: Cluster) -> None:
    cluster.add(secret("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", annotations=ANNOTATIONS))
    cluster.add(secret("credential", name="gate"))
    add_those_of_intake(cluster)
    assert cluster.render(helm, EVERYTHING, EXTERNAL)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, f"There is no ConfigMap approvers in namespace {NAMESPACE}; make it"),
        ({"revoked.json": "{}"}, "ConfigMap approvers holds no public key"),
        ({"a.pem": "…"}, ""),
        ({"a.pem": "…", "revoked.json": "{}"}, ""),
        ({"a.pem": "…", "revoked.json": json.dumps({"keys": ["0" * 16], "releases": ["a" * 64]})}, ""),
        *(
            ({"a.pem": "…", "revoked.json": text}, "revoked.json of ConfigMap approvers has another form")
            for text in (
                "{",
                "[]",
                '{"release": []}',
                '{"releases": "a"}',
                '{"releases": ["0123456789ab"]}',
                json.dumps({"releases": ["A" * 64]}),
                json.dumps({"keys": ["0" * 64]}),
            )
        ),
    ],
)
def test_a_trust_config_map_that_is_not_there_or_empty_is_told(
    helm: Helm, cluster: Cluster, data: dict[str, str] | None, sentence: str
) -> None:
    if data is not None:
        metadata = {"name": "approvers", "namespace": NAMESPACE}
        cluster.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    given = {"trust": {"keys": None, "existingConfigMap": "approvers"}}
    if sentence:
        assert sentence in cluster.refusal(helm, TRIAL, given)
    else:
        assert cluster.render(helm, TRIAL, given)


def given_keys(name: str, *keys: str) -> Object:
    made = secret(*keys)
    return {**made, "metadata": {**made["metadata"], "name": name}}


@pytest.mark.parametrize(
    ("name", "keys", "command"),
    [
        ("signing", ("key.pem", "public.pem"), "--from-file=key.pem --from-file=public.pem"),
        ("sealer", ("key.pem", "public.pem"), "--from-file=key.pem --from-file=public.pem"),
        ("references", ("key",), "--from-file=key"),
    ],
)
def test_an_archive_key_that_is_not_there_or_not_whole_is_told(
    helm: Helm, cluster: Cluster, name: str, keys: tuple[str, ...], command: str
) -> None:
    values = nested(f"archive.{name}.existingSecret", "given")
    refused = cluster.refusal(helm, TRIAL, values)
    assert f"There is no Secret given in namespace {NAMESPACE}, which archive.{name} names" in refused
    assert f"kubectl create secret generic given -n {NAMESPACE} {command}\n" in refused
    cluster.add(given_keys("given", *keys[:-1], "else"))
    assert f"Secret given has no {keys[-1]}; add it." in cluster.refusal(helm, TRIAL, values)
    cluster.add(given_keys("given", *keys))
    assert cluster.render(helm, TRIAL, values)


def test_a_claim_for_copies_of_seals_that_is_not_there_is_told(helm: Helm, cluster: Cluster) -> None:
    refused = cluster.refusal(helm, TRIAL, nested("archive.seal.copiesClaim", "elsewhere"))
    assert f"There is no PersistentVolumeClaim elsewhere in namespace {NAMESPACE} for copies of seals" in refused
    assert cluster.render(helm, TRIAL, nested("archive.seal.copiesClaim", "seals"))


def test_a_claim_for_evidence_that_is_not_there_is_told(helm: Helm, cluster: Cluster) -> None:
    given = {"evidence": {"enabled": True, "claim": "elsewhere", "existingSecret": "evidence-key"}}
    refused = cluster.refusal(helm, TRIAL, given)
    assert f"There is no PersistentVolumeClaim elsewhere in namespace {NAMESPACE} for evidence" in refused
    assert cluster.render(helm, TRIAL, given, nested("evidence.claim", "evidence"))


def test_a_journals_claim_that_is_not_there_is_told(helm: Helm, cluster: Cluster) -> None:
    refused = cluster.refusal(helm, TRIAL, nested("archive.journal.existingClaim", "elsewhere"))
    assert f"There is no PersistentVolumeClaim elsewhere in namespace {NAMESPACE} for the journal" in refused
    assert cluster.render(helm, TRIAL, nested("archive.journal.existingClaim", "journal"))


def test_it_can_be_switched_off_but_contradictions_are_told_all_the_same(helm: Helm, cluster: Cluster) -> None:
    cluster.add(controller("kserve/kserve-controller:v0.19.1"))
    assert cluster.render(helm, TRIAL, nested("preflight.enabled", False))
    assert "There is no S3 server" in cluster.refusal(
        helm, TRIAL, {"preflight": {"enabled": False}, "trialStore": {"enabled": False}}
    )
