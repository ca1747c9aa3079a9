"""Rollouts on a real cluster: what goes to all calls, what is stopped before any, what is taken back, and what is lost.

The tests share one install and run in the order they stand in. Time is short here, so steps are short too: evidence
and minimum counts are those of an example, not of a hospital.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.records import Record, RolloutEvent, read_entries
from pneumoserve.release.package import sign
from pneumoserve.rollout import events_of
from pneumoserve.signing import load_key
from tests.e2e.conftest import Cluster, Images, named, restricted_namespace
from tests.e2e.load import Load
from tests.e2e.product import NAME, SMALL, Product, wait_until
from tests.e2e.rollouts import LEARNS, Rollouts, commands, key_of
from tests.support import films, releases
from tests.support.cluster.node import Node

# In no order: Envoy sends every tenth call to a weight of 10, so films in turns would give each arm films of its own.
FILMS = random.Random(0).choices([path.read_bytes() for path in films.sample_films()], k=499)
HOST = "rollout.example.org"
SPLIT = 10
CALLS = 1000

# Appended to the detector's handler in a release's archive: TorchServe calls the last `handle` of the module.
SLOW = """
import time as _time
_quick = handle
def handle(data, context):
    if data:
        _time.sleep(0.6)
    return _quick(data, context)
"""
# A model that refuses every other film, once it has answered a few: the front tells its callers 500.
REFUSING = """
_good, _seen = handle, [0]
def handle(data, context):
    answers = _good(data, context)
    for index in range(len(data or [])):
        _seen[0] += 1
        if _seen[0] > 8 and _seen[0] % 2:
            context.set_response_status(code=400, phrase="Bad Request", idx=index)
            answers[index] = {"error": "refused"}
    return answers
"""


@pytest.fixture(scope="module")
def product(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """One release answers; the sample is in its store as an adjudicated set."""
    with restricted_namespace(cluster) as namespace:
        product = Product(cluster, namespace, images, tmp_path_factory.mktemp("rollout"))
        product.prepare()
        product.command("release", "key", str(key_of(product)), "--trust", str(product.folder / "writers"))
        (public,) = (product.folder / "writers").glob("*.pem")
        archive = {
            "trust": {"writers": {"rollouts.pem": public.read_text()}},
            "replay": {"sample": 40, "resources": SMALL},
        }
        product.helm("install", replicas=1, route={"hostnames": [HOST]}, archive=archive)
        product.push(*(product.folder / "releases" / release for release in (product.first, product.second)))
        product.helm("upgrade", release={"id": product.first})
        product.wait_ready(product.first)
        yield product
        product.kubectl("delete", "inferenceservices", "--all")
        cluster.helm("uninstall", NAME, f"--namespace={namespace}")


@pytest.fixture(scope="module")
def rollouts(product: Product) -> Iterator[Rollouts]:
    with commands(product) as made:
        yield made


@pytest.fixture
def load(gateway: str, product: Product) -> Callable[[float], Load]:
    def made(per_second: float = 10.0) -> Load:
        return Load(gateway, FILMS, per_second, host=HOST)

    wait_until(lambda: _answers(gateway), 60, "an answer through the gateway")
    return made


def _answers(gateway: str) -> bool:
    headers = {"Host": HOST, "Content-Type": "image/jpeg"}
    try:
        url = f"http://{gateway}/v1/models/pneumonia:predict"
        return httpx.post(url, content=FILMS[0], headers=headers, timeout=30).is_success
    except httpx.TransportError:
        return False


def live(product: Product, since: datetime, *found: str) -> list[Record]:
    """Records of callers' calls since a moment."""
    with product.reader() as reader:
        return [
            entry
            for release in found
            for entry in read_entries(reader, since, release)
            if isinstance(entry, Record) and entry.arm == "live" and entry.kind == "prediction"
        ]


def events(product: Product, rollout: str, since: datetime) -> dict[str, RolloutEvent]:
    """What is on record of a rollout, the last of each kind."""
    with product.reader() as reader:
        return {event.what: event for event in events_of(reader, since, rollout)}


