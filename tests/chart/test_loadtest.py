"""The load test's CronJob: off by default, restricted, and run with words that the load generator takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from loadtest.__main__ import options
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, TRIAL, Helm, nested, of_kind, the
from tests.chart.test_rendered import ARMS, RELEASE, allows, cron_jobs, pods

ON = nested("loadTest.enabled", True)
NAME = "pneumoserve-load"


@pytest.fixture
def plain(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ARMS, ON)


@pytest.fixture
def everything(helm: Helm) -> list[Object]:
    return helm.render(EVERYTHING)


def taken(objects: list[Object], headers: Path) -> argparse.Namespace:
    """What the load generator understands of the container's command."""
    python, module, package, *words = cron_jobs(objects, "load")[NAME]["command"]
    assert (python, module, package) == ("python", "-m", "loadtest")
    return options().parse_args([word.replace("/etc/pneumoserve/load/headers", str(headers)) for word in words])


def test_there_is_none_by_default(helm: Helm) -> None:
    assert not [item for item in helm.render(TRIAL, ARMS) if item["metadata"]["name"].startswith(NAME)]


def test_it_loads_the_release_that_answers_and_starts_only_by_hand(plain: list[Object], tmp_path: Path) -> None:
    words = taken(plain, tmp_path)
    service = f"pneumonia-{RELEASE}-predictor.pneumo.svc"
    assert (words.url, words.grpc) == (f"http://{service}", f"{service}:8081")
    assert (words.shape, words.rate, words.seconds, words.images) == ("constant", 5.0, 60.0, 1)
    assert words.kinds == ["v1", "v2-json", "v2-binary", "grpc", "dicom"]
    assert (words.max_failed, words.min_rate, words.p99_ms, words.headers) == (0.0, None, None, {})
    job = the(plain, "CronJob", NAME)["spec"]
    assert job["suspend"] is True
    assert job["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 360


def test_every_value_reaches_the_load_generator(everything: list[Object], tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("Authorization: Bearer x\n")
    words = taken(everything, headers)
    assert (words.url, words.grpc) == ("http://gateway.gateways.svc:8000", "gateway.gateways.svc:8000")
    assert (words.host_name, words.headers) == ("pneumonia.example.org", {"Authorization": "Bearer x"})
    assert (words.shape, words.rate, words.seconds, words.images) == ("soak", 12.5, 7200.0, 2)
    assert (words.kinds, words.max_failed, words.min_rate) == (["v1", "grpc"], 0.001, 12.0)
    assert (words.p50_ms, words.p95_ms, words.p99_ms) == (200.0, 500.0, 1000.0)
    assert str(words.out) == "/reports/$(JOB)"
    container = cron_jobs(everything, "load")[NAME]
    assert container["image"].endswith("@sha256:" + "4" * 64)
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "2Gi"}
    (spec,) = [spec for name, spec, _ in pods(everything) if name == NAME]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["reports"]["persistentVolumeClaim"] == {"claimName": "load-reports"}
    assert volumes["headers"]["secret"]["secretName"] == "load-headers"


def policies(objects: list[Object], labels: dict[str, str], direction: str) -> list[Any]:
    found = [item for item in of_kind(objects, "NetworkPolicy") if allows(item, labels)]
    return [rule for item in found for rule in item["spec"].get(direction, [])]


def test_it_may_call_the_releases_pods_and_nobody_else(plain: list[Object]) -> None:
    (labels,) = [labels for name, _, labels in pods(plain) if name == NAME]
    dns, releases = policies(plain, labels, "egress")
    assert {port["port"] for port in dns["ports"]} == {53}
    assert [port["port"] for port in releases["ports"]] == [8080, 8081]
    (target,) = releases["to"]
    predictor = of_kind(plain, "InferenceService")[0]["metadata"]["labels"]
    assert target["podSelector"]["matchLabels"].items() <= predictor.items()
    assert policies(plain, labels, "ingress") == []
    sources = [source for rule in policies(plain, predictor, "ingress") for source in rule["from"]]
    load = {"app.kubernetes.io/component": "load"}.items()
    (source,) = [each["podSelector"]["matchLabels"] for each in sources if "podSelector" in each
                 and load <= each["podSelector"]["matchLabels"].items()]  # fmt: skip
    assert source.items() <= labels.items()


def test_with_a_gateway_it_may_call_that_one_and_no_release(everything: list[Object]) -> None:
    (labels,) = [labels for name, _, labels in pods(everything) if name == NAME]
    _, gateway = policies(everything, labels, "egress")
    (target,) = gateway["to"]
    assert target == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    assert "pneumoserve-loaded" not in {item["metadata"]["name"] for item in everything}


def test_the_notes_tell_how_to_start_it(helm: Helm) -> None:
    command = "kubectl create job -n pneumo --from=cronjob/pneumoserve-load load-1"
    assert command in helm.notes(TRIAL, ARMS, ON)
    assert command not in helm.notes(TRIAL, ARMS)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "loadTest has nothing to load; set release.id, or loadTest.url."),
        (ARMS | {"loadTest": {"enabled": True, "grpc": "gateway:80"}}, "so two services would be loaded"),
    ],
)
def test_a_load_without_a_target_is_refused(helm: Helm, given: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(TRIAL, ON, given)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("loadTest.rate", 0, "exclusiveMinimum"),
        ("loadTest.kinds", ["v3"], "must be one of"),
        ("loadTest.shape", "spike", "must be one of"),
        ("loadTest.images", 17, "maximum"),
        ("loadTest.thresholds.maxFailed", 5, "maximum"),
        ("loadTest.url", "gateway:80", "pattern"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_by_its_path(helm: Helm, path: str, value: Any, sentence: str) -> None:
    refused = helm.refusal(TRIAL, ARMS, nested(path, value))
    assert "/" + path.replace(".", "/") in refused
    assert sentence in refused
