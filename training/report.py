"""The report of a run: pictures, and report.md around them, for whoever must decide whether to believe it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from pneumoserve.canonical import canonical_json
from pneumoserve.decision import Policy
from pneumoserve.release.card import SITE, metric_rows, prevalence_rows, recalibration_in_words, type_evidence, worst_of
from pneumoserve.release.data import LabelledFilm, nameless
from pneumoserve.release.schema import Metric, RunFacts
from training.audit import Audit
from training.dataset import CLASSES
from training.fit import (
    Bools,
    Floats,
    Verdicts,
    ece,
    ece_of_perfection,
    is_referred,
    sigmoid,
    slope_and_intercept,
    weigh_classes,
)
from training.policy import ALARMED_CONFIDENTLY, MISSED_CONFIDENTLY
from training.scores import Scores, auc
from training.type_band import WRONG_TYPES, StatedTypes, trade_off
from training.weighted import trace_weighted_roc, weighted_auc

mpl.use("Agg")
from matplotlib import pyplot as plt

Curves = Mapping[str, tuple[Bools, npt.NDArray[Any]]]
History = dict[str, list[Any]]

# Sections that the band of the type has no part in.
_WITHOUT_TYPES: Final = ("Calibration", "Shortcuts", "What is no upright chest film")
_SHOWN_PROBABILITIES: Final = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_RATES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)


def draw(folder: Path, facts: RunFacts, groups: dict[str, Scores], audit: Audit | None, history: History) -> None:
    """The report of a run whose scores are calibrated logits, by the set they belong to.

    Training curve, ROC, precision-recall, calibration, confusion, trade-off of the referral bands; and of an audit the
    shifts, the gate and what covering parts of films does. `report.md` says what each shows, `history.json` has the
    numbers of the training curve.
    """
    folder.mkdir(exist_ok=True)
    (folder / "history.json").write_bytes(canonical_json(history))
    _draw_curve(folder / "training.png", history)
    curves = {}
    for name, scores in groups.items():
        curves[f"detector, {name}"] = (scores.sick, scores.detector)
        curves[f"typer, {name}"] = (scores.bacterial[scores.sick], scores.typer[scores.sick])
    draw_roc(folder / "roc.png", curves, f"run {facts.training.run_id}: ROC")
    _draw_precision(folder / "precision-recall.png", curves)
    _draw_calibration(folder / "calibration.png", _predictions(groups))
    _draw_trade_off(folder / "trade-off.png", groups, facts.policy)
    _draw_types(folder / "types.png", groups, facts.policy)
    shown = next(reversed(groups.values()))
    draw_confusion(folder / "confusion.png", shown, answers(facts.policy, shown))
    if audit is not None:
        _draw_shifts(folder / "shifts.png", facts, audit)
        _draw_gate(folder / "gate.png", facts.policy, audit)
        _draw_occlusion(folder / "occlusion.png", audit)
    _write(folder, facts, _sections(facts, groups, [*groups], audit))


def redraw_types(folder: Path, facts: RunFacts, groups: dict[str, Scores], sets: Sequence[str]) -> None:
    """What of a report hangs on the band of the type, drawn anew from the scores that there are.

    `groups` are as in `draw`; `sets` all that have figures, also those without scores.
    """
    _draw_types(folder / "types.png", groups, facts.policy)
    _, *before = (folder / "report.md").read_text(encoding="utf-8").split("\n## ")
    kept = dict(section.split("\n", 1) for section in before)
    sections = _sections(facts, groups, sets, None)
    _write(folder, facts, sections | {title: kept[title] for title in _WITHOUT_TYPES if title in kept})


def draw_site_report(folder: Path, facts: RunFacts, verdicts: Verdicts, before: Mapping[str, Metric]) -> None:
    """The report of a recalibration: its cross-fitted verdicts, beside figures of the earlier policy on those films.

    Raises:
        ValueError: the facts are of no recalibration.
    """
    if facts.recalibration is None:
        raise ValueError("only a recalibration has such a report")
    folder.mkdir()
    scores = verdicts.scores
    names = [name.removeprefix(f"{SITE}/") for name in facts.metrics]
    sections = {
        "What was fitted": [recalibration_in_words(facts.recalibration), "", facts.policy.why],
        "Figures, cross-fitted": [
            "`before` is the earlier policy on the same films. Intervals: 95 %, by patient. Not cleared, not for "
            "clinical use.",
            "",
            "| figure | value | from | to | films | before | from | to |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_beside(name, facts.metrics[f"{SITE}/{name}"], before.get(f"before/{name}")) for name in names),
        ],
        "At the prevalence where it is used": prevalence_rows(facts.metrics, SITE),
    }
    if facts.recalibration.drawn == "weighted":
        error = ece(sigmoid(scores.detector), scores.sick, balanced=True, counts=scores.weights)
        sections["Calibration"] = [
            f"Films count by their weights. The detector's ECE is {error:.4f}, both classes weighing the same. What is "
            "left out would count each film once: the ECE of a perfect model, the type's calibration, and answers by "
            "threshold.",
            "",
            "![ROC](roc.png) ![calibration](calibration.png)",
        ]
        _draw_weighted(folder, scores)
    else:
        sections["Calibration"] = [
            "| | ECE | of a perfect model | slope | intercept |",
            "| --- | --- | --- | --- | --- |",
            *_calibration_rows({SITE: scores}),
            "",
            "![ROC](roc.png) ![calibration](calibration.png) ![answers by threshold](confusion.png)",
        ]
        _draw_site(folder, facts, verdicts)
    written = [f"## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections.items()]
    (folder / "report.md").write_text("\n".join(["# Report of a recalibration\n", *written]), encoding="utf-8")


def _draw_site(folder: Path, facts: RunFacts, verdicts: Verdicts) -> None:
    scores = verdicts.scores
    draw_roc(folder / "roc.png", {"detector, cross-fitted": (scores.sick, scores.detector)}, "films of the site: ROC")
    _draw_calibration(folder / "calibration.png", _predictions({SITE: scores}))
    given = np.where(verdicts.called, np.where(sigmoid(scores.typer) >= facts.policy.typer_threshold, 1, 2), 0)
    draw_confusion(folder / "confusion.png", scores, given)


def _draw_weighted(folder: Path, scores: Scores) -> None:
    """ROC and calibration of the detector, of films that stand for several each."""
    sick, predicted, counts = scores.sick, sigmoid(scores.detector), scores.weights
    curve = trace_weighted_roc(sick, predicted, counts)
    name = f"detector, cross-fitted  AUC {weighted_auc(sick, predicted, counts):.3f}"
    _plot_roc(folder / "roc.png", {name: curve}, "films of the site by weight: ROC")
    weights = weigh_classes(sick, counts)
    _draw_calibration(folder / "calibration.png", {f"detector, {SITE}, by weight": (sick, predicted, weights)})


def _beside(name: str, site: Metric, before: Metric | None) -> str:
    earlier = f"{before.value} | {before.low} | {before.high}" if before else "- | - | -"
    return f"| {name} | {site.value} | {site.low} | {site.high} | {site.n} | {earlier} |"


def _write(folder: Path, facts: RunFacts, sections: Mapping[str, str]) -> None:
    parts = [f"# Report of run {facts.training.run_id}\n", *(f"## {title}\n{text}" for title, text in sections.items())]
    (folder / "report.md").write_text("\n".join(parts), encoding="utf-8")


def answers(policy: Policy, scores: Scores) -> npt.NDArray[np.int64]:
    """What is answered for films of calibrated logits by the thresholds alone: places in `CLASSES`."""
    pneumonia = sigmoid(scores.detector) >= policy.detector_threshold
    return np.where(pneumonia, np.where(sigmoid(scores.typer) >= policy.typer_threshold, 1, 2), 0)


def _save(path: Path, figure: Any) -> None:
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _draw_curve(path: Path, history: History) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    loss = np.array(history["loss"])
    width = max(1, min(25, len(loss) // 4))
    left.plot(np.convolve(loss, np.ones(width) / width, mode="valid"))
    left.set(title="loss (running mean)", xlabel="step")
    for name in ("detector_auc", "typer_auc"):
        right.plot([c["step"] for c in history["checks"]], [c[name] for c in history["checks"]], marker="o", label=name)
    right.set(title="films that do not train", xlabel="step")
    right.legend()
    _save(path, figure)


def draw_roc(path: Path, curves: Curves, title: str) -> None:
    """ROC curves with their areas; a curve whose films are all of one class is left out."""
    drawn = {}
    for name, (labels, values) in _of_two_classes(curves).items():
        false_rate, true_rate, _ = binary_roc(*_tensors(labels, values))
        drawn[f"{name}  AUC {auc(labels, values):.3f}"] = (false_rate, true_rate)
    _plot_roc(path, drawn, title)


def _plot_roc(path: Path, curves: Mapping[str, tuple[Any, Any]], title: str) -> None:
    """Curves of false and true rates, by what the legend says of them."""
    figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    for name, rates in curves.items():
        axes.plot(*rates, label=name)
    axes.set(title=title, xlabel="1 - specificity", ylabel="sensitivity")
    _legend(axes)
    _save(path, figure)


def _draw_precision(path: Path, curves: Curves) -> None:
    figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    for name, (labels, values) in _of_two_classes(curves).items():
        precision, recall, _ = binary_precision_recall_curve(*_tensors(labels, values))
        axes.plot(recall, precision, label=f"{name}  ({labels.mean():.0%} positive)")
    axes.set(title="precision and recall, at the share of these films", xlabel="recall", ylabel="precision")
    _legend(axes)
    _save(path, figure)


def _draw_calibration(path: Path, predictions: Mapping[str, tuple[Bools, Floats, Floats]]) -> None:
    figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1)
    for name, (labels, predicted, weights) in predictions.items():
        if labels.all() or not labels.any():
            continue
        edges = np.quantile(predicted, np.linspace(0, 1, 9)[1:-1])
        bins = np.searchsorted(edges, predicted)
        points = [
            (np.average(predicted[here], weights=weights[here]), np.average(labels[here], weights=weights[here]))
            for here in (bins == number for number in range(8))
            if here.any()
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(title="calibration, eighths of the films", xlabel="stated probability", ylabel="share with the label")
    _legend(axes)
    _save(path, figure)


def _predictions(groups: dict[str, Scores]) -> dict[str, tuple[Bools, Floats, Floats]]:
    """Labels, probabilities and weights of both models in each set; the detector's classes weigh the same."""
    found = {}
    for name, scores in groups.items():
        sick = scores.sick
        share = float(np.clip(sick.mean(), 1e-9, 1 - 1e-9))
        found[f"detector, {name}"] = (sick, sigmoid(scores.detector), np.where(sick, 0.5 / share, 0.5 / (1 - share)))
        kind = scores.bacterial[sick]
        found[f"typer, {name}"] = (kind, sigmoid(scores.typer[sick]), np.ones(len(kind)))
    return found


