"""How many records `archive verify` gets through in a minute; writes verify.json beside this file.

Run it with `python -m benchmarks.verify`. It fills an S3 server of its own with an hour of a busy day: segments of 1 to
16 records that name a few films, of four writers, and seals them. Then it verifies twice: with the segments' own
objects still beside their roll-ups, and after these are gone, which is what an old archive looks like.
"""

from __future__ import annotations

import platform
import random
import resource
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minio import Minio
from minio.deleteobjects import DeleteObject

from benchmarks.bench import console, publish
from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.decision import Decision
from pneumoserve.ids import uuid7
from pneumoserve.ledger import RECORDS, Chain, SealSettings, key_id_of, seal, verify
from pneumoserve.ledger.scan import BoundedExecutor
from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.records import CallDetail, ImageDetail, ModelUse, Record, image_key, open_ledger
from pneumoserve.signing import Trust
from pneumoserve.store import S3Settings, S3Store, Store

RECORDS_WANTED: Final = 60_000
GOAL_PER_MINUTE: Final = 100_000
_WRITERS: Final = 4
_LARGEST: Final = 16
_FILMS: Final = 8
_FILM_BYTES: Final = 180_000
_RELEASE: Final = "0123456789ab"
_DATE: Final = datetime.now(UTC).date().isoformat()


def lines(films: list[bytes], generator: random.Random) -> Iterator[bytes]:
    """Records as the front writes them, about 1.5 kB each."""
    while True:
        film = generator.choice(films)
        digest = digest_of(film)
        profile: dict[str, str | int] = {
            "engine": "onnxruntime", "engine_version": "1.22.0", "machine": "x86_64", "threads": 1,
            "instruction_set": "avx512", "image": f"sha256:{digest}",
        }  # fmt: skip
        models = tuple(
            ModelUse(name=name, version="1.0.0", weights=digest, logit=logit, probability=0.8, profile=profile)
            for name, logit in (("pneumonia-detector", generator.gauss()), ("pneumonia-typer", generator.gauss()))
        )
        prediction_id = uuid7()
        yield canonical_json(
            Record(
                kind="prediction",
                prediction_id=prediction_id,
                time=f"{_DATE}T12:00:00.000Z",
                release=_RELEASE,
                release_digest=digest,
                preprocessing_version="1",
                call=CallDetail(
                    call_id=prediction_id, index=0, count=1, model="pneumonia", protocol="v2", encoding="binary"
                ),
                image=ImageDetail(
                    input_sha256=digest, input_bytes=len(film), pixels_sha256=digest, stored_sha256=digest,
                    stored_key=image_key(digest), format="jpeg", width=1600, height=1200, modality=None,
                    body_part=None, view_position=None, age_years=None, sex=None,
                ),
                models=models,
                decision=Decision(
                    finding="pneumonia", pneumonia_type="viral", confidence=0.8, referred=False, reasons=()
                ),
            )
        )  # fmt: skip


def fill(store: Store, key: Ed25519PrivateKey) -> dict[str, float]:
    """Write films and segments; returns how many, and the mean size of a record in bytes."""
    generator = random.Random(0)  # noqa: S311 - sizes, not secrets
    films = [generator.randbytes(_FILM_BYTES) for _ in range(_FILMS)]
    for film in films:
        store.put(image_key(digest_of(film)), film, "image/jpeg")
    chains = [Chain(key, f"front-{number:08x}") for number in range(_WRITERS)]
    source, written, size, segments = lines(films, generator), 0, 0, 0
    with ThreadPoolExecutor(8) as threads:
        executor = BoundedExecutor(threads, 16)
        while written < RECORDS_WANTED:
            chosen = [next(source) for _ in range(min(generator.randint(1, _LARGEST), RECORDS_WANTED - written))]
            place, body = generator.choice(chains).next(chosen, _DATE, _RELEASE)
            executor.submit(partial(store.put, place.key, body, "application/x-ndjson"))
            written, size, segments = written + len(chosen), size + sum(map(len, chosen)), segments + 1
        executor.finish()
    return {"records": written, "segments": segments, "films": len(films), "bytes_per_record": round(size / written)}


def remove_segments(settings: S3Settings) -> None:
    """What a lifecycle rule does after the segments' lock."""
    address = settings.endpoint.removeprefix("http://")
    client = Minio(
        endpoint=address, access_key=settings.access_key, secret_key=settings.secret_key, region=settings.region,
        secure=False,
    )  # fmt: skip
    found = client.list_objects(bucket_name=settings.bucket, prefix=RECORDS, recursive=True, include_version=True)
    gone = [DeleteObject(each.object_name or "", each.version_id) for each in found]
    if list(client.remove_objects(bucket_name=settings.bucket, delete_object_list=gone)):
        raise RuntimeError("The segments could not be removed.")


def measure(settings: S3Settings) -> dict[str, Any]:
    """Fill, seal and verify."""
    store = S3Store(settings)
    writer, sealer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    writers, sealers = (Trust({key_id_of(key): key.public_key()}, frozenset(), frozenset()) for key in (writer, sealer))
    console.print("writing ...")
    archive = fill(store, writer)
    now = datetime.now(UTC)
    console.print("sealing ...")
    ledger = open_ledger(store, writers, sealers)
    report = seal(ledger, sealer, now, SealSettings(lock_days=0))
    if report.records != RECORDS_WANTED:
        raise RuntimeError("Not every record was sealed.")

    def verified(at: datetime) -> dict[str, float]:
        console.print("verifying ...")
        report = verify(ledger, at, lambda *_: None)
        if report.findings or report.summary.records != RECORDS_WANTED:
            raise RuntimeError("The archive is not as it was written.")
        seconds = report.summary.seconds
        return {"seconds": seconds, "records_per_minute": round(RECORDS_WANTED / seconds * 60)}

    beside = verified(now)
    remove_segments(settings)
    alone = verified(now + timedelta(days=8))
    return {
        "python": platform.python_version(),
        "store": "SeaweedFS on the same cores",
        "archive": archive | {"rollups": len(report.rollups)},
        "goal_records_per_minute": GOAL_PER_MINUTE,
        "sealed_rollups_alone": alone,
        "with_segments_beside_them": beside,
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure on a server of its own, and write the result."""
    with tempfile.TemporaryDirectory() as folder:
        settings = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "access", "secret", "benchmark")
        child = s3_child(Path(folder) / "data", settings, Path(folder) / "log")
        start_s3(child, settings)
        try:
            result = measure(settings)
        finally:
            child.stop()
    publish("verify", "python -m benchmarks.verify", result)


if __name__ == "__main__":
    main()
