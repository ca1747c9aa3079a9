"""Find the images of one patient in the archive and, if told to, erase them: docs/how-to/erase-a-patient.md.

    python examples/erase_patient.py REFERENCE --reference-key KEY --archive-trust DIR --sealer-trust DIR [--erase]

REFERENCE is the patient as your callers name them; it goes nowhere but through the key. The S3_* variables name the
store. To erase takes a credential that may remove versions and, where they are locked, bypass GOVERNANCE. Records stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minio import Minio
from minio.deleteobjects import DeleteObject

from pneumoserve.ledger import Reader
from pneumoserve.records import Pseudonyms, Record, read_entries
from pneumoserve.signing import load_trust
from pneumoserve.store import S3Settings, S3Store


def find(reader: Reader, patient: str) -> tuple[list[Record], set[str]]:
    """The records of a patient's pseudonym that have an image, and which of their images other records name too."""
    own, others = [], set()
    for entry in read_entries(reader):
        if isinstance(entry, Record) and entry.image is not None:
            if entry.call.patient == patient:
                own.append(entry)
            else:
                others.add(entry.image.stored_key)
    return own, others


def erase(settings: S3Settings, keys: set[str]) -> list[str]:
    """Remove every version of these objects; what the store refused, in words."""
    scheme, _, host = settings.endpoint.partition("://")
    client = Minio(
        endpoint=host,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        region=settings.region,
        secure=scheme == "https",
    )
    versions = [
        DeleteObject(found.object_name or key, found.version_id)
        for key in sorted(keys)
        for found in client.list_objects(bucket_name=settings.bucket, prefix=key, include_version=True)
    ]
    refused = client.remove_objects(
        bucket_name=settings.bucket, delete_object_list=versions, bypass_governance_mode=True
    )
    return [f"{each.name}: {each.message}" for each in refused]


def main() -> int:
    """List, and erase where asked; 1 where an image is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", help="the patient, as your callers name them")
    parser.add_argument("--reference-key", type=Path, required=True, help="the deployment's key for references")
    parser.add_argument("--archive-trust", type=Path, required=True, help="folder of the writers' public keys")
    parser.add_argument("--sealer-trust", type=Path, required=True, help="folder of the sealers' public keys")
    parser.add_argument("--erase", action="store_true", help="remove the images, not only list them")
    given = parser.parse_args()
    settings = S3Settings.from_env()
    store = S3Store(settings)
    try:
        reader = Reader(store, load_trust(given.archive_trust), load_trust(given.sealer_trust))
        patient = Pseudonyms.read(given.reference_key).hash("patient", given.reference)
        own, others = find(reader, patient or "")
    finally:
        store.close()
    keys = {record.image.stored_key for record in own if record.image}
    for record in own:
        assert record.image is not None  # noqa: S101 - for the type checker: find() left out those without
        shared = "  (of others too: kept)" if record.image.stored_key in others else ""
        print(f"{record.time}  {record.prediction_id}  {record.image.stored_key}{shared}")
    print(f"{len(own)} records, {len(keys)} images, {len(keys & others)} of them of others too", file=sys.stderr)
    if not given.erase:
        return 0
    refused = erase(settings, keys - others)
    for sentence in refused:
        print(f"not removed: {sentence}", file=sys.stderr)
    return 1 if refused or keys & others else 0


if __name__ == "__main__":
    sys.exit(main())
