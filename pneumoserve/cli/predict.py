"""`pneumoserve predict`: one film, one call, one row."""
# ruff: noqa: PLC0415

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from pneumoserve.cli.app import app
from pneumoserve.cli.options import DEFAULT_STATE, StateFolder
from pneumoserve.cli.output import AsJson, Failure, console, print_json

_TIMEOUT_SECONDS = 60.0
# As many bytes as it takes to see that a file is an image.
_HEAD_BYTES = 256


@app.command(epilog="Example: pneumoserve predict tests/data/xray-sample/dicom/*.dcm")
def predict(
    files: Annotated[list[Path], typer.Argument(help="X-rays: JPEG, PNG or DICOM; of a folder, all that it holds.")],
    url: Annotated[
        str | None, typer.Option(help="Where the service is; default: the stack that runs on --state.")
    ] = None,
    state: StateFolder = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Send X-rays to the service and show its answers. Exits with 1 if one got none."""
    where = _base_of(url) if url is not None else _running(state)["url"]
    answers = [{"file": path.name, **_ask(where, path)} for path in _expand(files)]
    if as_json:
        print_json(answers)
    else:
        _show_answers(answers)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def _base_of(url: str) -> str:
    """The service's address with its scheme, and without a slash at its end."""
    whole = url if "://" in url else f"http://{url}"
    if not whole.startswith(("http://", "https://")):
        raise Failure("--url is an address such as http://127.0.0.1:8080; correct it.", 2)
    return whole.rstrip("/")


def _running(state: Path) -> dict[str, Any]:
    from pneumoserve.local.process import StackError
    from pneumoserve.local.state import State

    announced = State(state).running()
    if announced is None:
        raise StackError("No stack runs on this state folder; start one with `pneumoserve serve`, or give --url.")
    return announced


def _expand(files: list[Path]) -> Iterator[Path]:
    """The files, and in place of a folder the images in it and below it."""
    for path in files:
        if not path.is_dir():
            yield path
            continue
        found = [each for each in sorted(path.rglob("*")) if each.is_file() and _is_image(each)]
        if not found:
            raise Failure(f"The folder {path.name} holds no JPEG, PNG or DICOM object; give one that does.", 2)
        yield from found


def _is_image(path: Path) -> bool:
    from pneumoserve.imaging import looks_like_image

    with path.open("rb") as file:
        return looks_like_image(file.read(_HEAD_BYTES))


def _show_answers(answers: list[dict[str, Any]]) -> None:
    from pneumoserve.local.answers import FileAnswer, decision_of, describe_assumption, print_answers

    answered = [answer for answer in answers if "error" not in answer]
    if answered:
        print_answers(console, [FileAnswer(answer["file"], decision_of(answer)) for answer in answered])
        for answer in answered:
            _print_line(f"record {answer['prediction_id']}: {answer['file']}", "dim")
        for prevalence in dict.fromkeys(answer.get("assumed_prevalence") for answer in answered):
            if prevalence is not None:
                console.print(describe_assumption(prevalence))
        # Once each: all answers of one release come with the same words.
        for words in dict.fromkeys(answer.get(name) for name in ("intended_use", "notice") for answer in answered):
            if words:
                console.print(words, markup=False)
    for answer in answers:
        if "error" in answer:
            record = f" (record {answer['prediction_id']})" if answer["prediction_id"] else ""
            _print_line(f"{answer['file']}: {answer['error']}{record}", "red")


def _print_line(line: str, style: str = "") -> None:
    console.print(Text(line, style), soft_wrap=True)


def _ask(url: str, path: Path) -> dict[str, Any]:
    """The V1 answer for a film's file, what is said of all, and `ms` (milliseconds); or `error`, `prediction_id`."""
    import urllib3

    from pneumoserve.imaging import looks_like_image

    try:
        data = path.read_bytes()
    except OSError as error:
        return _make_failure(f"The file cannot be read ({error.strerror}).")
    if not looks_like_image(data):
        return _make_failure("This file is no JPEG, PNG or DICOM object, so it was not sent; give an X-ray's file.")
    started = time.perf_counter()
    try:
        response = urllib3.request(
            "POST", f"{url}/v1/models/pneumonia:predict", body=data, timeout=_TIMEOUT_SECONDS, retries=False
        )
        document: dict[str, Any] = response.json()
    except (urllib3.exceptions.HTTPError, ValueError):
        return _make_failure(f"No service answers at {url}; check that it runs.")
    milliseconds = round((time.perf_counter() - started) * 1000)
    match document:
        case {"error": str(), "prediction_id": _}:
            return document
        case {"predictions": [dict() as prediction]}:
            about = {name: document.get(name) for name in ("intended_use", "assumed_prevalence")}
            return {**prediction, **about, "ms": milliseconds}
    return _make_failure(f"What answers at {url} is no pneumoserve (HTTP {response.status}); correct the address.")


def _make_failure(sentence: str) -> dict[str, Any]:
    return {"error": sentence, "prediction_id": None}
