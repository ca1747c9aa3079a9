"""`pneumoserve ingest`, `train` and `evaluate`: from films to a run, and what it is worth."""
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from pneumoserve.cli.app import app
from pneumoserve.cli.labels import DATASET_HELP, AnsweredBy, Since, Site, collect, scope_of, show_collected
from pneumoserve.cli.options import DEFAULT_STATE, ArchiveTrust, Database, SealerTrust, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, errors, needs_training, print_json
from training.options import Audit, Device, Exclude, Seed, Source, Steps, Threads


@app.command(epilog="Example: pneumoserve ingest films/ --to s3://pneumoserve/datasets")
def ingest(
    directory: Annotated[Path, typer.Argument(help="Folder of films, in folders named normal, bacteria, virus.")],
    to: Annotated[str, typer.Option(help="s3://bucket/prefix to copy them to.")],
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Copy films into the object store and write the dataset's manifest. A second run adds nothing."""
    from dataclasses import asdict

    from pneumoserve.cli.stores import settings_of

    with needs_training():
        from training.ingest import ingest as run
    with settings_of(state) as settings:
        report = run(directory, to, settings)
    if as_json:
        print_json(asdict(report))
        return
    console.print(
        f"{report.films} films, {report.added} new, {len(report.broken)} broken; the dataset is {report.manifest}"
    )
    for name, reason in report.broken.items():
        console.print(f"  skipped {name}: {reason}")


@app.command(epilog="Example: pneumoserve train --dataset films/ --out runs/first")
def train(  # noqa: PLR0913, PLR0917 - each is an option of the command
    dataset: Annotated[
        str, typer.Option(help="Folder of films, or the manifest of an ingested dataset, s3://… or a file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; a training that was stopped goes on from there.")],
    exclude: Exclude = "sample",
    source: Source = "a folder of films",
    hold_out: Annotated[
        str,
        typer.Option(
            help="Films that never train and are measured: validation (that split), none, fold-1 to fold-3 (a third of "
            "the patients), earliest (the lowest file numbers), prefix:TEXT (names that begin so)."
        ),
    ] = "validation",
    reference_runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference-run",
            "--beside",
            help="Finished run of this recipe that held other films out: thresholds hold there too. Repeat.",
        ),
    ] = None,
    audit: Audit = True,
    steps: Steps = 800,
    seed: Seed = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak of the one-cycle schedule.")] = 8e-4,
    device: Device = "cpu",
    threads: Threads = 2,
    checkpoints: Annotated[
        str, typer.Option(help="s3://bucket/prefix for copies of the checkpoint, from which an empty --out goes on.")
    ] = "",
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Train detector and typer by transfer learning; goes on from its last checkpoint.

    Started by torchrun, several workers share each batch, and the first one writes the run.

    A whole recipe: first runs that hold out other sources and folds, then one that holds out nothing, with
    --reference-run for each of them.
    """
    from pneumoserve.cli.stores import environment_of

    with needs_training():
        from training.config import TrainConfig
        from training.train import train as run
        from training.workers import Workers

        workers = Workers.from_env()
        with environment_of(state, dataset.startswith("s3://") or bool(checkpoints)):
            config = TrainConfig(
                dataset=dataset,
                out=out,
                source=source,
                hold_out=hold_out,
                reference_runs=tuple(reference_runs or ()),
                audit=audit,
                steps=steps,
                seed=seed,
                learning_rate=learning_rate,
                device=device,
                threads=threads,
                check_every=min(200, steps),
                checkpoints=checkpoints,
                workers=workers,
            ).excluding(exclude)
            run(config, console)
    if workers.leads:
        console.print(f"the run is in {out}; `pneumoserve package {out} --out releases` makes a release of it")


@app.command(epilog="Example: pneumoserve evaluate runs/first --dataset films/")
def evaluate(
    source: Annotated[Path, typer.Argument(help="Folder of a run or of a release.")],
    dataset: Annotated[
        str, typer.Option(help="Folder of films, or the manifest of an ingested dataset, s3://… or a file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json and pictures; default: evaluations/NAME of SOURCE.")
    ] = None,
    outliers: Annotated[
        Path | None, typer.Option(help="Folder of pictures that are no upright chest films: how many are caught?")
    ] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Measure a run or a release on a dataset, with intervals; never writes into it."""
    from pneumoserve.cli.stores import environment_of

    with needs_training():
        from training.evaluate import evaluate as run

        with environment_of(state, dataset.startswith("s3://")):
            # Not beside the release: what is there is pushed by `release push releases/*`.
            out = out or Path("evaluations", source.resolve().name)
            metrics = run(source, dataset, out, outliers)
    if as_json:
        print_json(metrics)
        return
    table = Table("figure", "value", "95 % interval", "films")
    for name, metric in metrics.items():
        table.add_row(name, f"{metric['value']:.4f}", f"{metric['low']:.4f} to {metric['high']:.4f}", str(metric["n"]))
    console.print(table)
    console.print(f"metrics.json and pictures are in {out}")


