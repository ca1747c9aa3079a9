"""Pods that come and go, by the calls in flight or because a node is drained, and the calls that must not notice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, Self

import httpx
import pytest

from loadtest.calls import PREDICT
from tests.e2e import custom_metrics
from tests.e2e.conftest import Cluster, Images, restricted_namespace
from tests.e2e.load import Load
from tests.e2e.product import NAME, Product, wait_until
from tests.support import films

pytestmark = pytest.mark.skipif("KUBECONFIG" in os.environ, reason="gives the cluster a custom metrics API, drains it")

HOST = "scaling.example.org"
FILMS = [path.read_bytes() for path in films.sample_films()[:20]]
AUTOSCALING = {"enabled": True, "minReplicas": 2, "maxReplicas": 3, "target": 4, "scaleDownSeconds": 0}
HELD = 16
# The front gives a body that pauses ten.
HELD_SECONDS = 6.0


class HeldCalls:
    """Calls whose second half comes late, again and again: so many are in flight, within a front's time for bodies."""

    def __init__(self, gateway: str, at_once: int) -> None:
        self._gateway = gateway
        self._at_once = at_once
        self._end = threading.Event()

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(self._at_once)
        self._callers = [self._threads.submit(self._call_again, film) for film in (FILMS * 2)[: self._at_once]]
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._threads.shutdown()

    def finished(self) -> set[str]:
        """End them; the ids of all predictions that answered them."""
        self._end.set()
        return set(chain.from_iterable(caller.result() for caller in self._callers))

    def _call_again(self, film: bytes) -> list[str]:
        predictions = []
        while not self._end.is_set():
            predictions.append(self._call(film))
        return predictions

    def _call(self, film: bytes) -> str:
        with contextlib.closing(http.client.HTTPConnection(self._gateway, timeout=60)) as connection:
            connection.putrequest("POST", PREDICT, skip_host=True)
            headers = {"Host": HOST, "Content-Type": "image/jpeg", "Content-Length": str(len(film))}
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(film[: len(film) // 2])
            self._end.wait(HELD_SECONDS)
            connection.send(film[len(film) // 2 :])
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            (answer,) = json.loads(body)["predictions"]
            return str(answer["prediction_id"])


@pytest.fixture(scope="module")
def scaled(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A release of two pods that may become three, without TorchServe; the custom metrics API is a stand-in."""
    assert cluster.node is not None
    with (
        restricted_namespace(cluster) as namespace,
        custom_metrics.served(cluster, cluster.node.authority, namespace),
    ):
        product = Product(cluster, namespace, images, tmp_path_factory.mktemp("scaling"))
        product.prepare()
        product.helm(
            "install",
            engine="inprocess",
            autoscaling=AUTOSCALING,
            # The gateway would hold calls back until their bodies are whole.
            route={"hostnames": [HOST], "limits": {"bodyMebibytes": 0}},
            networkPolicies={"metricsNamespaces": ["monitoring"]},
        )
        product.push(product.folder / "releases" / product.first)
        product.helm("upgrade", release={"id": product.first})
        product.wait_ready(product.first)
        yield product
        cluster.helm("uninstall", NAME, f"--namespace={namespace}")


@pytest.fixture
def load(scaled: Product, gateway: str) -> Load:
    """A load, not yet running, where the gateway leads to the release."""
    wait_until(lambda: len(scaled.ready_pods(scaled.first)) == 2, 180, "two Ready pods")
    call = {"content": FILMS[0], "headers": {"Host": HOST}, "timeout": 30}
    wait_until(lambda: httpx.post(f"http://{gateway}{PREDICT}", **call).is_success, 60, "an answer")
    return Load(gateway, FILMS, 5.0, host=HOST)


def autoscaler(scaled: Product) -> dict[str, Any]:
    (found,) = scaled.get("horizontalpodautoscalers")["items"]
    return dict(found)


def scaled_to(scaled: Product, count: int, seconds: float) -> float:
    """Wait until that many pods are Ready and no other one is wanted; how long it took."""
    started = time.monotonic()
    wait_until(
        lambda: len(scaled.ready_pods(scaled.first)) == count == len(scaled.pods(scaled.first)),
        seconds,
        f"{count} pods, {autoscaler(scaled)['status']}",
    )
    return time.monotonic() - started


def test_pods_follow_the_calls_in_flight_and_none_is_lost(scaled: Product, gateway: str, load: Load) -> None:
    with load.running() as running:
        running.wait_for_answers(20)
        with HeldCalls(gateway, HELD) as held:
            print(f"{HELD} calls held: three pods after {scaled_to(scaled, 3, 120):.0f} s")
            metric = autoscaler(scaled)["status"]["currentMetrics"]
            print(f"what the autoscaler saw: {json.dumps(metric)}")
            predictions = held.finished()
        print(f"and finished: two pods after {scaled_to(scaled, 2, 180):.0f} s")
        running.wait_for_answers(40)
    print(f"scaled up and down: {running.summary()}")
    assert not running.failures, running.failures[:5]
    predictions |= {str(call.prediction_id) for call in running.calls}
    assert not predictions - scaled.recorded()


def test_kserve_leaves_our_autoscaler_alone_and_makes_none(scaled: Product) -> None:
    found = autoscaler(scaled)
    assert found["metadata"]["name"] == f"pneumonia-{scaled.first}"
    assert "ownerReferences" not in found["metadata"]
    assert found["spec"]["metrics"][0]["pods"]["metric"]["name"] == custom_metrics.METRIC


@pytest.mark.usefixtures("alone")
def test_a_drained_node_loses_no_call(scaled: Product, load: Load) -> None:
    """The node is cordoned, so no pod can come for the first one that goes: the budget must keep the second one."""
    first = set(scaled.ready_pods(scaled.first))
    (node,) = {pod["spec"]["nodeName"] for pod in scaled.pods(scaled.first)}
    command = [scaled.cluster.tool("kubectl"), "drain", node, "--delete-emptydir-data", "--timeout=300s",
               f"--pod-selector=app=isvc.pneumonia-{scaled.first}-predictor"]  # fmt: skip
    environment = {**os.environ, "KUBECONFIG": str(scaled.cluster.kubeconfig)}
    with load.running() as running:
        running.wait_for_answers(20)
        log = scaled.folder / "drain.log"
        with (
            log.open("w") as sentence,
            subprocess.Popen(command, stdout=sentence, stderr=subprocess.STDOUT, env=environment) as drain,
        ):
            try:
                wait_until(lambda: "disruption budget" in log.read_text(), 120, "a pod that the budget keeps")
                running.wait_for_answers(20)
                assert len(first & set(scaled.ready_pods(scaled.first))) == 1
            finally:
                scaled.kubectl("uncordon", node)
            assert drain.wait(timeout=300) == 0, log.read_text()
        wait_until(lambda: len(scaled.ready_pods(scaled.first)) == 2, 120, "two Ready pods")
        running.wait_for_answers(20)
    print(f"node drained: {running.summary()}")
    assert not first & set(scaled.ready_pods(scaled.first))
    assert not running.failures, running.failures[:5]
    assert not {call.prediction_id for call in running.calls} - scaled.recorded()


def test_switched_off_the_autoscaler_goes_and_kserve_keeps_the_number(scaled: Product) -> None:
    scaled.helm("upgrade", autoscaling={"enabled": False}, replicas=1)
    assert scaled.get("horizontalpodautoscalers")["items"] == []
    scaled_to_one = "--for=jsonpath={.spec.replicas}=1"
    scaled.kubectl("wait", f"deployment/pneumonia-{scaled.first}-predictor", scaled_to_one, "--timeout=60s")
