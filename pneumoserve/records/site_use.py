"""How a site uses a release: for what, on whom, and who answers for it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SITE_WRITERS: Final = "site"
_Name = Annotated[str, Field(min_length=1, max_length=255)]
_Text = Annotated[str, Field(min_length=1, max_length=2000)]


class SiteUse(BaseModel):
    """What a site states of its use of a release. The last one of a site and a release counts; it names no patient."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.site_use/1"] = Field(default="pneumoserve.site_use/1", alias="schema")
    time: str = Field(description="RFC 3339, UTC, milliseconds")
    release: str
    by: _Name = Field(description="staff id of who put it on record")
    site: _Name
    owner: _Name = Field(description="the clinician who answers for this use")
    role: _Name = Field(description="the owner's role at the site")
    contact: _Name = Field(description="how the owner is reached")
    governance: _Text = Field(description="the group that decides on this use, and how often it meets")
    purpose: _Text = Field(description="what the release is used for at this site")
    population: _Text = Field(description="on which patients")
    limits: _Text = Field(description="where it is not used, and what people do then")
