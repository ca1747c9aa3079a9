"""The store transaction of DICOMweb, STOW-RS (PS3.18 10.5): success means that the object is durable in the spool.

A body is taken apart as it comes, and each object is kept before the next one is read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from dataclasses import dataclass
from typing import Final

import uvicorn
from fastapi import FastAPI, Request, Response
from pydicom.dataset import Dataset
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from pneumoserve.intake import taking
from pneumoserve.intake.errors import IntakeRulesError, RequestRefusalError
from pneumoserve.intake.parts import Part, read_parts
from pneumoserve.intake.rules import IntakeRules
from pneumoserve.intake.spool import Spool

_BASE: Final = "/dicom-web"
_FLAGGED: Final = f"{_BASE}/flagged"
_DICOM: Final = b"application/dicom"
_DICOM_JSON: Final = "application/dicom+json"
_ACCEPTED: Final = {_DICOM_JSON, "application/json", "application/*", "*/*"}
# What is known of a request's objects is in memory until it ends.
_MOST_OBJECTS: Final = 10_000
# Of what is left of a body that was refused.
_REST_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 10
_RETRY_AFTER: Final = "5"
_REQUEST_TIMEOUT: Final = 408

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Result:
    """What became of an object; without UIDs where it says none."""

    sop_class: str
    instance: str
    told: taking.Told


class WebReceiver:
    """Listens until it is closed; port 0 is a free one. `notes`: key object selections are taken too.

    Raises:
        IntakeRulesError: the address cannot be listened on.
    """

    def __init__(self, spool: Spool, rules: IntakeRules, at: tuple[str, int], *, notes: bool = False) -> None:
        host, port = at
        try:
            listening = socket.create_server(at, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise IntakeRulesError(
                f"DICOMweb cannot be listened for on port {port} ({error.strerror}); give another."
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listening.getsockname()[1]}{_BASE}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                _create_app(spool, rules, notes=notes),
                # An address names a study.
                access_log=False,
                log_config=None,
                log_level="critical",
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="stow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more requests, and end those that are open."""
        self._server.should_exit = True
        self._thread.join()


def _create_app(spool: Spool, rules: IntakeRules, *, notes: bool) -> FastAPI:
    app = FastAPI(openapi_url=None)
    bases = {_BASE: False} | ({_FLAGGED: True} if rules.flagged_ae_title is not None else {})
    # The same for both: a radiologist's choice is no reason to be let in.
    store = _Store(spool, rules, notes=notes)
    for base, flagged in bases.items():
        for path in ("/studies", "/studies/{study}"):
            app.add_route(base + path, store.take_flagged if flagged else store.take_routed, methods=["POST"])
    return app


