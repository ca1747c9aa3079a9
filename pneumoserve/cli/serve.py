"""`pneumoserve serve`: the local stack in the foreground."""
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, StateFolder
from pneumoserve.cli.output import Failure


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
    state: StateFolder = DEFAULT_STATE,
) -> None:
    """Run the local stack (S3, TorchServe, front) until Ctrl-C; prints one line of JSON when it is ready."""
    from pneumoserve.local.stack import Dicom
    from pneumoserve.local.stack import serve as run
    from pneumoserve.local.state import State

    dicom = (
        None if dicom_port is None else Dicom(dicom_port, tuple(dicom_to or ()), tuple(fhir_to or ()), dicomweb_port)
    )
    if dicom_to or fhir_to:
        from pneumoserve.intake import check_destination, check_url

        for address in dicom_to or ():
            check_destination(address)
        for address in fhir_to or ():
            check_url(address)
    if dicom is None and (dicom_to or fhir_to or dicomweb_port):
        raise Failure("--dicom-to, --fhir-to and --dicomweb-port go with --dicom-port; give it too.", 2)
    raise typer.Exit(run(State(state), release, port, grpc_port, show_secrets, dicom))
