"""Starting, watching and stopping the local stack."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pneumoserve.local.process import Child, StackError, free_ports, hold, listen, short_path
from pneumoserve.local.s3 import S3_SERVER, s3_child, start_s3, wait_for_s3
from pneumoserve.local.state import State
from pneumoserve.models.probe import answers, count_greeting, has_worker
from pneumoserve.names import DETECTOR, INTAKE_BUCKET, TYPER, ModelServer
from pneumoserve.release import Release, ReleaseError, verify
from pneumoserve.release.package import package
from pneumoserve.release.verify import stated_id
from pneumoserve.store import S3Settings

# A link to model-store/reference, which is in a checkout alone.
REFERENCE_RUN: Final = Path(__file__).with_name("reference")
# Not SIGHUP: a terminal that closes sends it, and the stack must end then.
REDEPLOY_SIGNAL: Final = signal.SIGUSR1
_READY_SECONDS: Final = 120.0
_FRONT_GRACE_SECONDS: Final = 75.0
_MODELS_GRACE_SECONDS: Final = 20.0
_MODELS: Final[dict[ModelServer, str]] = {"torchserve": "TorchServe", "inprocess": "the model server"}
_FRONT: Final = "the front"
_INTAKE: Final = "DICOM intake"
_SENDER_GRACE_SECONDS: Final = 30.0
_CONSOLE_GRACE_SECONDS: Final = 15.0
# A call of the front, and an association with a destination.
_INTAKE_GRACE_SECONDS: Final = 60.0
_DEATHS: Final = 3
_DEATHS_WITHIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
# As the chart's liveness probes: a minute without an answer.
_LOOK_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 2.0
# Where TorchServe's workers listen, in its folder; a port there has five digits at most.
_WORKERS_SOCKET: Final = "tmp/.ts.sock.12345"
# Those of the engine inprocess, in the same folder; no longer than the above.
_SOCKETS: Final = "sockets"
_IN_FLIGHT: Final = re.compile(rb"^pneumoserve_calls_in_flight (\d+)", re.MULTILINE)
# Doubled with each death of the same child within the minute: a cause that passes gets time to pass.
_BACKOFF_SECONDS: Final = 0.25


@dataclass(frozen=True)
class Dicom:
    """X-rays are taken by DICOM on these ports of loopback; results go to each address of `to` and `fhir_to`.

    Where no port of DICOMweb is given, it is a free one. The files of TLS are PEM; with a certificate, C-STORE is taken
    by TLS alone.
    """

    port: int
    to: tuple[str, ...] = ()
    fhir_to: tuple[str, ...] = ()
    web_port: int | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_authority: Path | None = None

    @property
    def tls_options(self) -> list[str]:
        """The files of TLS as intake's process takes them."""
        files = {"certificate": self.tls_certificate, "key": self.tls_key, "authority": self.tls_authority}
        return [f"--tls-{name}={file.resolve()}" for name, file in files.items() if file is not None]


def find_release(state: State, wanted: str | None) -> Release:
    """The release to serve: a folder, the id of one in the state, or by default the chosen one, else the reference.

    Raises:
        StackError: there is no such release.
        ReleaseError: it does not verify.
    """
    wanted = wanted or state.selected_release
    if wanted is None:
        if not REFERENCE_RUN.is_dir():
            raise StackError("The reference release (model-store/reference) is not here; give --release.")
        return verify(package(REFERENCE_RUN, state.releases, state.signing_key), state.trust)
    folder = release_folder(state, wanted)
    if folder is None:
        raise StackError(f"There is no release {wanted}; `pneumoserve release list` shows those of the state folder.")
    return verify(folder.resolve(), state.trust, stated_id(folder))


def release_folder(state: State, wanted: str) -> Path | None:
    """The folder of a release, given as such or as the id of one in the state; None where there is none."""
    folders = (Path(wanted), state.releases / wanted)
    return next((folder for folder in folders if (folder / "release.json").is_file()), None)


