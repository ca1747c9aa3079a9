"""Every query of dashboards and rules, asked of a real Prometheus that has scraped the real parts.

Only what kube-state-metrics says of a cluster is a stand-in's. Grafana's server cannot be had here: of the dashboards,
their structure is checked, and all that they ask.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from loadtest.calls import calls_of
from pneumoserve.local.process import Child, free_ports
from pneumoserve.local.state import State
from pneumoserve.names import INTAKE_BUCKET
from tests.chart.conftest import TRIAL, Helm, the
from tests.chart.test_monitoring import ON
from tests.chart.test_reading_room import ROOM
from tests.chart.test_rendered import ARMS, RELEASE
from tests.conftest import Stack, wait_for
from tests.support import films
from tests.support.prometheus import PROMETHEUS, Peer, Prometheus, Target, running_prometheus
from tests.support.walk import send_until
from tools.generate.chart_values import CHART

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not on every machine")

KUBE_STATE_METRICS_STAND_IN = f"""\
kube_deployment_status_replicas_available{{deployment="pneumonia-{RELEASE}-predictor"}} 1
kube_deployment_status_replicas_unavailable{{deployment="pneumonia-{RELEASE}-predictor"}} 0
kube_job_status_failed{{job_name="pneumoserve-verify-29400000"}} 1
kube_cronjob_created{{cronjob="pneumoserve-seal"}} 1.7e9
kube_cronjob_status_last_successful_time{{cronjob="pneumoserve-seal"}} 1.8e9
"""
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}
# What is right to be empty where all is well.
MAY_BE_EMPTY = {"Pages that failed", "Age of the newest seal"}
# Nobody has read a study of the stack, and its intake gets nothing.
MAY_BE_EMPTY |= {panel["title"] for name in ("quality", "intake") for panel in DASHBOARDS[name]["panels"]}
IN_PLACE_OF_VARIABLES = {"$namespace": "pneumo", "$release": ".*", "$__rate_interval": "1m"}


def queries() -> Iterator[tuple[str, str]]:
    """The title of each panel, with each of its queries as Grafana would ask it."""
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"]
                for variable, value in IN_PLACE_OF_VARIABLES.items():
                    query = query.replace(variable, value)
                yield panel["title"], query


@contextlib.contextmanager
def another(stack: Stack, word: str, changes: dict[str, str], folder: Path) -> Iterator[None]:
    """Another process of one of the stack's parts, with other options."""
    running = stack.child(word)
    named = tuple(f"{option}=" for option in changes)
    command = [each for each in running.cmdline() if not each.startswith(named)]
    command += [f"{option}={value}" for option, value in changes.items() if value]
    child = Child(word, command, running.environ(), folder / f"{word}.log", 30)
    child.start()
    try:
        yield
    finally:
        child.stop()


@contextlib.contextmanager
def idle_intake(stack: Stack, metrics_port: int, folder: Path) -> Iterator[None]:
    """DICOM intake beside the stack."""
    command = [
        sys.executable, "-m", "pneumoserve.intake", "--host=127.0.0.1", "--port=0", f"--metrics-port={metrics_port}",
        f"--front={stack.url}", f"--reference-key={State(stack.state).reference_key}",
    ]  # fmt: skip
    own = {**os.environ, **stack.s3.in_bucket(INTAKE_BUCKET).to_env()}
    child = Child("intake", command, own, folder / "intake.log", 30)
    child.start()
    try:
        yield
    finally:
        child.stop()


