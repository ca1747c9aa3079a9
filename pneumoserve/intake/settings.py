"""What intake reads when it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from pneumoserve.intake.destinations import check_destination
from pneumoserve.intake.errors import IntakeRulesError
from pneumoserve.intake.tls import Tls
from pneumoserve.intake.web import check_url
from pneumoserve.settings import ProcessSettings


def _check_address(text: str) -> str:
    return _check_by(check_destination, text)


def _check_web_address(text: str) -> str:
    return _check_by(check_url, text)


def _check_by(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except IntakeRulesError as error:
        raise ValueError(str(error)) from None


class IntakeSettings(ProcessSettings):
    """Take X-rays by DICOM, have them answered, and send the results.

    The spool's bucket is read from S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET and S3_REGION. It is one of its
    own: what lies there must be possible to erase, and names patients.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m pneumoserve.intake")

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a pod's own address
    port: int = Field(11112, ge=0, le=65535, description="port of C-STORE and C-ECHO; 0 is a free one")
    web_port: int | None = Field(
        None, ge=0, le=65535, description="port of DICOMweb's STOW-RS; 0 is a free one; default: none"
    )
    rules: Path | None = Field(None, description="YAML of who may send and what is read; default: the built-in rules")
    front: str = Field("http://127.0.0.1:8080", description="address of the service that answers")
    subject_header: str | None = Field(
        None, description="header in which the service is told who calls, where callers sign in; default: none"
    )
    gateway_secret: Path | None = Field(
        None, description="file with what the service wants in Pneumoserve-Gateway to believe --subject-header"
    )
    reference_key: Path = Field(
        Path("/etc/pneumoserve/reference/key"), description="key that hashes studies and instances, as the front's"
    )
    archive_bucket: str | None = Field(
        None,
        description="the archive's bucket, in the same store; without one, flags that come late are not on record, "
        "and no key object selection is taken",
    )
    archive_key: Path = Field(
        Path("/etc/pneumoserve/archive/key.pem"), description="private key that signs the archive"
    )
    min_age_years: float | None = Field(None, ge=0, description="age from which on patients are the release's")
    below_age_years: float | None = Field(None, gt=0, description="age from which on they are no more")
    to: list[Annotated[str, AfterValidator(_check_address)]] = Field(
        [],
        description="AE@HOST:PORT of a destination of results, with /tls where it takes TLS, or its URL (STOW-RS); "
        "without one, none is sent. May be given repeatedly",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM of our certificate and its chain; with one, DICOM is taken by TLS alone"
    )
    tls_key: Path | None = Field(None, description="PEM of its private key")
    tls_authority: Path | None = Field(
        None, description="PEM of the authority that peers' certificates are to be of; with one, senders need theirs"
    )
    fhir_to: list[Annotated[str, AfterValidator(_check_web_address)]] = Field(
        [], description="URL of a FHIR R4 server that gets results; may be given repeatedly. Default: none"
    )
    netrc: Path | None = Field(None, description="file of our names and passwords at web servers; default: none")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="port of Prometheus metrics; default: none")

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key go together; give both or neither")
        return self

    @property
    def tls(self) -> Tls:
        """The files of TLS."""
        return Tls(self.tls_certificate, self.tls_key, self.tls_authority)
