"""Whether the intervals of `pneumoserve metrics` hold the truth as often as they say; writes metrics.json beside it.

Run it with `python -m benchmarks.metrics`. It makes 2,000 runs of a service whose truth is known (tests/support/
simulation.py): 20,000 studies, 1 % of them sick, the product's own referral, draw and estimate. Goals: each interval
holds the truth in at least 94 % of the runs that show it, and its median width is at most 1.25 times that of the melded
interval. Other arms: every confident answer drawn with one probability, and readers who err. The pictures of
docs/explanation/metrics.md come of it too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.bench import ROOT, console, publish
from pneumoserve.monitoring import measure
from tests.support.simulation import (
    FIGURES,
    World,
    answer_all,
    count,
    covers_of,
    numbers_of,
    read_by_rule,
    read_once,
    simulate_run,
)

RUNS: Final = 2_000
READER_RUNS: Final = 200
GOAL_COVERAGE: Final = 0.94
SENSITIVITIES: Final = (0.90, 0.98)
READINGS: Final = (500, 4_000)
PICTURES: Final = ROOT / "docs" / "images"
# Mean logits of the well with which 17 % of them are referred or called sick, and 45 %, as on films of another source.
_FEW_FLAGGED, _MANY_FLAGGED = -3.07, -1.91
_READERS: Final = ((0.9, 0.98), (0.9, 0.995))


def worlds() -> list[World]:
    """Those that are judged by the goals, then those whose draw is even."""
    judged = [World(sensitivity, each=each) for each in (1, 2) for sensitivity in SENSITIVITIES]
    return judged + [World(sensitivity, even=True, well=_FEW_FLAGGED) for sensitivity in SENSITIVITIES]


def simulate() -> list[dict[str, Any]]:
    """Every world with each number of readings."""
    cells = [(world, readings, covers_of(world)) for world in worlds() for readings in READINGS]
    for run in range(RUNS):
        if run % 50 == 0:
            console.print(f"run {run} of {RUNS}")
        number = numbers_of(cells[0][0], run)
        for world, readings, covers in cells:
            simulate_run(world, run, number, readings, covers)
    return [
        {
            "true_sensitivity": world.sensitivity,
            "readings": readings,
            "studies_a_patient": world.each,
            "draw": "even" if world.even else "product",
            "figures": {name: cover.summarise() for name, cover in covers.items()},
        }
        for world, readings, covers in cells
    ]


def read_by_people() -> list[dict[str, Any]]:
    """What the product's sensitivity of .98 looks like to readers who err."""
    world, found = World(0.98, well=_MANY_FLAGGED), []
    for sensitivity, specificity in _READERS:
        for rule, read in (("one reader", read_once), ("the reading room's rule", read_by_rule)):
            values = []
            for run in range(READER_RUNS):
                random = np.random.default_rng((run, 7))
                studies = answer_all(world, random, random.random(world.studies))
                said = read(studies.sick, random, sensitivity, specificity)
                figure = measure(count(world, studies, 4_000, said)).observed["product_sensitivity"]
                if figure.interval is not None:
                    values.append(figure.interval.value)
            found.append(
                {
                    "reader_sensitivity": sensitivity,
                    "reader_specificity": specificity,
                    "read_by": rule,
                    "true_sensitivity": float(world.truth["product_sensitivity"]),
                    "mean_shown_sensitivity": round(float(np.mean(values)), 4),
                }
            )
    return found


def judge(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The goals, over all cells that are judged."""
    judged = [each for each in cells if each["draw"] == "product"]
    coverages = [figure["coverage"] for each in judged for figure in each["figures"].values()]
    return {
        "judged": len(coverages),
        "goal_coverage": GOAL_COVERAGE,
        "smallest_coverage": min(coverages),
        "cells_below_goal": sum(each < GOAL_COVERAGE for each in coverages),
        "smallest_naive_coverage": min(
            figure["naive_coverage"] for each in judged for figure in each["figures"].values()
        ),
        "fewest_shown": min(figure["shown"] for each in judged for figure in each["figures"].values()),
    }


# --- pictures


def draw_coverage(cells: list[dict[str, Any]], file: Path) -> None:
    """How often each interval held the truth, the naive one beside it."""
    judged = [each for each in cells if each["draw"] == "product"]
    names = [name.removeprefix("product_") for name in FIGURES]
    figure, axes = plt.subplots(1, len(FIGURES), figsize=(9, 3.4), sharey=True)
    for axis, name, title in zip(axes, FIGURES, names, strict=True):
        rows = [f"{each['true_sensitivity']:.2f}, {each['readings']:,}, {each['studies_a_patient']}" for each in judged]
        places = range(len(rows))
        axis.axvline(95, color="0.6", linewidth=0.8)
        axis.plot([100 * each["figures"][name]["naive_coverage"] for each in judged], places, "x", color="#b5482a")
        axis.plot([100 * each["figures"][name]["coverage"] for each in judged], places, "o", color="#1f5f8b")
        axis.set_title(title.upper() if len(title) == 3 else title, fontsize=10)
        axis.set_xlim(-4, 104)
        axis.set_yticks(list(places), rows, fontsize=8)
        axis.set_xlabel("holds the truth, %", fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("true sensitivity, readings, studies a patient", fontsize=8)
    figure.tight_layout()
    _save(figure, file)


def draw_prevalence(cells: list[dict[str, Any]], file: Path) -> None:
    """How predictive values hang on prevalence, where sensitivity and specificity stay the same."""
    truth = {name: each["truth"] for name, each in cells[2]["figures"].items()}
    sensitivity, specificity = truth["product_sensitivity"], truth["product_specificity"]
    p = np.logspace(-3, np.log10(0.6), 100)
    ppv = p * sensitivity / (p * sensitivity + (1 - p) * (1 - specificity))
    npv = (1 - p) * specificity / ((1 - p) * specificity + p * (1 - sensitivity))
    figure, axis = plt.subplots(figsize=(5.6, 3.2))
    axis.semilogx(100 * p, 100 * ppv, color="#b5482a", label="PPV: called sick, and sick")
    axis.semilogx(100 * p, 100 * npv, color="#1f5f8b", label="NPV: called normal, and well")
    axis.semilogx(100 * p, 100 * (1 - p), "--", color="0.5", label="accuracy of “always normal”")
    axis.set_xticks([0.1, 1, 10, 50], ["0.1", "1", "10", "50"])
    axis.set_xlabel("prevalence, %")
    axis.set_ylabel("%")
    axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    matplotlib.rcParams["svg.hashsalt"] = "pneumoserve"
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def draw(result: dict[str, Any]) -> None:
    """Both pictures of a result."""
    draw_coverage(result["cells"], PICTURES / "metrics-coverage.svg")
    draw_prevalence(result["cells"], PICTURES / "metrics-prevalence.svg")


def main() -> None:
    """Simulate, judge, write and draw."""
    cells = simulate()
    publish(
        "metrics",
        "python -m benchmarks.metrics",
        {"runs": RUNS, **judge(cells), "cells": cells, "readers": read_by_people()},
    )
    draw(json.loads((ROOT / "benchmarks" / "metrics.json").read_text()))


if __name__ == "__main__":
    main()
