"""The cluster of the end-to-end tests: the one of KUBECONFIG, else a node of our own.

Several workers share it and run modules of tests side by side, each in a namespace of its own. One worker alone takes
its node down afterwards; of several, none knows which is the last, so `make e2e` has a run of its own for that.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import dataclasses
import json
import os
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from pneumoserve.local.process import free_ports
from tests.e2e.turns import Turns, once
from tests.support.cluster.builder import Builder
from tests.support.cluster.cache import cache_folder, go_binaries
from tests.support.cluster.components import CERTIFICATE, GATEWAY, KSERVE
from tests.support.cluster.images import Image
from tests.support.cluster.node import ADDRESS, NAMESPACE, Node

ECHO = "docker.io/pneumoserve/echo:1"
SEAWEEDFS = "docker.io/chrislusf/seaweedfs:4.48"
ROOT = Path(__file__).parents[2]
_CLONE_NEWNET: Final = 0x40000000
# Set in each worker of pytest-xdist.
_WORKER: Final = "PYTEST_XDIST_WORKER"
_TURNS: Final = pytest.StashKey[Turns]()
_IMAGES: Final = ("front", "models", "rollout", "loadtest", "review", "intake")


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes with KServe. `node` is None where it is not ours."""

    kubeconfig: Path
    node: Node | None
    # A folder that all workers of a run share.
    shared: Path

    def run(self, *command: str, given: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command with the cluster's KUBECONFIG."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=600, check=False, env=environment
        )
        assert not check or done.returncode == 0, f"{' '.join(command[:6])}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def tool(self, name: str) -> str:
        """kubectl or helm: of this machine for a cluster of yours, else those of the node."""
        if self.node is None:
            return name
        return str(go_binaries({"kubectl": "kubernetes"}.get(name, name), print) / name)

    def kubectl(self, *words: str, given: str | None = None) -> str:
        return self.run(self.tool("kubectl"), *words, given=given).stdout

    def helm(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(self.tool("helm"), *words, check=check)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", given="\n---\n".join(map(json.dumps, objects)))

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "--output=json"))

    @contextlib.contextmanager
    def forwarded(self, namespace: str, what: str, port: int) -> Iterator[str]:
        """A local address of a port inside the cluster, as `kubectl port-forward` gives it."""
        (local,) = free_ports(1)
        command = [self.tool("kubectl"), "port-forward", f"--namespace={namespace}", what, f"{local}:{port}"]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Forwarding from"), line
            try:
                yield f"127.0.0.1:{local}"
            finally:
                process.terminate()


@contextlib.contextmanager
def network_of(node: Node) -> Iterator[None]:
    """Put this thread, and those it starts, into the node's network: clients then reach it as a client does."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own:
        with Path("/run/netns", NAMESPACE).open() as theirs:
            assert libc.setns(theirs.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
        assert libc.setns(own.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@dataclass(frozen=True)
class Images:
    """References of the product's images, each `repository@digest` or `repository:tag`."""

    front: str
    models: str
    rollout: str
    loadtest: str
    review: str
    intake: str

    def values(self) -> dict[str, Any]:
        """The chart's values that name those of a release's pods."""
        return {"front": named(self.front), "models": named(self.models)}


def seaweedfs(name: str) -> Image:
    """The image of the trial store, of the server that the tests without a cluster run."""
    weed = Path(sys.executable).with_name("weed")
    return Image(name, {"/usr/local/bin/weed": weed}, ("/usr/local/bin/weed",))


def named(reference: str) -> dict[str, str]:
    """Repository, and digest or tag, of an image's reference."""
    repository, _, digest = reference.partition("@")
    if digest:
        return {"repository": repository, "digest": digest}
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def shared_folder(config: pytest.Config) -> Path | None:
    """A folder that all workers of this run share, None where there is only this process."""
    return None if _WORKER not in os.environ else Path(config.getoption("basetemp")).parent