@pytest.fixture(scope="module")
def prometheus(stack: Stack, helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus that has scraped a stack at work: calls, an alert that no channel took, a page."""
    folder = tmp_path_factory.mktemp("watched")
    sender, console, page, intake = free_ports(4)
    steps = [{"afterMinutes": 0, "channels": ["nobody"], "who": "the ward"}]
    policy = {"channels": {"nobody": {"kind": "webhook", "url": "http://127.0.0.1:9/"}},
              "routes": [{"name": "all", "steps": steps}]}  # fmt: skip
    (folder / "alerts.yaml").write_text(yaml.safe_dump(policy))
    told = {"--hint-port": "", "--policy": str(folder / "alerts.yaml"), "--metrics-port": str(sender)}
    groups = the(helm.render(TRIAL, ARMS, ON, ROOM), "PrometheusRule")["spec"]["groups"]
    front = stack.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with contextlib.ExitStack() as entered:
        entered.enter_context(another(stack, "send", told, folder))
        pages = {"--port": str(page), "--metrics-port": str(console)}
        entered.enter_context(another(stack, "pneumoserve.console", pages, folder))
        entered.enter_context(idle_intake(stack, intake, folder))
        kube = entered.enter_context(Peer(KUBE_STATE_METRICS_STAND_IN).serving())
        targets = [
            Target(front, {"namespace": "pneumo", "pod": "front", "release": stack.release}),
            Target(f"127.0.0.1:{sender}", {"namespace": "pneumo", "pod": "alerts"}),
            Target(f"127.0.0.1:{console}", {"namespace": "pneumo", "pod": "console"}),
            Target(f"127.0.0.1:{intake}", {"namespace": "pneumo", "pod": "intake"}),
            Target(kube.address, {"namespace": "pneumo"}),
        ]
        asked = entered.enter_context(running_prometheus(folder / "prometheus", targets, groups))
        # What a counter begins with is no increase: all are scraped once before anything is called.
        wait_for(lambda: asked.query(f"sum(up) == {len(targets)}"), 120)
        call(stack)
        httpx.get(f"http://127.0.0.1:{page}/health", timeout=30)
        wait_for(lambda: asked.query("increase(pneumoserve_alerts_undelivered_total[5m]) > 0"), 120)
        # Each minute the sender measures what waits.
        wait_for(lambda: asked.query("pneumoserve_alerts_oldest_waiting_timestamp_seconds > 0"), 120)
        yield asked


def call(stack: Stack) -> None:
    """By V1 and V2, a referred image, and what is no image."""
    film = films.sample_films()[0].read_bytes()
    for kind in ("v1", "v2-json"):
        (made,) = calls_of(kind, [film], 1)
        assert httpx.post(stack.url + made.path, content=made.body, headers=made.headers, timeout=60).is_success
    send_until(stack.url, referred=True)
    assert httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=b"none", timeout=60).status_code == 400


def metrics_of(query: str) -> set[str]:
    return set(re.findall(r"([a-z_:0-9]+)\{", query))


def test_every_metric_of_a_dashboard_is_there_and_every_query_has_an_answer(prometheus: Prometheus) -> None:
    # A metric without a value is told of too, a counter without its suffix.
    told = set(prometheus.ask("metadata"))
    known = prometheus.names() | told | {f"{name}_total" for name in told}
    faults = []
    for title, query in queries():
        assert metrics_of(query), query
        faults += [f"{title}: there is no {name}" for name in metrics_of(query) - known]
        if not prometheus.query(query) and title not in MAY_BE_EMPTY:
            faults.append(f"{title}: nothing for {query}")
    assert faults == []


def test_every_rule_is_evaluated_and_asks_for_metrics_that_there_are(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    wait_for(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"}, 60)
    known = prometheus.names()
    assert {f"{rule['name']}: {name}" for rule in rules for name in metrics_of(rule["query"]) - known} == set()


def test_what_stands_in_for_kube_state_metrics_is_all_that_is_not_ours(prometheus: Prometheus) -> None:
    asked = {name for _, query in queries() for name in metrics_of(query)}
    assert {name for name in asked if not name.startswith("pneumoserve_")} <= metrics_of(KUBE_STATE_METRICS_STAND_IN)
    assert all(prometheus.query(name) for name in metrics_of(KUBE_STATE_METRICS_STAND_IN))
