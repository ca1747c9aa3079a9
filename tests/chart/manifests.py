"""The kustomize manifests, made from the chart.

`python -m tests.chart.manifests` renders the chart once for each overlay. What all of them have in common becomes
`manifests/base`, what differs `manifests/overlays/<name>`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release.package import package
from pneumoserve.release.schema import canonical_json, digest_of
from tests.chart.api import Object
from tests.chart.documents import CHART
from tests.cluster.cache import go_binaries

ROOT: Final = Path(__file__).parents[2]
MANIFESTS: Final = ROOT / "manifests"
NAMESPACE: Final = "pneumoserve"
# Of no release: an operator names the candidate.
CANDIDATE: Final = "000000000000"
_CANARY_PERCENT: Final = 10
_MADE: Final = "# Made by `make manifests` from charts/pneumoserve; do not edit.\n"
# What the chart would make at random. credentials.sh makes files of them, and kustomize these Secrets of the files.
_RANDOM: Final = ("archive", "releases", "setup", "store")


def overlays(release: str, candidate: str) -> dict[str, dict[str, Any]]:
    """The values of each overlay, beside those that all have."""
    alone = {"release": {"id": release}}
    return {
        "standard": alone,
        "gpu": {**alone, **_values("gpu")},
        "canary": {"release": {"id": release, "standby": [candidate]}},
        "knative": {**alone, **_values("knative")},
    }


def _values(name: str) -> dict[str, Any]:
    """What an overlay alone is rendered with."""
    given: dict[str, Any] = yaml.safe_load((MANIFESTS / "values" / f"{name}.yaml").read_text())
    return given


@cache
def reference_release() -> str:
    """The id of the reference release, which is the same wherever it is packaged."""
    with tempfile.TemporaryDirectory() as folder:
        return package(REFERENCE_RUN, Path(folder), None).name


def write(
    target: Path, helm: Path, *, release: str, candidate: str, namespace: str, values: Sequence[Path] = ()
) -> None:
    """Write base and overlays below `target`, in place of those that are there."""
    rendered = {
        name: _objects(_rendered(helm, namespace, [MANIFESTS / "values" / "common.yaml", *values], given))
        for name, given in overlays(release, candidate).items()
    }
    for route in (item for item in rendered["canary"].values() if item["kind"] == "HTTPRoute"):
        _split(route, release, candidate)
    common = {key: item for key, item in rendered["standard"].items() if _is_everywhere(key, item, rendered)}
    # With an S3 server of one's own there are none.
    secrets = {name: item for name in _RANDOM if (item := rendered["standard"].get(f"secret-pneumoserve-{name}"))}
    written = [item for item in common.values() if item["kind"] != "Secret"]
    _write_folder(target / "base", [_namespace(namespace), *written], {"namespace": namespace, **_generators(secrets)})
    policies = target / "base" / "policies.json"
    policies.unlink(missing_ok=True)
    if "store" in secrets:
        identities = json.loads(secrets["store"]["stringData"]["identities.json"])
        policies.write_text(json.dumps(identities["policies"]) + "\n")
    for name, objects in rendered.items():
        own = [item for key, item in objects.items() if key not in common and item["kind"] != "Secret"]
        _write_folder(target / "overlays" / name, own, {"namespace": namespace}, bases=("../../base",))


def _rendered(helm: Path, namespace: str, files: Sequence[Path], given: dict[str, Any]) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(given))
        file.flush()
        words = [str(helm), "template", "pneumoserve", str(CHART), "--namespace", namespace, "--skip-tests"]
        for path in (*files, file.name):
            words += ["--values", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _objects(text: str) -> dict[str, Object]:
    """The rendered objects, without what only Helm understands."""
    found = {}
    for item in filter(None, yaml.safe_load_all(text)):
        metadata = item["metadata"]
        annotations = {key: value for key, value in metadata.pop("annotations", {}).items() if "helm.sh/" not in key}
        if annotations:
            metadata["annotations"] = annotations
        metadata["labels"] = _labels(metadata["labels"])
        if item["kind"] == "Job":
            # A Job cannot be changed: another one has another name.
            metadata["name"] += f"-{_digest(item['spec'])}"
        for template in _pod_templates(item):
            template["metadata"]["labels"] = _labels(template["metadata"]["labels"])
        found[f"{item['kind'].lower()}-{metadata['name']}"] = item
    return found


def _labels(labels: dict[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in labels.items() if key != "helm.sh/chart"}
    return {**kept, "app.kubernetes.io/managed-by": "kustomize"}


def _pod_templates(item: Object) -> list[dict[str, Any]]:
    spec = item.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return [spec["template"]] if "template" in spec else []


def _digest(value: Any) -> str:
    return digest_of(canonical_json(value))[:8]


def _split(route: Object, release: str, candidate: str) -> None:
    """Both rules, gRPC's and HTTP's, with the same weights."""
    for rule in route["spec"]["rules"]:
        (stable,) = rule["backendRefs"]
        name = stable["name"].replace(release, candidate)
        stable["weight"] = 100 - _CANARY_PERCENT
        rule["backendRefs"].append({**stable, "name": name, "weight": _CANARY_PERCENT})


def _is_everywhere(key: str, item: Object, rendered: dict[str, dict[str, Object]]) -> bool:
    return all(objects.get(key) == item for objects in rendered.values())


def _generators(rendered: dict[str, Object]) -> dict[str, Any]:
    """Secrets and the trusted keys, of files that credentials.sh made."""
    folder = "credentials"
    files: dict[str, dict[str, list[str]]] = {
        "archive": {"envs": [f"{folder}/archive.env"]},
        "releases": {"envs": [f"{folder}/releases.env"]},
        "setup": {"envs": [f"{folder}/setup.env"]},
        "store": {"files": [f"{folder}/identities.json"]},
        "archive-signing": {"files": [f"{folder}/signing/key.pem", f"{folder}/signing/public.pem"]},
        "archive-sealer": {"files": [f"{folder}/sealer/key.pem", f"{folder}/sealer/public.pem"]},
        "archive-references": {"files": [f"{folder}/references/key"]},
    }
    secrets = []
    for name, given in files.items():
        if name in _RANDOM and name not in rendered:
            continue
        metadata = rendered.get(name, {}).get("metadata", {})
        options = {key: metadata[key] for key in ("annotations", "labels") if key in metadata}
        secrets.append({"name": f"pneumoserve-{name}", **given, **({"options": options} if options else {})})
    return {
        "secretGenerator": secrets,
        "configMapGenerator": [{"name": "pneumoserve-trust", "files": [f"{folder}/trust/approver.pem"]}],
        # Names are referred to by objects whose kinds kustomize does not know.
        "generatorOptions": {"disableNameSuffixHash": True},
    }


def _namespace(name: str) -> Object:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _write_folder(folder: Path, objects: list[Object], more: dict[str, Any], bases: Sequence[str] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.yaml"):
        file.unlink()
    names = []
    for item in objects:
        name = f"{item['kind'].lower()}-{item['metadata']['name']}.yaml"
        (folder / name).write_text(_MADE + yaml.safe_dump(item, sort_keys=False, width=1000))
        names.append(name)
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    document = {**head, **more, "resources": [*bases, *sorted(names)]}
    (folder / "kustomization.yaml").write_text(_MADE + yaml.safe_dump(document, sort_keys=False, width=1000))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chart.manifests", description=__doc__)
    parser.add_argument("--namespace", default=NAMESPACE, help=f"namespace of every object ({NAMESPACE})")
    parser.add_argument("--release", default="", help="id of the release that answers (the reference release)")
    parser.add_argument("--candidate", default=CANDIDATE, help="id of the release that the canary overlay tries")
    parser.add_argument("--values", type=Path, action="append", default=[], help="values of your site; repeatable")
    parser.add_argument("--helm", type=Path, help="the helm to render with; one is built where there is none")
    given = parser.parse_args()
    found = given.helm or shutil.which("helm") or go_binaries("helm", print) / "helm"
    write(
        MANIFESTS,
        Path(found),
        release=given.release or reference_release(),
        candidate=given.candidate,
        namespace=given.namespace,
        values=given.values,
    )


if __name__ == "__main__":
    main()
