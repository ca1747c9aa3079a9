"""The chart's dashboards for Grafana, from a short description of each panel.

A query is for the namespaces and releases that a reader chooses: `HERE` and `FRONT` are the matchers of every part and
of fronts. Grafana 10 reads schema 38, and later ones bring it up to their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tools.generate.generator import Files, Generator

FOLDER: Final = Path("charts/pneumoserve/files/dashboards")
HERE: Final = 'namespace=~"$namespace"'
FRONT: Final = f'{HERE},release=~"$release"'
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS: Final = 24
_CALLS: Final = f"pneumoserve_calls_total{{{FRONT}}}"
_BAD: Final = f'pneumoserve_calls_total{{{FRONT},outcome=~"overloaded|failed|unrecorded"}}'
# What the objective of 99.9 % lets be lost.
_BUDGET: Final = 0.001


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are expressions by their legend, which may name labels as Grafana writes them."""

    title: str
    text: str
    queries: dict[str, str]
    # As Grafana calls units.
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in Grafana's grid."""
        return (6, 4) if self.kind == "stat" else (8, 7)


@dataclass(frozen=True)
class Dashboard:
    """One dashboard: its rows of panels, by their heading."""

    title: str
    text: str
    rows: dict[str, tuple[Panel, ...]]


def _rate(metric: str, by: str = "", where: str = FRONT) -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{{{where}}}[$__rate_interval]))"


def _quantiles(metric: str, by: str, where: str = FRONT, shares: tuple[float, ...] = (0.95,)) -> dict[str, str]:
    """Quantiles of a histogram, by labels."""
    names = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if label)
    buckets = _rate(f"{metric}_bucket", f"le, {by}" if by else "le", where)
    return {f"p{100 * share:.0f}{names}": f"histogram_quantile({share}, {buckets})" for share in shares}


def _count(metric: str, by: str, where: str) -> dict[str, str]:
    """How many processes there are of each kind, by labels."""
    return {" ".join(f"{{{{{label}}}}}" for label in by.split(", ")): f"count by ({by}) ({metric}{{{where}}})"}


def _lost(window: str) -> str:
    """The share of calls that were lost to a fault of the service."""
    return f"sum (rate({_BAD}[{window}])) / sum (rate({_CALLS}[{window}]))"


def _age(metric: str, least: str = "min") -> str:
    return f"time() - {least} ({metric}{{{HERE}}} > 0)"


