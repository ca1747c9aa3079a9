"""Pod Security "restricted", as the Kubernetes documentation lists it, checked on a pod's spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Spec = dict[str, Any]
_VOLUMES: Final = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected",
                   "secret"}  # fmt: skip
_OPTIONS: Final = ("seLinuxOptions", "appArmorProfile", "windowsOptions")
_PROFILES: Final = {"RuntimeDefault", "Localhost"}


def violations(pod: Spec) -> list[str]:
    """What Kubernetes would refuse, one sentence each."""
    found = [f"the pod sets {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']} is a {kind}" for kind in set(volume) - {"name"} - _VOLUMES]
    for key in ("sysctls", *_OPTIONS):
        found += [f"the pod sets {key}"] if key in pod.get("securityContext", {}) else []
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        found += [f"{container['name']} {what}" for what in _of_container(container, pod.get("securityContext", {}))]
    return found


def _of_container(container: Spec, pod: Spec) -> Iterator[str]:
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
    rules = {
        "is privileged": own.get("privileged"),
        "may escalate privileges": own.get("allowPrivilegeEscalation") is not False,
        "keeps capabilities": "ALL" not in capabilities.get("drop", []),
        "adds capabilities": set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
        "may run as root": not own.get("runAsNonRoot", pod.get("runAsNonRoot", False)),
        "runs as root": own.get("runAsUser", pod.get("runAsUser", 1)) == 0,
        "has no seccomp profile": profile not in _PROFILES,
        "sees all of /proc": own.get("procMount", "Default") != "Default",
        "opens a port of the node": any(port.get("hostPort") for port in container.get("ports", [])),
        "sets SELinux, AppArmor or Windows options": set(own) & set(_OPTIONS),
    }
    yield from (what for what, broken in rules.items() if broken)
