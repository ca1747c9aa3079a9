"""Evidence of what a site does with releases: one signed file, made of what is on record, each part naming its records.

`collect_evidence` reads and verifies the archive, `build_parts` says what was found subject by subject, `build_files`
makes a page and documents of that, and `pack` signs all of it. `check_package` is what a stranger does with the file.
"""

from pneumoserve.evidence.archive_reading import Reading, read_archive
from pneumoserve.evidence.collecting import build_files, collect_evidence
from pneumoserve.evidence.contents import Part, Period, Table
from pneumoserve.evidence.package import Checked, EvidencePackageError, Manifest, check_package, pack
from pneumoserve.evidence.parts import Found, Trusts, build_parts
from pneumoserve.evidence.site_file import SiteFileError, load_site_use

__all__ = [
    "Checked",
    "EvidencePackageError",
    "Found",
    "Manifest",
    "Part",
    "Period",
    "Reading",
    "SiteFileError",
    "Table",
    "Trusts",
    "build_files",
    "build_parts",
    "check_package",
    "collect_evidence",
    "load_site_use",
    "pack",
    "read_archive",
]
