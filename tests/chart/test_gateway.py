"""Sign-in, limits and the listener: what the chart asks of Envoy Gateway, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from pneumoserve.front.cors import REQUEST_HEADERS, RESPONSE_HEADERS
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, NAMESPACE, TRIAL, Cluster, Helm, gateway, of_kind, the

RELEASE: dict[str, Any] = {"release": {"id": "0123456789ab"}}
JWT: dict[str, Any] = {
    "route": {
        "signIn": {
            "method": "jwt",
            "jwt": {"issuer": "https://login.example.org", "audiences": ["pneumonia"], "jwksConfigMap": "keys"},
        }
    }
}
KEYS: dict[str, Any] = {"route": {"signIn": {"method": "apiKeys", "apiKeys": {"existingSecrets": ["clients"]}}}}


def arguments(objects: list[Object]) -> list[str]:
    """The front's."""
    containers = the(objects, "ServingRuntime")["spec"]["containers"]
    found: list[str] = next(each["args"] for each in containers if each["name"] == "transformer-container")
    return found


def test_by_default_nobody_signs_in_and_the_notes_say_so(helm: Helm) -> None:
    objects = helm.render(TRIAL, RELEASE)
    assert not of_kind(objects, "SecurityPolicy")
    assert not any("subject-header" in argument for argument in arguments(objects))
    assert "records name no caller" in helm.notes(TRIAL, RELEASE)


@pytest.mark.parametrize("given", [JWT, KEYS])
def test_the_verified_name_reaches_the_front_under_one_header(helm: Helm, given: dict[str, Any]) -> None:
    objects = helm.render(TRIAL, RELEASE, given)
    policy = the(objects, "SecurityPolicy")["spec"]
    route = the(objects, "HTTPRoute")["metadata"]["name"]
    assert policy["targetRefs"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route}]
    if "jwt" in policy:
        (provider,) = policy["jwt"]["providers"]
        (header,) = (each["header"] for each in provider["claimToHeaders"])
        assert provider["localJWKS"]["valueRef"]["name"] == "keys"
        assert "optional" not in policy["jwt"]
        assert "failOpen" not in policy["jwt"]
    else:
        header = policy["apiKeyAuth"]["forwardClientIDHeader"]
        assert policy["apiKeyAuth"]["sanitize"] is True
        assert policy["apiKeyAuth"]["credentialRefs"] == [{"group": "", "kind": "Secret", "name": "clients"}]
    assert f"--subject-header={header}" in arguments(objects)
    assert "records name no caller" not in helm.notes(TRIAL, RELEASE, given)
    assert "set route.gateway.sectionName to one with TLS" in helm.notes(TRIAL, RELEASE, given)


PAGES: dict[str, Any] = {"front": {"corsOrigins": ["https://pacs.example", "http://localhost:3000"]}}


@pytest.mark.parametrize("given", [JWT, KEYS])
def test_a_browser_is_answered_before_it_signs_in(helm: Helm, given: dict[str, Any]) -> None:
    assert "cors" not in the(helm.render(TRIAL, RELEASE, given), "SecurityPolicy")["spec"]
    objects = helm.render(TRIAL, RELEASE, given, PAGES)
    cors = the(objects, "SecurityPolicy")["spec"]["cors"]
    assert cors["allowOrigins"] == PAGES["front"]["corsOrigins"]
    key = ["X-API-Key"] if given is KEYS else []
    assert cors["allowHeaders"] == [*REQUEST_HEADERS, *key]
    assert cors["exposeHeaders"] == list(RESPONSE_HEADERS)
    assert "allowCredentials" not in cors
    assert [each for each in arguments(objects) if "cors" in each] == [
        f"--cors-origin={origin}" for origin in cors["allowOrigins"]
    ]


@pytest.mark.parametrize("origin", ["pacs.example", "https://pacs.example/", "https://*.example"])
def test_an_origin_is_written_as_browsers_do(origin: str, helm: Helm) -> None:
    assert "corsOrigins" in helm.refusal(TRIAL, RELEASE, {"front": {"corsOrigins": [origin]}})