def pytest_configure(config: pytest.Config) -> None:
    """The locks by which this worker takes its turns."""
    config.stash[_TURNS] = Turns(shared_folder(config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test and the fixtures made for it, those of its module too, while no other worker's test wants to be alone."""
    with item.config.stash[_TURNS].beside_others():
        return (yield)


@pytest.fixture(scope="session")
def turns(pytestconfig: pytest.Config) -> Turns:
    return pytestconfig.stash[_TURNS]


@pytest.fixture
def alone(turns: Turns) -> Iterator[None]:
    """For a test that no other worker's test can bear beside it, or that measures."""
    with turns.alone():
        yield


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_folder(pytestconfig) or tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def node(shared: Path) -> Iterator[Node | None]:
    """Our own node, None where KUBECONFIG names a cluster."""
    if "KUBECONFIG" in os.environ:
        yield None
        return
    node = Node(cache_folder() / "node", print)

    def start() -> str:
        # As a person starts it; its progress goes to the test run's output.
        subprocess.run([sys.executable, "-m", "tests.support.cluster", "up"], check=True)
        node.load(Image(ECHO, {"/echo": go_binaries("echo", print) / "echo"}, ("/echo",)))
        return "up"

    once(shared, "node", start)
    yield node
    if _WORKER not in os.environ:
        node.down()


@pytest.fixture(scope="session")
def images(node: Node | None, shared: Path) -> Images:
    """The images, built and pushed to the node's registry; for another cluster those of E2E_<NAME>."""
    if node is None:
        names = [f"E2E_{name.upper()}" for name in _IMAGES]
        missing = [name for name in names if name not in os.environ]
        assert not missing, f"Push the Dockerfile's images to where your cluster finds them, and set {missing}."
        return Images(*(os.environ[name] for name in names))

    def build() -> str:
        node.load(seaweedfs(SEAWEEDFS))
        builder = Builder(node)
        built = Images(*(builder.image(f"pneumoserve/{name}", ROOT, name) for name in _IMAGES))
        for name in _IMAGES:
            print(f"size of image {name}: {builder.size(f'pneumoserve/{name}')}")
        return json.dumps(dataclasses.asdict(built))

    return Images(**json.loads(once(shared, "images", build)))


@pytest.fixture(scope="session")
def cluster(node: Node | None, images: Images, shared: Path) -> Iterator[Cluster]:
    """The cluster, and this process in its network. Images come before: their builds need the machine's own."""
    if node is None:
        yield Cluster(Path(os.environ["KUBECONFIG"]), None, shared)
        return
    with network_of(node):
        yield Cluster(node.kubeconfig, node, shared)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of one test."""
    with restricted_namespace(cluster) as name:
        yield name


@contextlib.contextmanager
def restricted_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that holds every pod to Pod Security "restricted", and is gone afterwards."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> str:
    """Where the cluster's gateway listens, as host:port."""
    if cluster.node is None:
        (address, *_) = cluster.get("gateway", GATEWAY, f"--namespace={KSERVE}")["status"]["addresses"]
        return f"{address['value']}:80"
    return _listener(cluster, 80)


@pytest.fixture(scope="session")
def secure_gateway(cluster: Cluster) -> str:
    """Where the gateway of our own node listens with TLS, as host:port."""
    assert cluster.node is not None, "a cluster of yours has listeners of its own"
    return _listener(cluster, 443)


def _listener(cluster: Cluster, port: int) -> str:
    services = cluster.get("services", "--all-namespaces", "--selector=gateway.envoyproxy.io/owning-gateway-name")
    (service,) = services["items"]
    (node_port,) = (each["nodePort"] for each in service["spec"]["ports"] if each["port"] == port)
    return f"{ADDRESS}:{node_port}"


@pytest.fixture(scope="session")
def gateway_trust(cluster: Cluster) -> ssl.SSLContext:
    """Whom a client believes that the gateway with TLS is one: the authority of our own node."""
    secret = cluster.get("secret", CERTIFICATE, f"--namespace={KSERVE}")
    return ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes the node down comes last."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