def _draw_trade_off(path: Path, groups: dict[str, Scores], policy: Policy) -> None:
    """Films referred for their finding against the two rates that the bands allow."""
    figure, both = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for name, scores in groups.items():
        predicted, sick = sigmoid(scores.detector), scores.sick
        if sick.all() or not sick.any():
            continue
        low, high = policy.detector_band.low, policy.detector_band.high
        lows = np.quantile(predicted[sick], _RATES)
        highs = np.quantile(predicted[~sick], 1 - np.array(_RATES))
        referred = [float(((predicted >= value) & (predicted < max(high, value))).mean()) for value in lows]
        both[0].plot(_RATES, referred, marker="o", label=name)
        referred = [float(((predicted >= min(low, value)) & (predicted < value)).mean()) for value in highs]
        both[1].plot(_RATES, referred, marker="o", label=name)
    for axes, xlabel, chosen in (
        (both[0], "pneumonias confidently normal", MISSED_CONFIDENTLY),
        (both[1], "normals confidently pneumonia", ALARMED_CONFIDENTLY),
    ):
        axes.axvline(chosen, color="gray", linewidth=1)
        axes.set(xscale="log", xlabel=xlabel, title="the other bound as chosen")
    both[0].set(ylabel="referred for their finding")
    _legend(both[0])
    _save(path, figure)


