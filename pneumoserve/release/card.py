"""The model card, written from the facts of a run alone; limits first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pneumoserve.decision import Policy
from pneumoserve.release.schema import Metric, Recalibration, RunFacts

_LIMITS: Final = """\
# Model card: pneumonia detector and typer

**Not cleared by any regulator, not for clinical use.** An answer is a hint to a person who looks at the film.

## Limits, first
- Trained on films of children of 1 to 5 years from one hospital (Guangzhou). A like network, trained on these films,
  fell to an AUC of .54 on children of another hospital (Xin 2021). Measure before you believe.
- The labels are graders' reading of the film, not microbiology. "Bacterial" and "viral" are patterns that graders saw.
  Never withhold antibiotics on the type.
- The data set has shortcuts: compression, size and contrast alone tell its classes apart. Training distorts films
  against that; what remains is not known to be small.
- Figures below come from other patients of the same source. Thresholds chosen there move when the source changes.
- The gate knows films that are upside down, inverted or of nothing from pictures made for the purpose. Lateral films
  and patients outside the population are known by what the file says alone: there were none to learn from.
"""


_WEIGHTED: Final = (
    "The labels are blind readings of studies in the archive. Policy and figures count each image by one over its "
    "probability of being read. Intervals are by patient: melded limits of weighted counts, of the AUC by bootstrap."
)
# The set of a recalibration's figures.
SITE: Final = "site"
_PREVALENCES: Final = (0.01, 0.05, 0.30)
_RATES: Final = (
    "detector_sensitivity",
    "detector_specificity",
    "confident_normal_among_pneumonias",
    "confident_pneumonia_among_normals",
)


def model_card(facts: RunFacts) -> str:
    """The card in Markdown."""
    policy = facts.policy
    band = policy.detector_band
    gate = "" if policy.chest_threshold is None else (
        f"Films that are an upright chest film with a probability below {policy.chest_threshold} are referred as none. "
    )  # fmt: skip
    groups = ["folds", *facts.training.reference_runs, str(facts.training.parameters.get("hold_out")), "calibration"]
    groups = [SITE] if facts.recalibration else groups
    measured = [name for name in dict.fromkeys(groups) if f"{name}/detector_auc" in facts.metrics]
    lines = [
        _LIMITS,
        "## Said with every answer",
        f"- {facts.intended_use}",
        f"- With a type: {facts.type_notice}",
        "",
        "## What it means where pneumonia is rare",
        "",
        *(prevalence_rows(facts.metrics, worst_of(facts.metrics, measured)) if measured else []),
        "",
        "## Figures, with 95 % intervals",
        recalibration_in_words(facts.recalibration)
        if facts.recalibration
        else "`calibration`: the fold on which thresholds and calibration were chosen. Others: films held out of a "
        "training by the same recipe, as their names say (`folds`: every patient outside the calibration fold, each "
        "scored by a network that never saw them).",
        "",
        "| figure | value | from | to | films |",
        "| --- | --- | --- | --- | --- |",
        *metric_rows(facts.metrics, measured),
        "",
        "`report/report.md` has calibration, the bands' trade-off, shifts, shortcuts and the gate, with pictures.",
        "",
        "## Data",
        f"{facts.data.source}. Digest `{facts.data.digest}`. Patients: {facts.data.grouping}. "
        f"{facts.data.excluded_patients} patients left out.",
        "",
        "| split | class | images | patients |",
        "| --- | --- | --- | --- |",
        *(
            f"| {split} | {cls} | {count.images} | {count.patients} |"
            for split, counts in sorted(facts.data.counts.items())
            for cls, count in sorted(counts.items())
        ),
        "",
        "## Models",
        *(
            f"- {model.name} {model.version}: {model.architecture}, {model.classes[1]} against {model.classes[0]}; "
            f"Platt slope {model.calibration.slope}, intercept {model.calibration.intercept}"
            for model in facts.models
        ),
        "",
        "## Policy",
        f"Pneumonia from {policy.detector_threshold} on; referred from {band.low} to {band.high}; the type is referred "
        f"from {policy.typer_band.low} to {policy.typer_band.high}. {gate}"
        f"Assumed prevalence {policy.assumed_prevalence}. {policy.why}",
        "",
        type_evidence(policy),
        "",
        "## Training",
        f"Run {facts.training.run_id}, seed {facts.training.seed}, code {facts.training.code_version}. "
        + ", ".join(f"{key} {value}" for key, value in sorted(facts.training.parameters.items())),
        "",
    ]
    return "\n".join(lines)


def recalibration_in_words(found: Recalibration) -> str:
    """What a policy that was fitted to a site rests on, and how its figures were measured."""
    counted = ", ".join(f"{count.images} {cls} of {count.patients} patients" for cls, count in found.counts.items())
    return (
        f"The policy was fitted to a site's labelled images ({counted}; chosen: {found.drawn}). The models are those "
        f"of `{found.base[:12]}`; with another policy they are a new version of the device. "
        f"Labels `{found.labels}`.\n\n"
        f"`{SITE}`: those images, cross-fitted. The patients were halved, and each half was judged by the policy that "
        "was fitted to the other half. The packaged policy was fitted to all of them; no image has judged that one. "
        f"{_WEIGHTED if found.drawn == 'weighted' else 'Intervals are by patient (bootstrap).'}"
    )


def type_evidence(policy: Policy) -> str:
    """What the band of the type rests on, in words."""
    found = policy.type_evidence
    if found is None:
        return "No error rate of stated types was measured."
    if found.rate is None:
        return (
            f"No type is stated: the types of {found.asked} images are too few to show that at most {found.target:.0%} "
            "of stated ones are wrong."
        )
    return (
        f"A type is stated where its probability is at least {policy.typer_band.high}. Then {found.rate:.1%} of stated "
        f"types were wrong, and the one-sided 95 % upper bound of that is {found.bound:.1%}, where at most "
        f"{found.target:.0%} was asked for: of {found.patients} patients, each counted once, on {found.images} of "
        f"{found.asked} images whose type was asked for. They are pneumonias of the calibration fold, which never "
        "trained, and right is what its graders said."
    )


def metric_rows(metrics: Mapping[str, Metric], groups: Sequence[str]) -> list[str]:
    """Rows of a Markdown table: the figures of each set of films, in the order of the sets."""
    return [
        f"| {name} | {metric.value} | {metric.low} | {metric.high} | {metric.n} |"
        for group in groups
        for name, metric in metrics.items()
        if name.startswith(f"{group}/")
    ]


def worst_of(metrics: Mapping[str, Metric], groups: Sequence[str]) -> str:
    """The set of films on which the detector does worst: what to expect where films are not those it knows."""
    return min(groups, key=lambda group: metrics[f"{group}/detector_auc"].value)


def prevalence_rows(metrics: Mapping[str, Metric], group: str) -> list[str]:
    """A Markdown table of what a set's rates mean at 1, 5 and 30 % prevalence; a word where the set lacks a class."""
    if any(f"{group}/{name}" not in metrics for name in _RATES):
        return [f"`{group}` has not all classes."]
    sensitivity, specificity, missed, alarmed = (metrics[f"{group}/{name}"].value for name in _RATES)
    ill_referred, well_referred = (metrics.get(f"{group}/referred_among_{name}") for name in ("pneumonias", "normals"))
    rows = [
        f"Of 1,000 films, at the rates measured on `{group}`; PPV and NPV are those of the threshold alone."
        + ("" if ill_referred and well_referred else " Who is referred was not measured on it (-)."),
        "",
        "| prevalence | PPV | NPV | referred | pneumonias confidently normal | normals confidently pneumonia |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for share in _PREVALENCES:
        called_ill, called_well = share * sensitivity, (1 - share) * (1 - specificity)
        cleared_ill, cleared_well = share * (1 - sensitivity), (1 - share) * specificity
        ppv = called_ill / (called_ill + called_well) if called_ill + called_well else 0.0
        npv = cleared_well / (cleared_well + cleared_ill) if cleared_well + cleared_ill else 0.0
        # A run whose band was chosen anew has no such figures of sets whose scores it does not hold.
        referred = "-"
        if ill_referred and well_referred:
            referred = f"{1000 * (share * ill_referred.value + (1 - share) * well_referred.value):.0f}"
        rows.append(
            f"| {share:.0%} | {ppv:.1%} | {npv:.2%} | {referred} "
            f"| {1000 * share * missed:.2f} | {1000 * (1 - share) * alarmed:.1f} |"
        )
    return rows