class _Store:
    """Answers requests, as many at once as there may be associations."""

    def __init__(self, spool: Spool, rules: IntakeRules, *, notes: bool) -> None:
        self._spool = spool
        self._rules = rules
        self._notes = notes
        self._open = 0

    async def take_routed(self, request: Request) -> Response:
        """Take what a rule sends."""
        return await self._answer(request, flagged=False)

    async def take_flagged(self, request: Request) -> Response:
        """Take what a radiologist chose."""
        return await self._answer(request, flagged=True)

    async def _answer(self, request: Request, *, flagged: bool) -> Response:
        self._open += 1
        try:
            return _respond(await self._store(request, flagged=flagged))
        except RequestRefusalError as error:
            _log.warning("a store request from %s was refused with %d: %s", _address(request), error.status, error)
            headers = {"Retry-After": _RETRY_AFTER} if error.status == 503 else {}
            if error.status == _REQUEST_TIMEOUT:
                # Nothing more comes, and others wait for the place.
                headers["Connection"] = "close"
            else:
                await _read_rest(request)
            return Response(json.dumps({"error": str(error)}), error.status, headers, "application/json")
        except ClientDisconnect:
            # What came whole is kept; the sender sends it all again.
            _log.warning("a store request from %s broke off; it is to be sent again", _address(request))
            return Response(status_code=400)
        finally:
            self._open -= 1

    async def _store(self, request: Request, *, flagged: bool) -> list[_Result]:
        if not self._rules.allows_web(_address(request)):
            raise RequestRefusalError(403, "Nobody may send from there; add its network to webNetworks in the rules.")
        if self._open > self._rules.max_associations:
            raise RequestRefusalError(503, "Too many requests are open; send it again later.")
        boundary = _check_headers(request)
        results: list[_Result] = []
        async for part in read_parts(request.stream(), boundary):
            if len(results) == _MOST_OBJECTS:
                raise RequestRefusalError(413, f"There are more than {_MOST_OBJECTS} objects; send several requests.")
            results.append(await asyncio.to_thread(self._take, part, _address(request), request, flagged))
        if not results:
            raise RequestRefusalError(400, "The body has no objects; send each as a part of application/dicom.")
        return results

    def _take(self, part: Part | taking.Told, sender: str, request: Request, flagged: bool) -> _Result:
        if not isinstance(part, Part):
            return _Result("", "", taking.answer(lambda: part, sender))
        study = request.path_params.get("study")
        arrival = taking.Arrival(part.sop_class, part.instance, part.syntax, part.data_set, flagged, study)
        told = taking.answer(lambda: taking.keep(self._spool, self._rules, arrival, notes=self._notes), sender)
        return _Result(part.sop_class, part.instance, told)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _check_headers(request: Request) -> bytes:
    """The boundary of the body's parts."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    inside = options.get(b"type", _DICOM).lower()
    if kind.lower() != b"multipart/related" or inside != _DICOM:
        raise RequestRefusalError(415, 'Objects come as multipart/related; type="application/dicom"; send them so.')
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestRefusalError(415, "The body has a Content-Encoding; send it without.")
    wanted = {each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "*/*").split(",")}
    if not wanted & _ACCEPTED:
        raise RequestRefusalError(406, f"The answer is {_DICOM_JSON}; accept it.")
    boundary = options.get(b"boundary")
    if not boundary:
        raise RequestRefusalError(400, "The Content-Type has no boundary; let your DICOMweb library write that header.")
    return boundary


async def _read_rest(request: Request) -> None:
    """Throw away what is left of a refused request: its sender reads no answer before it has sent all."""
    try:
        async with asyncio.timeout(_REST_SECONDS):
            async for _ in request.stream():
                pass
    except (TimeoutError, ClientDisconnect, RuntimeError):
        # It was read already, or is not worth more time.
        pass


def _respond(results: list[_Result]) -> Response:
    """The Store Instances Response Module (PS3.18 I.2) and its status."""
    failed = [each for each in results if each.told[0] != taking.SUCCESS]
    if not failed:
        status = 200
    elif len(failed) < len(results):
        status = 202
    else:
        # To a sender, 409 is for good.
        status = 503 if all(each.told[0] == taking.OUT_OF_RESOURCES for each in failed) else 409
    headers = {"Retry-After": _RETRY_AFTER} if status == 503 else {}
    if failed:
        sentences = dict.fromkeys(each.told[1] for each in failed)
        headers["Warning"] = ", ".join(f'299 pneumoserve "{each}"' for each in sentences)
    return Response(json.dumps(_describe(results)), status, headers, _DICOM_JSON)


def _describe(results: list[_Result]) -> dict[str, object]:
    module = Dataset()
    # Nothing can be retrieved here.
    module.RetrieveURL = ""
    sequences: dict[str, list[Dataset]] = {}
    for result in results:
        status, _ = result.told
        item = Dataset()
        if result.instance:
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = result.sop_class, result.instance
        if status == taking.SUCCESS:
            item.RetrieveURL, sequence = "", "ReferencedSOPSequence"
        else:
            item.FailureReason = status
            sequence = "FailedSOPSequence" if result.instance else "OtherFailuresSequence"
        sequences.setdefault(sequence, []).append(item)
    for sequence, items in sequences.items():
        setattr(module, sequence, items)
    return module.to_json_dict()
