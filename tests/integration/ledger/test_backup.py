"""A copy of the bucket, as backup tools make one: the objects alone, without their versions and locks."""

from __future__ import annotations

from dataclasses import replace

from pneumoserve.ledger import SealSettings
from pneumoserve.store import S3Settings, S3Store
from tests.support.archives import Archive


def test_a_copy_of_the_objects_alone_verifies_and_goes_on(archive: Archive, settings: S3Settings) -> None:
    archive.write("front-00000001", [b"a film"])
    archive.seal(SealSettings(lock_days=1))
    archive.write("front-00000001", [b"another film"])
    store = S3Store(settings.in_bucket(f"{settings.bucket}-copy"))
    store.ensure_bucket()
    # In the order of docs/how-to/back-up.md.
    for prefix in ("seals/", "rollups/", "records/", "images/"):
        for key in archive.keys(prefix):
            store.put(key, archive.store.get(key), "application/octet-stream")
    restored = replace(archive, store=store)
    assert restored.found() == []
    restored.write("front-00000001", [b"a third film"])
    restored.seal()
    assert restored.found() == []
    # What the copy lacks is seen.
    restored.remove(restored.keys("images/")[0])
    assert [kind for kind, _, _ in restored.found()] == ["missing_image"]
    store.close()
