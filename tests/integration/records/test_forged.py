"""The commands, on a real store whose administrator has put unsigned records into it."""

from __future__ import annotations

import json
from pathlib import Path

from pneumoserve.canonical import canonical_json
from pneumoserve.ledger.segment import read_segment
from pneumoserve.records import Record, append
from pneumoserve.store import S3Settings
from tests.support.archives import DATE, RELEASE, Archive
from tests.support.commands import invoke, trusting
from tests.support.entries import label_of

FORGED = f"records/date={DATE}/release={RELEASE}/zz-00000000-00000001.jsonl"

_OTHER = "01890a5d-ac96-774b-bcce-b302099a8057"


def test_show_and_export_keep_to_what_was_sealed(archive: Archive, settings: S3Settings, tmp_path: Path) -> None:
    place = archive.write("front-00000001", [b"film"])
    true = Record.model_validate_json(read_segment(archive.store.get(place.key)).lines[0])
    archive.seal()
    archive.remove(place.key)
    turned = true.model_copy(update={"preprocessing_version": "forged"})
    archive.store.put(FORGED, canonical_json(turned) + b"\n", "application/x-ndjson")
    believed = trusting(tmp_path, archive.writer_key, sealer=archive.sealer_key)

    shown = invoke(["archive", "show", true.prediction_id, "--json", *believed], settings.to_env())
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == {**true.model_dump(mode="json", by_alias=True), "labels": []}
    exported = invoke(["archive", "export", "--to", str(tmp_path / "out"), *believed], settings.to_env())
    assert exported.returncode == 1
    assert FORGED in exported.stderr
    assert exported.stdout.startswith("1 records")

    archive.store.put(FORGED, canonical_json(turned.model_copy(update={"prediction_id": _OTHER})), "text/plain")
    unknown = invoke(["archive", "show", _OTHER, *believed], settings.to_env())
    assert (unknown.returncode, unknown.stdout) == (1, "")
    archive.store.close()


def test_show_and_export_have_labels_after_their_segments_have_expired(
    archive: Archive, settings: S3Settings, tmp_path: Path
) -> None:
    place = archive.write("front-00000001", [b"film"])
    film = Record.model_validate_json(read_segment(archive.store.get(place.key)).lines[0])
    label = label_of(film)
    append(archive.store, archive.writer_key, [label], "label")
    archive.seal()
    for key in archive.keys("records/"):
        archive.hide(key)
    believed = trusting(tmp_path, archive.writer_key, sealer=archive.sealer_key)
    shown = invoke(["archive", "show", film.prediction_id, "--json", *believed], settings.to_env())
    assert json.loads(shown.stdout)["labels"] == [label.model_dump(mode="json", by_alias=True)], shown.stderr
    exported = invoke(["archive", "export", "--to", str(tmp_path / "out"), *believed], settings.to_env())
    assert exported.stdout.startswith("1 records and 1 labels in 2 new files"), exported.stderr


def test_without_keys_to_believe_nothing_is_shown(archive: Archive, settings: S3Settings, tmp_path: Path) -> None:
    words = ["archive", "show", _OTHER, "--state", str(tmp_path / "none")]
    done = invoke(words, settings.to_env())
    assert done.returncode == 2
    assert "--archive-trust and --sealer-trust" in done.stderr
    archive.store.close()
