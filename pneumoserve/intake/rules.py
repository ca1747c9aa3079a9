"""A site's rules, one YAML file: who may send, which objects are read, and whom their answers are for."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydicom.dataset import Dataset

from pneumoserve.decision import LATERAL_VIEWS
from pneumoserve.imaging.dicom import read_facts
from pneumoserve.intake.errors import IntakeRulesError
from pneumoserve.yaml_files import YamlFile

# C-ECHO.
VERIFICATION: Final = "1.2.840.10008.1.1"
# What points at objects, and is no image.
KEY_OBJECTS: Final = "1.2.840.10008.5.1.4.1.1.88.59"
STORAGE_COMMITMENT: Final = "1.2.840.10008.1.20.1"
# What is taken at all. Only the first two are read.
CR: Final = "1.2.840.10008.5.1.4.1.1.1"
DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING: Final = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
SOP_CLASSES: Final = (CR, DX, DX_FOR_PROCESSING, SECONDARY_CAPTURE)
# As the front takes references.
_LONGEST_REFERENCE: Final = 256

# Why an object is kept unread.
Unread = Literal["for_processing", "secondary", "derived", "lateral", "age", "rejected"]
Network = IPv4Network | IPv6Network
AeTitle = Annotated[str, Field(pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?$")]
# A code and its scheme, such as 113000^DCM.
Title = Annotated[str, Field(pattern=r"^[\x21-\x5b\x5d\x5f-\x7e]{1,16}\^[\x21-\x5b\x5d\x5f-\x7e]{1,16}$")]

_THIS_MACHINE: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, alias_generator=to_camel)


class Peer(_Form):
    """Who may send."""

    ae_title: AeTitle | None = Field(default=None, description="its AE title; null: any")
    networks: tuple[Network, ...] = Field(min_length=1, description="where it sends from")

    def is_at(self, ae_title: str, address: str) -> bool:
        """Whether somebody who calls so from there is this peer."""
        return self.ae_title in (None, ae_title) and _is_within(address, self.networks)


class Reading(_Form):
    """Which of the objects that were taken are read. CR and DX For Presentation alone ever are."""

    derived: bool = Field(default=False, description="also objects whose ImageType says DERIVED")
    lateral: bool = Field(default=False, description="also laterals; the service refers them")
    min_age_years: float | None = Field(default=None, ge=0, description="null: as the release's population")
    below_age_years: float | None = Field(default=None, gt=0, description="null: as the release's population")

    def within(self, ages: tuple[float | None, float | None]) -> Self:
        """The same with a population's ages, from the first and below the second, where the rules name none."""
        low, high = ages
        given = {
            "min_age_years": low if self.min_age_years is None else self.min_age_years,
            "below_age_years": high if self.below_age_years is None else self.below_age_years,
        }
        return self.model_copy(update=given)

    def find_reason(self, header: Dataset) -> Unread | None:
        """Why an object is not to be read; None where it is. What it does not say is no reason: the service judges."""
        facts = read_facts(header)
        age = facts.age_years
        outside = age is not None and not (self.min_age_years or 0) <= age < (self.below_age_years or float("inf"))
        found: dict[Unread, bool] = {
            "for_processing": header.SOPClassUID == DX_FOR_PROCESSING,
            "secondary": header.SOPClassUID == SECONDARY_CAPTURE,
            "derived": not self.derived and _first(header.get("ImageType")) == "DERIVED",
            "lateral": not self.lateral and facts.view_position in LATERAL_VIEWS,
            "age": outside,
        }
        return next((reason for reason, holds in found.items() if holds), None)


class IntakeRules(_Form):
    """What a site decides of its intake."""

    ae_title: AeTitle = Field(default="PNEUMOSERVE", description="our AE title, for what a rule of the PACS sends")
    flagged_ae_title: AeTitle | None = Field(
        default="PNEUMOFLAG", description="our second AE title, for what a radiologist chose; null: none"
    )
    flag_titles: tuple[Title, ...] = Field(
        default=(),
        description="titles of key object selections, as CODE^SCHEME, by which a radiologist chooses studies too",
    )
    peers: tuple[Peer, ...] = Field(
        default=(Peer(networks=_THIS_MACHINE),), description="who may send; by default whoever is on this machine"
    )
    web_networks: tuple[Network, ...] = Field(
        default=_THIS_MACHINE,
        description="where STOW-RS may come from: the gateway that signs people in; by default this machine",
    )
    read: Reading = Reading()
    practitioner: Literal["ReferringPhysicianName", "RequestingPhysician"] | None = Field(
        default="ReferringPhysicianName", description="who is told; null: whoever the alerts' policy names"
    )
    reference: Literal["AccessionNumber", "StudyID"] | None = Field(
        default="AccessionNumber", description="what messages may call the study; null: nothing"
    )
    secondary_capture: bool = Field(
        default=False, description="also send a picture of the report's words, for a PACS that shows no TID 1500"
    )
    quiet_seconds: float = Field(
        default=10, ge=0, description="a study is complete when no object has come for so long"
    )
    max_associations: int = Field(default=10, ge=1, le=100, description="associations that may be open at once")
    keep_days: int = Field(
        default=14, ge=1, description="days after which what failed for good is dropped, with its identifiers"
    )

    @model_validator(mode="after")
    def _has_two_titles(self) -> Self:
        if self.ae_title == self.flagged_ae_title:
            raise ValueError("aeTitle and flaggedAeTitle are the same; give two, or null for the second")
        return self

    @property
    def titles(self) -> tuple[str, ...]:
        """The AE titles that may be called."""
        return tuple(title for title in (self.ae_title, self.flagged_ae_title) if title is not None)

    def allows(self, ae_title: str, address: str) -> bool:
        """Whether somebody who calls so from there may send."""
        return any(peer.is_at(ae_title, address) for peer in self.peers)

    def allows_web(self, address: str) -> bool:
        """Whether STOW-RS may come from there."""
        return _is_within(address, self.web_networks)

    def name(self, header: Dataset) -> dict[str, str]:
        """The parameters of a call that say whose study it is; what a message could not show is left out."""
        wanted = {"practitioner": self.practitioner, "reference": self.reference}
        values = {name: _text(header, keyword) for name, keyword in wanted.items() if keyword is not None}
        return {name: value for name, value in values.items() if value is not None}


def _is_within(address: str, networks: tuple[Network, ...]) -> bool:
    at = ip_address(address)
    return any(at in network for network in networks)


def _first(value: Any) -> str:
    return str(value if isinstance(value, str) or not value else value[0])


def _text(header: Dataset, keyword: str) -> str | None:
    """An attribute as one line; of a name in several scripts, the first."""
    text = str(header.get(keyword) or "").partition("=")[0].strip(" ^")
    return text if text and text.isprintable() and len(text) <= _LONGEST_REFERENCE else None


def load_rules(path: Path | None) -> IntakeRules:
    """The rules of a file; None is the default ones.

    Raises:
        IntakeRulesError: there is no such file, or it is none of rules.
    """
    if path is None:
        return IntakeRules()
    return YamlFile(IntakeRules, "The file of rules", "docs/how-to/connect-a-pacs.md", IntakeRulesError).load(path)
