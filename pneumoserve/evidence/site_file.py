"""What a site states of its use of a release, from a YAML file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pneumoserve.errors import PneumoserveError
from pneumoserve.ids import time_text
from pneumoserve.records import SiteUse


class SiteFileError(PneumoserveError):
    """A file that does not say how a site uses a release; the text says what to do."""

    exit_code = 2


def load_site_use(path: Path, release: str, by: str, now: datetime) -> SiteUse:
    """The entry that a file makes, as `by` puts it on record.

    Raises:
        SiteFileError: it is no such file, or there is none.
    """
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return SiteUse.model_validate({**document, "release": release, "by": by, "time": time_text(now)})
    except OSError:
        raise SiteFileError(f"There is no file {path.name}; see docs/how-to/collect-evidence.md.") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError):
        raise SiteFileError(
            "The file has no names with texts in YAML; see the example in docs/how-to/collect-evidence.md."
        ) from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise SiteFileError(f"The file cannot be used: {faults}.") from None