# --- refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": [{"percent": 50}, {"percent": 10}, {"percent": 100}]}, "steps must rise"),
        ({"candidate": "0123456789ab"}, "There is no release 0123456789ab"),
        ({"evidence": "datasets/none.json"}, "The store has no adjudicated set datasets/none.json"),
        ({"evidence": "labels"}, "No prediction has a label"),
    ],
)
def test_a_plan_that_cannot_be_followed_changes_nothing(rollouts: Rollouts, changes: Any, sentence: str) -> None:
    before = rollouts.route()["metadata"]["resourceVersion"]
    done = rollouts.run("start", "--plan", str(rollouts.plan(rollouts.product.second, **changes)))
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert rollouts.route()["metadata"]["resourceVersion"] == before
    assert not rollouts.status()
    assert len(rollouts.product.get("inferenceservices")["items"]) == 1


def test_without_a_route_there_is_nothing_to_turn(rollouts: Rollouts) -> None:
    done = rollouts.run("start", "--plan", str(rollouts.plan(rollouts.product.second)), "--name", "pneumoserve-other")
    assert done.returncode == 2
    assert "There is no HTTPRoute of this install" in done.stderr


def test_what_would_be_applied_can_be_printed_instead(rollouts: Rollouts) -> None:
    product = rollouts.product
    plan = rollouts.plan(product.second, {"percent": SPLIT})
    done = rollouts.run("start", "--plan", str(plan), "--render")
    assert done.returncode == 0, done.stderr
    service, budget, route = yaml.safe_load_all(done.stdout)
    assert service["spec"]["predictor"]["model"]["storageUri"].endswith(product.second)
    assert budget["kind"] == "PodDisruptionBudget"
    assert [each["weight"] for rule in route["spec"]["rules"] for each in rule["backendRefs"]] == [90, 10, 90, 10]
    product.kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", given=done.stdout)
    assert len(product.get("inferenceservices")["items"]) == 1


# --- a good one