SERVICE: Final = Dashboard(
    "pneumoserve: the service",
    "Whether X-rays get their answers, how soon, and what the answers are.",
    {
        "The objective: 99.9 % of the calls get an answer": (
            Panel(
                "Calls with an answer, 30 days",
                "The share of calls that were not lost to a fault of the service; a call "
                "that was refused for a fault of its own counts as good.",
                {"": f"1 - {_lost('30d')}"},
                "percentunit",
                "stat",
            ),
            Panel(
                "Budget left, 30 days",
                "Of the 0.1 % of calls that the objective lets be lost, the share that is left. Below 0 it was missed.",
                {"": f"1 - ({_lost('30d')}) / {_BUDGET}"},
                "percentunit",
                "stat",
            ),
            Panel(
                "Calls in flight",
                "Calls that are being read or answered now.",
                {"": f"sum (pneumoserve_calls_in_flight{{{FRONT}}})"},
                kind="stat",
            ),
            Panel(
                "Releases stopped",
                "Releases of which every answer is referred to a human, until a person resumes them.",
                {"": f"sum (max by (release) (pneumoserve_release_stopped{{{FRONT}}}))"},
                kind="stat",
            ),
            Panel(
                "Fronts",
                "Front pods that Prometheus reads metrics from.",
                {"": f'count (pneumoserve_build_info{{{HERE},part="front"}})'},
                kind="stat",
            ),
            Panel(
                "Burn rate",
                "How many times faster than allowed the budget is spent; 1 spends it in 30 days. "
                "14.4 in an hour, or 6 in six hours, wakes somebody.",
                {window: f"({_lost(window)}) / {_BUDGET}" for window in ("1h", "6h", "3d")},
            ),
            Panel(
                "Calls that were lost",
                "Overloaded: no place for them. Failed: a fault of the service. Unrecorded: the "
                "archive took no record.",
                {"{{outcome}}": f"sum by (outcome) (rate({_BAD}[$__rate_interval]))"},
                "reqps",
            ),
            Panel(
                "Pods not Ready",
                "Pods that a Deployment wants and has not. From kube-state-metrics.",
                {"{{deployment}}": f"sum by (deployment) (kube_deployment_status_replicas_unavailable{{{HERE}}})"},
            ),
        ),
        "Calls by model and protocol": (
            Panel(
                "Calls",
                "Calls a second.",
                {"{{model}} {{protocol}}": _rate("pneumoserve_calls_total", "model, protocol")},
                "reqps",
            ),
            Panel(
                "Calls without an answer",
                "Calls a second by how they ended, those with an answer left out. Refused: the "
                "call itself was at fault.",
                {
                    "{{model}} {{protocol}} {{outcome}}": _rate(
                        "pneumoserve_calls_total", "model, protocol, outcome", f'{FRONT},outcome!="answered"'
                    )
                },
                "reqps",
            ),
            Panel(
                "Seconds to an answer",
                "From a call's last byte to its answer, which then is on record.",
                _quantiles("pneumoserve_call_seconds", "model, protocol", shares=(0.5, 0.95, 0.99)),
                "s",
            ),
            Panel(
                "Refused before they were a call",
                "Connections a second that spoke no HTTP, were too slow, or too many; "
                "and gRPC messages that were too large.",
                {
                    "connections": _rate("pneumoserve_http_refused_total"),
                    "gRPC": f"{_rate('pneumoserve_grpc_infer_started_total')} "
                    f"- {_rate('pneumoserve_grpc_infer_received_total')}",
                },
                "reqps",
            ),
        ),
        "Releases side by side": (
            Panel(
                "Calls",
                "Calls a second by release.",
                {"{{release}}": _rate("pneumoserve_calls_total", "release")},
                "reqps",
            ),
            Panel(
                "Seconds to an answer",
                "95 of 100 answers come within this time.",
                _quantiles("pneumoserve_call_seconds", "release"),
                "s",
            ),
            Panel(
                "Lost calls",
                "The share of calls that were lost to a fault of the service.",
                {
                    "{{release}}": f"sum by (release) (rate({_BAD}[$__rate_interval])) / "
                    f"{_rate('pneumoserve_calls_total', 'release')}"
                },
                "percentunit",
            ),
            Panel(
                "Referred images",
                "The share of images of which a human must look at.",
                {
                    "{{release}}": f"""{_rate("pneumoserve_images_total", "release", f'{FRONT},referred="True"')} / """
                    f"{_rate('pneumoserve_images_total', 'release')}"
                },
                "percentunit",
            ),
            Panel(
                "What runs",
                "Processes by part, version and release.",
                _count("pneumoserve_build_info", "part, version, exported_release", HERE),
            ),
        ),
        "Answers": (
            Panel(
                "Findings",
                "Images a second by what was answered; none: a human must look.",
                {"{{finding}}": _rate("pneumoserve_images_total", "finding")},
                "ops",
            ),
            Panel(
                "Why images are referred",
                "Images a second by reason; one with several reasons counts for each.",
                {"{{reason}}": _rate("pneumoserve_referrals_total", "reason")},
                "ops",
            ),
        ),
        "Decoding and models": (
            Panel(
                "Decoding",
                "Images a second by how their decoding ended; died, killed, timeout, stalled and garbage are "
                "ends of a worker.",
                {"{{outcome}}": _rate("pneumoserve_decode_seconds_count", "outcome")},
                "ops",
            ),
            Panel(
                "Seconds of decoding",
                "Processor seconds of one image, 95 of 100.",
                _quantiles("pneumoserve_decode_seconds", "lane"),
                "s",
            ),
            Panel(
                "Waiting",
                "Images that wait for a decode worker, or to be sent to TorchServe.",
                {
                    "decoding {{lane}}": f"sum by (lane) (pneumoserve_decode_waiting{{{FRONT}}})",
                    "{{model}}": f"sum by (model) (pneumoserve_engine_waiting{{{FRONT}}})",
                },
            ),
            Panel(
                "TorchServe's workers",
                "Workers that are ready; 0 of a model in a pod takes the pod out of service.",
                {"{{model}}": f"sum by (model) (pneumoserve_engine_workers{{{FRONT}}})"},
            ),
            Panel(
                "Seconds of TorchServe",
                "From a request to its answer, TorchServe's queue included.",
                _quantiles("pneumoserve_engine_seconds", "model", shares=(0.5, 0.95)),
                "s",
            ),
            Panel(
                "Seconds in TorchServe's queue",
                "Of a request, on average, until a worker takes it; TorchServe says so itself.",
                {
                    "{{model}}": f"{_rate('pneumoserve_engine_queue_seconds_total', 'model')} "
                    f"/ {_rate('pneumoserve_engine_requests_total', 'model')}"
                },
                "s",
            ),
            Panel(
                "Repeated requests, restarted workers",
                "Requests a second that were sent to TorchServe again, and decode workers that came up.",
                {
                    "requests": _rate("pneumoserve_backend_retries_total"),
                    "decode workers": f"sum (deriv(pneumoserve_decoder_starts{{{FRONT}}}[$__rate_interval]))",
                },
                "ops",
            ),
            Panel(
                "Engines",
                "Fronts that saw scores by this engine.",
                _count("pneumoserve_engine_info", "model, engine, engine_version", FRONT),
            ),
            Panel(
                "Confined decode workers",
                "1: the kernel refuses them all system calls but a few. 0: it does not.",
                {"": f"min (pneumoserve_decoders_filtered{{{FRONT}}})"},
                kind="stat",
            ),
        ),
    },
)

