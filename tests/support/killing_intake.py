"""Intake killed at random moments while a PACS sends, by C-STORE and by STOW-RS in turn."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event

import httpx

from pneumoserve.intake.__main__ import main
from pneumoserve.intake.spool import Batch, Spool
from pneumoserve.store import S3Settings, Store
from tests.conftest import wait_for
from tests.support.dicom_peers import send_until_taken

# Of a study.
OBJECTS = 2
# A PACS sends more when fewer wait: so there is work at each moment, and little is left at the end.
_STUDIES_AT_ONCE = 4
_PATIENCE_SECONDS = 120
# Forked from a process that has read all modules: a start takes seconds otherwise, and there are hundreds.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
# Longer than the pause between two looks at the spool.
_LONGEST_LIFE_SECONDS = 3.0


@dataclass(frozen=True)
class Intake:
    """How intake is started; `folder` gets its log and its rules."""

    settings: S3Settings
    key: Path
    folder: Path
    front: str
    to: tuple[str, ...]
    dicom_port: int
    web_port: int

    def start(self) -> BaseProcess:
        """A process that listens."""
        rules, log = self.folder / "rules.yaml", self.folder / "log"
        rules.write_text("quietSeconds: 0\n")
        flags = [
            *("--host=127.0.0.1", f"--port={self.dicom_port}", f"--web-port={self.web_port}", f"--rules={rules}"),
            *(f"--front={self.front}", f"--reference-key={self.key}", *(f"--to={each}" for each in self.to)),
        ]
        log.touch()
        before = log.stat().st_size
        begun = _PROCESSES.Process(target=_run, args=(flags, self.settings.to_env(), log))
        begun.start()
        wait_for(lambda: b"ae_title" in log.read_bytes()[before:] or not begun.is_alive())
        assert begun.is_alive(), log.read_text()
        return begun


def _run(flags: list[str], environment: dict[str, str], log: Path) -> None:
    os.environ.update(environment)
    with log.open("ab", buffering=0) as said:
        for each in (1, 2):
            os.dup2(said.fileno(), each)
    sys.argv[1:] = flags
    sys.exit(main())


def kill_while_sending(
    intake: Intake, spool: Spool, make: Callable[[int, str], bytes], chance: random.Random, kills: Iterable[object]
) -> list[str]:
    """Kill intake for each of `kills` while studies come, then let it finish; the UIDs of the studies.

    `make` makes an object by its number and its study. Each is sent again until its sender is told that it is kept.
    """
    is_over = Event()
    with ThreadPoolExecutor(1) as senders:
        sender = senders.submit(_send, intake, spool, make, is_over)
        try:
            for _ in kills:
                running = intake.start()
                # At any moment of its work, which is what is to be shown.
                running.join(chance.uniform(0.0, _LONGEST_LIFE_SECONDS))
                running.kill()
                running.join()
        finally:
            is_over.set()
        running = intake.start()
        try:
            studies = sender.result(_PATIENCE_SECONDS)
            wait_for(lambda: not spool.studies(), _PATIENCE_SECONDS)
        finally:
            running.terminate()
            running.join()
    assert running.exitcode == 0
    return studies


def _send(intake: Intake, spool: Spool, make: Callable[[int, str], bytes], is_over: Event) -> list[str]:
    sent: list[str] = []
    for number in count(1):
        wait_for(lambda: is_over.is_set() or len(spool.studies()) < _STUDIES_AT_ONCE, _PATIENCE_SECONDS)
        if is_over.is_set():
            break
        study = f"1.2.826.0.1.3680043.10.{number}"
        for each in range(1, OBJECTS + 1):
            file = make(each, study)
            if each % 2 == 0:
                send_until_taken(file, intake.dicom_port)
            else:
                wait_for(lambda file=file: _store_by_stow(intake.web_port, file), _PATIENCE_SECONDS)
        sent.append(study)
    return sent


def _store_by_stow(port: int, file: bytes) -> bool:
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--x--\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(f"http://127.0.0.1:{port}/dicom-web/studies", content=body, headers=headers).is_success
    return False


def find_results(spool: Spool, store: Store) -> set[str]:
    """The SOP Instance UIDs of the results that a spool's studies have."""
    answers = [each.key.split("/") for each in store.list("studies/") if each.key.endswith("/answer")]
    return {spool.uid(f"result {Batch(study, int(number)).folder}") for _, study, number, _ in answers}
