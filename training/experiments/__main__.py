"""Put finished runs on record: `python -m training.experiments RUN…` writes one file a run beside this program.

`make generate` then writes the table of all of them into docs/.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any, Final

from pneumoserve.canonical import canonical_json
from pneumoserve.release.schema import RunFacts
from training.config import TrainConfig

HERE: Final = Path(__file__).parent


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


def main(runs: list[str]) -> None:
    """Record runs."""
    for run in runs:
        facts = RunFacts.model_validate_json((Path(run) / "run.json").read_bytes())
        document = json.dumps(json.loads(canonical_json(entry(facts))), indent=1, sort_keys=True) + "\n"
        (HERE / f"run-{facts.training.run_id}.json").write_text(document)


if __name__ == "__main__":
    main(sys.argv[1:])
