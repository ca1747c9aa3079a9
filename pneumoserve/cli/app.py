"""All commands; heavy packages are imported by the command that needs them, so that `--help` is quick."""
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pneumoserve.archive.store import StoreError
from pneumoserve.cli.options import Audit, Device, Exclude, Seed, Source, Steps, Threads
from pneumoserve.cli.output import AsJson, Failure, console, print_json, told

if TYPE_CHECKING:
    from pneumoserve.archive.retention import Expiry
    from pneumoserve.archive.store import ObjectStore

app = typer.Typer(
    name="pneumoserve",
    help="Serve chest X-ray models with every answer on record. Not cleared for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
releases = typer.Typer(help="Signed, immutable folders of both models and their policy.", no_args_is_help=True)
archive = typer.Typer(help="The records of every call.", no_args_is_help=True)
app.add_typer(releases, name="release")
app.add_typer(archive, name="archive")

StateFolder = Annotated[Path, typer.Option("--state", help="Folder of the local stack's keys, releases and data.")]
Trust = Annotated[Path | None, typer.Option("--trust", help="Folder of trusted public keys; default: the state's.")]
DEFAULT_STATE = Path("state")


@app.command(epilog="Example: pneumoserve serve --port 8080   then   pneumoserve predict film.jpeg")
def serve(
    release: Annotated[str | None, typer.Option(help="Id or folder of a release; default: the reference.")] = None,
    port: Annotated[int | None, typer.Option(help="REST port; default: a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port; default: a free one.")] = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Run the local stack (S3, TorchServe, front) until Ctrl-C; prints one line of JSON when it is ready."""
    from pneumoserve.local.stack import serve as run
    from pneumoserve.local.state import State

    with told():
        raise typer.Exit(run(State(state), release, port, grpc_port))


@app.command(epilog="Example: pneumoserve predict tests/data/xray-sample/dicom/*.dcm")
def predict(
    files: Annotated[list[Path], typer.Argument(help="Films: JPEG, PNG or DICOM.")],
    url: Annotated[
        str | None, typer.Option(help="Where the service is; default: the stack that runs on --state.")
    ] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Send films to the service and show its answers. Exits with 1 if a film got none."""
    from pneumoserve.cli.client import answer_of

    with told():
        where = url or _running(state)["url"]
    answers = [{"file": path.name, **answer_of(where, path)} for path in files]
    if as_json:
        print_json(answers)
    else:
        _show_answers(answers)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def _running(state: Path) -> dict[str, Any]:
    from pneumoserve.local.process import StackError
    from pneumoserve.local.state import State

    announced = State(state).running()
    if announced is None:
        raise StackError("No stack runs on this state folder; start one with `pneumoserve serve`, or give --url.")
    return announced


def _show_answers(answers: list[dict[str, Any]]) -> None:
    table = Table("file", "answer", "confidence", "referred", "ms")
    table.add_column("record", no_wrap=True)
    for answer in answers:
        if "error" in answer:
            table.add_row(answer["file"], f"[red]{answer['error']}[/red]", "", "", "", answer["prediction_id"])
            continue
        kind = f", {answer['pneumonia_type']}" if answer["pneumonia_type"] else ""
        confidence = "" if answer["confidence"] is None else f"{answer['confidence']:.3f}"
        finding = f"{answer['finding']}{kind}" if answer["finding"] else "a human must look"
        referred = ", ".join(answer["reasons"]) or "no"
        table.add_row(answer["file"], finding, confidence, referred, str(answer["ms"]), answer["prediction_id"])
    console.print(table)


@archive.command(epilog="Example: pneumoserve archive show 01890a5d-ac96-774b-bcce-b302099a8057")
def show(
    prediction_id: Annotated[str, typer.Argument(help="The id an answer or an error came with.")],
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show a prediction's record and labels. Reads the S3_* settings, else the state's store (started if down)."""
    from pneumoserve.archive.find import labels_of
    from pneumoserve.cli.stores import record_of, store_of

    with told(), store_of(state) as store:
        record = record_of(store, prediction_id)
        labels = labels_of(store, prediction_id)
    # The record as it is, and beside its fields what became known later.
    document = record.model_dump(mode="json", by_alias=True)
    document["labels"] = [label.model_dump(mode="json", by_alias=True) for label in labels]
    if as_json:
        print_json(document)
    else:
        console.print_json(data=document)


@archive.command(epilog="Example: S3_ENDPOINT=http://store:9000 pneumoserve archive setup --timeout 60")
def setup(
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a store that does not answer yet.")] = 0.0,
    expire_raw_days: Annotated[
        int | None, typer.Option(min=1, help="Days to keep segments for; then only roll-ups.")
    ] = None,
    expire_images_days: Annotated[
        int | None, typer.Option(min=1, help="Days to keep films for; then no replay.")
    ] = None,
    expire_rollups_days: Annotated[int | None, typer.Option(min=1, help="Days to keep sealed roll-ups for.")] = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Make the bucket where there is none, and check that it takes and gives objects; 1 if it does not.

    Sets the bucket's lifecycle rules too: what has no --expire-… option is kept for ever.
    """
    from pneumoserve.archive.retention import Expiry, RetentionError
    from pneumoserve.archive.setup import set_up
    from pneumoserve.cli.stores import store_of

    expiry = Expiry(raw=expire_raw_days, images=expire_images_days, rollups=expire_rollups_days)
    with told(), store_of(state) as store:
        set_up(store, timeout, console.print)
        console.print(f"the bucket {store.settings.bucket} is there, and takes and gives objects")
        try:
            console.print(_expiry_said(store, expiry))
        except RetentionError as error:
            raise Failure(str(error), 2) from None


def _expiry_said(store: ObjectStore, expiry: Expiry) -> str:
    from pneumoserve.archive.retention import set_expiry

    try:
        changed = set_expiry(store, expiry)
    except StoreError:
        if expiry.by_prefix:
            raise
        # Who may write records need not have the right to see the rules; then no rule is of this command's making.
        return "its lifecycle rules cannot be read with these keys, and stay as they are"
    kept = (
        "nothing"
        if not expiry.by_prefix
        else ", ".join(f"{prefix} after {days} days" for prefix, (_, days) in expiry.by_prefix.items())
    )
    return f"what expires: {kept}{'' if changed else ' (as before)'}"


@app.command(epilog="Example: pneumoserve package runs/first --out releases")
def package(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder to make the release in, as OUT/<id>.")],
    key: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign with; default: the state's.")] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Leave the signature to `release sign`.")] = False,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Package a run into a release: the same run gives the same bytes."""
    from pneumoserve.local.state import State
    from pneumoserve.release.package import package as make
    from pneumoserve.release.signing import load_key

    with told():
        if unsigned:
            signing = None
        elif key is not None:
            signing = load_key(key)
        else:
            State(state).make()
            signing = State(state).signing_key
        folder = make(run, out, signing)
    if as_json:
        print_json({"id": folder.name, "folder": str(folder)})
    else:
        console.print(f"release {folder.name} is in {folder}")


@releases.command("list")
def list_releases(state: StateFolder = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """The releases of the state folder, and whether each may run."""
    from pneumoserve.local.state import State
    from pneumoserve.release import ReleaseError, verify

    where = State(state)
    found: list[dict[str, str]] = []
    for folder in sorted(path.parent for path in where.releases.glob("*/release.json")):
        try:
            found.append({"id": verify(folder, where.trust).id, "state": "verified"})
        except ReleaseError as error:
            found.append({"id": folder.name, "state": str(error)})
    if as_json:
        print_json(found)
        return
    table = Table("release", "state")
    for row in found:
        table.add_row(row["id"], row["state"])
    console.print(table)


@releases.command("show")
def show_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release.")],
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """What a release is: models, policy, data, training, figures."""
    from rich.markdown import Markdown

    from pneumoserve.release import read_manifest

    folder = _folder(release, state)
    with told():
        _, manifest = read_manifest(folder)
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
    else:
        console.print(Markdown((folder / "MODEL_CARD.md").read_text(encoding="utf-8")))


@releases.command("verify")
def verify_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release.")],
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Check signature and files of a release, as its containers do before they start; 1 if it must not run."""
    from pneumoserve.local.state import State
    from pneumoserve.release import verify

    with told():
        verified = verify(_folder(release, state), trust or State(state).trust)
    console.print(f"release {verified.id} is whole, signed by {verified.signer}, digest {verified.digest}")


@releases.command("sign")
def sign_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release.")],
    key: Annotated[Path, typer.Option(help="The approver's private key (PEM).")],
    pushed: Annotated[bool, typer.Option("--pushed", help="Sign it in the object store, by its id.")] = False,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Sign a release: the act of a person who answers for it."""
    from pneumoserve.cli.stores import store_of
    from pneumoserve.release.package import sign
    from pneumoserve.release.push import sign_pushed
    from pneumoserve.release.signing import load_key

    if pushed:
        with told(), store_of(state) as store:
            sign_pushed(release, store, load_key(key))
        console.print(f"release {release} is signed in the store")
        return
    folder = _folder(release, state)
    with told():
        sign(folder, load_key(key))
    console.print(f"release {folder.name} is signed")


@releases.command("key", epilog="Example: pneumoserve release key approver.pem --trust trust")
def make_key(
    path: Annotated[Path, typer.Argument(help="Where to write the private key (PEM, mode 0600).")],
    trust: Annotated[Path, typer.Option(help="Folder to write the public key to.")],
) -> None:
    """Make a signing key, and put its public half into a trust folder."""
    from pneumoserve.release.signing import generate_key, write_public_key

    try:
        public = write_public_key(generate_key(path), trust)
    except FileExistsError:
        raise Failure(f"{path.name} is there already; a key is never overwritten, give another path.", 2) from None
    console.print(f"{path} is the private key, {public} the public one")


def _folder(release: str, state: Path) -> Path:
    from pneumoserve.local.state import State

    for folder in (Path(release), State(state).releases / release):
        if (folder / "release.json").is_file():
            return folder
    raise Failure(f"There is no release {release}; `pneumoserve release list` shows those of the state folder.", 2)


@releases.command("push")
def push_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release.")],
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Copy a release to the object store, below releases/<id>. Reads the S3_* settings, else the state's store."""
    from rich.progress import track

    from pneumoserve.cli.stores import store_of
    from pneumoserve.release.push import upload

    folder = _folder(release, state)
    with told(), store_of(state) as store:
        for _ in track(upload(folder, store), "pushing", total=None, transient=True, console=console):
            pass
    console.print(f"release {folder.name} is in the store, below releases/{folder.name}")


@app.command(epilog="Example: pneumoserve ingest films/ --to s3://pneumoserve/datasets")
def ingest(
    directory: Annotated[Path, typer.Argument(help="Folder of films, in folders named normal, bacteria, virus.")],
    to: Annotated[str, typer.Option(help="s3://bucket/prefix to copy them to.")],
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Copy films into the object store and write the dataset's manifest. A second run adds nothing."""
    from dataclasses import asdict

    from pneumoserve.cli.stores import settings_of, told_training
    from training.ingest import ingest as run

    with told(), told_training(), settings_of(state) as settings:
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
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Finished run of this recipe that held other films out: thresholds hold there too. Repeat."),
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

    A whole recipe: first runs that hold out other sources and folds, then one that holds out nothing, with --beside
    for each of them.
    """
    from pneumoserve.cli.stores import environment_of, told_training

    with told(), told_training():
        from training.train import TrainConfig
        from training.train import train as run
        from training.workers import Workers

        workers = Workers.from_env()
        with environment_of(state, dataset.startswith("s3://") or bool(checkpoints)):
            config = TrainConfig(
                dataset=dataset,
                out=out,
                source=source,
                hold_out=hold_out,
                beside=tuple(beside or ()),
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
        Path | None, typer.Option(help="Folder for metrics.json and pictures; default: SOURCE-evaluation, beside it.")
    ] = None,
    outliers: Annotated[
        Path | None, typer.Option(help="Folder of pictures that are no upright chest films: how many are caught?")
    ] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Measure a run or a release on a dataset, with intervals; writes beside it, never into it."""
    from pneumoserve.cli.stores import environment_of, told_training

    with told(), told_training():
        from training.evaluate import evaluate as run

        with environment_of(state, dataset.startswith("s3://")):
            beside = source.resolve().with_name(f"{source.resolve().name}-evaluation")
            metrics = run(source, dataset, out or beside, outliers)
    if as_json:
        print_json(metrics)
        return
    table = Table("figure", "value", "95 % interval", "films")
    for name, metric in metrics.items():
        table.add_row(name, f"{metric['value']:.4f}", f"{metric['low']:.4f} to {metric['high']:.4f}", str(metric["n"]))
    console.print(table)
