"""The product as an operator installs it: one namespace, one chart, releases in its store."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import psutil

from pneumoserve.ledger import Reader
from pneumoserve.signing import load_trust
from pneumoserve.store import S3Settings, S3Store, Store
from tests.e2e.conftest import ROOT, SEAWEEDFS, Cluster, Images
from tests.e2e.turns import once

CHART: Final = ROOT / "charts" / "pneumoserve"
# The chart as it was last released.
CHART_BEFORE: Final = ROOT / "tests" / "data" / "charts" / "pneumoserve-0.1.0.tgz"
NAME: Final = "pneumoserve"
COMMAND: Final = str(Path(sys.executable).with_name("pneumoserve"))
# The node has two cores for everything.
SMALL: Final = {"requests": {"cpu": "10m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}


@dataclass
class Product:
    """One install. `first` and `second` are two releases that an approver signed; `first` answers."""

    cluster: Cluster
    namespace: str
    images: Images
    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    first: str = ""
    second: str = ""
    # Of a store that is not the trial store, by credential.
    stores: dict[str, S3Settings] = field(default_factory=dict)

    # --- releases

    def prepare(self) -> None:
        """An approver's key, and two signed releases, the same for every install of a run."""
        made = self.cluster.shared / "approved"
        names = once(self.cluster.shared, "approved.json", replace(self, folder=made)._approve)
        self.first, self.second = json.loads(names)
        shutil.copytree(made, self.folder, dirs_exist_ok=True)
        (public,) = (self.folder / "trust").glob("*.pem")
        self.values = {
            "images": self.images.values(),
            "trust": {"keys": {"approver.pem": public.read_text()}},
            # The default lets gateways of large clusters learn of it; here each pod that ends would wait for longer.
            "front": {"resources": SMALL, "preStopSeconds": 6},
            "models": {"resources": SMALL},
            "trialStore": {"enabled": True, "size": "1Gi", "resources": SMALL,
                           "image": {"repository": SEAWEEDFS.rpartition(":")[0], "tag": SEAWEEDFS.rpartition(":")[2]}},
        }  # fmt: skip

    def _approve(self) -> str:
        """Make them: the reference, and the same models under another policy; their ids."""
        self.folder.mkdir()
        self.command("release", "key", str(self.key), "--trust", str(self.folder / "trust"))
        first = self.package(ROOT / "model-store" / "reference").name
        other = Path(shutil.copytree(ROOT / "model-store" / "reference", self.folder / "other"))
        facts = json.loads((other / "run.json").read_text())
        facts["policy"]["why"] = "The reference's policy under another name, so that there are two releases."
        (other / "run.json").write_text(json.dumps(facts))
        return json.dumps([first, self.package(other).name])

    @property
    def key(self) -> Path:
        """The approver's private key."""
        return self.folder / "approver.pem"

    def package(self, run: Path, *options: str) -> Path:
        """Make a release of a run; signed by the approver unless told otherwise."""
        options = options or ("--key", str(self.key))
        done = self.command("package", str(run), "--out", str(self.folder / "releases"), *options, "--json")
        return self.folder / "releases" / str(json.loads(done)["id"])

    def push(self, *folders: Path) -> None:
        """Copy releases into the store, as a person does: through a forwarded port."""
        with self.store_settings("setup") as settings:
            for folder in folders:
                self.command("release", "push", str(folder), environment=settings.to_env())

    def command(self, *words: str, environment: dict[str, str] | None = None) -> str:
        """Run our command line."""
        done = subprocess.run(
            [COMMAND, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={**os.environ, **(environment or {})},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # --- the chart

    def helm(self, verb: str, chart: Path | str = CHART, *options: str, **changes: Any) -> str:
        """`helm install` or `upgrade` with the values so far and `changes`, which stay; returns what it printed.

        The bucket stays as the install made it, unless `changes` say something of s3: its Job takes 8 s.
        """
        self.values |= changes
        values = dict(self.values)
        if verb == "upgrade" and "s3" not in changes:
            given = values.get("s3", {})
            values["s3"] = {**given, "setup": {**given.get("setup", {}), "enabled": False}}
        return self.try_helm(verb, values, chart, *options, check=True).stdout

    def try_helm(
        self, verb: str, values: dict[str, Any], chart: Path | str = CHART, *options: str, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """The same with other values, which do not stay."""
        file = self.folder / "values.json"
        file.write_text(json.dumps(values))
        return self.cluster.helm(
            verb, NAME, str(chart), f"--namespace={self.namespace}", f"--values={file}", *options, check=check
        )

    # --- what runs

    def kubectl(self, *words: str, given: str | None = None) -> str:
        return self.cluster.kubectl(f"--namespace={self.namespace}", *words, given=given)

    def get(self, *words: str) -> Any:
        return self.cluster.get(f"--namespace={self.namespace}", *words)

    def wait_ready(self, release: str, seconds: int = 180) -> None:
        """Wait until a release's InferenceService is Ready."""
        self.kubectl("wait", f"inferenceservice/pneumonia-{release}", "--for=condition=Ready", f"--timeout={seconds}s")

    def pods(self, release: str) -> list[dict[str, Any]]:
        """Pods of a release that are not about to end."""
        found = self.get("pods", f"--selector=serving.kserve.io/inferenceservice=pneumonia-{release}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self, release: str) -> list[str]:
        """Names of a release's pods that are Ready."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods(release)
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        ]

    def execute(self, pod: str, container: str, code: str) -> str:
        """Run Python in a container."""
        return self.kubectl("exec", pod, f"--container={container}", "--", "python", "-c", code)

    def job(self, name: str, *options: str, fails: bool = False) -> str:
        """Run one of the chart's CronJobs now, with further options of its command; what it printed."""
        job = f"{name}-{len(self.get('jobs')['items'])}"
        source = (f"--from=cronjob/{NAME}-{name}", "--dry-run=client", "--output=json")
        made = json.loads(self.kubectl("create", "job", job, *source))
        made["spec"]["template"]["spec"]["containers"][0]["command"] += options
        self.kubectl("create", "-f", "-", given=json.dumps(made))
        wait_until(lambda: self._ended(job), 180, f"the end of {job}")
        sentence = self.kubectl("logs", f"job/{job}")
        assert self._ended(job) == ("Failed" if fails else "Complete"), sentence
        return sentence

    def _ended(self, job: str) -> str | None:
        """How a Job ended, None while it runs."""
        conditions = self.get("job", job)["status"].get("conditions", [])
        ends = [c["type"] for c in conditions if c["status"] == "True" and c["type"] in {"Complete", "Failed"}]
        return ends[0] if ends else None

    # --- the store

    @contextlib.contextmanager
    def store_settings(self, credential: str = "rollout") -> Iterator[S3Settings]:
        """How to reach the store from here, with one of the credentials that it knows."""
        if self.stores:
            yield self.stores[credential]
            return
        data = self.get("secret", f"{NAME}-{credential}")["data"]
        keys = [base64.b64decode(data[key]).decode() for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
        with self.cluster.forwarded(self.namespace, f"service/{NAME}-store", 8333) as address:
            yield S3Settings(f"http://{address}", *keys, bucket="pneumoserve")

    @contextlib.contextmanager
    def store(self, credential: str = "rollout") -> Iterator[Store]:
        """The store itself."""
        with self.store_settings(credential) as settings:
            store = S3Store(settings)
            yield store
            store.close()

    @contextlib.contextmanager
    def reader(self, credential: str = "rollout") -> Iterator[Reader]:
        """Reads the archive, and believes what this install's auditors do."""
        writers, sealers = self.archive_trust()
        with self.store(credential) as store:
            yield Reader(store, load_trust(writers), load_trust(sealers))

    def archive_trust(self) -> tuple[Path, Path]:
        """Folders of the writers' and the sealer's public keys: those of the install, and those of `writers`."""
        folders = self.folder / "archive-trust", self.folder / "sealer-trust"
        for folder, name in zip(folders, ("signing", "sealer"), strict=True):
            public = self.get("secret", f"{NAME}-archive-{name}")["data"]["public.pem"]
            folder.mkdir(exist_ok=True)
            (folder / "in-use.pem").write_bytes(base64.b64decode(public))
        for key in (self.folder / "writers").glob("*.pem"):
            shutil.copy(key, folders[0])
        return folders

    def recorded(self) -> set[str]:
        """The prediction ids of all records in the store."""
        with self.reader() as reader:
            return {json.loads(line)["prediction_id"] for segment in reader.segments() for line in segment.lines}


def secrets_of(container: dict[str, Any]) -> set[str]:
    """The Secrets that a container's variables come from."""
    return {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if "valueFrom" in each}


def processes_of(pods: Sequence[dict[str, Any]], module: str) -> list[psutil.Process]:
    """Processes that run a module in these pods of our own node; other installs have such too."""
    uids = {pod["metadata"]["uid"] for pod in pods}
    running = [each for each in psutil.process_iter(["cmdline"]) if module in (each.info["cmdline"] or [])]
    return [each for each in running if _pod_of(each) in uids]


def _pod_of(process: psutil.Process) -> str:
    """The uid of the pod that a process belongs to."""
    try:
        groups = Path(f"/proc/{process.pid}/cgroup").read_text()
    except OSError:
        return ""
    found = re.search(r"/pod([0-9a-f-]{36})/", groups)
    return found[1] if found else ""


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until something is so; returns what the condition gave."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
    return found
