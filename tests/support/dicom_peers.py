"""DICOM peers for tests: Orthanc as a PACS, and what a sender may do wrong, by pynetdicom."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import AssociationSocket

from pneumoserve.intake.rules import VERIFICATION
from pneumoserve.local.process import free_ports
from tests.conftest import wait_for

# pynetdicom has programs of the same names, in the environment's own folder.
_FOLDERS = os.pathsep.join(each for each in os.get_exec_path() if Path(each) != Path(sys.prefix) / "bin")
needs_dcmtk = pytest.mark.skipif(
    shutil.which("storescu", path=_FOLDERS) is None, reason="DCMTK is not on every machine"
)
_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_orthanc = pytest.mark.skipif(
    shutil.which("Orthanc") is None or not _DICOMWEB.exists() or shutil.which("dciodvfy") is None,
    reason="Orthanc with its DICOMweb and dicom3tools are not on every machine",
)
_ROUTES = """
function OnStoredInstance(id, tags, metadata)
  if tags['Modality'] == 'CR' then SendToModality(id, 'pneumoserve') end
end
"""


@contextlib.contextmanager
def closed_sockets() -> Iterator[None]:
    """Close the socket of a connection that failed at once.

    pynetdicom leaves it to the garbage collector, whose warning may then fail a test that has nothing to do with it.
    """

    def close(connection: AssociationSocket) -> None:
        if connection.socket is not None:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            connection.socket.close()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AssociationSocket, "_shutdown_socket", close)
        yield


def dcmtk(program: str) -> str:
    """The path of a program of DCMTK's."""
    found = shutil.which(program, path=_FOLDERS)
    assert found is not None, program
    return found


@dataclass
class Pacs:
    """A running Orthanc; `address` is AE@HOST:PORT, `dicomweb` the base of its DICOMweb."""

    http: httpx.Client
    address: str
    dicomweb: str

    def store(self, file: bytes) -> str:
        """Give it an object; its id there."""
        return str(self.http.post("/instances", content=file).raise_for_status().json()["ID"])

    def send_by_stow(self, instance: str, url: str) -> None:
        """Have it send one of its instances by STOW-RS."""
        self.http.put("/dicom-web/servers/pneumoserve", json={"Url": url}).raise_for_status()
        asked = {"Resources": [instance], "Synchronous": True}
        self.http.post("/dicom-web/servers/pneumoserve/stow", json=asked).raise_for_status()

    def reports(self) -> list[bytes]:
        """The structured reports that it has."""
        return self.find("SR")

    def find(self, modality: str) -> list[bytes]:
        """Its instances of a modality."""
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        found = self.http.post("/tools/find", json=query).json()
        return [self.http.get(f"/instances/{each}/file").content for each in found]


@contextlib.contextmanager
def run_orthanc(folder: Path, routes_to: int, users: dict[str, str] | None = None) -> Iterator[Pacs]:
    """A PACS that routes each CR to our port on loopback as soon as it has it; with `users`, it knows nobody else."""
    folder.mkdir()
    http_port, dicom_port = free_ports(2)
    (folder / "routes.lua").write_text(_ROUTES)
    settings = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "HttpPort": http_port,
        "DicomPort": dicom_port, "DicomAet": "ORTHANC", "AuthenticationEnabled": users is not None,
        "RegisteredUsers": users or {}, "Plugins": [str(_DICOMWEB)], "DicomWeb": {"Enable": True},
        "LuaScripts": [str(folder / "routes.lua")], "OverwriteInstances": True,
        "DicomModalities": {"pneumoserve": ["PNEUMOSERVE", "127.0.0.1", routes_to]},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["Orthanc", folder / "orthanc.json"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{http_port}"
    http = httpx.Client(base_url=url, timeout=30, auth=next(iter((users or {}).items()), None))

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return http.get("/system").status_code == 200
        return False

    try:
        wait_for(answers, 60)
        yield Pacs(http, f"ORTHANC@127.0.0.1:{dicom_port}", f"{url}/dicom-web")
    finally:
        http.close()
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def associate(
    port: int,
    sop_class: str,
    syntax: str = "1.2.840.10008.1.2.1",
    calling: str = "PACS",
    called: str = "PNEUMOSERVE",
    host: str = "127.0.0.1",
) -> Iterator[Association]:
    """An association with our port, whatever became of it."""
    entity = AE(calling)
    entity.connection_timeout = 10
    entity.add_requested_context(sop_class, syntax)
    association = entity.associate(host, port, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def make_request(data_set: bytes, sop_class: str, instance: str) -> C_STORE:
    """A C-STORE of these very bytes."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
    request.DataSet = io.BytesIO(data_set)
    return request


def store(association: Association, data_set: bytes, sop_class: str, instance: str) -> tuple[int, str]:
    """Status and comment of a C-STORE of these very bytes."""
    (context,) = association.accepted_contexts
    # As pynetdicom's own calls do: the answer is read here, and not by the association's thread.
    association._reactor_checkpoint.clear()
    wait_for(lambda: association._is_paused)
    association.dimse.send_msg(make_request(data_set, sop_class, instance), context.context_id)
    answer: Any
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(answer.Status), str(answer.ErrorComment or "")


def send_until_taken(file: bytes, port: int, host: str = "127.0.0.1") -> None:
    """Send a CR as a modality does: again, until it is told that the object is kept."""
    header = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
    data_set, give_up = data_set_of(file), time.monotonic() + 120
    while time.monotonic() < give_up:
        with (
            contextlib.suppress(AttributeError, AssertionError, RuntimeError),
            associate(port, header.SOPClassUID, host=host) as association,
        ):
            if association.is_established:
                status, _ = store(association, data_set, header.SOPClassUID, header.SOPInstanceUID)
                if status == 0:
                    return
        time.sleep(0.05)
    raise AssertionError("the object was not taken in two minutes")


@contextlib.contextmanager
def take_reports(host: str = "127.0.0.1") -> Iterator[tuple[str, dict[str, set[bytes]]]]:
    """A PACS; its address, and the bytes of the data sets that it got under each SOP Instance UID."""
    taken: dict[str, set[bytes]] = {}
    entity = AE("PACS")
    entity.add_supported_context(Comprehensive3DSRStorage, ExplicitVRLittleEndian)
    entity.add_supported_context(VERIFICATION)

    def keep(event: evt.Event) -> int:
        taken.setdefault(str(event.request.AffectedSOPInstanceUID), set()).add(event.encoded_dataset(False))
        return 0

    server = entity.start_server((host, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        yield f"PACS@{host}:{server.server_address[1]}", taken
    finally:
        server.shutdown()


def data_set_of(file: bytes) -> bytes:
    """The data set of a file in explicit VR little endian: what follows the file meta information."""
    length = int.from_bytes(file[140:144], "little")
    return file[144 + length :]
