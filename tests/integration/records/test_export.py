"""`archive export` from and to a real S3 server."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from pneumoserve.records import ExportError, open_target
from pneumoserve.store import S3Settings, S3Store, StoreError
from tests.support.commands import invoke, trusting
from tests.support.entries import KEY, Chain, prediction, refusal


def test_the_command_exports_and_says_what(settings: S3Settings, store: S3Store, tmp_path: Path) -> None:
    writer = Chain(store, "front-00000001")
    writer.write([prediction(), refusal()])
    words = ["archive", "export", "--to", str(tmp_path / "out")]
    words += trusting(tmp_path, KEY)
    done = invoke(words, settings.to_env())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 records and 0 labels in 1 new files; the export is in ")
    again = invoke([*words, "--json"], settings.to_env())
    nothing = dict.fromkeys(("files", "predictions", "labels", "rollouts", "readings", "reviews"), 0)
    assert json.loads(again.stdout) == {**nothing, "unreadable": []}
    to_s3 = ["archive", "export", "--to", f"s3://{settings.bucket}/exports", "--since", date.today().isoformat()]
    assert invoke([*to_s3, *words[-2:]], settings.to_env()).returncode == 0
    assert len(list(store.list("exports/"))) == 1
    place = writer.write([refusal()])
    store.put(place.key, b"{", "application/x-ndjson")
    damaged = invoke(words, settings.to_env())
    assert damaged.returncode == 1
    assert place.key in damaged.stderr


def test_a_target_without_a_bucket_is_reported(settings: S3Settings) -> None:
    with pytest.raises(ExportError, match="s3://bucket/prefix"), open_target("s3:///exports", settings):
        pass
    with pytest.raises(StoreError, match="no bucket absent"), open_target("s3://absent/exports", settings):
        pass