def test_the_gateway_proves_itself_by_a_secret_that_is_in_no_object_of_the_chart(helm: Helm) -> None:
    assert not of_kind(helm.render(TRIAL, RELEASE, JWT), "HTTPRouteFilter")
    objects = helm.render(EVERYTHING)
    injected = the(objects, "HTTPRouteFilter")["spec"]["credentialInjection"]
    assert (injected["header"], injected["overwrite"]) == ("Pneumoserve-Gateway", True)
    assert injected["credential"]["valueRef"] == {"group": "", "kind": "Secret", "name": "gate"}
    rules = the(objects, "HTTPRoute", "pneumoserve")["spec"]["rules"]
    name = the(objects, "HTTPRouteFilter")["metadata"]["name"]
    assert [each["extensionRef"]["name"] for rule in rules for each in rule["filters"]] == [name, name]
    (path,) = (each for each in arguments(objects) if each.startswith("--gateway-secret="))
    runtime = the(objects, "ServingRuntime")["spec"]
    (volume,) = (each for each in runtime["volumes"] if each["name"] == "gateway-secret")
    assert volume["secret"] == {"secretName": "gate", "items": [{"key": "credential", "path": "credential"}]}
    (mount,) = (
        each for item in runtime["containers"] for each in item["volumeMounts"] if each["name"] == "gateway-secret"
    )
    assert path == f"--gateway-secret={mount['mountPath']}/credential"
    secret = {"secretKeyRef": {"name": "gate", "key": "credential"}}
    job = next(each for each in of_kind(objects, "CronJob") if each["metadata"]["name"].endswith("-rollout"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert secret in [each.get("valueFrom") for each in container["env"]]


def test_limits_count_each_caller_by_what_is_known_of_them(helm: Helm) -> None:
    limits = {"route": {"limits": {"callsPerMinute": 60, "bodyMebibytes": 68}}}
    spec = the(helm.render(TRIAL, RELEASE, limits), "BackendTrafficPolicy")["spec"]
    rules = spec["rateLimit"]["local"]["rules"]
    assert {str(rule["limit"]) for rule in rules} == {"{'requests': 60, 'unit': 'Minute'}"}
    assert [rule["clientSelectors"] for rule in rules] == [
        [{"sourceCIDR": {"type": "Distinct", "value": network}}] for network in ("0.0.0.0/0", "::/0")
    ]
    assert spec["requestBuffer"] == {"limit": "68Mi"}
    signed = the(helm.render(EVERYTHING), "BackendTrafficPolicy", "pneumoserve")["spec"]["rateLimit"]["local"]
    assert signed["rules"][0]["clientSelectors"][0]["headers"][0]["type"] == "Distinct"


def test_by_default_the_gateway_lets_no_slow_or_huge_request_through(helm: Helm) -> None:
    objects = helm.render(TRIAL, RELEASE)
    route = the(objects, "BackendTrafficPolicy")["spec"]
    assert route["requestBuffer"] == {"limit": "48Mi"}
    assert route["timeout"]["http"] == {"streamIdleTimeout": "65s"}
    assert "rateLimit" not in route
    policy = the(objects, "ClientTrafficPolicy")
    assert policy["metadata"]["namespace"] == "kserve"
    assert policy["spec"]["targetRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "kserve-ingress-gateway"}
    ]
    assert policy["spec"]["timeout"]["http"] == {
        "requestHeadersReceivedTimeout": "10s", "requestReceivedTimeout": "75s", "idleTimeout": "10m",
    }  # fmt: skip
    assert the(helm.render(EVERYTHING), "ClientTrafficPolicy")["spec"]["targetRefs"][0]["sectionName"] == "https"
    off = helm.render(TRIAL, RELEASE, {"route": {"limits": {"bodyMebibytes": 0, "receiveSeconds": 0}}})
    assert not of_kind(off, "BackendTrafficPolicy")
    assert not of_kind(off, "ClientTrafficPolicy")


def test_a_body_limit_that_would_go_before_the_fronts_own_is_refused(helm: Helm) -> None:
    assert "bodyMebibytes" in helm.refusal(TRIAL, RELEASE, {"route": {"limits": {"bodyMebibytes": 40}}})


def test_the_route_can_be_bound_to_one_listener(helm: Helm) -> None:
    (parent,) = the(helm.render(EVERYTHING), "HTTPRoute", "pneumoserve")["spec"]["parentRefs"]
    assert parent["sectionName"] == "https"
    (parent,) = the(helm.render(TRIAL, RELEASE), "HTTPRoute")["spec"]["parentRefs"]
    assert "sectionName" not in parent


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"method": "jwt", "jwt": {"jwksUri": "https://a.example.org"}}, "set route.signIn.jwt.issuer"),
        ({"method": "jwt", "jwt": {"issuer": "a"}}, "say where the issuer's keys are"),
        (
            {"method": "jwt", "jwt": {"issuer": "a", "jwksUri": "https://a.example.org", "jwksConfigMap": "b"}},
            "by one of route.signIn.jwt.jwksUri and",
        ),
        ({"method": "apiKeys"}, "set route.signIn.apiKeys.existingSecrets"),
        ({"jwt": {"issuer": "a"}}, "route.signIn.jwt is set and route.signIn.method is not jwt"),
        ({"gatewaySecret": "a"}, "route.signIn.gatewaySecret is set and callers do not sign in"),
        ({"apiKeys": {"existingSecrets": ["a"]}}, "route.signIn.apiKeys is set and route.signIn.method is not"),
    ],
)
def test_a_sign_in_that_would_let_anybody_or_nobody_in_is_refused(
    helm: Helm, given: dict[str, Any], sentence: str
) -> None:
    assert sentence in helm.refusal(TRIAL, RELEASE, {"route": {"signIn": given}})


