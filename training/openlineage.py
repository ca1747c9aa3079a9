"""OpenLineage events of a training: `openlineage.jsonl` beside run.json, one event a line, to hand to any backend.

By the published specification (https://openlineage.io/spec/2-0-2/OpenLineage.json) and its facets; written here
since OpenLineage's own client brings HTTP clients that a training needs for nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import torch

import pneumoserve
from pneumoserve.canonical import canonical_json
from pneumoserve.ids import openlineage_run_of, time_text
from pneumoserve.release.data import Item
from pneumoserve.release.schema import DataFacts, RunFacts, TrainingFacts

FILE: Final = "openlineage.jsonl"
JOB: Final = "pneumoserve.train"
NAMESPACE: Final = "pneumoserve"
_PRODUCER: Final = f"urn:pneumoserve:{pneumoserve.__version__}"
_SPEC: Final = "https://openlineage.io/spec"

State = Literal["START", "RUNNING", "COMPLETE", "FAIL", "ABORT"]
Json = dict[str, Any]


@contextmanager
def record_events(run: Path, training: TrainingFacts, data: DataFacts) -> Iterator[Callable[[RunFacts], None]]:
    """Write START (RUNNING where a run goes on), and FAIL or ABORT where the context is left by an exception.

    Yields what to call with the facts of the finished run, which writes COMPLETE.
    """
    file = run / FILE

    def write(state: State, outputs: list[Json], **facets: Json) -> None:
        event = _event(state, training, data, outputs, facets)
        with file.open("ab") as lines:
            lines.write(canonical_json(event) + b"\n")

    write("RUNNING" if file.exists() else "START", [])
    try:
        yield lambda facts: write("COMPLETE", _outputs(run, facts))
    except Exception as error:
        # The texts of other errors may name a path of this machine.
        ours = type(error).__module__.startswith("training")
        write("FAIL", [], errorMessage=_error(str(error) if ours else type(error).__name__))
        raise
    except BaseException:
        write("ABORT", [])
        raise


def _event(state: State, training: TrainingFacts, data: DataFacts, outputs: list[Json], facets: Json) -> Json:
    return {
        "eventType": state,
        "eventTime": time_text(datetime.now(UTC)),
        "producer": _PRODUCER,
        "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": openlineage_run_of(training.run_id), "facets": {**_run_facets(training), **facets}},
        "job": {
            "namespace": NAMESPACE,
            "name": JOB,
            "facets": {
                "jobType": _facet(
                    "JobTypeJobFacet", "2-0-3", processingType="BATCH", integration="PNEUMOSERVE", jobType="TRAINING"
                )
            },
        },
        "inputs": [_input(data)],
        "outputs": outputs,
    }


def _facet(name: str, version: str, /, **fields: object) -> Json:
    return {"_producer": _PRODUCER, "_schemaURL": f"{_SPEC}/facets/{version}/{name}.json#/$defs/{name}", **fields}


def _run_facets(training: TrainingFacts) -> Json:
    stated = {"run_id": training.run_id, "code_version": training.code_version}
    parameters = {"seed": training.seed, **training.parameters}
    return {
        "processing_engine": _facet(
            "ProcessingEngineRunFacet",
            "1-1-1",
            name="torch",
            version=torch.__version__,
            openlineageAdapterVersion=pneumoserve.__version__,
        ),
        "executionParameters": _facet(
            "ExecutionParametersRunFacet",
            "1-0-0",
            parameters=[{"key": key, "value": _text(value)} for key, value in sorted(parameters.items())],
        ),
        "tags": _facet(
            "TagsRunFacet",
            "1-0-0",
            tags=[{"key": key, "value": value, "source": "PNEUMOSERVE"} for key, value in stated.items()],
        ),
    }


def _text(value: object) -> str:
    """A parameter as the facet takes it, which has texts alone."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _input(data: DataFacts) -> Json:
    count = sum(count.images for counts in data.counts.values() for count in counts.values())
    fields = [{"name": name, "type": "string"} for name in Item.__dataclass_fields__]
    return {
        "namespace": NAMESPACE,
        "name": f"datasets/{data.digest}",
        "facets": {
            "dataSource": _facet("DatasourceDatasetFacet", "1-0-1", name=data.source),
            "version": _facet("DatasetVersionDatasetFacet", "1-0-1", datasetVersion=data.digest),
            "schema": _facet("SchemaDatasetFacet", "1-2-0", fields=fields),
        },
        "inputFacets": {
            "inputStatistics": _facet("InputStatisticsInputDatasetFacet", "1-0-0", rowCount=count, fileCount=count)
        },
    }


def _outputs(run: Path, facts: RunFacts) -> list[Json]:
    return [
        {
            "namespace": NAMESPACE,
            "name": f"models/{model.name}",
            "facets": {"version": _facet("DatasetVersionDatasetFacet", "1-0-1", datasetVersion=model.weights)},
            "outputFacets": {
                "outputStatistics": _facet(
                    "OutputStatisticsOutputDatasetFacet",
                    "1-0-2",
                    size=(run / "weights" / f"{model.name}.safetensors").stat().st_size,
                    fileCount=1,
                )
            },
        }
        for model in facts.models
    ]


def _error(message: str) -> Json:
    return _facet("ErrorMessageRunFacet", "1-0-1", message=message, programmingLanguage="PYTHON")
