"""The chart's rules in promtool's hands: each alert fires when it must, and is silent when it must not."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chart.api import Object
from tests.chart.conftest import TRIAL, Helm, the
from tests.chart.test_intake import DICOM
from tests.chart.test_monitoring import ON, alerts
from tests.chart.test_reading_room import ROOM
from tests.chart.test_rendered import ARMS, RELEASE
from tests.support.prometheus import PROMETHEUS

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not on every machine")

NAMESPACE = 'namespace="pneumo"'
DEPLOYMENT = f'deployment="pneumonia-{RELEASE}-predictor"'
# A moment's own Unix time.
CLOCK = "clock"
# What a sound install shows for ever; a scenario replaces some of it. Calls grow by the sample, however far apart.
SOUND = {
    f"kube_deployment_status_replicas_available{{{NAMESPACE},{DEPLOYMENT}}}": "2x9000",
    f"kube_deployment_status_replicas_unavailable{{{NAMESPACE},{DEPLOYMENT}}}": "0x9000",
    f'kube_deployment_status_replicas_unavailable{{{NAMESPACE},deployment="pneumoserve-console"}}': "0x9000",
    f'kube_job_status_failed{{{NAMESPACE},job_name="pneumoserve-verify-29400000"}}': "0x9000",
    f'kube_cronjob_created{{{NAMESPACE},cronjob="pneumoserve-seal"}}': "0x9000",
    f'kube_cronjob_status_last_successful_time{{{NAMESPACE},cronjob="pneumoserve-seal"}}': CLOCK,
    f'pneumoserve_build_info{{{NAMESPACE},part="front"}}': "1x9000",
    f'pneumoserve_calls_total{{{NAMESPACE},outcome="answered"}}': "0+60x9000",
    f'pneumoserve_calls_total{{{NAMESPACE},outcome="refused"}}': "0+60x9000",
    f'pneumoserve_calls_total{{{NAMESPACE},outcome="failed"}}': "0x9000",
    f'pneumoserve_calls_total{{{NAMESPACE},outcome="overloaded"}}': "0x9000",
    f'pneumoserve_calls_total{{{NAMESPACE},outcome="unrecorded"}}': "0x9000",
    f'pneumoserve_call_seconds_bucket{{{NAMESPACE},le="5.0"}}': "0+60x9000",
    f"pneumoserve_call_seconds_count{{{NAMESPACE}}}": "0+60x9000",
    f'pneumoserve_release_stopped{{{NAMESPACE},release="0123456789ab"}}': "0x9000",
    f"pneumoserve_unrecorded_calls_total{{{NAMESPACE}}}": "0x9000",
    f"pneumoserve_archive_journal_bytes{{{NAMESPACE}}}": "0x9000",
    f"pneumoserve_archive_failures_total{{{NAMESPACE}}}": "0x9000",
    f"pneumoserve_alerts_undelivered_total{{{NAMESPACE}}}": "0x9000",
    f"pneumoserve_alerts_last_look_seconds{{{NAMESPACE}}}": CLOCK,
    f"pneumoserve_alerts_oldest_waiting_timestamp_seconds{{{NAMESPACE}}}": "0x9000",
    f"pneumoserve_console_studies_overdue{{{NAMESPACE}}}": "0x9000",
    f"pneumoserve_intake_studies_failed{{{NAMESPACE}}}": "0x9000",
    f"pneumoserve_intake_studies_waiting{{{NAMESPACE}}}": "2x9000",
    f"pneumoserve_intake_last_look_seconds{{{NAMESPACE}}}": CLOCK,
    f'pneumoserve_intake_outcomes_total{{{NAMESPACE},outcome="answered"}}': "0+60x9000",
}
GONE = ""


@dataclass(frozen=True)
class Scenario:
    """What differs from a sound install, by the beginning of a series, and which alerts fire after some time."""

    about: str
    series: dict[str, str]
    at: str
    fire: tuple[str, ...] = ()


ANSWERED, REFUSED, FAILED, OVERLOADED, UNRECORDED = (
    f'pneumoserve_calls_total{{{NAMESPACE},outcome="{name}"}}'
    for name in ("answered", "refused", "failed", "overloaded", "unrecorded")
)
CONSOLE = f'kube_deployment_status_replicas_unavailable{{{NAMESPACE},deployment="pneumoserve-console"}}'
OLDEST = "pneumoserve_alerts_oldest_waiting_timestamp_seconds"
LOOK = "pneumoserve_alerts_last_look_seconds"
LOOKED = "pneumoserve_intake_last_look_seconds"
OUTCOMES = "pneumoserve_intake_outcomes_total"
SCENARIOS = (
    Scenario("all is well", {}, "80h"),
    Scenario("no pod is Ready for a minute", {"kube_deployment_status_replicas_available": "2x9 0x90"}, "12m",
             ("NotReady",)),
    Scenario("no pod is Ready for half a minute", {"kube_deployment_status_replicas_available": "2x9 0x90"}, "10m"),
    Scenario("a Deployment is gone", {"kube_deployment_status_replicas_available": GONE}, "12m", ("NotReady",)),
    Scenario("a pod is missing", {CONSOLE: "0x9 1x90"}, "26m", ("PodsMissing",)),
    Scenario("a pod is missing for a moment", {"kube_deployment_status_replicas_unavailable": "0x9 1x9 0x90"}, "30m"),
    Scenario("no metrics", {"pneumoserve_build_info": GONE}, "6m", ("NotWatched",)),
    Scenario("every third call fails", {FAILED: "0x60 1+60x90"}, "64m", ("ErrorBudgetBurnsFast",)),
    Scenario("one call in fifty fails, for an hour", {FAILED: "0x60 1+2.4x90"}, "125m",
             ("ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly")),
    Scenario("one call in a hundred fails, for six hours", {FAILED: "0+1.2x9000"}, "7h",
             ("ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly")),
    Scenario("one call in two hundred and fifty fails, for a day", {FAILED: "0+0.48x9000"}, "30h",
             ("ErrorBudgetBurnsSlowly",)),
    Scenario("one call in six hundred fails, for days", {FAILED: "0+0.2x9000"}, "96h", ("ErrorBudgetBurnsSlowly",)),
    Scenario("one call in two thousand fails, for days", {FAILED: "0+0.06x9000"}, "96h"),
    Scenario("it was bad for a moment and is over", {FAILED: "0x60 0+100x9 900x9000"}, "105m",
             ("ErrorBudgetBurnsSlowly",)),
    Scenario("two calls of few fail in a night", {ANSWERED: "0x9000", REFUSED: "0+0.1x9000",
             FAILED: "0x60 1 2x9000"}, "64m"),
    Scenario("calls are refused for load", {OVERLOADED: "0x60 1+60x90"}, "64m", ("ErrorBudgetBurnsFast",)),
    Scenario("a release is stopped", {"pneumoserve_release_stopped": "0x9 1x90"}, "11m", ("ReleaseStopped",)),
    Scenario("records are refused", {UNRECORDED: "0x60 1+60x90",
             "pneumoserve_unrecorded_calls_total": "0x60 1+60x90"}, "64m",
             ("ErrorBudgetBurnsFast", "StoreAway")),
    Scenario("callers send bad images alone", {ANSWERED: "0x9000"}, "96h"),
    Scenario("one answer in ten is slow", {"pneumoserve_call_seconds_bucket": "0+54x900"}, "35m", ("SlowAnswers",)),
    Scenario("one answer in fifty is slow", {"pneumoserve_call_seconds_bucket": "0+58.8x900"}, "35m"),
    Scenario("the journal fills", {"pneumoserve_archive_journal_bytes": "0x9 4096x90"}, "13m", ("StoreAway",)),
    Scenario("the journal was used for a minute", {"pneumoserve_archive_journal_bytes": "0x9 4096x0 0x90"}, "13m"),
    Scenario("the store fails again and again", {"pneumoserve_archive_failures_total": "0x9 1+2x90"}, "16m",
             ("StoreAway",)),
    Scenario("the store failed once", {"pneumoserve_archive_failures_total": "0x9 1x90"}, "16m"),
    Scenario("a verification failed", {"kube_job_status_failed": "0x9 1x90"}, "11m", ("ArchiveFault",)),
    Scenario("nothing was sealed for two hours", {"kube_cronjob_status_last_successful_time": "0x900"}, "127m",
             ("NotSealed",)),
    Scenario("nothing was ever sealed", {"kube_cronjob_status_last_successful_time": GONE}, "127m", ("NotSealed",)),
    Scenario("the first seal is not due yet", {"kube_cronjob_status_last_successful_time": GONE}, "118m"),
    Scenario("a message reached nobody", {"pneumoserve_alerts_undelivered_total": "0x9 1x90"}, "12m",
             ("AlertsUndelivered",)),
    Scenario("messages arrive again", {"pneumoserve_alerts_undelivered_total": "0x9 1x90"}, "30m"),
    Scenario("the sender stands still", {LOOK: "0+60x9 540x90"}, "18m", ("AlertsStopped",)),
    Scenario("the sender is gone", {LOOK: GONE}, "3m", ("AlertsStopped",)),
    Scenario("the sender pauses", {LOOK: "0+60x9 540x90"}, "13m"),
    Scenario("a message waits", {OLDEST: "0x9 600x90"}, "21m", ("AlertsLate",)),
    Scenario("a message waits for a moment", {OLDEST: "0x9 600x90"}, "19m"),
    Scenario("studies are overdue", {"pneumoserve_console_studies_overdue": "0x9 3x90"}, "71m", ("StudiesOverdue",)),
    Scenario("studies are a little overdue", {"pneumoserve_console_studies_overdue": "0x9 3x90"}, "60m"),
    Scenario("a study by DICOM failed", {"pneumoserve_intake_studies_failed": "0x9 1x90"}, "11m", ("IntakeFailed",)),
    Scenario("a person has looked", {"pneumoserve_intake_studies_failed": "0x9 1x9 0x90"}, "21m"),
    Scenario("DICOM intake stands still", {LOOKED: "0+60x9 540x90"}, "18m", ("IntakeStopped",)),
    Scenario("DICOM intake is gone", {LOOKED: GONE}, "3m", ("IntakeStopped",)),
    Scenario("DICOM intake pauses", {LOOKED: "0+60x9 540x90"}, "13m"),
    Scenario("DICOM studies wait for half an hour", {OUTCOMES: "0+60x9 540x90"}, "41m", ("IntakeLate",)),
    Scenario("DICOM studies wait for a while", {OUTCOMES: "0+60x9 540x90"}, "37m"),
    Scenario("no DICOM comes at night", {OUTCOMES: "0x90", "pneumoserve_intake_studies_waiting": "0x90"}, "60m"),
)  # fmt: skip


def series_of(scenario: Scenario, minutes: int) -> list[dict[str, str]]:
    """The series of a sound install, and what a scenario makes of them, at one sample every so many minutes."""
    shown = dict(SOUND)
    for beginning, values in scenario.series.items():
        names = [name for name in SOUND if name.startswith(beginning)]
        assert names, beginning
        shown |= dict.fromkeys(names, values)
    clock = f"0+{60 * minutes}x9000"
    return [{"series": name, "values": values.replace(CLOCK, clock)} for name, values in shown.items() if values]


def as_promtool_says(scenario: Scenario, minutes: int) -> dict[str, Any]:
    """A test of promtool's: that these alerts fire, each once, and no other."""
    samples = [{"labels": f'{{alertname="Pneumoserve{name}"}}', "value": 1} for name in scenario.fire]
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "name": scenario.about,
        "interval": f"{minutes}m",
        "input_series": series_of(scenario, minutes),
        "promql_expr_test": [{"expr": firing, "eval_time": scenario.at, "exp_samples": samples}],
    }


