"""The whole way from films to a release in the store, as one Job runs it: ingest, train, evaluate, package, push.

Start it by torchrun where there are several workers: `torchrun … -m training.job …`. The first worker does all of it,
the others only learn. Every part can be done again without harm, so a Job that was killed is simply started again: what
is ingested stays, training goes on from its checkpoint, the same run makes the same release, and a release counts as
pushed once its manifest is, which comes last. The release is not signed: that is another Job's, with another key.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.console import Console

from pneumoserve.errors import exit_code_of
from pneumoserve.release.package import package
from pneumoserve.release.push import upload
from pneumoserve.release.schema import Metric, RunFacts
from pneumoserve.store import S3Settings, S3Store
from pneumoserve.termination import explain_end
from training.config import TrainConfig
from training.dataset import DatasetError
from training.evaluate import evaluate
from training.ingest import ingest
from training.options import Audit, Device, Exclude, Seed, Source, Steps, Threads
from training.source import bucket_and_key
from training.train import settle, train
from training.workers import Workers

# Read in a pod's log, not in a terminal.
console = Console(highlight=False, markup=False, width=160)


@dataclass(frozen=True)
class Job:
    """What to do. `films` is a folder, an s3://bucket/prefix or the s3:// manifest of a dataset that is ingested.

    Films go to `datasets`, checkpoints to `checkpoints`, both s3://bucket/prefix. `measure_on` is a dataset of other
    films to measure the run on.
    """

    films: str
    datasets: str
    training: TrainConfig
    measure_on: str = ""


def run(job: Job) -> str | None:
    """Do all of it; returns the release's id at the first worker, None at the others.

    Raises:
        DatasetError: the films are not usable.
        TrainingError: training cannot go on.
        StoreError: the store does not give or take something.
        PackageError: the run is not what it states.
    """
    training = job.training
    workers = training.workers
    settings = S3Settings.from_env()
    settle(training)
    with workers.join(training.device):
        dataset = workers.broadcast(_ingest(job, settings) if workers.leads else None)
        folder = train(training.of(dataset), console)
        if not workers.leads:
            console.print(f"worker {workers.rank} of {workers.count}: learned; the first worker does the rest")
        # All wait for the end: a first worker that starts again finds the others starting again too.
        released: str = workers.broadcast(_release(job, folder, settings) if workers.leads else None)
    return released if workers.leads else None


def _release(job: Job, folder: Path, settings: S3Settings) -> str:
    """Measure the run, and push the release that it makes; its id."""
    _report_figures(job, folder)
    release = package(folder, folder.parent / "releases", None)
    console.print(f"package: release {release.name}, not signed")
    for _ in upload(release, S3Store(settings, patient=True)):
        pass
    console.print(f"push: release {release.name} is in the store; `pneumoserve release sign` is for who answers for it")
    return release.name


def _ingest(job: Job, settings: S3Settings) -> str:
    """The dataset's manifest, after its films were copied where that is to do."""
    if job.films.startswith("s3://") and job.films.endswith(".json"):
        console.print(f"ingest: {job.films} is ingested")
        return job.films
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(job.films)
        if job.films.startswith("s3://"):
            folder = Path(temporary)
            _download(job.films, settings, folder)
        elif not folder.is_dir():
            raise DatasetError(f"There is no folder {folder.name}; give a folder of films or an s3:// address.")
        report = ingest(folder, job.datasets, settings)
    console.print(
        f"ingest: {report.films} films, {report.added} new, {len(report.broken)} broken; "
        f"the dataset is {report.manifest}"
    )
    return report.manifest


def _download(url: str, settings: S3Settings, folder: Path) -> None:
    """Copy all objects below an s3://bucket/prefix into a folder."""
    bucket, prefix = bucket_and_key(url)
    store = S3Store(settings.in_bucket(bucket), patient=True)
    count = 0
    for found in store.list(f"{prefix}/" if prefix else ""):
        name = PurePosixPath(found.key.removeprefix(prefix).lstrip("/"))
        # Whoever can write to the store must not choose where this writes.
        if found.key.endswith("/") or ".." in name.parts:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(found.key))
        count += 1
    if not count:
        raise DatasetError(
            f"There is nothing below {url}; give the prefix that holds the folders normal, bacteria, virus."
        )


def _report_figures(job: Job, run: Path) -> None:
    """Tell the run's own figures of what it held out, or measure it on other films where there are some."""
    if job.measure_on:
        measured = evaluate(run, job.measure_on, run.with_name(f"{run.name}-evaluation"))
        metrics = {name: Metric.model_validate(metric) for name, metric in measured.items()}
    else:
        metrics = RunFacts.model_validate_json((run / "run.json").read_bytes()).metrics
    for name, metric in metrics.items():
        console.print(f"evaluate: {name} {metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f}), {metric.n} films")


def main(  # noqa: PLR0913, PLR0917 - each is an option of the command
    films: Annotated[str, typer.Option(help="Folder of films, s3://bucket/prefix of films, or a dataset's manifest.")],
    datasets: Annotated[str, typer.Option(help="s3://bucket/prefix to copy films to.")],
    checkpoints: Annotated[str, typer.Option(help="s3://bucket/prefix for checkpoints, one of each training.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; it may be empty each time.")],
    source: Source = "a folder of films",
    exclude: Exclude = "sample",
    measure_on: Annotated[str, typer.Option(help="Manifest of a dataset of other films to measure it on.")] = "",
    steps: Steps = TrainConfig.steps,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = TrainConfig.save_every,
    audit: Audit = True,
    seed: Seed = 0,
    device: Device = "cuda",
    threads: Threads = 2,
) -> None:
    """Ingest, train, evaluate, package and push, as one Job."""
    training = TrainConfig(
        dataset="",
        out=out,
        source=source,
        steps=steps,
        head_steps=min(TrainConfig.head_steps, steps // 2),
        check_every=min(TrainConfig.check_every, steps),
        save_every=save_every,
        audit=audit,
        seed=seed,
        device=device,
        threads=threads,
        checkpoints=checkpoints,
        workers=Workers.from_env(),
    ).excluding(exclude)
    try:
        run(Job(films, datasets, training, measure_on))
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        explain_end(str(error))
        sys.exit(code)


if __name__ == "__main__":
    typer.run(main)
