"""Choose anew which types a finished run states: `python -m training.retype RUN`.

The run's weights and scores stay as they are. Its policy, its figures and its report follow from the scores that it
holds (`oof.parquet`). Runs beside it are not needed: of what they held out, figures that hang on the stated types are
left out, since their scores are not there to measure.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from pneumoserve.canonical import canonical_json
from pneumoserve.release.schema import RunFacts
from training.errors import TrainingError
from training.fit import calibrate, measure
from training.report import redraw_types
from training.scores import read_scores
from training.type_band import choose_type_band

_OF_TYPES: Final = {
    "referred",
    "referred_among_pneumonias",
    "referred_among_normals",
    "uncertain_type",
    "typer_accuracy_where_stated",
}
# How runs up to version 2 said which types they refer.
_BEFORE: Final = re.compile(r"The \d+% of the calibration fold's pneumonias .* have their type referred\. ")


def retype(run: Path) -> RunFacts:
    """Choose the band of the type of a run anew, and state it in `run.json` and the report.

    Raises:
        TrainingError: the scores are not those of the run's figures.
    """
    before = RunFacts.model_validate_json((run / "run.json").read_bytes())
    scales = [model.calibration for model in before.models]
    groups = {name: calibrate(scores, *scales) for name, scores in read_scores(run / "oof.parquet").items()}
    detected = before.policy.model_copy(update={"why": _BEFORE.sub("", before.policy.why)})
    policy = choose_type_band(detected, groups["calibration"])
    measured = {name: measure(scores, name, policy) for name, scores in groups.items()}
    sets = ["calibration", *before.training.reference_runs, *groups, "folds"]
    kept = [name.rpartition("/")[2] for name in measured["calibration"] if name.rpartition("/")[2] not in _OF_TYPES]
    found = {
        name: measured.get(name)
        or {each: before.metrics[each] for figure in kept if (each := f"{name}/{figure}") in before.metrics}
        for name in dict.fromkeys(sets)
    }
    metrics = {name: metric for figures in found.values() for name, metric in figures.items()}
    for name, metric in metrics.items():
        if name.rpartition("/")[2] not in _OF_TYPES and metric != before.metrics[name]:
            raise TrainingError(f"oof.parquet gives another {name} than run.json states; restore both from the run.")
    others = {name: metric for name, metric in before.metrics.items() if name.rpartition("/")[0] not in found}
    stated = before.model_dump(by_alias=True, exclude={"schema_"}) | {"policy": policy, "metrics": metrics | others}
    facts = RunFacts.model_validate(stated)
    redraw_types(run / "report", facts, groups, [name for name, figures in found.items() if figures])
    (run / "run.json").write_bytes(canonical_json(facts))
    return facts


if __name__ == "__main__":
    retype(Path(sys.argv[1]))