@pytest.fixture(scope="module")
def watched(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ARMS, ON, ROOM, DICOM)


@pytest.fixture
def rules_file(watched: list[Object], tmp_path: Path) -> Path:
    """The rules as Prometheus reads them."""
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": the(watched, "PrometheusRule")["spec"]["groups"]}))
    return file


def promtool(*words: str | Path) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules(rules_file: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", rules_file)


# Days at one sample a minute would take promtool many minutes.
@pytest.mark.parametrize("minutes", [1, 10])
def test_alerts_fire_when_they_must_and_then_alone(minutes: int, rules_file: Path) -> None:
    chosen = [each for each in SCENARIOS if (each.at[-1] == "m") == (minutes == 1)]
    tests = rules_file.with_name("tests.json")
    # Else promtool takes them in any order, and alerts at ten minutes find no recorded sample of the last five.
    order = [group["name"] for group in json.loads(rules_file.read_text())["groups"]]
    body = {"rule_files": [rules_file.name], "evaluation_interval": f"{minutes}m", "group_eval_order": order}
    tests.write_text(json.dumps({**body, "tests": [as_promtool_says(each, minutes) for each in chosen]}))
    promtool("test", "rules", tests)


def test_every_alert_has_a_scenario_in_which_it_fires(watched: list[Object]) -> None:
    assert {f"Pneumoserve{name}" for scenario in SCENARIOS for name in scenario.fire} == set(alerts(watched))
