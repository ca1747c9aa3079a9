"""`pneumoserve release …`, and `package`, which makes one."""
# ruff: noqa: PLC0415

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pneumoserve.cli.app import app, releases
from pneumoserve.cli.archive_replay import replay_records, show_report
from pneumoserve.cli.options import DEFAULT_STATE, StateFolder, Trust
from pneumoserve.cli.output import AsJson, Failure, console, errors, print_json


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
    from pneumoserve.signing import load_key

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


@releases.command("list", epilog="Example: pneumoserve release list")
def list_releases(state: StateFolder = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """The releases of the state folder, and whether each may run."""
    from pneumoserve.local.state import State
    from pneumoserve.release import ReleaseError, verify
    from pneumoserve.release.verify import stated_id

    where = State(state)
    found: list[dict[str, str]] = []
    for folder in sorted(path.parent for path in where.releases.glob("*/release.json")):
        try:
            found.append({"id": verify(folder, where.trust, stated_id(folder)).id, "state": "verified"})
        except ReleaseError as error:
            found.append({"id": folder.name, "state": str(error)})
    if as_json:
        print_json(found)
        return
    table = Table("release", "state")
    for row in found:
        table.add_row(row["id"], row["state"])
    console.print(table)


@releases.command("show", epilog="Example: pneumoserve release show 95edae8d89d1")
def show_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release.")],
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """What a release is: models, policy, data, training, figures."""
    from rich.markdown import Markdown

    from pneumoserve.release import read_manifest

    folder = find_folder(release, state)
    _, manifest = read_manifest(folder)
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
    else:
        console.print(Markdown((folder / "MODEL_CARD.md").read_text(encoding="utf-8")))


@releases.command("verify", epilog="Example: pneumoserve release verify releases/95edae8d89d1 --trust trust")
def verify_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release.")],
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Check signature and files of a release, as its containers do before they start; 1 if it must not run."""
    from pneumoserve.local.state import State
    from pneumoserve.release import verify
    from pneumoserve.release.verify import stated_id

    folder = find_folder(release, state)
    verified = verify(folder, trust or State(state).trust, stated_id(folder))
    signers = " and ".join(
        each.key_id if each.expires is None else f"{each.key_id} (until {each.expires})" for each in verified.signatures
    )
    console.print(f"release {verified.id} is whole, signed by {signers}, digest {verified.digest}")


@releases.command("sign", epilog="Example: pneumoserve release sign 95edae8d89d1 --key approver.pem")
def sign_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release.")],
    key: Annotated[Path, typer.Option(help="The approver's private key (PEM).")],
    pushed: Annotated[bool, typer.Option("--pushed", help="Sign it in the object store, by its id.")] = False,
    expires: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Last day (UTC) on which the signature lets the release start."),
    ] = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Sign a release: the act of a person who answers for it. Signatures of others stay."""
    from pneumoserve.cli.stores import store_of
    from pneumoserve.release.package import sign
    from pneumoserve.release.push import sign_pushed
    from pneumoserve.signing import load_key

    last_day = None if expires is None else expires.date()
    if pushed:
        with store_of(state) as store:
            sign_pushed(release, store, load_key(key), last_day)
        console.print(f"release {release} is signed in the store")
        return
    folder = find_folder(release, state)
    sign(folder, load_key(key), last_day)
    console.print(f"release {folder.name} is signed")


@releases.command("revoke", epilog="Example: pneumoserve release revoke 919e240e759e --trust trust")
def revoke_release(
    release: Annotated[str, typer.Argument(help="Id or folder of a release, or its digest of 64 hex digits.")],
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Add a release's digest to the revoked.json of a trust folder: no container starts with it any more.

    A release that is in the object store alone is looked up there. What runs goes on until it is started again.
    """
    from pneumoserve.local.state import State
    from pneumoserve.signing import revoke

    digest = release if re.fullmatch("[0-9a-f]{64}", release) else _digest(release, state)
    is_new = revoke(trust or State(state).trust, digest)
    console.print(f"release {digest[:12]} is revoked{'' if is_new else ' already'}, by its digest {digest}")


def _digest(release: str, state: Path) -> str:
    """The digest of a release of the state folder, else of the store."""
    import tempfile

    from pneumoserve.canonical import digest_of
    from pneumoserve.cli.stores import store_of
    from pneumoserve.local.stack import release_folder
    from pneumoserve.local.state import State
    from pneumoserve.release import read_manifest
    from pneumoserve.release.fetch import download, missing
    from pneumoserve.release.verify import make_misplaced_error, stated_id

    with tempfile.TemporaryDirectory() as temporary:
        folder = release_folder(State(state), release)
        if folder is None:
            with store_of(state) as store:
                folder = download(release, store, Path(temporary))
        if folder is None:
            raise missing(release)
        manifest, _ = read_manifest(folder)
    digest, stated = digest_of(manifest), stated_id(folder)
    if stated is not None and stated != digest[:12]:
        raise make_misplaced_error(stated, digest[:12])
    return digest


@releases.command("key", epilog="Example: pneumoserve release key approver.pem --trust trust")
def make_key(
    path: Annotated[Path, typer.Argument(help="Where to write the private key (PEM, mode 0600).")],
    trust: Annotated[Path, typer.Option(help="Folder to write the public key to.")],
) -> None:
    """Make a signing key, and put its public half into a trust folder."""
    from pneumoserve.signing import generate_key, write_public_key

    try:
        public = write_public_key(generate_key(path), trust)
    except FileExistsError:
        raise Failure(f"{path.name} is there already; a key is never overwritten, give another path.", 2) from None
    console.print(f"{path} is the private key, {public} the public one")


def find_folder(release: str, state: Path) -> Path:
    """The folder of a release, by its id in the state folder or by its path.

    Raises:
        Failure: there is none.
    """
    from pneumoserve.local.state import State

    for folder in (Path(release), State(state).releases / release):
        if (folder / "release.json").is_file():
            return folder
    if Path(release).exists():
        raise Failure(f"{Path(release).name} is no release, it holds no release.json; give the folder of one.", 2)
    raise Failure(f"There is no release {release}; `pneumoserve release list` shows those of the state folder.", 2)


@releases.command("trust", epilog="Example: pneumoserve release trust trust/0011223344556677.pem")
def trust_key(
    key: Annotated[Path, typer.Argument(help="An approver's public key (PEM).")],
    trust: Trust = None,
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Put an approver's public key into a trust folder: releases that they signed may run."""
    from pneumoserve.local.state import State
    from pneumoserve.signing import add_trusted

    console.print(f"key {add_trusted(key, trust or State(state).trust)} is trusted")


@releases.command("push", epilog="Example: pneumoserve release push releases/*")
def push_releases(
    chosen: Annotated[list[str], typer.Argument(metavar="RELEASE…", help="Id or folder of each release.")],
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Copy releases to the object store, below releases/<id>. Reads the S3_* settings, else the state's store.

    Nothing is copied where one of them is no release. Signatures that the store has stay.
    """
    from rich.progress import track

    from pneumoserve.cli.stores import store_of
    from pneumoserve.release.push import upload
    from pneumoserve.release.verify import id_of

    folders = {id_of(folder): folder for folder in (find_folder(each, state) for each in chosen)}
    with store_of(state) as store:
        for release_id, folder in folders.items():
            steps = upload(folder, store)
            for _ in track(
                steps, "pushing", total=None, transient=True, console=errors, disable=not errors.is_terminal
            ):
                pass
            console.print(f"release {release_id} is in the store, below releases/{release_id}")


@releases.command(epilog="Example: pneumoserve release redeploy 0123456789ab")
def redeploy(
    release: Annotated[str, typer.Argument(help="Id of a release, in the state folder or in the store.")],
    sample: Annotated[int, typer.Option(min=1, help="How many of its recorded predictions to replay.")] = 50,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Let the local stack serve an earlier release, and replay a sample of its own recorded predictions.

    REST calls wait for the seconds it takes, gRPC calls are refused. 1 if the release does not start (what was served
    before goes on), or does not answer as it did.
    """
    from pneumoserve.cli.stores import reader_of, store_of
    from pneumoserve.local.redeploy import redeploy as go_over
    from pneumoserve.local.state import State
    from pneumoserve.release.fetch import find_or_fetch

    where = State(state)
    with store_of(state) as store:
        where.make()
        found = find_or_fetch(store, release, where.releases, where.trust)
        with errors.status(f"release {found.id} takes over"):
            running = go_over(where, found)
        report, seconds = replay_records(reader_of(store, state, None, None), found, None, found.id, sample, 0)
    if not as_json:
        served = "the stack serves it" if running else "no stack runs; the next `pneumoserve serve` serves it"
        console.print(f"release {found.id} is deployed: {served}")
    show_report(report, seconds, as_json, {"running": running})
    if not report.predictions:
        raise Failure("It has no prediction on record, so nothing shows that it answers as it did.", 1)
    if not report.ok:
        raise typer.Exit(1)
    if not as_json:
        console.print(f"release {found.id} answers as it did")
