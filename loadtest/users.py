"""Locust users, one for each way to ask. A user does not wait for its answers: each call has a greenlet of its own.

Locust's own loop is closed: a user sends its next call when it has the last answer, so a service that stands still for
a second is asked less in that second, and the calls that real callers would have made have no time at all (coordinated
omission). Here the shape says when each call is due; it is sent then, whatever became of the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final, cast
from urllib.parse import urlsplit

import gevent
import gevent.event
import gevent.pool
import grpc
import grpc.experimental.gevent
from geventhttpclient import HTTPClient
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser
from tritonclient.grpc import service_pb2 as messages

from loadtest.calls import Answer, Call, Films, WrongAnswer, calls_of, check_answer, check_grpc_answer
from loadtest.shapes import Shape
from loadtest.summary import NOT_SENT, Outcome

grpc.experimental.gevent.init_gevent()

_BLOCK_BYTES: Final = 65536
_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_HEAD_START_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Target:
    """Where the service is. `headers` go with every call and are in no report: they may hold a credential."""

    url: str
    grpc: str
    host_name: str | None
    ca: Path | None
    headers: dict[str, str] = field(repr=False)
    timeout: float


@dataclass
class Load:
    """One load: what is sent when, by whom, and what became of it."""

    target: Target
    shape: Shape
    kinds: list[str]
    films: Films
    images: int
    most_allowed: int
    outcomes: list[Outcome] = field(default_factory=list)
    # What was wrong with a kind's first call, which is made before the clock starts and does not count.
    refusals: dict[str, str] = field(default_factory=dict)
    under_way: int = 0
    most_under_way: int = 0
    started: float = 0.0
    finished: int = 0
    _present: int = 0
    _start: gevent.event.Event = field(default_factory=gevent.event.Event)

    def start_together(self) -> None:
        """Wait until every user is there; the clock starts then."""
        self._present += 1
        if self._present == len(self.kinds):
            self.started = time.monotonic() + _HEAD_START_SECONDS
            self._start.set()
        self._start.wait()

    def due(self, kind: str) -> Iterator[float]:
        """The moments of a kind's calls: kinds take turns."""
        return islice(self.shape.due(), self.kinds.index(kind), None, len(self.kinds))

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


class LoadEnvironment(Environment):
    """Locust's environment, with the load that its users make."""

    load: Load


class OpenLoopUser(User):
    """A user that sends its calls when they are due."""

    abstract = True
    kind: ClassVar[str]

    def on_start(self) -> None:
        """Make every call's body once."""
        self.load = cast(LoadEnvironment, self.environment).load
        self.calls = calls_of(self.kind, self.load.films.of(self.kind), self.load.images, messages)
        self.pool = gevent.pool.Pool()
        try:
            self.connect()
            problem = self.attempt(self.calls[0])[2]
        # The others wait for this user: it must come, whatever its client says of an authority's file or an address.
        except Exception as error:  # noqa: BLE001
            problem = type(error).__name__
        if problem:
            self.load.refusals[self.kind] = problem

    @task
    def send_when_due(self) -> None:
        """Send all calls, wait for the last answer, and end."""
        self.load.start_together()
        if not self.load.refusals:
            for number, due in enumerate(self.load.due(self.kind)):
                gevent.sleep(max(0.0, due - self.load.now()))
                self.pool.spawn(self._make, self.calls[number % len(self.calls)], due)
            self.pool.join()
        self.load.finished += 1
        raise StopUser

    def _make(self, call: Call, due: float) -> None:
        load, sent = self.load, self.load.now()
        if load.under_way >= load.most_allowed:
            self._note(Outcome(self.kind, due, sent, sent, NOT_SENT), 0)
            return
        load.under_way += 1
        load.most_under_way = max(load.most_under_way, load.under_way)
        ended, answer, problem, length = self.attempt(call)
        load.under_way -= 1
        release = answer.release if answer else None
        self._note(Outcome(self.kind, due, sent, ended, problem, release), length)

    def _note(self, outcome: Outcome, length: int) -> None:
        self.load.outcomes.append(outcome)
        self.environment.events.request.fire(
            request_type="gRPC" if self.kind == "grpc" else "POST",
            name=self.kind,
            response_time=1000 * (outcome.ended - outcome.due),
            response_length=length,
            exception=WrongAnswer(outcome.problem) if outcome.problem else None,
            context={},
        )

    def attempt(self, call: Call) -> tuple[float, Answer | None, str | None, int]:
        """Make a call: when it ended, its answer or what is wrong with it, and the answer's bytes."""
        ended, length = None, 0
        try:
            with gevent.Timeout(self.load.target.timeout):
                parts = self.send(call)
            ended = self.load.now()
            length = len(parts[-1])
            return ended, self.check(call, *parts), None, length
        except WrongAnswer as wrong:
            problem = str(wrong)
        except gevent.Timeout:
            problem = "no answer in time"
        except grpc.RpcError as error:
            problem = f"gRPC {error.code().name}"
        # Whatever a client raises is the fate of one call; its class is reported, since its text may quote the answer.
        except Exception as error:  # noqa: BLE001
            problem = type(error).__name__
        return ended or self.load.now(), None, problem, length

    def connect(self) -> None:
        """Make the client."""
        raise NotImplementedError

    def send(self, call: Call) -> tuple[Any, ...]:
        """Send a call; the answer's parts, its body last."""
        raise NotImplementedError

    def check(self, call: Call, *parts: Any) -> Answer:
        """What the answer says."""
        raise NotImplementedError