ARCHIVE: Final = Dashboard(
    "pneumoserve: the archive",
    "Whether all that was answered is on record, and can be proved.",
    {
        "On the way to the S3 server": (
            Panel(
                "Records",
                "Records and segments a second. Calls that arrive together share a segment.",
                {
                    "records": _rate("pneumoserve_archive_records_total", "", HERE),
                    "segments": _rate("pneumoserve_archive_segments_total", "", HERE),
                },
                "ops",
            ),
            Panel(
                "Waiting records",
                "Records that wait to be written. Their calls wait for it.",
                {"{{pod}}": f"max by (pod) (pneumoserve_archive_waiting_records{{{HERE}}})"},
            ),
            Panel(
                "Age of the oldest waiting record",
                "After 5 seconds its call is refused.",
                {"{{pod}}": f"max by (pod) (pneumoserve_archive_waiting_oldest_seconds{{{HERE}}})"},
                "s",
            ),
            Panel(
                "Seconds of a segment",
                "On its way to the S3 server, or to the journal.",
                _quantiles("pneumoserve_archive_put_seconds", "", HERE, (0.5, 0.95, 0.99)),
                "s",
            ),
            Panel(
                "Failures",
                "Tries to write that failed, and calls that were refused since no record was taken, a second.",
                {
                    "tries": _rate("pneumoserve_archive_failures_total", "", HERE),
                    "refused calls": _rate("pneumoserve_unrecorded_calls_total", "", HERE),
                },
                "ops",
            ),
        ),
        "The journal": (
            Panel(
                "Bytes",
                "What waits for the S3 server on disks of ours. Do not delete these disks.",
                {"": f"sum (pneumoserve_archive_journal_bytes{{{HERE}}})"},
                "bytes",
            ),
            Panel(
                "Objects",
                "Segments and images that wait.",
                {"{{pod}}": f"max by (pod) (pneumoserve_archive_journal_objects{{{HERE}}})"},
            ),
            Panel(
                "Age of the oldest",
                "For how long the oldest has waited.",
                {"{{pod}}": f"max by (pod) (pneumoserve_archive_journal_oldest_seconds{{{HERE}}})"},
                "s",
            ),
            Panel(
                "In and adopted",
                "Objects a second that the journal took, and those of processes that are gone.",
                {
                    "taken": _rate("pneumoserve_archive_journaled_total", "", HERE),
                    "adopted": _rate("pneumoserve_archive_adopted_total", "", HERE),
                },
                "ops",
            ),
        ),
        "Proof": (
            Panel(
                "Age of the newest seal",
                "What came later could be cut off unseen. From the alert sender, which follows the archive.",
                {"": _age("pneumoserve_archive_sealed_timestamp_seconds", "max")},
                "s",
                "stat",
            ),
            Panel(
                "Age of the last Jobs",
                "Since a Job of the archive last succeeded. From kube-state-metrics.",
                {"{{cronjob}}": f"time() - max by (cronjob) (kube_cronjob_status_last_successful_time{{{HERE}}})"},
                "s",
            ),
            Panel(
                "Failed Jobs",
                "Of a verification: it found a fault. From kube-state-metrics.",
                {"{{job_name}}": f"sum by (job_name) (kube_job_status_failed{{{HERE}}}) > 0"},
            ),
        ),
    },
)

