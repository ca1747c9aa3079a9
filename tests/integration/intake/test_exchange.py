"""The whole exchange with a PACS: Orthanc routes X-rays to the local stack, and takes the result."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from highdicom.sr import srread

from pneumoserve.local.process import free_ports
from pneumoserve.records import REVIEW_WRITERS, Withdrawal, find_record, kind_of, read_entries
from tests.conftest import PNEUMOSERVE, Stack, start_stack, wait_for
from tests.support.dicom_peers import Pacs, dcmtk, needs_orthanc, run_orthanc
from tests.support.intake import STUDY, child_xray, groups_of, make_object, make_selection

pytestmark = needs_orthanc


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pacs, Stack]]:
    folder = tmp_path_factory.mktemp("exchange")
    (port,) = free_ports(1)
    (folder / "state").mkdir()
    (folder / "state" / "intake.yaml").write_text("quietSeconds: 2\nsecondaryCapture: true\n")
    with run_orthanc(folder / "orthanc", port) as pacs:
        stack = start_stack(
            folder / "state", f"--dicom-port={port}", f"--dicom-to={pacs.address}", f"--dicom-to={pacs.dicomweb}"
        )
        assert stack.announced["dicom"] == {"ae_title": "PNEUMOSERVE", "host": "127.0.0.1", "port": port}
        yield pacs, stack
        assert stack.stop() == 0


def test_a_study_that_the_pacs_routes_comes_back_as_a_report(exchange: tuple[Pacs, Stack], tmp_path: Path) -> None:
    pacs, stack = exchange
    for number in (1, 2):
        pacs.store(child_xray(number))
    pacs.store(child_xray(3, PatientAge="040Y"))
    wait_for(lambda: len(pacs.reports()) == 1, 60)
    (report,) = pacs.reports()
    document = srread(io.BytesIO(report))
    assert (document.StudyInstanceUID, document.PreliminaryFlag) == (STUDY, "PRELIMINARY")
    groups = groups_of(document)
    records = [find_record(stack.reader, group.tracking_identifier) for group in groups[1:]]
    assert [record.call.origin for record in records if record] == ["routed", "routed"]
    assert {record.call.study for record in records if record} == {records[0].call.study}
    wait_for(lambda: pacs.find("OT"), 60)
    (picture,) = pacs.find("OT")
    file = tmp_path / "report.dcm"
    for content, kind in ((picture, "SCImage"), (report, "Comprehensive3DSR")):
        file.write_bytes(content)
        checked = subprocess.run(["dciodvfy", file], check=False, capture_output=True, text=True).stderr
        assert kind in checked
        assert "Error" not in checked
    printed = subprocess.run(["dsrdump", file], check=True, capture_output=True, text=True, errors="replace").stdout
    assert "Imaging Measurement Report" in printed


def test_what_people_say_of_an_answered_study_is_on_record_and_supersedes_its_report(
    exchange: tuple[Pacs, Stack], tmp_path: Path
) -> None:
    pacs, stack = exchange
    address = ("127.0.0.1", str(stack.announced["dicom"]["port"]))
    sent = {"PNEUMOFLAG": child_xray(2), "PNEUMOSERVE": make_selection("113037^DCM", child_xray(1))}
    for title, content in sent.items():
        file = tmp_path / f"{title}.dcm"
        file.write_bytes(content)
        assert subprocess.run([dcmtk("storescu"), "-aec", title, *address, file], check=False).returncode == 0
    wait_for(lambda: len(pacs.reports()) == 2, 60)
    reports = [srread(io.BytesIO(each)) for each in pacs.reports()]
    first, second = sorted(reports, key=lambda each: "PredecessorDocumentsSequence" in each)
    (series,) = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    predictions = [group.tracking_identifier for group in groups_of(first)[1:]]

    def said() -> dict[str, object]:
        return {kind_of(entry): entry for entry in read_entries(stack.reader, roles=(REVIEW_WRITERS,))}

    # Which of the two comes first on record is chance.
    wait_for(lambda: {"flag", "withdrawal"} <= said().keys(), 60)
    withdrawal = said()["withdrawal"]
    assert isinstance(withdrawal, Withdrawal)
    assert (withdrawal.why, len(withdrawal.prediction_ids)) == ("patient_safety", 1)
    assert set(withdrawal.prediction_ids) < set(predictions)
    file = tmp_path / "report.dcm"
    pydicom.dcmwrite(file, second)
    checked = subprocess.run(["dciodvfy", file], check=False, capture_output=True, text=True).stderr
    assert "Error" not in checked


def test_what_is_done_leaves_the_spool_empty_and_no_name_in_the_log(exchange: tuple[Pacs, Stack]) -> None:
    pacs, stack = exchange
    pacs.store(child_xray(1))
    state = ("--state", str(stack.state))
    waiting = [PNEUMOSERVE, "intake", "list", "--json", *state]

    def listed() -> dict[str, list[object]]:
        return json.loads(subprocess.run(waiting, check=True, capture_output=True).stdout)

    wait_for(lambda: listed() == {"studies": [], "refused": []}, 60)
    assert subprocess.run([PNEUMOSERVE, "intake", "echo", pacs.address], check=False).returncode == 0
    for command in ("retry", "drop"):
        missing = subprocess.run([PNEUMOSERVE, "intake", command, "0" * 8, *state], check=False, capture_output=True)
        assert (missing.returncode, b"intake list" in missing.stderr) == (1, True)
    log = (stack.logs / "intake.log").read_text()
    assert "result 1 is done" in log
    # Orthanc was asked to say that it keeps it, and called back.
    assert "a destination keeps result 1" in log
    assert not any(word in log for word in ("Beispiel", "4711", "Meier", STUDY))


def test_the_pacs_sends_by_stow_what_becomes_a_report_too(exchange: tuple[Pacs, Stack]) -> None:
    pacs, stack = exchange
    before = len(pacs.reports())
    study = f"{STUDY}.2"
    # No CR to its script, which would send it by C-STORE.
    instance = pacs.store(make_object(1, study, Modality="DX", PatientAge="004Y"))
    pacs.send_by_stow(instance, stack.announced["dicomweb"])
    wait_for(lambda: len(pacs.reports()) == before + 1, 60)
    assert study in {str(srread(io.BytesIO(report)).StudyInstanceUID) for report in pacs.reports()}
