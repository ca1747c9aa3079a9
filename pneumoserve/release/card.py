"""The model card, written from the facts of a run alone; limits first."""

from __future__ import annotations

from typing import Final

from pneumoserve.release.schema import RunFacts

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
"""


def model_card(facts: RunFacts) -> str:
    """The card in Markdown."""
    policy = facts.policy
    band = policy.detector_band
    lines = [
        _LIMITS,
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
        f"from {policy.typer_band.low} to {policy.typer_band.high}. Assumed prevalence {policy.assumed_prevalence}. "
        f"{policy.why}",
        "",
        "## Figures, with 95 % intervals",
        "| figure | value | from | to | films |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {metric.value} | {metric.low} | {metric.high} | {metric.n} |"
            for name, metric in sorted(facts.metrics.items())
        ),
        "",
        "## Training",
        f"Run {facts.training.run_id}, seed {facts.training.seed}, code {facts.training.code_version}. "
        + ", ".join(f"{key} {value}" for key, value in sorted(facts.training.parameters.items())),
        "",
    ]
    return "\n".join(lines)