PEOPLE: Final = Dashboard(
    "pneumoserve: the people",
    "Whether practitioners are told, and studies are read.",
    {
        "Alerts to practitioners": (
            Panel(
                "Messages that wait", "To be sent.", {"": f"max (pneumoserve_alerts_waiting{{{HERE}}})"}, kind="stat"
            ),
            Panel(
                "Age of the oldest message",
                "Nothing is shown where none waits.",
                {"": _age("pneumoserve_alerts_oldest_waiting_timestamp_seconds")},
                "s",
                "stat",
            ),
            Panel(
                "Unanswered alerts",
                "Of the last 30 days.",
                {"": f"max (pneumoserve_alerts_unanswered{{{HERE}}})"},
                kind="stat",
            ),
            Panel(
                "Age of the oldest unanswered alert",
                "Nothing is shown where all are answered.",
                {"": _age("pneumoserve_alerts_oldest_unanswered_timestamp_seconds")},
                "s",
                "stat",
            ),
            Panel(
                "Alerts",
                "An hour, by severity.",
                {"{{severity}}": f"sum by (severity) (increase(pneumoserve_alerts_raised_total{{{HERE}}}[1h]))"},
            ),
            Panel(
                "Deliveries",
                "Messages an hour that a channel took or did not take, and tries that no channel took.",
                {
                    "{{channel}} {{outcome}}": "sum by (channel, outcome) "
                    f"(increase(pneumoserve_alert_deliveries_total{{{HERE}}}[1h]))",
                    "no channel": f"sum (increase(pneumoserve_alerts_undelivered_total{{{HERE}}}[1h]))",
                },
            ),
            Panel(
                "Seconds to a channel",
                "From an answer to when a channel took its alert.",
                _quantiles("pneumoserve_alert_seconds", "", HERE, (0.5, 0.95)),
                "s",
            ),
            Panel(
                "Escalated and closed",
                "An hour: times that the next person was told, answered alerts that were closed, "
                "and envelopes with names that were erased.",
                {
                    "escalated": f"sum (increase(pneumoserve_alert_escalations_total{{{HERE}}}[1h]))",
                    "closed": f"sum (increase(pneumoserve_alerts_closed_total{{{HERE}}}[1h]))",
                    "names erased": f"sum (increase(pneumoserve_alert_names_erased_total{{{HERE}}}[1h]))",
                },
            ),
            Panel(
                "Alerts per 100 X-rays",
                "Of the last 30 days. Too many are not read.",
                {"": f"max (pneumoserve_alerts_per_100_images{{{HERE}}})"},
            ),
            Panel(
                "Listed, without an alert",
                "Studies of the last 30 days, by reason.",
                {"{{reason}}": f"max by (reason) (pneumoserve_alerts_listed{{{HERE}}})"},
            ),
        ),
        "Reading room": (
            Panel(
                "Waiting",
                "Studies that wait to be read.",
                {"": f"max (pneumoserve_console_studies_waiting{{{HERE}}})"},
                kind="stat",
            ),
            Panel(
                "Overdue",
                "Studies that were to be read by now.",
                {"": f"max (pneumoserve_console_studies_overdue{{{HERE}}})"},
                kind="stat",
            ),
            Panel(
                "Age of the oldest study",
                "Nothing is shown where none waits.",
                {"": _age("pneumoserve_console_oldest_study_seconds")},
                "s",
                "stat",
            ),
            Panel(
                "Requests",
                "Requests of the console a second, by status.",
                {"{{status}}": _rate("pneumoserve_console_requests_total", "status", HERE)},
                "reqps",
            ),
            Panel(
                "Pages that failed",
                "Requests a second that ended with 500 or more, by page.",
                {"{{page}}": _rate("pneumoserve_console_requests_total", "page", f'{HERE},status=~"5.."')},
                "reqps",
            ),
            Panel(
                "Behind the archive",
                "Since the archive was last followed. What came later nobody is told of, or given to read.",
                {
                    "alert sender": _age("pneumoserve_alerts_last_look_seconds", "max"),
                    "console": _age("pneumoserve_console_followed_seconds", "max"),
                },
                "s",
            ),
        ),
    },
)


def _estimate(figure: str) -> dict[str, str]:
    """A figure of each release with its interval."""
    return {"{{release}} {{bound}}": f'max by (release, bound) (pneumoserve_estimate{{{HERE},figure="{figure}"}})'}


QUALITY: Final = Dashboard(
    "pneumoserve: how often it is right",
    "What blind readings say of each release. Without enough of them nothing is shown.",
    {
        "Estimates, each with its 95 % interval": (
            Panel(
                "Sensitivity of the product",
                "Of 100 sick patients, so many are found.",
                _estimate("product_sensitivity"),
                "percentunit",
            ),
            Panel(
                "Specificity of the product",
                "Of 100 well patients, so many are confidently called normal.",
                _estimate("product_specificity"),
                "percentunit",
            ),
            Panel("Prevalence", "Of 100 patients, so many are sick.", _estimate("prevalence"), "percentunit"),
        ),
        "What they rest on": (
            Panel(
                "Readings",
                "Studies that count and were read blind.",
                {"{{release}}": f"max by (release) (pneumoserve_estimate_readings{{{HERE}}})"},
            ),
            Panel(
                "Assumed prevalence",
                "The share of sick patients that a release's probabilities assume.",
                {"{{release}}": f"max by (release) (pneumoserve_assumed_prevalence{{{HERE}}})"},
                "percentunit",
            ),
            Panel(
                "Age of the estimates",
                "They are made each hour.",
                {"": _age("pneumoserve_estimated_seconds", "max")},
                "s",
            ),
        ),
    },
)

