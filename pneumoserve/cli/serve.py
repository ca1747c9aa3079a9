"""`pneumoserve serve`: the local stack in the foreground."""
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, StateFolder
from pneumoserve.cli.output import Failure
from pneumoserve.names import ModelServer


@app.command(epilog="Example: pneumoserve serve --port 8080   then   pneumoserve predict film.jpeg")
def serve(  # noqa: PLR0913, PLR0917 - each is an option of the command
    release: Annotated[str | None, typer.Option(help="Id or folder of a release; default: the reference.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="REST port; default: a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(min=1, max=65535, help="gRPC port; default: a free one.")] = None,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print the store's secret key too; stack.json always has it.")
    ] = False,
    dicom_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port that takes X-rays by DICOM; default: none is taken.")
    ] = None,
    dicomweb_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of STOW-RS, beside --dicom-port; default: a free one.")
    ] = None,
    dicom_to: Annotated[
        list[str] | None,
        typer.Option(help="AE@HOST:PORT or URL (STOW-RS) that results go to; may be given repeatedly. Default: none."),
    ] = None,
    fhir_to: Annotated[
        list[str] | None,
        typer.Option(help="URL of a FHIR R4 server that results go to; may be given repeatedly. Default: none."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM of our certificate and its chain; with one, DICOM is taken by TLS alone.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM of its private key.")] = None,
    tls_authority: Annotated[
        Path | None,
        typer.Option(help="PEM of the authority of DICOM peers' certificates; with one, senders need theirs."),
    ] = None,
    engine: Annotated[
        ModelServer, typer.Option(help="What runs the models: TorchServe, or our own workers, which cost less.")
    ] = "torchserve",
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Run the local stack (S3, models, front) until Ctrl-C; prints one line of JSON when it is ready."""
    from pneumoserve.local.stack import Dicom
    from pneumoserve.local.stack import serve as run
    from pneumoserve.local.state import State

    given = (dicom_to, fhir_to, dicomweb_port, tls_certificate, tls_key, tls_authority)
    if dicom_port is None and any(given):
        raise Failure("--dicom-to, --fhir-to, --dicomweb-port and --tls-… go with --dicom-port; give it too.", 2)
    dicom = None
    if dicom_port is not None:
        _check(dicom_to or [], fhir_to or [], (tls_certificate, tls_key, tls_authority))
        dicom = Dicom(
            dicom_port,
            tuple(dicom_to or ()),
            tuple(fhir_to or ()),
            dicomweb_port,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_authority=tls_authority,
        )
    raise typer.Exit(run(State(state), release, port, grpc_port, show_secrets, dicom, engine))


def _check(dicom_to: list[str], fhir_to: list[str], tls_files: tuple[Path | None, Path | None, Path | None]) -> None:
    """Find what intake would refuse, before all else is started."""
    if not (dicom_to or fhir_to or any(tls_files)):
        return
    from pneumoserve.intake import Tls, check_destination, check_url

    for address in dicom_to:
        check_destination(address)
    for address in fhir_to:
        check_url(address)
    certificate, key, _ = tls_files
    if (certificate is None) != (key is None):
        raise Failure("--tls-certificate and --tls-key go together; give both or neither.", 2)
    Tls(*tls_files).call()
