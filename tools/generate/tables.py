"""Tables of measured figures, in the page of docs/ that has their place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pneumoserve.monitoring import MEANINGS
from tools.generate.generator import Files, Generator
from tools.generate.places import markers, replace_place

# Result file, what was measured, and the figures to show.
_BENCHMARKS: Final[list[tuple[str, str, str]]] = [
    ("commit", "throughput lost by having every call on record (goal: at most 3 %)",
     "{throughput_lost_percent} % ({calls_per_second_with_archive} calls a second with, "
     "{calls_per_second_without} without)"),
    ("commit", "added to a single caller's median call (goal: at most a PUT's median + 2 ms)",
     "{p50_ms_added} ms; a PUT's median is {store_put_p50_ms} ms"),
    ("outage", "records lost while the store was away and a front was killed meanwhile (goal: 0)",
     "{records_lost} of {answered} in {seconds_away} s; the front took {front_mebibytes_at_most} MiB at most, "
     "{front_mebibytes_before} before"),
    ("kills", "answered calls without a record, fronts killed at random moments under load (goal: 0)",
     "{answered_without_record} of {answered}, {kills} kills"),
    ("alerts", "95 % of alerts were taken by a webhook so soon after their answer (goal: 2 s)",
     "{seconds_p95} s (median {seconds_p50} s); {lost} of {alerts} lost"),
    ("alerts", "the front's own CPU time a call with hints on, and nobody named, against without (goal: 1.02)",
     "{cpu_ratio_hints}; {cpu_ratio_names} where each call names a practitioner"),
    ("verify", "records that `archive verify` gets through in a minute, sealed roll-ups alone (goal: 100,000)",
     "{sealed_rollups_alone[records_per_minute]:,}"),
    ("scale", "time to count an export of 1,000,000 records for `pneumoserve metrics` (goal: 10 s, memory bounded)",
     "{seconds} s; {peak_mebibytes} MiB at most, "
     "{little_memory_peak_mebibytes} MiB with DuckDB held to {little_memory_limit}"),
    ("replay", "mismatches in a replay of 1,000 predictions (goal: 0)",
     "{mismatches}; {equal_bit_for_bit} equal bit for bit"),
]  # fmt: skip
_INTAKE: Final[list[tuple[str, str, str]]] = [
    ("intake", "95 % of CR objects of 7 MB are acknowledged so soon (goal: 150 ms)",
     "{success_p95_ms} ms (median {success_p50_ms} ms); intake's own processor time is {success_intake_cpu_ms} ms"),
    ("intake", "95 % of reports are in Orthanc so soon after a study's last object and the quiet time (goal: 2 s)",
     "{report_after_quiet_p95_seconds} s (median {report_after_quiet_p50_seconds} s)"),
    ("intake", "X-rays taken over four associations, against those that four callers of REST have answered "
     "(goal: 0.95)",
     "{taken_by_rest}: {dicom_taken_per_second} a second by DICOM, {rest_answered_per_second} by REST"),
    ("intake", "the same until the PACS has all reports",
     "{reported_by_rest}: {dicom_reported_per_second} a second"),
    ("intake", "processor time of all processes for each of them, by DICOM with its report",
     "{dicom_cpu_ms} ms by DICOM, {rest_cpu_ms} ms by REST"),
    ("intake", "memory of intake while that went on (goal: flat)",
     "{intake_mebibytes[0]} MiB before, {intake_mebibytes[4]} MiB after, {intake_mebibytes_at_most} MiB at most"),
]  # fmt: skip
_METRICS: Final = ("sensitivity", "specificity", "PPV", "NPV")
_EXPERIMENTS: Final = ("detector_auc", "detector_sensitivity", "detector_specificity", "typer_auc", "typer_accuracy")


def _generate(name: str, format_table: Callable[[Path, Path], str]) -> Callable[[Path], Files]:
    def generate(root: Path) -> Files:
        start, _ = markers(name)
        (page,) = [path for path in (root / "docs").rglob("*.md") if start in path.read_text()]
        text = replace_place(page.read_text(), name, format_table(root, page.parent))
        return {page.relative_to(root): text}

    return generate


def format_benchmarks(root: Path, folder: Path) -> str:
    """The table of benchmarks' results, for a page in that folder."""
    return _format_results(_BENCHMARKS, root, folder)


def format_intake(root: Path, folder: Path) -> str:
    """The same of those of DICOM intake."""
    return _format_results(_INTAKE, root, folder)


def _format_results(rows: list[tuple[str, str, str]], root: Path, folder: Path) -> str:
    lines = [_row(["what", "measured", "by"]), _row(["---"] * 3)]
    for name, what, figures in rows:
        file = root / "benchmarks" / f"{name}.json"
        result = json.loads(file.read_text())
        by = f"`{result['command']}`, {result['cores']} cores ({_link('result', file, folder)})"
        lines.append(_row([what, figures.format(**result), by]))
    return "\n".join(lines) + "\n"


def format_metrics(root: Path, folder: Path) -> str:
    """The table of the simulation of `pneumoserve metrics`, for a page in that folder."""
    file = root / "benchmarks" / "metrics.json"
    result = json.loads(file.read_text())
    heads = ("true sensitivity", "readings", "studies a patient", "draw", *_METRICS)
    lines = [_row([*heads]), _row(["---"] * len(heads))]
    for cell in result["cells"]:
        figures = [cell["figures"][f"product_{name.lower()}"] for name in _METRICS]
        shown = [
            f"{each['coverage']:.1%}, {each['median_width']:.3f} ({each['naive_coverage']:.1%})" for each in figures
        ]
        world = (
            f"{cell['true_sensitivity']:.2f}",
            f"{cell['readings']:,}",
            str(cell["studies_a_patient"]),
            cell["draw"],
        )
        lines.append(_row([*world, *shown]))
    by = f"`{result['command']}`, {result['runs']:,} runs ({_link('result', file, folder)})"
    return "\n".join(lines) + f"\n\nBy {by}.\n"


