"""A stand-in for prometheus-adapter: the custom metrics API, of one metric, read from the pods themselves.

What asks it is real, the cluster's own HorizontalPodAutoscaler controller; what it answers is real, each front's own
/metrics, averaged over some seconds as prometheus-adapter does by a rule with avg_over_time. Prometheus is not there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import ssl
import threading
import time
import urllib.parse
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx

from pneumoserve.local.process import free_ports
from tests.e2e.conftest import Cluster
from tests.e2e.product import wait_until
from tests.support.cluster.certificates import Authority
from tests.support.cluster.node import ADDRESS

GROUP: Final = "custom.metrics.k8s.io"
VERSION: Final = "v1beta2"
METRIC: Final = "pneumoserve_calls_in_flight"
_NAME: Final = "custom-metrics-stand-in"
_OVER_SECONDS: Final = 5.0
_EVERY_SECONDS: Final = 0.5


@dataclass
class Sampler:
    """Asks the fronts of a namespace for the calls they have in flight, and knows the average of the last seconds."""

    pods: Callable[[str], list[dict[str, Any]]]
    _addresses: dict[str, str] = field(default_factory=dict)
    _samples: dict[str, deque[tuple[float, float]]] = field(default_factory=lambda: defaultdict(deque))

    def averages(self, selector: str) -> dict[str, float]:
        """By pod; a pod that has not answered yet is not in it."""
        found = self.pods(selector)
        self._addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in found if "podIP" in pod["status"]}
        since = time.monotonic() - _OVER_SECONDS
        recent = {name: [value for at, value in list(self._samples[name]) if at > since] for name in self._addresses}
        return {name: sum(values) / len(values) for name, values in recent.items() if values}

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        with httpx.Client(timeout=2) as client:
            while not stop.wait(_EVERY_SECONDS):
                for name, address in list(self._addresses.items()):
                    with contextlib.suppress(httpx.HTTPError):
                        text = client.get(f"http://{address}:8082/metrics").text
                        (line,) = [line for line in text.splitlines() if line.startswith(f"{METRIC} ")]
                        self._samples[name].append((time.monotonic(), float(line.split()[1])))


def answer(path: str, sampler: Sampler) -> dict[str, Any] | None:
    """The body of a GET; None for what there is not."""
    address = urllib.parse.urlsplit(path)
    words = [urllib.parse.unquote(word) for word in address.path.strip("/").split("/")]
    match words:
        case ["apis", group, version] if (group, version) == (GROUP, VERSION):
            resource = {"name": f"pods/{METRIC}", "singularName": "", "namespaced": True, "kind": "MetricValueList",
                        "verbs": ["get"]}  # fmt: skip
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}",
                    "resources": [resource]}  # fmt: skip
        case ["apis", _, _, "namespaces", namespace, "pods", "*", metric] if metric == METRIC:
            (selector,) = urllib.parse.parse_qs(address.query)["labelSelector"]
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            items = [
                {
                    "describedObject": {"kind": "Pod", "apiVersion": "/v1", "namespace": namespace, "name": name},
                    "metric": {"name": metric},
                    "timestamp": now,
                    "value": f"{round(1000 * value)}m",
                }
                for name, value in sampler.averages(selector).items()
            ]
            return {"kind": "MetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}
    return None


@contextlib.contextmanager
def served(cluster: Cluster, authority: Authority, namespace: str) -> Iterator[None]:
    """The API, registered with the cluster and served from this process, for the pods of one namespace."""
    sampler = Sampler(
        lambda selector: cluster.get("pods", f"--namespace={namespace}", f"--selector={selector}")["items"]
    )
    stop = threading.Event()
    (port,) = free_ports(1)
    server = ThreadingHTTPServer((ADDRESS, port), _handler(sampler))
    authority.issue(_NAME, _NAME, hosts=(ADDRESS, f"{_NAME}.{namespace}.svc"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / f"{_NAME}.crt", authority.folder / f"{_NAME}.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=sampler.run, args=(stop,))]
    for thread in threads:
        thread.start()
    try:
        cluster.apply(*_objects(namespace, port))
        cluster.kubectl("wait", f"apiservice/{VERSION}.{GROUP}", "--for=condition=Available", "--timeout=60s")
        # What the API server says that it serves, which helm looks at, follows some seconds later.
        wait_until(lambda: f"{GROUP}/{VERSION}" in cluster.kubectl("api-versions").split(), 90, "the API is listed")
        yield
    finally:
        cluster.kubectl("delete", f"apiservice/{VERSION}.{GROUP}", "--ignore-not-found")
        stop.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


def _handler(sampler: Sampler) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = answer(self.path, sampler)
            content = json.dumps(body or {"kind": "Status", "apiVersion": "v1", "code": 404}).encode()
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            return

    return Handler


def _objects(namespace: str, port: int) -> list[dict[str, Any]]:
    """A Service whose only endpoint is this process, and the group that the API server asks it for."""
    here = {"name": _NAME, "namespace": namespace}
    slice_labels = {"kubernetes.io/service-name": _NAME}
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": here,
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**here, "labels": slice_labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            "ports": ports,
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{VERSION}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "version": VERSION,
                "service": here,
                # It lives for one test, in the test's own process.
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    ]