def test_sign_in_without_our_route_and_a_load_past_the_gateway_are_refused(helm: Helm) -> None:
    off = {"route": {"enabled": False, **JWT["route"]}}
    assert "route.signIn needs the chart's route" in helm.refusal(TRIAL, RELEASE, off)
    assert "loadTest would go past it" in helm.refusal(TRIAL, RELEASE, JWT, {"loadTest": {"enabled": True}})


def test_a_cluster_without_envoy_gateway_is_told(helm: Helm, cluster: Cluster) -> None:
    cluster.envoy = False
    assert cluster.render(helm, TRIAL, {"route": {"limits": {"bodyMebibytes": 0, "receiveSeconds": 0}}})
    assert "set route.limits' values to 0" in cluster.refusal(helm, TRIAL)
    assert "install Envoy Gateway 1.9" in cluster.refusal(helm, TRIAL, JWT)
    assert "install Envoy Gateway 1.9" in cluster.refusal(helm, TRIAL, {"route": {"limits": {"callsPerMinute": 9}}})


def test_keys_and_listeners_that_are_not_there_are_told(helm: Helm, cluster: Cluster) -> None:
    assert "no ConfigMap keys with the key jwks" in cluster.refusal(helm, TRIAL, JWT)
    assert "no Secret clients in namespace" in cluster.refusal(helm, TRIAL, KEYS)
    other = {"route": {"gateway": {"sectionName": "tls"}}}
    cluster.add(gateway({"from": "All"}))
    assert "has no listener tls; set route.gateway.sectionName to one of:" in cluster.refusal(helm, TRIAL, other)
    for kind, name, data in (("ConfigMap", "keys", {"jwks": "{}"}), ("Secret", "clients", {"ct": "a"})):
        cluster.add(
            {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}
        )
    assert cluster.render(helm, TRIAL, JWT)
    assert cluster.render(helm, TRIAL, KEYS)