def format_readers(root: Path, _folder: Path) -> str:
    """What a sensitivity looks like to readers who err, by the same simulation."""
    result = json.loads((root / "benchmarks" / "metrics.json").read_text())
    lines = [_row(["each reader's sensitivity", "and specificity", "read by", "shows"]), _row(["---"] * 4)]
    for each in result["readers"]:
        reader = (f"{each['reader_sensitivity']:.2f}", f"{each['reader_specificity']:.3f}")
        lines.append(_row([*reader, each["read_by"], f"{each['mean_shown_sensitivity']:.3f}"]))
    return "\n".join(lines) + "\n"


def format_drift(root: Path, folder: Path) -> str:
    """How often drift alarms, falsely and after a change, for a page in that folder."""
    file = root / "benchmarks" / "drift.json"
    result = json.loads(file.read_text())
    false = result["false_alarms"]
    lines = [_row(["what changed", "windows that alarm", "of these, *images* is named"]), _row(["---"] * 3)]
    lines.append(_row(["nothing", f"{false['rate']:.2%} of {false['windows']:,}", ""]))
    for name, found in result["changes"].items():
        lines.append(_row([name, f"{found['alarms']:.0%}", f"{found['named_images']:.0%}" if found["alarms"] else ""]))
    by = f"`{result['command']}` ({_link('result', file, folder)})"
    spread = f"The baseline that alarms falsely most often does so in {false['worst_baseline']:.0%} of its windows."
    return "\n".join(lines) + f"\n\n{spread}\nBy {by}.\n"


def format_traces(root: Path, folder: Path) -> str:
    """What traces cost, for a page in that folder."""
    file = root / "benchmarks" / "traces.json"
    result = json.loads(file.read_text())
    heads = ("calls that are traced", "processor time of a call's spans", "share of a call's", "throughput lost")
    lines = [_row([*heads]), _row(["---"] * len(heads))]
    for name, words in (("off", "none"), ("tenth", "a tenth"), ("all", "all")):
        each, lost = result[name], ""
        if name != "off":
            low, high = each["throughput_lost_percent_95"]
            lost = f"{each['throughput_lost_percent']} % ({low} to {high})"
        share = f"{each['spans_percent_of_a_call']} %"
        lines.append(_row([words, f"{each['spans_cpu_ms_per_call']:.3f} ms", share, lost]))
    call = f"A call took {result['cpu_ms_of_a_call_in_all_processes']} ms of all processes."
    return "\n".join(lines) + f"\n\n{call}\nBy `{result['command']}` ({_link('result', file, folder)}).\n"


def format_meanings(_root: Path, _folder: Path) -> str:
    """What each figure of `pneumoserve metrics` says."""
    rows = [_row([meaning.name, meaning.sentence]) for meaning in MEANINGS.values()]
    return "\n".join([_row(["figure", "what it says"]), _row(["---"] * 2), *rows]) + "\n"


def format_experiments(root: Path, folder: Path) -> str:
    """The table of all training runs on record, for a page in that folder."""
    heads = ("held out", "batches", "normal images", "detector AUC", "sensitivity", "specificity", "typer AUC")
    lines = [_row([*heads, "typer accuracy", "by"]), _row(["---"] * (len(heads) + 2))]
    runs = [(json.loads(file.read_text()), file) for file in (root / "training" / "experiments").glob("run-*.json")]
    for run, file in sorted(runs, key=lambda each: _order(each[0])):
        hold_out, share = run["parameters"]["hold_out"], run["parameters"]["mix"]["normal"]
        group, shown = ("calibration", "nothing: the calibration fold") if hold_out == "none" else (hold_out, hold_out)
        figures = [_cell(run["metrics"].get(f"{group}/{figure}")) for figure in _EXPERIMENTS]
        by = f"`{run['command']}` ({_link('result', file, folder)})"
        lines.append(_row([shown, str(run["parameters"]["steps"]), f"{share:.0%}", *figures, by]))
    return "\n".join(lines) + "\n"


def _order(run: dict[str, Any]) -> tuple[int, str]:
    """The longest trained first, then by what they held out."""
    return -run["parameters"]["steps"], run["parameters"]["hold_out"]


def _link(text: str, file: Path, folder: Path) -> str:
    return f"[{text}]({os.path.relpath(file, folder)})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(metric: dict[str, float] | None) -> str:
    return "" if metric is None else f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"


BENCHMARKS: Final = Generator("the table of benchmarks/*.json", _generate("benchmarks", format_benchmarks))
EXPERIMENTS: Final = Generator(
    "the table of training/experiments/run-*.json", _generate("experiments", format_experiments)
)
INTAKE: Final = Generator("the table of benchmarks/intake*.json", _generate("intake", format_intake))
DRIFT: Final = Generator("the table of benchmarks/drift.json", _generate("drift", format_drift))
TRACES: Final = Generator("the table of benchmarks/traces.json", _generate("traces", format_traces))
MEANINGS_TABLE: Final = Generator("what each metric says", _generate("meanings", format_meanings))
READERS: Final = Generator("the table of readers who err", _generate("readers", format_readers))
METRICS: Final = Generator("the table of benchmarks/metrics.json", _generate("metrics", format_metrics))
