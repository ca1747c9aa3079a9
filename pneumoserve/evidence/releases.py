"""What a release says of itself, and who signed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumoserve.canonical import digest_of
from pneumoserve.release.fetch import find_file, parse_manifest
from pneumoserve.release.schema import ReleaseManifest
from pneumoserve.release.verify import MANIFEST, SIGNATURE
from pneumoserve.signing import Signature, Trust, signatures_of, stated_signers
from pneumoserve.store import Store

CARD: Final = "MODEL_CARD.md"


@dataclass(frozen=True)
class ReleaseFacts:
    """A release's manifest and the documents to keep of it, by name; None and nothing where it is not to be found.

    `signatures` are those of trusted keys, `stated` the keys that its signature file names, trusted or not.
    """

    id: str
    manifest: ReleaseManifest | None
    documents: dict[str, bytes]
    signatures: tuple[Signature, ...] = ()
    stated: tuple[str, ...] = ()
    revoked: bool = False

    @property
    def limits(self) -> list[str]:
        """What its model card says under `Limits`, point by point."""
        text = self.documents.get(CARD, b"").decode()
        section = text.partition("## Limits, first\n")[2].partition("\n## ")[0]
        return [" ".join(point.split()) for point in f"\n{section}".split("\n- ")[1:]]


def read_release(release_id: str, releases: Path, store: Store, trust: Trust) -> ReleaseFacts:
    """Read a release from the folder of releases or the store; of a document that its manifest does not name, nothing.

    Raises:
        StoreError: the store does not answer.
    """
    found = {name: find_file(release_id, name, releases, store) for name in (MANIFEST, SIGNATURE, CARD)}
    documents = {name: data for name, data in found.items() if data is not None}
    manifest = parse_manifest(documents[MANIFEST], release_id) if MANIFEST in documents else None
    if manifest is None:
        return ReleaseFacts(release_id, None, {})
    if CARD in documents and digest_of(documents[CARD]) != manifest.files.get(CARD):
        del documents[CARD]
    signature = documents.get(SIGNATURE, b"")
    return ReleaseFacts(
        release_id,
        manifest,
        documents,
        tuple(signatures_of(documents[MANIFEST], signature, trust)),
        tuple(stated_signers(signature)),
        digest_of(documents[MANIFEST]) in trust.revoked_releases,
    )
