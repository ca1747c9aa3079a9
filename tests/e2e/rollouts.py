"""Rollouts as a person starts them beside a cluster, on the sample as their evidence."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pneumoserve.rollout import RolloutState
from tests.e2e.product import COMMAND, NAME, Product
from tests.support import films

# Seconds in which a gateway may go on sending to a release of weight 0: Envoy learns it within one.
LEARNS = 5
# The sample has films of 32 sick and 20 well patients.
GATES = {"missedPneumonia": 0.08, "falseAlarm": 0.15, "referrals": 0.1, "brier": 0.03}


def key_of(product: Product) -> Path:
    """What the command line signs a rollout's records with; the archive trusts it."""
    return product.folder / "rollouts.pem"


def _ingested(product: Product) -> str:
    """The key of the sample's manifest, which is in the store as an adjudicated set."""
    with product.store_settings("setup") as settings:
        done = product.command(
            "ingest", str(films.SAMPLE), "--to", f"s3://{settings.bucket}/datasets", "--json",
            environment=settings.to_env(),
        )  # fmt: skip
    manifest: str = json.loads(done)["manifest"]
    return manifest.removeprefix("s3://pneumoserve/")


class Rollouts:
    """The command line as a person uses it beside the cluster."""

    def __init__(self, product: Product, evidence: str, environment: dict[str, str]) -> None:
        self.product = product
        self.evidence = evidence
        kubeconfig = str(product.cluster.kubeconfig)
        self.environment = {**os.environ, **environment, "KUBECONFIG": kubeconfig}

    def plan(self, candidate: str, /, *steps: dict[str, int], **changes: Any) -> Path:
        """A plan file."""
        document = {
            "candidate": candidate,
            "evidence": self.evidence,
            "gates": GATES,
            "shadow": {"films": 40},
            # What two pods on two busy cores do differently must not stop a good release.
            "comparison": {"slower": 2.5},
            "steps": [*steps, {"percent": 100}],
            "rollbackWindowSeconds": 10,
            "pollSeconds": 1,
            "drainSeconds": LEARNS,
        }
        path = self.product.folder / f"plan-{candidate}.yaml"
        path.write_text(yaml.safe_dump({**document, **changes}, sort_keys=False))
        return path

    def _words(self, *words: str) -> list[str]:
        own: list[str] = []
        if words[0] not in {"status", "promote"}:
            writers, sealers = self.product.archive_trust()
            own = [f"--key={key_of(self.product)}", f"--trust={self.product.folder / 'trust'}",
                   f"--archive-trust={writers}", f"--sealer-trust={sealers}"]  # fmt: skip
        return [COMMAND, "rollout", *words, "--namespace", self.product.namespace, *own]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._words(*words), capture_output=True, text=True, check=False, env=self.environment, timeout=300
        )

    @contextlib.contextmanager
    def started(self, plan: Path) -> Iterator[subprocess.Popen[str]]:
        """`rollout start` in the background; it is killed when the context is left."""
        with subprocess.Popen(
            self._words("start", "--plan", str(plan)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def status(self) -> dict[str, Any]:
        done = self.run("status", "--json")
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def state(self) -> RolloutState:
        """The state as the cluster keeps it: cheaper to poll than a command."""
        data = self.product.get("configmap", f"{NAME}-rollout")["data"]
        return RolloutState.model_validate_json(data["rollout.json"])

    def route(self) -> dict[str, Any]:
        return dict(self.product.get("httproute", NAME))

    def weights(self) -> list[dict[str, int]]:
        """Weights by release of each rule."""
        return [
            {each["name"].split("-")[1]: each["weight"] for each in rule["backendRefs"]}
            for rule in self.route()["spec"]["rules"]
        ]


@contextlib.contextmanager
def commands(product: Product) -> Iterator[Rollouts]:
    """The command line with a rollout's credential."""
    evidence = _ingested(product)
    with product.store_settings() as settings:
        environment = settings.to_env()
        if product.cluster.node is not None:
            # A forwarded port ends with the API server, which one test kills.
            address = product.get("service", f"{NAME}-store")["spec"]["clusterIP"]
            environment["S3_ENDPOINT"] = f"http://{address}:8333"
        yield Rollouts(product, evidence, environment)