INTAKE: Final = Dashboard(
    "pneumoserve: DICOM intake",
    "What a PACS sends, what becomes of it, and who gets the results.",
    {
        "Objects": (
            Panel(
                "Objects",
                "Objects a second by the DICOM status of the answer; 0000 is success.",
                {"{{status}}": _rate("pneumoserve_intake_objects_total", "status", HERE)},
                "reqps",
            ),
            Panel(
                "Seconds until an object is durable",
                "Only then its sender is told success.",
                _quantiles("pneumoserve_intake_store_seconds", "", HERE, (0.5, 0.95)),
                "s",
            ),
            Panel(
                "Rejected associations",
                "An hour, by reason.",
                {
                    "{{reason}}": "sum by (reason) "
                    f"(increase(pneumoserve_intake_associations_rejected_total{{{HERE}}}[1h]))"
                },
            ),
            Panel(
                "What became of objects",
                "An hour: answered, unreadable, expired, or why they are not read.",
                {"{{outcome}}": f"sum by (outcome) (increase(pneumoserve_intake_outcomes_total{{{HERE}}}[1h]))"},
            ),
        ),
        "Studies and results": (
            Panel(
                "Studies that wait",
                "Studies that have objects in the spool.",
                {"": f"max (pneumoserve_intake_studies_waiting{{{HERE}}})"},
            ),
            Panel(
                "Studies that failed",
                "A person must look at them: `pneumoserve intake list`.",
                {"": f"max (pneumoserve_intake_studies_failed{{{HERE}}})"},
            ),
            Panel(
                "Results",
                "Tries an hour to send a result, by destination and outcome.",
                {
                    "{{destination}} {{outcome}}": "sum by (destination, outcome) "
                    f"(increase(pneumoserve_intake_results_total{{{HERE}}}[1h]))"
                },
            ),
            Panel(
                "Behind the spool",
                "Since the spool was last looked at.",
                {"": _age("pneumoserve_intake_last_look_seconds", "max")},
                "s",
            ),
        ),
    },
)

DASHBOARDS: Final = {"service": SERVICE, "archive": ARCHIVE, "people": PEOPLE, "quality": QUALITY, "intake": INTAKE}


def format_dashboard(name: str, dashboard: Dashboard) -> str:
    """The JSON that Grafana reads, one panel a line."""
    panels = ",\n".join(json.dumps(panel, ensure_ascii=False) for panel in _place(dashboard))
    head = {
        "uid": f"pneumoserve-{name}",
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["pneumoserve"],
        "schemaVersion": 38,
        "editable": False,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
    }
    return json.dumps(head, indent=1, ensure_ascii=False)[:-2] + f',\n "panels": [\n{panels}\n ]\n}}\n'


def _variables() -> list[dict[str, Any]]:
    several = {
        "type": "query",
        "datasource": _SOURCE,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "refresh": 2,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
    return [
        {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"},
        {**several, "name": "namespace", "query": "label_values(pneumoserve_build_info, namespace)"},
        {**several, "name": "release", "query": f"label_values(pneumoserve_calls_total{{{HERE}}}, release)"},
    ]


def _place(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Rows below each other; the panels of a row from left to right."""
    placed: list[dict[str, Any]] = []
    top = 0
    for heading, panels in dashboard.rows.items():
        row = {"type": "row", "title": heading, "collapsed": False, "panels": []}
        placed.append({"id": len(placed) + 1, **row, "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1}})
        left, top, height = 0, top + 1, 0
        for panel in panels:
            width, tall = panel.size
            if left + width > _COLUMNS or (height and tall != height):
                left, top = 0, top + height
            height = tall
            at = {"x": left, "y": top, "w": width, "h": tall}
            placed.append({"id": len(placed) + 1, **_panel(panel), "gridPos": at})
            left += width
        top += height
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend or "__auto"}
        for number, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }


def generate(_: Path) -> Files:
    """The files of all dashboards."""
    return {FOLDER / f"{name}.json": format_dashboard(name, dashboard) for name, dashboard in DASHBOARDS.items()}


GENERATOR: Final = Generator("Grafana's dashboards in the chart", generate, owned=(f"{FOLDER}/*.json",))
