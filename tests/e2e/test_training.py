"""From films to a release that answers, by Jobs of the cluster: two workers, one of them killed on the way.

A stand-in, named here once: the training image's torch (5 GB) is not built; its pods run the front's image, which holds
the same code, and find torch in this machine's site-packages, mounted read-only as a volume.
"""

from __future__ import annotations

import contextlib
import json
import re
import sysconfig
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from tests.e2e.conftest import Cluster, Images, named, restricted_namespace
from tests.e2e.product import NAME, Product, wait_until
from tests.support import films

HOST: Final = "training.example.org"
PREFIX: Final = "incoming"
STEPS: Final = 14
_RESOURCES: Final = {"requests": {"cpu": "10m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "3Gi"}}
_SITE: Final = "/site-packages"


@pytest.fixture(scope="module")
def product(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """An install with films in its store and a training Job that has not run."""
    if cluster.node is None:
        pytest.skip("the stand-in for torch needs a node of our own")
    with restricted_namespace(cluster) as name:
        product = Product(cluster, name, images, tmp_path_factory.mktemp("training"))
        product.prepare()
        training = {
            "enabled": True,
            "image": named(images.front),
            "films": f"s3://pneumoserve/{PREFIX}",
            "source": "the repository's sample",
            # The sample is all there is to learn from here.
            "exclude": "none",
            "workers": 2,
            "device": "cpu",
            "steps": STEPS,
            "saveEvery": 2,
            "audit": False,
            "resources": _RESOURCES,
        }
        product.helm("install", replicas=1, route={"hostnames": [HOST]}, training=training)
        with product.store("setup") as store:
            for film in films.sample_films():
                store.put(f"{PREFIX}/{film.parent.name}/{film.name}", film.read_bytes(), "image/jpeg")
                if film.parent.name != "virus":
                    store.put(f"no-virus/{film.parent.name}/{film.name}", film.read_bytes(), "image/jpeg")
        with site_packages(product):
            yield product
        cluster.helm("uninstall", NAME, f"--namespace={name}", "--wait")


@contextlib.contextmanager
def site_packages(product: Product) -> Iterator[None]:
    """This machine's packages as a volume."""
    name = f"site-{product.namespace}"
    claim = {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    product.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": sysconfig.get_path("purelib"), "type": "Directory"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "site", "namespace": product.namespace},
            "spec": {**claim, "volumeName": name},
        },
    )
    yield
    product.cluster.kubectl("delete", "persistentvolume", name, "--wait=false")


def start(product: Product, name: str, **other: str) -> None:
    """Start the training Job as a person does, with the stand-in; `other` replaces words of its command."""
    words = ("create", "job", name, f"--from=cronjob/{NAME}-training", "--dry-run=client", "--output=json")
    job = json.loads(product.kubectl(*words))
    pod = job["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "site", "persistentVolumeClaim": {"claimName": "site", "readOnly": True}})
    (container,) = pod["containers"]
    container["volumeMounts"].append({"name": "site", "mountPath": _SITE, "readOnly": True})
    # Torch's threads spin while they wait, and the node has two cores.
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": f"/opt/code:{_SITE}"}
    container["env"] += [{"name": key, "value": value} for key, value in threads.items()]
    container["command"] = [other.get(word, word) for word in container["command"]]
    product.cluster.apply({**job, "metadata": {"name": name, "namespace": product.namespace}})


def workers(product: Product, job: str, index: int) -> list[dict[str, Any]]:
    """The pods of one index of a Job, the first one first."""
    selector = f"batch.kubernetes.io/job-name={job},batch.kubernetes.io/job-completion-index={index}"
    found = product.get("pods", f"--selector={selector}")["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def log(product: Product, job: str, index: int) -> str:
    """What all pods of an index have said, as far as their logs are still there."""
    sentence = ""
    for pod in workers(product, job, index):
        with contextlib.suppress(AssertionError):
            sentence += product.kubectl("logs", pod["metadata"]["name"])
    return sentence


def ended(product: Product, job: str) -> str | None:
    conditions = product.get("job", job)["status"].get("conditions", [])
    return next((c["type"] for c in conditions if c["status"] == "True" and c["type"] in {"Complete", "Failed"}), None)


def test_two_workers_learn_one_is_killed_and_both_go_on(product: Product) -> None:
    start(product, "train-1")
    wait_until(lambda: f"step 4/{STEPS}" in log(product, "train-1", 0), 300, "the fourth step")
    (killed,) = workers(product, "train-1", 1)
    product.kubectl("delete", "pod", killed["metadata"]["name"], "--grace-period=0", "--force")
    wait_until(lambda: ended(product, "train-1"), 420, "the end of train-1")
    sentence = [log(product, "train-1", index) for index in (0, 1)]
    print(*sentence, sep="\n---\n")
    assert ended(product, "train-1") == "Complete", sentence
    assert "Another worker of this training is gone" in sentence[0]
    for index in (0, 1):
        resumed = re.search(rf"worker {index} of 2: going on after step (\d+) of {STEPS}", sentence[index])
        assert resumed is not None
        assert 2 <= int(resumed[1]) < STEPS
        assert f"worker {index} of 2: step {STEPS}/{STEPS}  loss" in sentence[index]
    assert "ingest: " in sentence[0]
    # The other one learns alone.
    assert "worker 1 of 2: learned" in sentence[1]
    assert "ingest: " not in sentence[1]
    assert "push: " not in sentence[1]
    # The first worker's pods, before and after: each step as it was last learned.
    losses = {int(step): float(loss) for step, loss in re.findall(rf"step (\d+)/{STEPS}  loss ([\d.]+)", sentence[0])}
    learned = [losses[step] for step in sorted(losses)]
    assert sum(learned[-2:]) < sum(learned[:2]), learned


def released(product: Product) -> str:
    """The release that train-1 pushed."""
    found = re.search(r"push: release ([0-9a-f]{12}) is in the store", log(product, "train-1", 0))
    assert found is not None
    return found[1]


def test_what_it_pushed_is_signed_by_whoever_approves_and_answers(product: Product, gateway: str) -> None:
    release = released(product)
    with product.store() as store:
        manifest = json.loads(store.get(f"releases/{release}/release.json"))
        assert not store.exists(f"releases/{release}/release.json.sig")
    assert manifest["training"]["image_digest"] == product.images.front
    assert manifest["training"]["parameters"]["workers"] == 2
    product.kubectl("create", "secret", "generic", "approver", f"--from-file=key.pem={product.key}")
    signing = {"release": release, "existingSecret": "approver"}
    product.helm("upgrade", training={**product.values["training"], "signing": signing})
    with product.store() as store:
        assert store.exists(f"releases/{release}/release.json.sig")
    product.helm("upgrade", release={"id": release}, training={**product.values["training"], "signing": {}})
    product.wait_ready(release)
    film = films.sample_films()[0].read_bytes()

    def answer() -> httpx.Response | None:
        headers = {"Host": HOST, "Content-Type": "image/jpeg"}
        reply = httpx.post(f"http://{gateway}/v1/models/pneumonia:predict", content=film, headers=headers, timeout=30)
        return reply if reply.status_code == 200 else None

    reply = wait_until(answer, 60, "an answer of the new release")
    assert reply.json()["predictions"][0]["release"] == release


def test_films_without_a_class_end_the_job_at_once_and_say_what_to_do(product: Product) -> None:
    start(product, "train-2", **{f"s3://pneumoserve/{PREFIX}": "s3://pneumoserve/no-virus"})
    wait_until(lambda: ended(product, "train-2"), 240, "the end of train-2")
    assert ended(product, "train-2") == "Failed"
    # One try of each, and not seven; when one has failed, the other may be taken down before it says anything.
    tries = [workers(product, "train-2", index) for index in (0, 1)]
    assert max(map(len, tries)) == 1
    states = [pod["status"].get("containerStatuses", [{}])[0].get("state", {}) for pods in tries for pod in pods]
    ends = [state["terminated"] for state in states if "terminated" in state]
    failed = [end for end in ends if end["exitCode"] == 2]
    assert failed
    assert all("There is no film of class viral" in end["message"] for end in failed)