@contextlib.contextmanager
def s3_alone(state: State) -> Iterator[S3Settings]:
    """The state's store: of the running stack, or started for as long as the context lasts."""
    announced = state.running()
    if announced is not None:
        yield S3Settings(**announced["s3"])
        return
    with state.lock():
        state.make()
        settings = state.s3_settings(free_ports(1)[0])
        child = s3_child(state.folder / "s3", settings, state.folder / "logs" / "s3.log")
        try:
            start_s3(child, settings)
            yield settings
        finally:
            child.stop()


def serve(
    state: State,
    wanted: str | None,
    port: int | None,
    grpc_port: int | None,
    show_secrets: bool = False,
    dicom: Dicom | None = None,
    engine: ModelServer = "torchserve",
) -> int:
    """Run the stack in the foreground until SIGTERM or SIGINT; when ready, print one line of JSON.

    The secret key of the store is in that line only with `show_secrets`; `stack.json` always has it.

    At REDEPLOY_SIGNAL it goes over to the release that the state folder has chosen.

    Returns 0 after a signal, 1 where a child died for good.

    Raises:
        StackError: it cannot start; where a port is in use, nothing was started.
        ReleaseError: the release does not verify.
    """
    if port is not None and port == grpc_port:
        raise StackError("REST and gRPC need two ports; give --port and --grpc-port different ones.")
    stop, redeploy = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(REDEPLOY_SIGNAL, lambda *_: redeploy.set())
    with state.lock():
        state.make()
        # A stack that was killed left its announcement; this one is not ready yet.
        state.withdraw()
        # Before the release, which may take a while to make: that a port is in use is told at once.
        with listen(port) as rest:
            grpc = free_ports(1)[0] if grpc_port is None else hold(grpc_port)
            if dicom is not None:
                hold(dicom.port)
                if dicom.web_port is not None:
                    hold(dicom.web_port)
            release = find_release(state, wanted)
            models = state.folder.resolve() / "tmp" / "models"
            models.mkdir(exist_ok=True)
            with short_path(models, _WORKERS_SOCKET) as work:
                return _Stack(state, release, (rest, grpc), work, (stop, redeploy), dicom, engine).run(show_secrets)


