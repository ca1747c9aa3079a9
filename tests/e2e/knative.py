"""Knative's controllers, autoscaler and gateway as far as a rollout meets them, played on a cluster that has its kinds.

A revision is made of each template and gets a Deployment of one pod; the Service's status follows what KServe asks
for. What no target names has its pods taken away, as Knative would.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from loadtest.calls import PREDICT
from tests.e2e.load import beside
from tests.e2e.product import Product
from tests.support.fake_knative import SERVICE, reported

_KINDS = "services.serving.knative.dev,revisions.serving.knative.dev,deployments.apps,pods"
_TEMPLATE = "played/template"
_REVISION = "serving.knative.dev/revision"


@dataclass
class Knative:
    """The controllers of one namespace, while they run."""

    product: Product
    film: bytes
    addresses: dict[str, str] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[Knative]:
        """Controllers beside the test."""
        ended = threading.Event()

        def control() -> None:
            while not ended.wait(0.3):
                self._controllers()

        with beside(control, ended):
            yield self

    @contextlib.contextmanager
    def called(self) -> Iterator[None]:
        """Callers too, five a second, each sent to a revision by the shares that are reported."""
        ended = threading.Event()

        def calls() -> None:
            count = 0
            while not ended.wait(0.2):
                count += 1
                self._call(count)

        with beside(calls, ended):
            yield

    def _call(self, count: int) -> None:
        place = count * 37 % 100  # every hundred calls each of 0 to 99, in no long runs
        each_of_hundred = [revision for revision, share in self.shares.items() for _ in range(share)]
        revision = each_of_hundred[place]
        url = f"http://{self.addresses[revision]}:8080{PREDICT}"
        try:
            response = httpx.post(url, content=self.film, headers={"Content-Type": "image/jpeg"}, timeout=60)
            response.raise_for_status()
        except httpx.HTTPError as error:
            self.failures.append(f"{revision}: {error!r}")
        else:
            self.answers.append(response.headers["pneumoserve-release"])

    def _controllers(self) -> None:
        items = self.product.get(_KINDS)["items"]
        (service,) = (item for item in items if item["kind"] == "Service")
        revisions = sorted((item for item in items if item["kind"] == "Revision"), key=_name)
        template = service["spec"]["template"]
        if not revisions or revisions[-1]["metadata"]["annotations"][_TEMPLATE] != _digest(template):
            self._make(f"{SERVICE}-{len(revisions) + 101:05}", template)
            return
        deployments = {_name(item) for item in items if item["kind"] == "Deployment"}
        for pod in (item for item in items if item["kind"] == "Pod"):
            if (name := pod["metadata"]["labels"].get(_REVISION)) and _is_ready(pod):
                self.addresses[name] = pod["status"]["podIP"]
        for revision in revisions:
            if _name(revision) in self.addresses and not _is_ready(revision):
                revision["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
                self._report("revisions.serving.knative.dev", _name(revision), revision["status"])
        ready = [_name(revision) for revision in revisions if _is_ready(revision)]
        if ready:
            self._route(service, _name(revisions[-1]), ready[-1])
            self._scale(deployments, _name(revisions[-1]))

    def _route(self, service: dict[str, Any], newest: str, ready: str) -> None:
        url = f"http://{SERVICE}.{self.product.namespace}.svc.cluster.local"
        status = {**reported(service, newest, ready, newest == ready), "url": url, "address": {"url": url}}
        shares: dict[str, int] = {}
        for each in status["traffic"]:
            shares[each["revisionName"]] = shares.get(each["revisionName"], 0) + each["percent"]
        self.shares = shares
        if any(service.get("status", {}).get(key) != value for key, value in status.items()):
            self._report("services.serving.knative.dev", SERVICE, status)

    def _scale(self, deployments: set[str], newest: str) -> None:
        for name in deployments:
            revision = name.removesuffix("-deployment")
            if revision.startswith(SERVICE) and revision not in self.shares and revision != newest:
                self.product.kubectl("delete", "deployment", name, "--wait=false")

    def _report(self, kind: str, name: str, status: dict[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.product.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)

    def _make(self, name: str, template: dict[str, Any]) -> None:
        """A revision of the template as it is, and one pod of what is left of it without Knative's own."""
        place = {"namespace": self.product.namespace}
        annotations = {**template["metadata"]["annotations"], _TEMPLATE: _digest(template)}
        revision = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Revision",
            "metadata": {"name": name, **place, "annotations": annotations},
            "spec": template["spec"],
        }
        spec = copy.deepcopy(template["spec"])
        for key in ("timeoutSeconds", "responseStartTimeoutSeconds", "containerConcurrency"):
            spec.pop(key, None)
        spec["terminationGracePeriodSeconds"] = 6
        labels = {**template["metadata"]["labels"], _REVISION: name}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": f"{name}-deployment", **place},
            "spec": {
                "selector": {"matchLabels": {_REVISION: name}},
                "template": {"metadata": {"annotations": annotations, "labels": labels}, "spec": spec},
            },
        }
        self.product.cluster.apply(deployment, revision)


def _name(item: dict[str, Any]) -> str:
    name: str = item["metadata"]["name"]
    return name


def _digest(template: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def _is_ready(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
