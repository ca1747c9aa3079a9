"""Who may send, which objects are read, and whom an answer is for."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.imaging import ImageError
from pneumoserve.intake import IntakeRules, IntakeRulesError, load_rules, parse_address
from pneumoserve.intake.header import make_file, read_header
from pneumoserve.intake.rules import DX, DX_FOR_PROCESSING, SECONDARY_CAPTURE, Peer, Reading
from tests.support.intake import make_object

CHILDREN = Reading().within((1.0, 6.0))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({}, None),
        ({"SOPClassUID": DX, "Modality": "DX"}, None),
        ({"SOPClassUID": DX_FOR_PROCESSING}, "for_processing"),
        ({"SOPClassUID": SECONDARY_CAPTURE}, "secondary"),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, "derived"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"PatientAge": "040Y"}, "age"),
        ({"PatientAge": "006M"}, "age"),
        ({"PatientAge": "", "PatientBirthDate": "19800101"}, "age"),
        # What is not said is no reason: the service refers it.
        ({"PatientAge": "", "PatientBirthDate": "", "ViewPosition": "", "ImageType": ""}, None),
    ],
)
def test_what_is_kept_unread_and_why(attributes: dict[str, Any], reason: str | None) -> None:
    assert CHILDREN.find_reason(read_header(make_object(**attributes))) == reason


def test_rules_may_read_more_and_go_before_the_population() -> None:
    wide = Reading(derived=True, lateral=True, below_age_years=90).within((1.0, 6.0))
    assert (wide.min_age_years, wide.below_age_years) == (1.0, 90)
    header = read_header(make_object(ImageType=["DERIVED"], ViewPosition="LL", PatientAge="040Y"))
    assert wide.find_reason(header) is None


def test_only_who_is_listed_may_send() -> None:
    rules = IntakeRules(peers=(Peer(ae_title="PACS", networks=(ip_network("10.0.0.0/8"),)),))
    asked = [("PACS", "10.1.2.3"), ("PACS", "192.168.1.1"), ("OTHER", "10.1.2.3"), ("PACS", "::1")]
    assert [rules.allows(*each) for each in asked] == [True, False, False, False]
    assert [IntakeRules().allows("ANY", address) for address in ("127.0.0.1", "10.0.0.1")] == [True, False]


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({}, {"practitioner": "Meier^Anna", "reference": "ACC-4711"}),
        ({"ReferringPhysicianName": "", "AccessionNumber": ""}, {}),
        ({"ReferringPhysicianName": "^^", "AccessionNumber": " "}, {}),
        ({"ReferringPhysicianName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
         {"practitioner": "Yamada^Tarou", "reference": "ACC-4711"}),
    ],
)  # fmt: skip
def test_whom_an_answer_is_for(attributes: dict[str, Any], named: dict[str, str]) -> None:
    assert IntakeRules().name(read_header(make_object(**attributes))) == named


def test_rules_are_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "intake.yaml"
    file.write_text("aeTitle: XRAY\nquietSeconds: 3\npeers: [{aeTitle: PACS, networks: [10.0.0.0/8]}]\n")
    rules = load_rules(file)
    assert (rules.titles, rules.quiet_seconds, rules.allows("PACS", "10.0.0.9")) == (("XRAY", "PNEUMOFLAG"), 3, True)
    assert load_rules(None) == IntakeRules()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a", "has no names with values"),
        ("a: [", "is no YAML"),
        ("aeTitle: TOO-LONG-A-TITLE-FOR-DICOM", "aeTitle"),
        ("aeTitle: PNEUMOFLAG", "aeTitle and flaggedAeTitle are the same"),
        ("peers: [{networks: [nowhere]}]", "peers.0.networks"),
        ("unknown: 1", "unknown"),
    ],
)
def test_rules_that_cannot_be_followed_are_named(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "intake.yaml"
    file.write_text(text)
    with pytest.raises(IntakeRulesError, match=sentence):
        load_rules(file)
    with pytest.raises(IntakeRulesError, match="cannot be read"):
        load_rules(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text", ["ORTHANC", "ORTHANC@host", "@host:104", "TOO-LONG-A-TITLE-FOR@h:1", "A@h:0", "A@h:70000"]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(IntakeRulesError, match="AE@HOST:PORT"):
        parse_address(text)


def test_the_same_data_set_is_the_same_file() -> None:
    whole = make_object()
    data_set = whole[whole.index(b"\x08\x00\x05\x00CS") :]
    files = {make_file(data_set, DX, "1.2", "1.2.840.10008.1.2.1") for _ in range(2)}
    assert len(files) == 1
    assert read_header(files.pop()).PatientID == "MRN-4711"


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file[:-100],
        lambda file: file[: len(file) // 50],
        lambda file: b"nothing",
        lambda file: make_object(StudyInstanceUID=""),
    ],
)
def test_what_is_no_image_of_a_study_is_refused_without_its_words(damage: Any) -> None:
    with pytest.raises(ImageError) as refused:
        read_header(damage(make_object()))
    assert "Beispiel" not in str(refused.value)