@app.command(
    epilog="Example: pneumoserve recalibrate releases/95edae8d89d1 --dataset films/ --out runs/site --drawn consecutive"
)
def recalibrate(  # noqa: PLR0913, PLR0917 - each is an option of the command
    source: Annotated[
        Path, typer.Argument(help="Folder of a run, or folder or id of a release, whose models stay as they are.")
    ],
    dataset: Annotated[str, typer.Option(help=DATASET_HELP)],
    out: Annotated[Path, typer.Option(help="Folder of the new run; it must be empty or not there yet.")],
    drawn: Annotated[
        Literal["consecutive", "random"] | None,
        typer.Option(
            help="How the films were chosen: all of a period, or by chance. No other set shows what will be. Labels "
            "need no such word: their probabilities are on record."
        ),
    ] = None,
    answered_by: AnsweredBy = None,
    since: Since = None,
    site: Site = None,
    database: Database = None,
    archive_trust: ArchiveTrust = None,
    sealer_trust: SealerTrust = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Fit calibration, threshold, band and gate to a site's labelled films; a new release, with the same models.

    The policy is fitted to all patients. Its figures are cross-fitted: each half of the patients is judged by the
    policy that was fitted to the other half.
    """
    from pneumoserve.cli.release import find_folder
    from pneumoserve.cli.stores import environment_of

    scope = scope_of(dataset, answered_by, since, site)
    with needs_training():
        from training.recalibrate import SiteLabels, check_free
        from training.recalibrate import recalibrate as run

        folder = source if source.is_dir() else find_folder(str(source), state)
        check_free(out, folder)
        if scope is not None:
            if drawn is not None:
                raise Failure("Labels of the archive are weighted by their probabilities; leave --drawn out.", 2)
            from pneumoserve.cli.reviews import review_of
            from pneumoserve.records import image_key

            with review_of(state, database, archive_trust, sealer_trust) as review:
                collected = collect(review, scope)
                if not as_json:
                    show_collected(collected)
                labels = SiteLabels.of_archive(collected.labels, lambda item: review.store.get(image_key(item.sha256)))
                done = run(folder, labels, out)
        elif drawn is None:
            raise Failure("Missing option '--drawn': say how the films were chosen, consecutive or random.", 2)
        else:
            with environment_of(state, dataset.startswith("s3://")):
                done = run(folder, SiteLabels.of_dataset(dataset, drawn), out)
    figures = {name.partition("/")[2]: metric.model_dump() for name, metric in done.figures.items()}
    before = {name.partition("/")[2]: metric.model_dump() for name, metric in done.before.items()}
    if as_json:
        policy = done.facts.policy.model_dump(mode="json")
        print_json({"run": str(out), "policy": policy, "cross_fitted": figures, "before": before})
        return
    table = Table("figure", "cross-fitted", "95 % interval", "films", "earlier policy")
    for name, metric in figures.items():
        earlier = f"{before[name]['value']:.4f}" if name in before else "-"
        between = f"{metric['low']:.4f} to {metric['high']:.4f}"
        table.add_row(name, f"{metric['value']:.4f}", between, str(metric["n"]), earlier)
    console.print(table)
    console.print(
        "Cross-fitted: each half of the patients is judged by the policy fitted to the other half. The run's policy is "
        "fitted to all of them.",
        soft_wrap=True,
    )
    if done.same_patients:
        errors.print(
            f"{done.same_patients} of the patients have a number that a patient of the training has too. If they are "
            "the same people, these figures are too good.",
            soft_wrap=True,
        )
    console.print(f"the run is in {out}; `pneumoserve package {out} --out releases` makes a release of it")
