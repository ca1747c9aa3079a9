"""KServe's payload logger: off by default, with rights of its own, and never switched under calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chart.api import Object
from tests.chart.conftest import (
    EVERYTHING,
    NAMESPACE,
    STORE_ANNOTATIONS,
    TRIAL,
    Cluster,
    Helm,
    inference_service,
    nested,
    of_kind,
    route_to,
    the,
)
from tests.chart.test_preflight import EXTERNAL, secret
from tests.chart.test_rendered import ARMS, RELEASE, STANDBY, allows

ON = nested("payloadLogger.enabled", True)
GIVEN = {"payloadLogger": {"enabled": True, "to": "s3://payloads", "existingSecret": "payloads"}}


def loggers(objects: list[Object]) -> dict[str, Any]:
    return {
        item["metadata"]["name"].removeprefix("pneumonia-"): item["spec"]["predictor"].get("logger")
        for item in of_kind(objects, "InferenceService")
    }


def test_there_is_none_by_default(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS)
    assert set(loggers(rendered).values()) == {None}
    assert not [item for item in rendered if "payloads" in json.dumps(item)]


def test_each_release_has_it_as_kserve_demands_it(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS, ON)
    found = loggers(rendered)
    assert set(found) == {RELEASE, STANDBY}
    for logger in found.values():
        assert (logger["mode"], logger["url"]) == ("all", "s3://pneumoserve/payloads")
        # KServe refuses a logger that leaves one of these out.
        assert {"path", "key", "parameters", "serviceAccountName"} <= set(logger["storage"])
        account = the(rendered, "ServiceAccount", logger["storage"]["serviceAccountName"])
        assert account["secrets"] == [{"name": "pneumoserve-payloads"}]
        assert account["automountServiceAccountToken"] is False


def test_it_may_be_for_some_releases_only(helm: Helm) -> None:
    found = loggers(helm.render(EVERYTHING))
    assert {release: bool(logger) for release, logger in found.items()} == {
        RELEASE: False,
        STANDBY: True,
        "000000000000": False,
    }
    assert found[STANDBY]["url"] == "s3://payloads/kserve"


def test_in_the_trial_store_it_may_write_its_own_folder_and_nothing_else(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS, ON)
    identities = json.loads(the(rendered, "Secret", "pneumoserve-store")["stringData"]["identities.json"])["identities"]
    rights = {each["name"]: each["actions"] for each in identities}
    assert rights["payloads"] == ["Write:pneumoserve/payloads/*"]
    keys = the(rendered, "Secret", "pneumoserve-payloads")["stringData"]
    assert [each["credentials"] for each in identities if each["name"] == "payloads"] == [
        [{"accessKey": keys["AWS_ACCESS_KEY_ID"], "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}]
    ]
    # The store reads rights when it starts.
    store = [the(each, "Deployment")["spec"]["template"] for each in (rendered, helm.render(TRIAL, ARMS))]
    assert store[0] != store[1]


def test_its_port_is_open_to_whom_the_fronts_is(helm: Helm) -> None:
    rendered = helm.render(TRIAL, ARMS, ON, nested("loadTest.enabled", True))
    predictor = of_kind(rendered, "InferenceService")[0]["metadata"]["labels"]
    rules = [
        rule
        for policy in of_kind(rendered, "NetworkPolicy")
        if allows(policy, predictor)
        for rule in policy["spec"].get("ingress", [])
        if 9081 in [port["port"] for port in rule["ports"]]
    ]
    ((gateway, own),) = [rule["from"] for rule in rules]
    assert gateway["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "envoy-gateway-system"}
    assert "load" in own["podSelector"]["matchExpressions"][0]["values"]
    load = the(rendered, "NetworkPolicy", "pneumoserve-load")["spec"]["egress"][1]
    assert [port["port"] for port in load["ports"]] == [8080, 8081, 9081]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((TRIAL, GIVEN), "leave payloadLogger.to and payloadLogger.existingSecret empty"),
        ((EVERYTHING, nested("payloadLogger.to", "")), "set payloadLogger.to."),
        ((EVERYTHING, nested("payloadLogger.to", "s3://films/payloads")), "is the archive's bucket"),
        ((EVERYTHING, nested("payloadLogger.existingSecret", "")), "set payloadLogger.existingSecret"),
        (
            (EVERYTHING, GIVEN, nested("s3.archive", {"accessKey": "", "secretKey": "", "existingSecret": "payloads"})),
            "give the payload logger one of its own",
        ),
        ((EVERYTHING, nested("payloadLogger.releases", ["aaaaaaaaaaaa"])), "aaaaaaaaaaaa is in payloadLogger.releases"),
    ],
)
def test_contradictions_are_refused(helm: Helm, given: tuple[Any, ...], told: str) -> None:
    assert told in helm.refusal(*given)


def test_the_notes_warn_of_whole_films_in_the_store(helm: Helm) -> None:
    assert "The payload logger keeps whole films" in helm.notes(TRIAL, ON)
    assert "below s3://pneumoserve/payloads: outside the archive's" in helm.notes(TRIAL, ON)
    assert "payload logger" not in helm.notes(TRIAL)


# --- switched


def logged(release: str) -> Object:
    item = inference_service(release)
    item["spec"]["predictor"]["logger"] = {"mode": "all"}
    return item


@pytest.mark.parametrize(("there", "given"), [(inference_service, ON), (logged, {})], ids=["on", "off"])
def test_it_is_not_switched_for_a_release_that_answers(
    helm: Helm, cluster: Cluster, there: Any, given: dict[str, Any]
) -> None:
    cluster.add(route_to(RELEASE))
    cluster.add(there(RELEASE))
    cluster.add(there(STANDBY))
    refused = cluster.refusal(helm, TRIAL, ARMS, given)
    assert f"Release {RELEASE} answers calls {'with' if there is logged else 'without'} the payload logger" in refused
    assert f"kubectl rollout status deployment/pneumonia-{RELEASE}-predictor -n {NAMESPACE}" in refused
    assert f"Release {STANDBY} answers" not in refused


def test_it_is_switched_for_a_release_that_nobody_calls(helm: Helm, cluster: Cluster) -> None:
    cluster.add(route_to(RELEASE))
    for release in (RELEASE, STANDBY):
        cluster.add(inference_service(release))
    given = {"payloadLogger": {"enabled": True, "releases": [STANDBY]}}
    assert loggers(cluster.render(helm, TRIAL, ARMS, given))[STANDBY]
    # Nor in the upgrade that lets it answer.
    arms = {"release": {"id": STANDBY, "standby": [RELEASE]}}
    assert f"Release {STANDBY} answers calls without" in cluster.refusal(helm, TRIAL, arms, given)


def test_a_release_that_has_it_goes_on_with_it(helm: Helm, cluster: Cluster) -> None:
    cluster.add(route_to(RELEASE))
    for release in (RELEASE, STANDBY):
        cluster.add(logged(release))
    assert cluster.render(helm, TRIAL, ARMS, ON)


def test_a_release_that_is_not_ready_loses_nothing(helm: Helm, cluster: Cluster) -> None:
    cluster.add(route_to(RELEASE))
    cluster.add(inference_service(RELEASE, "False"))
    assert cluster.render(helm, TRIAL, ARMS, ON)


def test_its_secret_must_be_there_and_say_where_the_store_is(helm: Helm, cluster: Cluster) -> None:
    cluster.add(secret("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", annotations=STORE_ANNOTATIONS))
    assert cluster.render(helm, EVERYTHING, EXTERNAL)
    del cluster.objects["Secret/payloads"]
    there_is_none = f"There is no Secret payloads in namespace {NAMESPACE}, which payloadLogger names"
    assert there_is_none in cluster.refusal(helm, EVERYTHING, EXTERNAL)
    cluster.add({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "payloads", "namespace": NAMESPACE}})
    refused = cluster.refusal(helm, EVERYTHING, EXTERNAL)
    assert f"kubectl annotate secret payloads -n {NAMESPACE} --overwrite serving.kserve.io/s3-endpoint=" in refused