class _Stack:
    """The children, and what they have in common: ports, the release, and who stops or redeploys them."""

    def __init__(
        self,
        state: State,
        release: Release,
        called_at: tuple[socket.socket, int],
        work: Path,
        asked: tuple[threading.Event, threading.Event],
        dicom: Dicom | None,
        engine: ModelServer,
    ) -> None:
        self._engine = engine
        self._state = state
        self._release = release
        self._work = work
        self._stop, self._redeploy = asked
        self._redeploys = 0
        self._console = Console(stderr=True, highlight=False, markup=False)
        s3, self._metrics, inference, self._management, metrics, ts_grpc, ts_manage = free_ports(7)
        self._hints, self._console_port, self._intake_metrics = free_ports(3)
        self._dicom = dicom
        self._web = (dicom.web_port if dicom else None) or free_ports(1)[0]
        self._rest, self._grpc = called_at
        self._port = self._rest.getsockname()[1]
        self._s3 = state.s3_settings(s3)
        self._models_ports = (inference, self._management, metrics, ts_grpc, ts_manage)
        self._deaths: defaultdict[str, list[float]] = defaultdict(list)

    def run(self, show_secrets: bool) -> int:
        children: list[Child] = []
        try:
            s3 = self._s3_child()
            self._launch(children, s3)
            # It loads its models while the store starts.
            models = self._models()
            self._launch(children, models)
            wait_for_s3(s3, self._s3, self._stop)
            self._tell_ready(s3)
            console = self._console_child()
            self._launch(children, console)
            self._start_front(children, models)
            # Nobody waits for it: an alert comes after its answer.
            self._launch(children, self._sender())
            self._start_intake(children)
            self._wait_until_ready(console, lambda: answers(self._console_port, "/health", _ANSWER_SECONDS))
            if self._stop.is_set():
                return 0
            sys.stdout.write(json.dumps(self._announce(None, show_secrets)) + "\n")
            sys.stdout.flush()
            return self._watch(children)
        finally:
            self._end(children)

    def _end(self, children: list[Child]) -> None:
        """Stop all children; those that others use come last."""
        self._state.withdraw()
        # Nobody who calls from now on waits for an answer that does not come.
        self._rest.close()
        if self._stop.is_set():
            calls = self._calls_in_flight()
            waiting = f"; waiting for {calls} {'call' if calls == 1 else 'calls'}" if calls else ""
            self._console.print(f"stopping{waiting}")
        # The front first: what it still answers needs store and models, which end last, side by side.
        used = [child for child in children if child.name in {S3_SERVER, _MODELS[self._engine]}]
        using = [child for child in children if child not in used]
        for child in sorted(using, key=lambda child: child.name != _FRONT):
            child.stop()
        for child in used:
            child.ask_to_end()
        for child in used:
            child.stop()
        if self._stop.is_set():
            self._console.print("stopped")

    def _calls_in_flight(self) -> int:
        """How many calls the front answers now; 0 where it does not tell."""
        _, metrics = _get(self._metrics, "/metrics")
        found = _IN_FLIGHT.search(metrics)
        return int(found[1]) if found else 0

    def _start_front(self, children: list[Child], models: Child) -> None:
        """Start the front while the models load, and wait for both."""
        front = self._front()
        self._launch(children, front)
        self._wait_until_ready(models, self._models_ready)
        self._wait_until_ready(front, self._front_ready)

    def _start_intake(self, children: list[Child]) -> None:
        """Start what takes X-rays by DICOM, and wait for it; nothing where none are taken."""
        if self._dicom is not None:
            intake = self._intake(self._dicom)
            self._launch(children, intake)
            self._wait_until_ready(intake, lambda: answers(self._intake_metrics, "/metrics", _ANSWER_SECONDS))

    def _wait_until_ready(self, child: Child, ready: Callable[[], bool]) -> None:
        """Wait until a child is ready; no longer once a signal has come."""
        child.wait_until(lambda: self._stop.is_set() or ready(), _READY_SECONDS)
        self._tell_ready(child)

    def _launch(self, children: list[Child], child: Child) -> None:
        """Start a child; nothing once a signal has come."""
        if not self._stop.is_set():
            children.append(child)
            child.start()

    def _tell_ready(self, child: Child) -> None:
        if not self._stop.is_set():
            self._console.print(f"{child.name} is ready after {time.monotonic() - child.started:.1f} s")

    def _announce(self, refused: str | None, show_secrets: bool = False) -> dict[str, Any]:
        """Write what runs, and why the last redeployment was refused, if it was; returns what `serve` prints."""
        private = {
            **self._models_place(),
            "metrics": f"http://127.0.0.1:{self._metrics}/metrics",
            "release_folder": str(self._release.folder.resolve()),
            "pid": os.getpid(),
            "redeploys": self._redeploys,
            "refused": refused,
        }
        if self._dicom is not None:
            private["intake_metrics"] = f"http://127.0.0.1:{self._intake_metrics}/metrics"
        addresses: dict[str, Any] = {
            "url": f"http://127.0.0.1:{self._port}",
            "grpc": f"127.0.0.1:{self._grpc}",
            "console": f"http://127.0.0.1:{self._console_port}",
            **({} if self._dicom is None else self._read_dicom()),
        }
        return self._state.announce(addresses, self._release.id, self._s3, private, show_secrets)

    def _models_place(self) -> dict[str, Any]:
        """Where the models are asked."""
        if self._engine == "inprocess":
            return {"models_sockets": str(self._work / _SOCKETS)}
        names = ("inference", "management", "metrics")
        ports = zip(names, self._models_ports, strict=False)
        return {"torchserve": {name: f"http://127.0.0.1:{port}" for name, port in ports}}

    def _go_over(self, children: list[Child]) -> None:
        """Serve the chosen release in place of the present one, which comes back where that one does not start.

        Raises:
            StackError: neither starts.
        """
        self._redeploy.clear()
        present, refused = self._release, None
        try:
            self._release = find_release(self._state, None)
            if self._release.digest != present.digest:
                self._replace(children)
        except (StackError, ReleaseError) as error:
            refused = str(error)
            self._console.print(f"the redeployment failed, {present.id} goes on: {refused}")
            if self._release is not present:
                self._release = present
                self._replace(children)
        self._redeploys += 1
        if not self._stop.is_set():
            self._announce(refused)

    def _replace(self, children: list[Child]) -> None:
        """Stop what knows the release, and start it with the present one; the others stay."""
        served = [child for child in children if child.name in {_MODELS[self._engine], _FRONT, _INTAKE}]
        for child in reversed(served):
            child.stop()
            children.remove(child)
        models = self._models()
        self._launch(children, models)
        self._start_front(children, models)
        self._start_intake(children)

    def _watch(self, children: list[Child]) -> int:
        """Start again what dies, and go over to another release when asked, until a signal or a death too many."""
        next_look = time.monotonic() + _LOOK_SECONDS
        while not self._stop.wait(_POLL_SECONDS):
            if self._redeploy.is_set():
                self._go_over(children)
            if time.monotonic() >= next_look:
                for child in children:
                    if child.end_frozen():
                        self._console.print(f"{child.name} answered nothing for a minute; it was ended")
                next_look = time.monotonic() + _LOOK_SECONDS
            for child in children:
                if child.running:
                    continue
                deaths = self._count_deaths(child)
                if deaths > _DEATHS:
                    self._console.print(f"{child.name} dies again and again; read logs/{child.log.name}.")
                    return 1
                self._console.print(f"{child.name} died ({child.last_line()}); starting it again")
                child.stop()
                if self._stop.wait(_BACKOFF_SECONDS * 2 ** (deaths - 1)):
                    return 0
                child.start()
        return 0

    def _count_deaths(self, child: Child) -> int:
        """Note a death, and return how often this child has died lately."""
        now = time.monotonic()
        recent = [moment for moment in self._deaths[child.name] if now - moment < _DEATHS_WITHIN_SECONDS]
        self._deaths[child.name] = [*recent, now]
        return len(self._deaths[child.name])

    def _log(self, name: str) -> Path:
        return self._state.folder / "logs" / f"{name}.log"

    def _s3_child(self) -> Child:
        return s3_child(self._state.folder / "s3", self._s3, self._log("s3"))

    def _console_child(self) -> Child:
        state = self._state
        command = [
            *(sys.executable, "-m", "pneumoserve.console"),
            f"--port={self._console_port}",
            f"--archive-key={state.archive_key_file.resolve()}",
            f"--archive-trust={state.archive_trust.resolve()}",
            f"--sealer-trust={state.sealer_trust.resolve()}",
            f"--chance-key={state.chance_key.resolve()}",
            f"--link-keys={state.link_keys.resolve()}",
            f"--envelope-key={state.opening_key.resolve()}",
            f"--releases={state.releases.resolve()}",
            f"--trust={state.trust.resolve()}",
        ]
        return Child(
            "the console",
            command,
            {**os.environ, **self._s3.to_env(), "REVIEW_DATABASE": state.review_database},
            self._log("console"),
            _CONSOLE_GRACE_SECONDS,
            lambda: answers(self._console_port, "/health", _ANSWER_SECONDS),
        )

    def _models(self) -> Child:
        names = ("inference", "management", "metrics", "grpc-inference", "grpc-management")
        ports = [f"--{name}-port={port}" for name, port in zip(names, self._models_ports, strict=True)]
        where = [f"--sockets={self._work / _SOCKETS}"] if self._engine == "inprocess" else ports
        command = [
            *self._module("pneumoserve.models"), f"--engine={self._engine}", *where, f"--work-dir={self._work}"
        ]  # fmt: skip
        return Child(
            _MODELS[self._engine],
            command,
            dict(os.environ),
            self._log("models"),
            _MODELS_GRACE_SECONDS,
            self._models_alive,
        )

    def _models_alive(self) -> bool:
        if self._engine == "torchserve":
            return answers(self._models_ports[0], timeout=_ANSWER_SECONDS)
        greeting, workers = count_greeting(self._work / _SOCKETS, _ANSWER_SECONDS)
        return greeting == workers

    def _front(self) -> Child:
        inference, management, metrics, *_ = self._models_ports
        command = [
            *self._module("pneumoserve.front"),
            "--host=127.0.0.1",
            f"--http-socket={self._rest.fileno()}",
            f"--grpc-port={self._grpc}",
            f"--metrics-port={self._metrics}",
            # On one machine all callers have the same address.
            "--proxy=127.0.0.0/8",
            f"--engine={self._engine}",
            f"--models-sockets={self._work / _SOCKETS}",
            f"--models-url=http://127.0.0.1:{inference}",
            f"--management-url=http://127.0.0.1:{management}",
            f"--models-metrics-url=http://127.0.0.1:{metrics}",
            f"--archive-key={self._state.archive_key_file.resolve()}",
            f"--reference-key={self._state.reference_key.resolve()}",
            f"--journal={self._state.journal.resolve()}",
            f"--envelope-key={self._state.sealing_key.resolve()}",
            f"--alert-hint=127.0.0.1:{self._hints}",
        ]
        return Child(
            _FRONT,
            command,
            {**os.environ, **self._s3.to_env()},
            self._log("front"),
            _FRONT_GRACE_SECONDS,
            lambda: answers(self._port, "/v2/health/live", _ANSWER_SECONDS),
            (self._rest.fileno(),),
        )

    def _sender(self) -> Child:
        command = [sys.executable, "-m", "pneumoserve.cli", "alerts", "send", f"--state={self._state.folder.resolve()}"]
        return Child(
            "the alert sender",
            [*command, f"--hint-port={self._hints}"],
            {**os.environ, **self._s3.to_env()},
            self._log("alerts"),
            _SENDER_GRACE_SECONDS,
        )

    def _intake(self, dicom: Dicom) -> Child:
        population, rules = self._release.manifest.policy.population, self._state.intake_rules
        command = [
            *(sys.executable, "-m", "pneumoserve.intake", "--host=127.0.0.1"),
            f"--port={dicom.port}",
            f"--web-port={self._web}",
            f"--metrics-port={self._intake_metrics}",
            f"--front=http://127.0.0.1:{self._port}",
            f"--reference-key={self._state.reference_key.resolve()}",
            f"--archive-bucket={self._s3.bucket}",
            f"--archive-key={self._state.archive_key_file.resolve()}",
            f"--min-age-years={population.min_age_years}",
            f"--below-age-years={population.below_age_years}",
            *([f"--rules={rules.resolve()}"] if rules.is_file() else []),
            *(f"--to={each}" for each in dicom.to),
            *(f"--fhir-to={each}" for each in dicom.fhir_to),
            *dicom.tls_options,
            *([f"--netrc={netrc.resolve()}"] if (netrc := self._state.netrc).is_file() else []),
        ]
        return Child(
            _INTAKE,
            command,
            {**os.environ, **self._s3.in_bucket(INTAKE_BUCKET).to_env()},
            self._log("intake"),
            _INTAKE_GRACE_SECONDS,
            lambda: answers(self._intake_metrics, "/metrics", _ANSWER_SECONDS),
        )

    def _read_dicom(self) -> dict[str, Any]:
        """Where intake says that it listens, for C-STORE and for STOW-RS."""
        lines = self._log("intake").read_text(errors="replace").splitlines()
        announced: dict[str, Any] = json.loads(next(line for line in reversed(lines) if line.startswith('{"ae_title"')))
        return {"dicomweb": announced.pop("dicomweb"), "dicom": announced}

    def _module(self, name: str) -> list[str]:
        release = [f"--release={self._release.folder.resolve()}", f"--release-id={self._release.id}"]
        return [sys.executable, "-m", name, *release, f"--trust={self._state.trust.resolve()}"]

    def _models_ready(self) -> bool:
        if self._engine == "inprocess":
            greeting, _ = count_greeting(self._work / _SOCKETS, _ANSWER_SECONDS)
            return greeting > 0
        return all(has_worker(self._management, model) for model in (DETECTOR, TYPER))

    def _front_ready(self) -> bool:
        # Only the front has the socket that listens there, so it is the front that answers.
        status, _ = _get(self._port, "/v2/health/ready")
        return status == http.HTTPStatus.OK


def _get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of what a port of loopback answers; 0 where it answers nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
