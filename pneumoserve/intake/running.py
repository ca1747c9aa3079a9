"""Intake as a process: until SIGTERM or SIGINT."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
from typing import Final

from prometheus_client import start_http_server

from pneumoserve.build_info import show_build
from pneumoserve.front.identity import GATEWAY_HEADER, read_secret
from pneumoserve.intake import metrics
from pneumoserve.intake.calls import Caller
from pneumoserve.intake.destinations import open_destination
from pneumoserve.intake.fhir_sender import FhirDestination
from pneumoserve.intake.recording import Recorder
from pneumoserve.intake.rules import load_rules
from pneumoserve.intake.scp import Receiver
from pneumoserve.intake.settings import IntakeSettings
from pneumoserve.intake.spool import Spool
from pneumoserve.intake.stow import WebReceiver
from pneumoserve.intake.studies import Studies
from pneumoserve.intake.web import WebPeer
from pneumoserve.logs import set_up_logs
from pneumoserve.records import Pseudonyms
from pneumoserve.signing import load_key
from pneumoserve.store import S3Settings, S3Store, StoreError

_LOOK_SECONDS: Final = 1.0
# How often failures are counted: it reads a listing of each study that waits.
_COUNT_EVERY: Final = 10

_log: Final = logging.getLogger(__name__)


def run(settings: IntakeSettings) -> None:
    """Take, answer and send until a signal; then finish what is on its way.

    When it listens it prints one line of JSON, with its AE title and port, and the address of DICOMweb.

    Raises:
        IntakeRulesError: the rules cannot be followed, or the address cannot be listened on.
        ReferenceKeyError: there is no key.
        GatewaySecretError: the gateway's secret cannot be read.
        StoreError: the spool's bucket cannot be made.
    """
    set_up_logs()
    rules = load_rules(settings.rules)
    reading = rules.read.within((settings.min_age_years, settings.below_age_years))
    rules = rules.model_copy(update={"read": reading})
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(S3Store(S3Settings.from_env())))
        # What lies there must be possible to erase.
        store.set_up(lockable=False)
        spool = Spool(store, Pseudonyms.read(settings.reference_key))
        caller = stack.enter_context(contextlib.closing(Caller(settings.front, sign_in(settings))))
        destinations = [
            open_destination(spool, rules.ae_title, each, settings.tls, settings.netrc) for each in settings.to
        ]
        destinations += [FhirDestination(spool, WebPeer(each, settings.netrc)) for each in settings.fhir_to]
        for destination in destinations:
            destination.start()
            stack.callback(destination.stop)
        recorder = _open_archive(settings, stack)
        studies = Studies(spool, rules, caller, destinations, recorder)
        stack.callback(studies.finish)
        notes = recorder is not None
        receiver = Receiver(spool, rules, (settings.host, settings.port), settings.tls, notes=notes)
        # First of all when it ends: nothing more comes in.
        stack.callback(receiver.close)
        announced = {"ae_title": rules.ae_title, "host": settings.host, "port": receiver.port}
        if settings.web_port is not None:
            web = WebReceiver(spool, rules, (settings.host, settings.web_port), notes=notes)
            stack.callback(web.close)
            announced["dicomweb"] = web.url
        sys.stdout.write(json.dumps(announced) + "\n")
        sys.stdout.flush()
        # Only now: whoever gets an answer there knows that DICOM is listened for.
        if settings.metrics_port is not None:
            show_build("intake")
            start_http_server(settings.metrics_port)
        _follow(spool, studies, stopping)


def sign_in(settings: IntakeSettings) -> dict[str, str]:
    """Headers that name us to the service, as its gateway names other callers."""
    if settings.subject_header is None:
        return {}
    headers = {settings.subject_header: "intake"}
    if settings.gateway_secret is not None:
        headers[GATEWAY_HEADER] = read_secret(settings.gateway_secret).decode()
    return headers


def _open_archive(settings: IntakeSettings, stack: contextlib.ExitStack) -> Recorder | None:
    if settings.archive_bucket is None:
        return None
    archive = S3Store(S3Settings.from_env().in_bucket(settings.archive_bucket))
    stack.callback(archive.close)
    return Recorder(archive, load_key(settings.archive_key))


def _follow(spool: Spool, studies: Studies, stopping: threading.Event) -> None:
    looks = 0
    while not stopping.wait(_LOOK_SECONDS):
        try:
            studies.look()
            if looks % _COUNT_EVERY == 0:
                metrics.FAILED.set(len({failure.batch.study for failure in spool.all_failures()}))
        except StoreError as error:
            _log.warning("the spool does not answer: %s", error)
        looks += 1
