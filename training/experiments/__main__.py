"""Put finished runs on record: `python -m training.experiments RUN…` writes one file a run beside this program, and
the table of all of them into docs/models.md."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any, Final

from pneumoserve.release.schema import RunFacts, canonical_json
from training.train import TrainConfig

HERE: Final = Path(__file__).parent
DOCUMENT: Final = HERE.parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- experiments -->\n", "<!-- end of experiments -->\n"
_FIGURES: Final = ("detector_auc", "detector_sensitivity", "detector_specificity", "typer_auc", "typer_accuracy")


def entry(facts: RunFacts) -> dict[str, Any]:
    """What is kept of a run: its command, parameters and figures, of the calibration fold and of what it held out."""
    parameters = facts.training.parameters
    hold_out = str(parameters["hold_out"])
    changed = {name: value for name, value in parameters.items() if value != _default(name)}
    options = {
        name: value for name, value in changed.items() if name in ("steps", "learning_rate", "threads", "device")
    }
    words = ["pneumoserve", "train", "--dataset", "kermany224", "--out", f"runs/{hold_out}", "--hold-out", hold_out]
    words += ["--seed", str(facts.training.seed)]
    for name, value in sorted(options.items()):
        words += [f"--{name.replace('_', '-')}", str(value)]
    return {
        "command": shlex.join(words),
        "run_id": facts.training.run_id,
        "dataset": facts.data.digest,
        "parameters": parameters,
        "metrics": {
            name: metric.model_dump()
            for name, metric in facts.metrics.items()
            if name.rpartition("/")[0] in ("calibration", hold_out)
        },
    }


def _default(name: str) -> Any:
    field = TrainConfig.__dataclass_fields__.get(name)
    return None if field is None else field.default


def table() -> str:
    """All experiments as a table."""
    heads = ("held out", "batches", "normal films", "detector AUC", "sensitivity", "specificity", "typer AUC")
    lines = [_row([*heads, "typer accuracy", "by"]), _row(["---"] * (len(heads) + 2))]
    runs = [(json.loads(file.read_text()), file.name) for file in HERE.glob("run-*.json")]
    for run, name in sorted(runs, key=lambda each: _order(each[0])):
        hold_out, share = run["parameters"]["hold_out"], run["parameters"]["mix"]["normal"]
        group = "calibration" if hold_out == "none" else hold_out
        told = "nothing: the calibration fold" if hold_out == "none" else hold_out
        figures = [_cell(run["metrics"].get(f"{group}/{figure}")) for figure in _FIGURES]
        by = f"`{run['command']}` ([result](../training/experiments/{name}))"
        lines.append(_row([told, str(run["parameters"]["steps"]), f"{share:.0%}", *figures, by]))
    return "\n".join(lines) + "\n"


def _order(run: dict[str, Any]) -> tuple[int, str]:
    """The longest trained first, then by what they held out."""
    return -run["parameters"]["steps"], run["parameters"]["hold_out"]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(metric: dict[str, float] | None) -> str:
    return "" if metric is None else f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"


def main(runs: list[str]) -> None:
    """Record runs, and write the table anew."""
    for run in runs:
        facts = RunFacts.model_validate_json((Path(run) / "run.json").read_bytes())
        document = json.dumps(json.loads(canonical_json(entry(facts))), indent=1, sort_keys=True) + "\n"
        (HERE / f"run-{facts.training.run_id}.json").write_text(document)
    head, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(f"{head}{BEGIN}{table()}{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
