"""Knative's own word on what KServe would hand it: its defaults, its validation, with what a fresh Knative allows."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Final

from tests.chart.api import Object
from tests.chart.conftest import of_kind, the
from tests.support.cluster.cache import go_binaries

# What KServe takes from a runtime, and from the predictor of an InferenceService, for the pod.
_OF_RUNTIME: Final = ("containers", "volumes", "nodeSelector", "affinity", "tolerations", "imagePullSecrets")
_OF_POD: Final = (
    "serviceAccountName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "securityContext",
    "terminationGracePeriodSeconds",
    "topologySpreadConstraints",
)


def refusal(service: Object) -> str:
    """What Knative's webhooks would refuse a Knative Service with; nothing where they take it."""
    program = go_binaries("knative", print) / "knative"
    done = subprocess.run([program], input=json.dumps(service), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stderr


def service_of(objects: list[Object]) -> Object:
    """The Knative Service that KServe makes of an InferenceService and its runtime, as far as Knative validates it."""
    (inference,) = of_kind(objects, "InferenceService")
    predictor = inference["spec"]["predictor"]
    runtime = the(objects, "ServingRuntime", predictor["model"]["runtime"])["spec"]
    pod: dict[str, Any] = {key: runtime[key] for key in _OF_RUNTIME if key in runtime}
    pod |= {key: predictor[key] for key in _OF_POD if key in predictor}
    timeouts = {key: predictor["timeout"] for key in ("timeoutSeconds", "responseStartTimeoutSeconds")
                if "timeout" in predictor}  # fmt: skip
    template = {"metadata": {"annotations": predictor["annotations"]}, "spec": {**pod, **timeouts}}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": f"{inference['metadata']['name']}-predictor", "namespace": "pneumo"},
        "spec": {"template": template, "traffic": [{"latestRevision": True, "percent": 100}]},
    }