def test_a_good_release_goes_to_100_percent_and_no_call_is_lost(
    rollouts: Rollouts, load: Callable[[float], Load]
) -> None:
    product = rollouts.product
    began = datetime.now(UTC)
    plan = rollouts.plan(product.second, {"percent": SPLIT, "minCalls": 10}, approval="manual")
    divided = [{product.first: 100 - SPLIT, product.second: SPLIT}] * 2
    with load(5).running() as running:
        with rollouts.started(plan) as process:
            wait_until(lambda: rollouts.weights() == divided, 180, "the first step")
            process.kill()
            print(process.communicate()[1])
        # Nobody runs it now; weights stay, and a second rollout is refused.
        other = rollouts.run("start", "--plan", str(rollouts.plan(product.first)))
        assert other.returncode == 2
        assert "is under way" in other.stderr
        assert rollouts.weights() == divided
        with rollouts.started(plan) as process:
            wait_until(lambda: "approval" in rollouts.state().waits_for, 90, "the step waits for a person")
            split_from = datetime.now(UTC)
            with load(10).running() as more:
                more.wait_for_answers(CALLS * 3 // 4, 240)
            split_until = datetime.now(UTC)
            print(rollouts.run("status").stdout)
            assert rollouts.run("promote").returncode == 0
            _, sentence = process.communicate(timeout=180)
            assert process.returncode == 0, sentence
        running.wait_for_answers(50)
    print(sentence)
    print(f"a good release to 100 %, its process killed at {SPLIT} %: {running.summary()}; beside it {more.summary()}")
    assert not running.failures, running.failures[:5]
    assert not more.failures, more.failures[:5]
    on_record = events(product, rollouts.state().rollout, began)
    assert list(on_record) == ["started", "gates", "shadow", "step", "approved", "promoted", "finished"]
    promoted = on_record["promoted"].time
    late = [record for record in live(product, began, product.first) if record.time > promoted]
    beyond = [record for record in late if _seconds(promoted, record.time) > LEARNS]
    print(f"answers of the earlier release after its weight was 0: {len(late)}, {len(beyond)} after {LEARNS} s")
    assert not beyond
    _check_split(product, split_from, split_until)
    assert rollouts.weights() == [{product.second: 100}] * 2
    assert _running(product) == {product.second}


def _check_split(product: Product, since: datetime, until: datetime) -> None:
    """At 10 %, each transport's share lies within what chance allows a fair split: 5 standard deviations."""
    last = until.isoformat()
    records = [r for r in live(product, since, product.first, product.second) if since.isoformat() < r.time < last]
    counts = Counter((record.call.protocol, record.release) for record in records)
    assert len(records) >= CALLS, counts
    for protocol in ("v1", "grpc"):
        total = sum(count for (each, _), count in counts.items() if each == protocol)
        found = counts[protocol, product.second]
        spread = 5 * math.sqrt(total * 0.1 * 0.9)
        print(f"at 10 %: {found} of {total} calls by {protocol}; chance allows {0.1 * total:.0f} ± {spread:.0f}")
        assert abs(found - 0.1 * total) <= spread


def _seconds(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


def _running(product: Product) -> set[str]:
    return {item["metadata"]["name"].split("-")[1] for item in product.get("inferenceservices")["items"]}


def test_the_next_upgrade_takes_the_release_over_and_none_turns_back(rollouts: Rollouts) -> None:
    product = rollouts.product
    refused = product.try_helm("upgrade", product.values)
    assert refused.returncode != 0
    assert f"set release.id={product.second}" in refused.stderr, refused.stderr
    pods = {pod["metadata"]["name"] for pod in product.pods(product.second)}
    product.helm("upgrade", release={"id": product.second})
    assert {pod["metadata"]["name"] for pod in product.pods(product.second)} == pods
    assert rollouts.weights() == [{product.second: 100}] * 2


# --- stopped before any traffic


@pytest.mark.parametrize("run", [releases.negated, releases.hardly_ever], ids=["negated", "threshold-99"])
def test_a_release_that_judges_worse_gets_no_traffic(rollouts: Rollouts, run: Callable[[Path], Path]) -> None:
    product = rollouts.product
    candidate = product.package(run(product.folder / run.__name__))
    product.push(candidate)
    spec = rollouts.route()["spec"]
    done = rollouts.run("start", "--plan", str(rollouts.plan(candidate.name, {"percent": SPLIT})))
    print(done.stderr)
    assert done.returncode == 1, done.stderr
    assert "was not promoted (refused)" in done.stderr
    assert rollouts.route()["spec"] == spec
    assert _running(product) == {product.second}
    sentence = _events_of(product, candidate.name)
    assert any(kind == "Warning" and "films of pneumonia are called normal" in message for kind, message in sentence)


def _events_of(product: Product, release: str) -> list[tuple[str, str]]:
    """Type and message of the Kubernetes events of a release's InferenceService that a rollout made."""
    selector = f"involvedObject.name=pneumonia-{release},involvedObject.kind=InferenceService"
    items = product.get("events", f"--field-selector={selector}")["items"]
    return [(item["type"], item["message"]) for item in items if item["reason"].startswith("Rollout")]


# --- taken back


@pytest.mark.parametrize(
    ("code", "gate", "slower"), [(SLOW, "latency", 1.5), (REFUSING, "errors", 2.5)], ids=["slow", "5xx"]
)
@pytest.mark.usefixtures("alone")
def test_a_release_that_serves_worse_is_taken_back_within_a_minute(
    rollouts: Rollouts, load: Callable[[float], Load], code: str, gate: str, slower: float
) -> None:
    product = rollouts.product
    candidate = _with_handler(product, code, gate)
    product.push(candidate)
    began = datetime.now(UTC)
    plan = rollouts.plan(candidate.name, {"percent": 40, "minCalls": 500}, comparison={"slower": slower})
    with load(10).running() as running:
        running.wait_for_answers(20)
        done = rollouts.run("start", "--plan", str(plan))
        running.wait_for_answers(20)
    print(done.stderr)
    print(f"{gate}: {running.summary()}")
    assert done.returncode == 1, done.stderr
    state = rollouts.state()
    assert (state.outcome, state.settled) == ("rolled back", product.second)
    assert [verdict.gate for verdict in state.verdicts if verdict.outcome == "fail"] == [gate]
    on_record = events(product, state.rollout, began)
    seconds = _seconds(on_record["step"].time, on_record["rolled_back"].time)
    print(f"{gate}: taken back {seconds:.1f} s after the step began")
    assert seconds <= 60
    assert on_record["rolled_back"].percent == 0
    assert rollouts.weights() == [{product.second: 100}] * 2
    assert _running(product) == {product.second}


def _with_handler(product: Product, code: str, name: str) -> Path:
    """The reference's models, thresholds and pixels, with another handler before them; signed by the approver."""
    source = product.package(releases.altered(product.folder / name, policy={"why": f"To be taken back: {name}."}))
    folder = Path(shutil.copytree(source, product.folder / f"{name}-release"))
    mar = folder / "model-store" / "pneumonia-detector.mar"
    with zipfile.ZipFile(mar) as archive:
        content = {each: archive.read(each) for each in archive.namelist()}
    content["model_handler.py"] += code.encode()
    with zipfile.ZipFile(mar, "w") as archive:
        for each, data in content.items():
            archive.writestr(each, data)
    manifest = json.loads((folder / "release.json").read_bytes())
    manifest["files"]["model-store/pneumonia-detector.mar"] = digest_of(mar.read_bytes())
    (folder / "release.json").write_bytes(canonical_json(manifest))
    sign(folder, load_key(product.key))
    return folder.rename(product.folder / "releases" / digest_of((folder / "release.json").read_bytes())[:12])


# --- back to an earlier release, by the Job


# Two releases and a Job start on the node's cores while every call must be answered.
@pytest.mark.usefixtures("alone")
def test_a_job_goes_back_to_an_earlier_release_and_is_followed_where_its_pod_is_lost(
    rollouts: Rollouts, load: Callable[[float], Load]
) -> None:
    product = rollouts.product
    plan = yaml.safe_load(rollouts.plan(product.first, {"percent": 50, "minCalls": 60}).read_text())
    product.helm(
        "upgrade",
        rollout={"enabled": True, "plan": plan, "resources": SMALL, "image": named(product.images.rollout)},
    )
    with load(10).running() as running:
        job = "rollout-back"
        product.kubectl("create", "job", job, f"--from=cronjob/{NAME}-rollout")
        wait_until(lambda: rollouts.weights() == [{product.second: 50, product.first: 50}] * 2, 180, "a step")
        lost = product.kubectl("get", "pods", f"--selector=job-name={job}", "--output=name").split()
        product.kubectl("delete", *lost, "--grace-period=0", "--force")
        product.kubectl("wait", f"job/{job}", "--for=condition=Complete", "--timeout=180s")
        running.wait_for_answers(20)
    print(product.kubectl("logs", f"job/{job}"))
    print(f"back to an earlier release by a Job whose pod was lost: {running.summary()}")
    assert not running.failures, running.failures[:5]
    assert rollouts.status()["outcome"] == "promoted"
    assert rollouts.weights() == [{product.first: 100}] * 2
    product.helm("upgrade", release={"id": product.first})
    sentence = product.job("replay")
    print(sentence)
    assert "0 mismatches" in sentence


# The API server that is started anew outlives the test.
@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore:subprocess [0-9]+ is still running:ResourceWarning")
def test_it_outlives_the_api_server_and_an_abort_needs_no_process(
    rollouts: Rollouts, load: Callable[[float], Load]
) -> None:
    product = rollouts.product
    with load(10).running() as running:
        divided = [{product.first: 50, product.second: 50}] * 2
        with rollouts.started(rollouts.plan(product.second, {"percent": 50, "minCalls": 5000})):
            wait_until(lambda: rollouts.weights() == divided, 180, "a step")
            if product.cluster.node is not None:
                _without_api_server(product.cluster.node, running)
                seen = rollouts.state().calls.get(product.second, 0)
                wait_until(lambda: rollouts.state().calls.get(product.second, 0) > seen + 20, 90, "it goes on")
                assert rollouts.weights() == divided
        began = time.monotonic()
        done = rollouts.run("abort", "--reason", "it was the wrong one", "--by", "a.b")
        print(f"aborted {time.monotonic() - began:.0f} s after it was asked, with nobody running it")
        running.wait_for_answers(20)
    print(f"the API server and then the rollout's process killed: {running.summary()}")
    assert done.returncode == 0, done.stderr
    # The node's own proxy, which follows the API server, may refuse a connection when that one is back.
    assert len(running.failures) < 5, running.failures[:5]
    assert not [call for call in running.failures if call.outcome[0].isdigit()], running.failures
    assert rollouts.state().reason == "a.b ended it: it was the wrong one"
    assert rollouts.weights() == [{product.first: 100}] * 2
    assert _running(product) == {product.first}


def _without_api_server(node: Node, running: Load) -> None:
    """Calls are answered by the weights as they are while nobody can read or move them."""
    (server,) = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "kube-apiserver"]
    server.kill()
    server.wait()
    running.wait_for_answers(60)
    node.up()
