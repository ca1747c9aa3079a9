"""The PACS of `make demo DICOM=1`: it sends the sample's DICOM, and takes the reports."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pydicom
from highdicom.sr import Comprehensive3DSR
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt

_TITLE: Final = "DEMO"


class Reports(queue.Queue[Comprehensive3DSR]):
    """The reports that the PACS got; `address` is its own."""

    address = ""


@contextlib.contextmanager
def taking_reports() -> Iterator[Reports]:
    """A PACS that takes reports."""
    reports = Reports()
    entity = AE(_TITLE)
    entity.add_supported_context(Comprehensive3DSRStorage)

    def take(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        reports.put(Comprehensive3DSR.from_dataset(dataset))
        return 0

    server: Any = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    reports.address = f"{_TITLE}@127.0.0.1:{server.server_address[1]}"
    try:
        yield reports
    finally:
        server.shutdown()


def send_files(paths: list[Path], to: dict[str, Any]) -> Iterator[int]:
    """Send DICOM files in one association; the status of each. `to` is what `serve` says of its DICOM."""
    files = [pydicom.dcmread(path) for path in paths]
    entity = AE(_TITLE)
    for file in files:
        entity.add_requested_context(file.SOPClassUID, file.file_meta.TransferSyntaxUID)
    association = entity.associate(to["host"], to["port"], ae_title=to["ae_title"])
    for file in files:
        yield association.send_c_store(file).Status
    association.release()


def describe_report(report: Comprehensive3DSR) -> Iterator[str]:
    """What a report says of its study, line by line."""
    group: Any = report.content.get_image_measurement_groups()[0]  # type: ignore[attr-defined]  # of TID 1500
    yield f"{report.SeriesDescription}; {report.PreliminaryFlag}, {report.VerificationFlag}"
    yield f"  Finding: {group.finding_type.meaning}"
    for each in group.get_measurements():
        yield f"  {each.name.meaning}: {each.value} %"
    for each in group.get_qualitative_evaluations():
        yield f"  {each.name.meaning}: {each.value.meaning}"
