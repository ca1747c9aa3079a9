"""KServe's payload logger: off by default, kept from the archive's credential, and never switched under calls."""

from __future__ import annotations

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
    inference_service,
    nested,
    of_kind,
    policies,
    route_to,
    the,
)
from tests.chart.test_rendered import ARMS, RELEASE, STANDBY, allows

ON = nested("payloadLogger.enabled", True)
GIVEN = {"payloadLogger": {"enabled": True, "to": "s3://payloads"}}


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
        assert the(rendered, "ServiceAccount", logger["storage"]["serviceAccountName"])


def test_it_may_be_for_some_releases_only(helm: Helm) -> None:
    found = loggers(helm.render(EVERYTHING))
    assert {release: bool(logger) for release, logger in found.items()} == {
        RELEASE: False,
        STANDBY: True,
        "000000000000": False,
    }
    assert found[STANDBY]["url"] == "s3://payloads/kserve"


def test_it_writes_with_the_releases_credential_which_may_write_its_folder_and_nothing_else(helm: Helm) -> None:
    """KServe 0.20 gives it the pod's own service account's, whatever the logger's is."""
    rights = []
    for given in ({}, ON):
        found = policies(helm.render(TRIAL, ARMS, given))
        rights.append({name: policy["Statement"] for name, policy in found.items()})
    *before, more = rights[1]["releases"]
    assert before == rights[0]["releases"]
    assert (more["Action"], more["Resource"]) == (["s3:PutObject"], ["arn:aws:s3:::pneumoserve/payloads/*"])
    assert "Put" not in json.dumps(rights[0]["releases"])
    assert rights[1]["archive"] == rights[0]["archive"]
    # The store reads rights when it starts.
    store = [the(helm.render(TRIAL, ARMS, given), "Deployment")["spec"]["template"] for given in ({}, ON)]
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
    ("given", "sentence"),
    [
        ((TRIAL, GIVEN), "leave payloadLogger.to empty"),
        ((EVERYTHING, nested("payloadLogger.to", "")), "set payloadLogger.to."),
        ((EVERYTHING, nested("payloadLogger.to", "s3://films/payloads")), "is the archive's bucket"),
        (
            (EVERYTHING, nested("s3.releases", {"accessKey": "", "secretKey": ""})),
            "The payload logger writes with the releases' credential, which is the archive's here",
        ),
        ((EVERYTHING, nested("payloadLogger.releases", ["aaaaaaaaaaaa"])), "aaaaaaaaaaaa is in payloadLogger.releases"),
    ],
)
def test_contradictions_are_refused(helm: Helm, given: tuple[Any, ...], sentence: str) -> None:
    assert sentence in helm.refusal(*given)


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
