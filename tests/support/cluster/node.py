"""One real Kubernetes node without Docker: every process in one network namespace, all state in one folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.cluster.cache import ClusterError, Say, cache_folder, go_binaries, image_store
from tests.support.cluster.certificates import Authority, load_authority, new_authority
from tests.support.cluster.images import Image

NAMESPACE: Final = "pneumoserve-node"
NODE: Final = "node1"
ADDRESS: Final = "10.99.0.1"
API: Final = f"https://{ADDRESS}:6443"
REGISTRY: Final = f"{ADDRESS}:5000"
PAUSE: Final = "docker.io/pneumoserve/pause:1"
_SERVICES: Final = "10.96.0.0/16"
PODS: Final = "10.244.0.0/24"
# Debian's packages; the rest of the node is built.
_PROGRAMS: Final = (
    "containerd",
    "runc",
    "etcd",
    "ip",
    "nsenter",
    "iptables",
    "nft",
    "conntrack",
    "ctr",
    "docker-registry",
    "buildah",
    "mmdebstrap",
)
# What kubelet changes in the kernel, restored by `down`.
_SYSCTLS: Final = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
                   "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")  # fmt: skip
_VOLUMES: Final = 16
_READY_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Node:
    """A node whose state is in `folder`."""

    folder: Path
    say: Say

    # --- the four things one does with a node

    def up(self) -> Path:
        """Start what does not run, and return the admin kubeconfig. Running twice changes nothing.

        Raises:
            ClusterError: something is missing, or did not start.
        """
        self._check_machine()
        with self.timed("building what the cache lacks"):
            kubernetes, coredns = go_binaries("kubernetes", self.say), go_binaries("coredns", self.say)
        with self.timed("network namespace, certificates, configuration"):
            self._prepare()
        for name, command, ready in self._processes(kubernetes, coredns):
            with self.timed(name):
                self._start(name, command)
                self._wait(name, ready)
        with self.timed("pause image, node Ready"):
            pause = go_binaries("pause", self.say) / "pause"
            self.load(Image(PAUSE, {"/pause": pause}, ("/pause",)))
            self._wait("kubelet", self._node_ready)
        return self.kubeconfig

    def down(self) -> None:
        """Stop everything and leave the machine as it was. The built binaries stay in the cache."""
        for name in ("kubelet", "kube-proxy"):
            self._stop(name)
        with self.timed("removing containers"):
            self._remove_containers()
        for path in sorted(self._runs.glob("*.pid"), reverse=True):
            self._stop(path.stem)
        self._unmount()
        self._remove_cgroups()
        self._run("ip", "netns", "delete", NAMESPACE, check=False)
        self._restore_kernel()
        shutil.rmtree(self.folder, ignore_errors=True)

    def status(self) -> dict[str, Any]:
        """Which processes run, and whether the node is Ready."""
        processes = {path.stem: self._alive(path.stem) for path in sorted(self._runs.glob("*.pid"))}
        return {
            "processes": processes,
            "ready": bool(processes) and self._node_ready(),
            "kubeconfig": str(self.kubeconfig),
        }

    def load_image(self, archive: Path) -> None:
        """Put an image archive (OCI or docker) into the node's containerd.

        Raises:
            ClusterError: containerd does not take it.
        """
        self._ctr("images", "import", str(archive))

    def load(self, image: Image) -> None:
        """Put an image of a few files into the node, where it has none of that name."""
        if image.name in self._ctr("images", "list", "--quiet").split():
            return
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            image.write(Path(archive.name))
            self.load_image(Path(archive.name))

    # --- where things are

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig."""
        return self._pki / "admin.kubeconfig"

    @property
    def inside(self) -> list[str]:
        """What to put before a command to run it in the node's network."""
        return ["nsenter", f"--net=/run/netns/{NAMESPACE}"]

    @property
    def authority(self) -> Authority:
        """The node's certificate authority."""
        return load_authority(self._pki)

    @property
    def volumes(self) -> list[Path]:
        """Folders that are the node's persistent volumes."""
        return [self.folder / "volumes" / str(number) for number in range(_VOLUMES)]

    @property
    def _pki(self) -> Path:
        return self.folder / "pki"

    @property
    def _runs(self) -> Path:
        return self.folder / "run"

    @property
    def _etc(self) -> Path:
        return self.folder / "etc"

    @property
    def _socket(self) -> str:
        return str(self._runs / "containerd.sock")

    # --- preparing

    def _check_machine(self) -> None:
        if os.geteuid() != 0:
            raise ClusterError("A node needs root; run this as root, or give KUBECONFIG of a cluster.")
        missing = [program for program in _PROGRAMS if shutil.which(program) is None]
        if missing:
            raise ClusterError(f"{', '.join(missing)} are missing; on Debian, `make cluster-packages` installs them.")

    def _prepare(self) -> None:
        for folder in (self._runs / "podlogs", self._runs / "volplug", self._etc / "cni", *self.volumes):
            folder.mkdir(parents=True, exist_ok=True)
        saved = self.folder / "sysctl.json"
        if not saved.exists():
            saved.write_text(json.dumps({name: Path("/proc/sys", name).read_text() for name in _SYSCTLS}))
        if not Path("/run/netns", NAMESPACE).exists():
            self._make_network()
        if not self._pki.exists():
            self._make_certificates()
        for name, text in self._configurations().items():
            path = self._etc / name
            # kube-proxy ends when its file is written, be it with the same text.
            if not path.exists() or path.read_text() != text:
                path.write_text(text)

    def _make_network(self) -> None:
        """A namespace with one bridge that leads nowhere: the node's traffic stays in it."""
        self._run("ip", "netns", "add", NAMESPACE)
        for words in (
            "link set lo up",
            "link add node0 type bridge",
            f"addr add {ADDRESS}/24 dev node0",
            "link set node0 up",
            "route add default via 10.99.0.2 dev node0",
        ):
            self._run(*self.inside, "ip", *words.split())
        self._run(*self.inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        bridged = "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"
        self._run(*self.inside, "sh", "-c", bridged, check=False)

    def _make_certificates(self) -> None:
        authority = new_authority(self._pki)
        service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        authority.issue("apiserver", "kube-apiserver", hosts=("127.0.0.1", "10.96.0.1", ADDRESS, "localhost", *service))
        authority.issue("kubelet", f"system:node:{NODE}", "system:nodes", (NODE, ADDRESS))
        authority.issue("kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
        for name, common_name, organization in (
            ("admin", "admin", "system:masters"),
            ("controller-manager", "system:kube-controller-manager", ""),
            ("scheduler", "system:kube-scheduler", ""),
            ("proxy", "system:kube-proxy", ""),
        ):
            authority.issue(name, common_name, organization)
        for name in ("admin", "controller-manager", "scheduler", "proxy", "kubelet"):
            authority.kubeconfig(name, API)

    def _configurations(self) -> dict[str, str]:
        """Configuration files by name, below etc/."""
        return {
            "containerd.toml": self._containerd(),
            "cni/10-net.conflist": json.dumps(self._cni()),
            "kubelet.json": json.dumps(self._kubelet()),
            "kube-proxy.json": json.dumps(self._kube_proxy()),
            "registry.json": json.dumps(self._registry()),
            "Corefile": self._corefile(),
            "resolv.conf": f"nameserver {ADDRESS}\n",
        }

    def _containerd(self) -> str:
        # restrict_oom_score_adj: without it no sandbox starts where root lacks CAP_SYS_RESOURCE.
        # netns_mounts_under_state_dir: network namespaces of pods that were killed go with the node's folder.
        return f"""\
version = 2
root = "{self.folder}/containerd"
state = "{self._runs}/containerd"
[grpc]
  address = "{self._socket}"
[ttrpc]
  address = "{self._socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self._etc}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."{REGISTRY}"]
    endpoint = ["http://{REGISTRY}"]
"""

    def _cni(self) -> dict[str, Any]:
        addresses = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}],
                     "dataDir": str(self._runs / "ipam")}  # fmt: skip
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
                  "promiscMode": False, "ipam": addresses}  # fmt: skip
        ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        return {"cniVersion": "0.4.0", "name": "net", "plugins": [bridge, ports]}

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self._pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(self._pki / "kubelet.key"),
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "resolvConf": str(self._etc / "resolv.conf"),
            "clusterDomain": "cluster.local",
            "clusterDNS": [ADDRESS],
            "podLogsDir": str(self._runs / "podlogs"),
            "volumePluginDir": str(self._runs / "volplug"),
            # The machine's disk is not the node's alone: no image is thrown away, no pod evicted for it.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        }

    def _kube_proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(self._pki / "proxy.kubeconfig")},
            "clusterCIDR": PODS,
            "hostnameOverride": NODE,
            "bindAddress": ADDRESS,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "nodePortAddresses": [f"{ADDRESS}/24"],
            "conntrack": {"maxPerCore": 0, "min": 0},
        }

    def _registry(self) -> dict[str, Any]:
        # In the cache: what was pushed to an earlier node needs not be pushed again.
        storage = {"filesystem": {"rootdirectory": str(cache_folder() / "registry")}}
        return {"version": 0.1, "storage": storage, "http": {"addr": REGISTRY}}

    def _corefile(self) -> str:
        return f"""\
.:53 {{
  bind {ADDRESS}
  errors
  health 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {self._pki}/admin.kubeconfig
    ttl 5
  }}
  cache 5
}}
"""

    # --- processes

    def _processes(self, kubernetes: Path, coredns: Path) -> Iterator[tuple[str, list[str], Callable[[], bool]]]:
        """Name, command and readiness of each process, in the order they start."""
        pki, etc = self._pki, self._etc
        yield "containerd", ["containerd", "--config", f"{etc}/containerd.toml"], self._containerd_ready
        yield (
            "registry",
            ["docker-registry", "serve", f"{etc}/registry.json"],
            lambda: self._answers(f"http://{REGISTRY}/v2/"),
        )
        etcd = ["etcd", "--data-dir", f"{self.folder}/etcd", "--listen-client-urls", "http://127.0.0.1:2379",
                "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380",
                "--unsafe-no-fsync"]  # fmt: skip
        yield "etcd", etcd, lambda: self._answers("http://127.0.0.1:2379/health")
        api = [f"{kubernetes}/kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--bind-address={ADDRESS}",
               f"--advertise-address={ADDRESS}", "--secure-port=6443", "--endpoint-reconciler-type=lease",
               f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
               f"--client-ca-file={pki}/ca.crt", f"--service-cluster-ip-range={_SERVICES}",
               f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
               "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
               f"--kubelet-certificate-authority={pki}/ca.crt",
               f"--kubelet-client-certificate={pki}/kubelet-client.crt",
               f"--kubelet-client-key={pki}/kubelet-client.key", "--kubelet-preferred-address-types=InternalIP",
               "--authorization-mode=Node,RBAC", "--allow-privileged=true"]  # fmt: skip
        yield "kube-apiserver", api, lambda: self._answers(f"{API}/readyz")
        manager = [f"{kubernetes}/kube-controller-manager", *self._three("controller-manager"),
                   "--bind-address=127.0.0.1", "--leader-elect=false",
                   f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
                   "--use-service-account-credentials=true", f"--cluster-signing-cert-file={pki}/ca.crt",
                   f"--cluster-signing-key-file={pki}/ca.key"]  # fmt: skip
        yield "kube-controller-manager", manager, self._service_accounts
        scheduler = [f"{kubernetes}/kube-scheduler", *self._three("scheduler"), "--bind-address=127.0.0.1",
                     "--leader-elect=false"]  # fmt: skip
        yield "kube-scheduler", scheduler, lambda: self._alive("kube-scheduler")
        kubelet = [f"{kubernetes}/kubelet", f"--config={etc}/kubelet.json", f"--kubeconfig={pki}/kubelet.kubeconfig",
                   f"--root-dir={self.folder}/kubelet", f"--cert-dir={self.folder}/kubelet/pki",
                   f"--hostname-override={NODE}", f"--node-ip={ADDRESS}"]  # fmt: skip
        yield "kubelet", kubelet, lambda: self._alive("kubelet")
        yield (
            "kube-proxy",
            [f"{kubernetes}/kube-proxy", f"--config={etc}/kube-proxy.json"],
            lambda: self._answers("http://127.0.0.1:10256/healthz"),
        )
        yield (
            "coredns",
            [f"{coredns}/coredns", "-conf", f"{etc}/Corefile"],
            lambda: self._answers("http://127.0.0.1:8181/health"),
        )

    def _three(self, name: str) -> list[str]:
        path = f"{self._pki}/{name}.kubeconfig"
        return [f"--kubeconfig={path}", f"--authentication-kubeconfig={path}", f"--authorization-kubeconfig={path}"]

    def _start(self, name: str, command: list[str]) -> None:
        if self._alive(name):
            return
        with (self._runs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.inside, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (self._runs / f"{name}.pid").write_text(f"{process.pid} {_started(process.pid)}")

    def _pid(self, name: str) -> int | None:
        """The pid of a process of ours that runs, None where it does not.

        A pid may meanwhile be another process: the moment of its start tells, and unlike the command line stays the
        same while `nsenter` becomes the program.
        """
        try:
            pid, started = (self._runs / f"{name}.pid").read_text().split()
            return int(pid) if _started(int(pid)) == started else None
        except (OSError, ValueError):
            return None

    def _alive(self, name: str) -> bool:
        return self._pid(name) is not None

    def _stop(self, name: str) -> None:
        if (pid := self._pid(name)) is not None:
            os.kill(pid, signal.SIGTERM)
            give_up = time.monotonic() + _STOP_SECONDS
            while self._alive(name) and time.monotonic() < give_up:
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        (self._runs / f"{name}.pid").unlink(missing_ok=True)

    # --- readiness

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _READY_SECONDS
        while not ready():
            if not self._alive(name) or time.monotonic() > give_up:
                lines = (self._runs / f"{name}.log").read_text(errors="replace").strip().splitlines()
                raise ClusterError(f"{name} did not become ready: {lines[-1] if lines else 'it wrote nothing'}")
            time.sleep(0.2)

    def _answers(self, url: str) -> bool:
        return self._get(url) is not None

    def _get(self, url: str) -> bytes | None:
        """The body of a request made inside the node as its admin, None where it is not answered with success."""
        credentials = [
            "--cacert",
            f"{self._pki}/ca.crt",
            "--cert",
            f"{self._pki}/admin.crt",
            "--key",
            f"{self._pki}/admin.key",
        ]
        done = subprocess.run(
            [*self.inside, "curl", "--silent", "--fail", "--max-time", "5", *credentials, url],
            capture_output=True,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None

    def _containerd_ready(self) -> bool:
        return (
            subprocess.run(["ctr", "--address", self._socket, "version"], capture_output=True, check=False).returncode
            == 0
        )

    def _service_accounts(self) -> bool:
        return self._answers(f"{API}/api/v1/namespaces/default/serviceaccounts/default")

    def _node_ready(self) -> bool:
        body = self._get(f"{API}/api/v1/nodes/{NODE}")
        conditions = json.loads(body)["status"].get("conditions", []) if body else []
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    # --- leaving the machine as it was

    def _remove_containers(self) -> None:
        if not self._alive("containerd"):
            self._kill_orphans()
            return
        for identifier in self._ctr("tasks", "list", "--quiet").split():
            self._ctr("tasks", "kill", "--signal", "SIGKILL", identifier, check=False)
            self._ctr("tasks", "delete", "--force", identifier, check=False)
        for identifier in self._ctr("containers", "list", "--quiet").split():
            self._ctr("containers", "delete", identifier, check=False)

    def _kill_orphans(self) -> None:
        """End what a containerd that was killed has left: its shims, and whatever runs in the pods' cgroups."""
        shims = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if f"{self._socket}\0".encode() in _content(path)
        ]
        members = [
            int(pid)
            for path in Path("/sys/fs/cgroup").glob("**/kubepods/**/cgroup.procs")
            for pid in _content(path).split()
        ]
        for pid in {*shims, *members}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _unmount(self) -> None:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        # buildah leaves its store mounted on itself.
        ours = (f"{self.folder}/", f"{image_store()}/")
        for mount in sorted((mount for mount in mounts if mount.startswith(ours)), reverse=True):
            self._run("umount", "--lazy", mount, check=False)

    def _remove_cgroups(self) -> None:
        for root in Path("/sys/fs/cgroup").glob("**/kubepods"):
            for group in sorted(root.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    group.rmdir()

    def _restore_kernel(self) -> None:
        saved = self.folder / "sysctl.json"
        if saved.exists():
            for name, value in json.loads(saved.read_text()).items():
                Path("/proc/sys", name).write_text(value)

    def _ctr(self, *words: str, check: bool = True) -> str:
        return self._run("ctr", "--address", self._socket, "--namespace", "k8s.io", *words, check=check)

    def _run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise ClusterError(f"`{' '.join(command[:4])} …` failed: {done.stderr.strip()[-300:]}")
        return done.stdout

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Say how long something took."""
        started = time.monotonic()
        yield
        self.say(f"{what}: {time.monotonic() - started:.1f} s")


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat); None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _content(path: Path) -> bytes:
    """What a file of the kernel's holds; nothing where its process or group has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
