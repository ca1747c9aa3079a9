"""Send real films to a running pneumoserve at a rate that does not depend on how fast it answers.

Each call is sent when it is due, whatever became of the others, and its time counts from when it was due. So a service
that stands still for a second shows the wait of every call that fell due in it. Every answer is checked: status 200, a
prediction for each film, and the release that made them. One call of each kind is made before the clock starts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from loadtest.calls import KINDS, MAX_IMAGES, Films, NoFilms, find_films
from loadtest.shapes import DEFAULT_SECONDS, SHAPES, Shape, shape
from loadtest.summary import Thresholds, table

_RATE_SHARE: Final = 0.95
_EPILOG: Final = """\
exit codes:
  0  every threshold was met
  1  one was missed; or the result is INVALID, since the generator itself fell behind; or the service does not answer
  2  used wrongly

examples:
  python -m loadtest --url http://127.0.0.1:8080 --grpc 127.0.0.1:8081 --rate 10 --p99-ms 500
  python -m loadtest --url http://gateway.example.org --kinds v1,grpc --headers headers.txt --shape ramp --rate 80

loadtest/README.md says how to read the figures.
"""


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_target(parser.add_argument_group("the service").add_argument)
    _add_load(parser.add_argument_group("the load").add_argument)
    _add_thresholds(parser.add_argument_group("thresholds, which set the exit code").add_argument)
    text = "where report.html, summary.json and locust's CSV files go, in place of earlier ones (default: runs/load)"
    parser.add_argument("--out", type=Path, default=Path("runs/load"), metavar="DIR", help=text)
    return parser


def _add_target(add: Callable[..., Any]) -> None:
    add("--url", required=True, type=_url, help="REST, as http://host:port or https://host")
    text = "gRPC (default: where --url is, as behind a gateway)"
    add("--grpc", type=_address, metavar="HOST:PORT", help=text)
    add("--host-name", metavar="NAME", help="host name to ask for, where that of --url is another one")
    text = "headers of every call, `Name: value` a line, such as a credential; in no report"
    add("--headers", type=_headers, default={}, metavar="FILE", help=text)
    text = "certificate authorities (PEM) to trust instead of the public ones, for https"
    add("--ca", type=_file, metavar="FILE", help=text)


def _add_load(add: Callable[..., Any]) -> None:
    text = f"how to ask, separated by commas; they take turns (default: {','.join(KINDS)})"
    add("--kinds", type=_kinds, default=list(KINDS), metavar="LIST", help=text)
    text = "what to send: *.jpeg, *.jpg, *.png, and *.dcm for dicom (default: originals of the sample)"
    add("--films", type=_folder, metavar="DIR", help=text)
    text = f"films a call, 1 to {MAX_IMAGES}; a dicom call has one (default: 1)"
    add("--images", type=int, default=1, choices=range(1, MAX_IMAGES + 1), metavar="N", help=text)
    text = "constant; ramp: from 0 evenly up to --rate; soak: up within a minute, then constant for long"
    add("--shape", choices=SHAPES, default="constant", help=text)
    add("--rate", type=_positive, default=5.0, help="calls a second, of all kinds together (default: 5)")
    seconds = ", ".join(f"{name} {number:.0f}" for name, number in DEFAULT_SECONDS.items())
    add("--seconds", type=_positive, help=f"how long (default: {seconds})")
    text = "a call without an answer after this time has failed (default: 60)"
    add("--timeout", type=_positive, default=60.0, metavar="SECONDS", help=text)
    text = "calls kept under way at once; where more fall due, the result is INVALID (default: 1000)"
    add("--most-under-way", type=_count, default=1000, metavar="N", help=text)


def _add_thresholds(add: Callable[..., Any]) -> None:
    text = "share of calls that may fail, 0 to 1 (default: 0)"
    add("--max-failed", type=_share, default=0.0, metavar="SHARE", help=text)
    text = f"right answers a second at least (default: {_RATE_SHARE:g} of what is due)"
    add("--min-rate", type=_positive, metavar="N", help=text)
    for name in ("p50", "p95", "p99"):
        text = f"{name} of the time from when calls were due, at most"
        add(f"--{name}-ms", type=_positive, metavar="MS", help=text)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise argparse.ArgumentTypeError("give it as http://host:port or https://host, without a path")
    if parts.username or parts.password:
        raise argparse.ArgumentTypeError("a credential does not belong into a URL; put a header into --headers")
    return f"{parts.scheme}://{parts.netloc}"


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError("give it as host:port, without http://")
    return text


def _headers(text: str) -> dict[str, str]:
    try:
        lines = [line for line in Path(text).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeError):
        raise argparse.ArgumentTypeError("the file cannot be read") from None
    pairs = [line.partition(":") for line in lines]
    if not all(name.strip() and colon and value.strip() for name, colon, value in pairs):
        raise argparse.ArgumentTypeError("each line is `Name: value`")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or len(set(kinds)) != len(kinds):
        raise argparse.ArgumentTypeError(f"choose among {','.join(KINDS)}, each once")
    return kinds


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError("there is no such folder")
    return Path(text)


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError("there is no such file")
    return Path(text)


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number above 0")
    return int(text)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("a number above 0")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("a share from 0 to 1, such as 0.01")
    return number


def main(words: Sequence[str] | None = None) -> int:
    """Make the load, print what came of it, and return the exit code."""
    parser = options()
    given = parser.parse_args(words)
    seconds = given.seconds or DEFAULT_SECONDS[given.shape]
    shaped = shape(given.shape, given.rate, seconds)
    if len(list(islice(shaped.due(), len(given.kinds)))) < len(given.kinds):
        parser.error("not even one call of each kind would fall due; raise --rate or --seconds")
    try:
        films = find_films(given.films)
        for kind in given.kinds:
            films.of(kind)
    except NoFilms as missing:
        parser.error(str(missing))
    except OSError as error:
        parser.error(f"The films cannot be read ({error.strerror}); give a folder with --films.")
    given.out.mkdir(parents=True, exist_ok=True)
    return _load(given, shaped, films, seconds)


def _load(given: argparse.Namespace, shaped: Shape, films: Films, seconds: float) -> int:
    # Locust patches the standard library when it is imported: only where a load is made.
    from loadtest.run import NotServing, run  # noqa: PLC0415
    from loadtest.users import Load, Target  # noqa: PLC0415

    grpc = given.grpc or _grpc_of(given.url)
    target = Target(given.url, grpc, given.host_name, given.ca, given.headers, given.timeout)
    load = Load(target, shaped, given.kinds, films, given.images, given.most_under_way)
    limits = Thresholds(
        given.max_failed, given.min_rate or _RATE_SHARE * shaped.rate, given.p50_ms, given.p95_ms, given.p99_ms
    )
    # Neither the films' folder nor their names: a name may be a patient's.
    parameters = {name: getattr(given, name) for name in
                  ("url", "kinds", "images", "shape", "rate", "timeout", "most_under_way")}  # fmt: skip
    sent = [film for kind in given.kinds for film in films.of(kind)]
    parameters |= {
        "grpc": grpc,
        "seconds": seconds,
        "films": {"different": len(set(sent)), "mean_bytes": round(sum(map(len, sent)) / len(sent))},
    }
    print(f"{given.shape}: {given.rate:g} calls/s, {seconds:g} s, {', '.join(given.kinds)}, to {given.url}", flush=True)  # noqa: T201
    try:
        summary = run(load, limits, parameters, given.out)
    except NotServing as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("Stopped by hand; there is no result.", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{table(summary)}\nreports: {given.out}/report.html, summary.json, locust_*.csv")  # noqa: T201
    return 0 if summary.verdict == "met" else 1


def _grpc_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}"


if __name__ == "__main__":
    sys.exit(main())