def _draw_types(path: Path, groups: dict[str, Scores], policy: Policy) -> None:
    """The share of types that are stated against how many of them are wrong."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, scores in groups.items():
        if name != "calibration":
            left.plot(*_shares_and_rates([*trade_off(policy, scores)]), linewidth=1, label=name)
    points = [*trade_off(policy, groups["calibration"])]
    if points:
        shares, rates = _shares_and_rates(points)
        left.plot(shares, rates, color="black", marker=".", label="calibration fold, by patient")
        left.fill_between(
            shares,
            *zip(*(each.interval for each in points), strict=True),
            color="gray",
            alpha=0.25,
            label="95 % interval",
        )
        left.plot(shares, [each.bound for each in points], color="black", linestyle=":", label="one-sided 95 % bound")
        for kind, mask in (("bacterial", points[0].bacterial), ("viral", ~points[0].bacterial)):
            there = [each for each in points if (each.stated & mask).any()]
            shown = [float(each.wrong[each.stated & mask].mean()) for each in there]
            right.plot([each.least for each in there], shown, marker=".", label=f"stated {kind}")
    left.axhline(WRONG_TYPES, color="tab:red", linewidth=1, label=f"at most {WRONG_TYPES:.0%}, by the bound")
    chosen = next((each for each in points if each.band == policy.typer_band), None)
    if chosen is not None:
        left.axvline(chosen.share, color="tab:red", linewidth=1, linestyle="--", label="chosen")
        right.axvline(chosen.least, color="tab:red", linewidth=1, linestyle="--", label="chosen")
    left.set(
        xlabel="share of types that are stated",
        ylabel="share of stated types that are wrong",
        ylim=(0, 0.5),
        xlim=(0, 1),
    )
    right.set(xlabel="least probability of a stated type", ylabel="wrong, by image", ylim=(0, 0.5))
    for axes in (left, right):
        _legend(axes)
    _save(path, figure)


def _shares_and_rates(points: Sequence[StatedTypes]) -> tuple[list[float], list[float]]:
    return [each.share for each in points], [each.rate for each in points]


def _type_rows(policy: Policy, scores: Scores) -> list[str]:
    return [
        f"| {each.least}{' (chosen)' if each.band == policy.typer_band else ''} | {each.share:.0%} | {each.patients} "
        f"| {each.rate:.3f} | {each.interval[0]:.3f} | {each.interval[1]:.3f} | {each.bound:.3f} "
        f"| {each.count(each.bacterial)} | {each.count(~each.bacterial)} |"
        for each in trade_off(policy, scores)
        if each.least in _SHOWN_PROBABILITIES or each.band == policy.typer_band
    ]


def draw_confusion(path: Path, scores: Scores, given: npt.NDArray[np.int64]) -> None:
    """Films by label and answer; `given` [N] are places in `CLASSES`, by the thresholds alone, referred or not."""
    counts = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    for item, answer in zip(scores.items, given, strict=True):
        counts[CLASSES.index(item.cls), answer] += 1
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.imshow(counts, cmap="Blues", alpha=0.6)
    for (label, answer), count in np.ndenumerate(counts):
        axes.text(answer, label, str(count), ha="center", va="center")
    axes.set(title=f"{len(given)} films, by threshold", xlabel="answer", ylabel="label")
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    _save(path, figure)


def _draw_shifts(path: Path, facts: RunFacts, audit: Audit) -> None:
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    names = list(audit.shifts)
    for offset, figure_name in ((-0.15, "detector_auc_fall"), (0.15, "typer_auc_fall")):
        metrics = [facts.metrics[f"{name}/{figure_name}"] for name in names]
        values = np.array([metric.value for metric in metrics])
        spans = [
            values - [metric.low for metric in metrics],
            np.array([metric.high for metric in metrics]) - values,
        ]
        axes.errorbar(values, np.arange(len(names)) + offset, xerr=np.clip(spans, 0, None), fmt="o", label=figure_name)
    axes.axvline(0.01, color="gray", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set(title="fall of the AUC on the calibration fold, with 95 % intervals", xlabel="fall")
    axes.invert_yaxis()
    _legend(axes)
    _save(path, figure)


def _draw_gate(path: Path, policy: Policy, audit: Audit) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    rows = {"chest films": audit.plain.chest, **audit.outliers}
    axes.boxplot(list(rows.values()), orientation="horizontal", whis=(1, 99), showfliers=False)
    axes.set_yticks(range(1, len(rows) + 1), list(rows))
    threshold = np.clip(policy.chest_threshold or 0.0, 1e-9, 1 - 1e-9)
    axes.axvline(np.log(threshold / (1 - threshold)), color="gray", linewidth=1)
    axes.set(title="gate: referred left of the line (boxes: quartiles, whiskers: 1 to 99 %)", xlabel="logit")
    axes.invert_yaxis()
    _save(path, figure)


def _draw_occlusion(path: Path, audit: Audit) -> None:
    columns = 6
    rows = -(-len(audit.covered) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.2 * columns, 2.5 * rows), layout="constrained", squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for place, film in zip(axes.flat, audit.covered, strict=False):
        limit = max(float(np.abs(film.falls).max()), 1e-6)
        place.imshow(film.pixels, cmap="gray", extent=(0, 224, 224, 0))
        place.imshow(
            film.falls, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.45, extent=(8, 216, 216, 8),
            interpolation="bilinear",
        )  # fmt: skip
        place.set_title(film.item.cls, fontsize=9)
    figure.suptitle("red: covering it speaks against pneumonia; blue: for it (each film by its own scale)")
    _save(path, figure)


def _sections(facts: RunFacts, groups: dict[str, Scores], sets: Sequence[str], audit: Audit | None) -> dict[str, str]:
    """The sections of report.md by their titles; `sets` are those that have figures."""
    sections = {
        "Figures": [
            "Films that never trained. Intervals: 95 %, by bootstrap over patients. Not cleared, not for clinical use.",
            "",
            "| figure | value | from | to | films |",
            "| --- | --- | --- | --- | --- |",
            *metric_rows(facts.metrics, sets),
        ],
        "At the prevalence where it is used": prevalence_rows(facts.metrics, worst_of(facts.metrics, sets)),
        "By what is known of the films": [
            "Answers right by the thresholds alone, and films referred; the kind of name tells the part of the source.",
            "",
            "| set | label | name | films | right | referred |",
            "| --- | --- | --- | --- | --- | --- |",
            *_strata_rows(groups, facts.policy),
        ],
        "Calibration": [
            "ECE beside the one that a perfectly calibrated model would show on as many films; slope and intercept are "
            "1 and 0 where probabilities mean what they say. Both classes of the detector weigh the same.",
            "",
            "| | ECE | of a perfect model | slope | intercept |",
            "| --- | --- | --- | --- | --- |",
            *_calibration_rows(groups),
            "",
            "![ROC](roc.png) ![precision and recall](precision-recall.png) ![calibration](calibration.png)",
        ],
        "The referral band of the finding": [
            facts.policy.why,
            "",
            "![what each rate costs in referrals](trade-off.png) ![confusion](confusion.png)",
        ],
        "The referral band of the type": [
            type_evidence(facts.policy),
            "",
            "A lower probability states more types, of which more are wrong. Each patient counts once: with the share "
            "of its images that are wrong.",
            "",
            "| probability from | types stated | patients | wrong | from | to | upper bound | wrong bacterial "
            "| wrong viral |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *_type_rows(facts.policy, groups["calibration"]),
            "",
            "![types stated against types wrong](types.png)",
        ],
    }
    if audit is not None:
        sections |= {
            "Shortcuts": [
                "The calibration fold under every shift of the suite; a fall is that of the same films' AUC.",
                "",
                "| figure | value | from | to | films |",
                "| --- | --- | --- | --- | --- |",
                *metric_rows(facts.metrics, [*audit.shifts]),
                "",
                "![falls](shifts.png)",
                "",
                f"Where a gray patch of 32 px changes the detector's mind (films: {facts.data.source}):",
                "",
                "![occlusion](occlusion.png)",
            ],
            "What is no upright chest film": [
                "| figure | value | from | to | pictures |",
                "| --- | --- | --- | --- | --- |",
                *metric_rows(facts.metrics, [*audit.outliers]),
                "",
                "![gate](gate.png)",
            ],
        }
    return {title: "\n".join(["", *lines, ""]) for title, lines in sections.items()}


def _strata_rows(groups: dict[str, Scores], policy: Policy) -> list[str]:
    rows = []
    for name, scores in groups.items():
        strata = np.array([f"| {item.cls} | {_kind_of(item)} |" for item in scores.items])
        sick, called = scores.sick, sigmoid(scores.detector) >= policy.detector_threshold
        referred = is_referred(scores, policy)
        rows += [
            f"| {name} {stratum} {here.sum()} | {(called == sick)[here].mean():.3f} | {referred[here].mean():.3f} |"
            for stratum, here in ((stratum, strata == stratum) for stratum in np.unique(strata))
        ]
    return rows


def _kind_of(item: LabelledFilm) -> str:
    """What a file's name says before its number."""
    match = re.match(r"(?:NORMAL2-)?[^\d.]+", item.name)
    return match[0] if item.name != nameless(item.sha256) and match else "-"


def _calibration_rows(groups: dict[str, Scores]) -> list[str]:
    rows = []
    for name, (labels, predicted, _) in _predictions(groups).items():
        if labels.all() or not labels.any():
            continue
        balanced = name.startswith("detector")
        slope, intercept = slope_and_intercept(predicted, labels, balanced=balanced)
        rows.append(
            f"| {name} | {ece(predicted, labels, balanced=balanced):.4f} "
            f"| {ece_of_perfection(predicted, labels, balanced=balanced):.4f} | {slope:.2f} "
            f"| {intercept:.2f} |"
        )
    return rows


def _of_two_classes(curves: Curves) -> Curves:
    return {name: curve for name, curve in curves.items() if len(np.unique(curve[0])) == 2}


def _tensors(labels: Bools, values: npt.NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(values.astype(np.float64)), torch.from_numpy(labels.astype(np.int64))


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
