"""What polaris and kube-linter look for in workloads, as far as it makes sense here; exceptions are explained.

The rules are theirs by meaning, written for the objects of this chart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.chart.api import Object

# Rule, and the containers or objects that are free of it, each with its reason.
EXCEPTIONS: Final[dict[tuple[str, str], str]] = {
    (
        "liveness-probe",
        "kserve-container in Knative mode",
    ): "Knative takes probes of the container with the port only; a front that finds TorchServe frozen is not Ready.",
    (
        "readiness-probe",
        "kserve-container in Knative mode",
    ): "Knative takes probes of the container with the port only; the front is Ready only when the models are.",
}
_READ_ONLY: Final = {"get", "list", "watch"}


def findings(item: Object) -> Iterator[str]:
    """Rule and place of everything that is found in one object, exceptions left out."""
    for rule, place in _all(item):
        if (rule, place) not in EXCEPTIONS:
            yield f"{rule}: {item['kind']} {item['metadata']['name']}, {place}"


def _all(item: Object) -> Iterator[tuple[str, str]]:
    kind = item["kind"]
    if kind in {"Role", "ClusterRole"}:
        yield from _rights(item)
    pod = pod_of(item)
    if pod is None:
        return
    if pod.get("automountServiceAccountToken") is not False and not pod.get("serviceAccountName"):
        yield "default-service-account", "pod"
    if any("hostPath" in volume for volume in pod.get("volumes", [])):
        yield "host-path", "pod"
    mode = " in Knative mode" if kind == "ServingRuntime" and "-knative-" in item["metadata"]["name"] else ""
    for container in pod.get("containers", []):
        place = f"{container['name']}{mode}"
        yield from ((rule, place) for rule in _of_container(container, serves=kind in _SERVING))


_SERVING: Final = {"Deployment", "StatefulSet", "ServingRuntime"}


def pod_of(item: Object) -> dict[str, Any] | None:
    """The pod's spec that an object holds, None where it holds none."""
    spec = item.get("spec", {})
    found: dict[str, Any] | None
    match item["kind"]:
        case "Deployment" | "StatefulSet" | "Job":
            found = spec["template"]["spec"]
        case "CronJob":
            found = spec["jobTemplate"]["spec"]["template"]["spec"]
        case "Pod":
            found = spec
        case "ServingRuntime":
            # The rest of the pod stands in the InferenceService.
            found = {"automountServiceAccountToken": False, **spec}
        case _:
            found = None
    return found


def _of_container(container: dict[str, Any], serves: bool) -> Iterator[str]:
    security = container.get("securityContext", {})
    resources = container.get("resources", {})
    image = container["image"]
    rules = {
        "latest-tag": image.endswith(":latest") or ("@" not in image and ":" not in image.rpartition("/")[2]),
        "no-pull-policy": "imagePullPolicy" not in container,
        "unset-cpu-requirements": not resources.get("requests", {}).get("cpu"),
        "unset-memory-requirements": not resources.get("limits", {}).get("memory"),
        "writable-root": security.get("readOnlyRootFilesystem") is not True,
        "run-as-root": security.get("runAsNonRoot") is not True or not security.get("runAsUser"),
        "env-secret": any(_secret(each) for each in container.get("env", [])),
        "no-termination-message": container.get("terminationMessagePolicy") != "FallbackToLogsOnError",
        "readiness-probe": serves and "readinessProbe" not in container,
        "liveness-probe": serves and "livenessProbe" not in container,
        "same-probes": serves
        and "livenessProbe" in container
        and _request(container["livenessProbe"]) == _request(container.get("readinessProbe", {})),
    }
    yield from (rule for rule, broken in rules.items() if broken)


def _secret(variable: dict[str, Any]) -> bool:
    """Whether a variable carries a secret in the manifest itself."""
    return "value" in variable and any(word in variable["name"].upper() for word in ("SECRET", "PASSWORD", "TOKEN"))


def _request(probe: dict[str, Any]) -> Any:
    return probe.get("httpGet") or probe.get("exec") or probe.get("tcpSocket")


def _rights(item: Object) -> Iterator[tuple[str, str]]:
    for rule in item.get("rules", []):
        words = [*rule.get("apiGroups", []), *rule.get("resources", []), *rule["verbs"]]
        if "*" in words:
            yield "wildcard-rights", "rules"
        # The right to make an object cannot be bound to names.
        if "secrets" in rule.get("resources", []) and not rule.get("resourceNames") and rule["verbs"] != ["create"]:
            yield "reads-every-secret", "rules"
        if item["kind"] == "ClusterRole" and not set(rule["verbs"]) <= _READ_ONLY:
            yield "writes-in-every-namespace", "rules"


def lonely(objects: list[Object]) -> Iterator[str]:
    """What is in no NetworkPolicy, and InferenceServices without a PodDisruptionBudget or a spread."""
    covered = [
        each["spec"]["podSelector"].get("matchLabels", {}) for each in objects if each["kind"] == "NetworkPolicy"
    ]
    budgets = {each["metadata"]["name"] for each in objects if each["kind"] == "PodDisruptionBudget"}
    for item in objects:
        name = item["metadata"]["name"]
        labels = _pod_labels(item)
        if labels is not None and not any(selector.items() <= labels.items() for selector in covered):
            yield f"no-network-policy: {item['kind']} {name}"
        if item["kind"] == "InferenceService":
            if name not in budgets:
                yield f"no-disruption-budget: {name}"
            if not item["spec"]["predictor"].get("topologySpreadConstraints"):
                yield f"no-spread: {name}"


def _pod_labels(item: Object) -> dict[str, str] | None:
    match item["kind"]:
        case "Deployment" | "StatefulSet" | "Job":
            return dict(item["spec"]["template"]["metadata"]["labels"])
        case "CronJob":
            return dict(item["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"])
        case "InferenceService" | "Pod":
            return dict(item["metadata"]["labels"])
        case _:
            return None
