"""What a site states of its use of a release, from a YAML file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pneumoserve.errors import PneumoserveError
from pneumoserve.ids import time_text
from pneumoserve.records import SiteUse
from pneumoserve.yaml_files import YamlFile


class SiteFileError(PneumoserveError):
    """A file that does not say how a site uses a release; the text says what to do."""

    exit_code = 2


def load_site_use(path: Path, release: str, by: str, now: datetime) -> SiteUse:
    """The entry that a file makes, as `by` puts it on record.

    Raises:
        SiteFileError: it is no such file, or there is none.
    """
    file = YamlFile(SiteUse, "The file of the site's use", "docs/how-to/collect-evidence.md", SiteFileError)
    return file.fill({**file.read(path), "release": release, "by": by, "time": time_text(now)})