class HttpUser(OpenLoopUser):
    """A user of a REST protocol, with a connection for each call that is under way."""

    abstract = True

    def connect(self) -> None:
        """A pool of connections that are kept alive."""
        target = self.load.target
        self.client = HTTPClient.from_url(
            target.url,
            headers={**target.headers, **({"Host": target.host_name} if target.host_name else {})},
            block_size=_BLOCK_BYTES,
            connection_timeout=target.timeout,
            network_timeout=target.timeout,
            concurrency=self.load.most_allowed,
            ssl_options=_ssl_options(target),
        )

    def send(self, call: Call) -> tuple[Any, ...]:
        """POST it."""
        response = self.client.request("POST", call.path, call.body, call.headers)
        return response, response.read()

    def check(self, call: Call, *parts: Any) -> Answer:
        """Status, header and body."""
        response, body = parts
        return check_answer(call, response.status_code, response.get, body)


def _ssl_options(target: Target) -> dict[str, Any]:
    """Whom to trust, and which name the certificate must have."""
    name = {"server_hostname": target.host_name} if target.host_name else {}
    return name | ({"ca_certs": str(target.ca)} if target.ca else {})


class V1User(HttpUser):
    """V1, films as base64 in JSON."""

    kind = "v1"


class V2JsonUser(HttpUser):
    """V2 (Open Inference Protocol), films as base64 in JSON."""

    kind = "v2-json"


class V2BinaryUser(HttpUser):
    """V2 with binary tensors, both ways."""

    kind = "v2-binary"


class DicomUser(HttpUser):
    """A DICOM object as it is."""

    kind = "dicom"


class GrpcUser(OpenLoopUser):
    """V2 over gRPC; one channel, as clients have it."""

    kind = "grpc"

    def connect(self) -> None:
        """One channel; messages are sent as they are, since they were made once."""
        target = self.load.target
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", _MESSAGE_BYTES)]
        if target.host_name:
            options.append(("grpc.default_authority", target.host_name))
        if urlsplit(target.url).scheme == "https":
            authorities = target.ca.read_bytes() if target.ca else None
            channel = grpc.secure_channel(target.grpc, grpc.ssl_channel_credentials(authorities), options)
        else:
            channel = grpc.insecure_channel(target.grpc, options)
        self.metadata = [(name.lower(), value) for name, value in target.headers.items()]
        self.methods = {call.path: channel.unary_unary(call.path) for call in self.calls}

    def send(self, call: Call) -> tuple[Any, ...]:
        """Call the method."""
        return (self.methods[call.path](call.body, timeout=self.load.target.timeout, metadata=self.metadata),)

    def check(self, call: Call, *parts: Any) -> Answer:
        """Outputs."""
        (body,) = parts
        return check_grpc_answer(call, messages, body)


USERS: Final[dict[str, type[OpenLoopUser]]] = {
    user.kind: user for user in (V1User, V2JsonUser, V2BinaryUser, GrpcUser, DicomUser)
}
