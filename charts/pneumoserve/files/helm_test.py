"""What `helm test` runs: one film through a release's Service, and whether the answer is one that is on record."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import urllib3

_TRY_SECONDS: Final = 30.0
_FINDINGS: Final = (None, "normal", "pneumonia")
_RECEIPT: Final = ("writer", "sequence", "hash")


def problems(release: str, status: int, headers: Any, body: bytes) -> list[str]:
    """What is wrong with an answer; nothing where it is as it should be."""
    if status != 200:
        return [f"The status is {status}, and the answer {body[:300].decode(errors='replace')}."]
    try:
        (answer,) = json.loads(body)["predictions"]
        receipts = json.loads(headers.get("pneumoserve-receipts", "null")) or []
    except (ValueError, LookupError, TypeError) as error:
        return [f"The answer or its receipts are not as documented ({type(error).__name__})."]
    wrong = {
        f"Release {headers.get('pneumoserve-release')} answered, not {release}.": (
            headers.get("pneumoserve-release") == release
        ),
        "The answer names no prediction_id.": bool(answer.get("prediction_id")),
        "The finding is none of the documented ones.": answer.get("finding", 0) in _FINDINGS,
        "The answer does not say that it is on record.": headers.get("pneumoserve-recorded") in ("store", "journal"),
        "There is no receipt of the record.": len(receipts) == 1 and all(key in receipts[0] for key in _RECEIPT),
    }
    return [sentence for sentence, right in wrong.items() if not right]


def main(url: str, release: str, film: Path, *subject: str) -> int:
    """Ask until something answers; 0 where the answer is right, 1 where it is not, each with a sentence.

    `subject` is the header by which a gateway says who calls, where the front asks for one.
    """
    headers = dict.fromkeys(subject, "helm-test")
    if secret := os.environ.get("PNEUMOSERVE_GATEWAY_SECRET"):
        headers["Pneumoserve-Gateway"] = secret
    give_up = time.monotonic() + _TRY_SECONDS
    while True:
        try:
            response = urllib3.request(
                "POST",
                f"{url}/v1/models/pneumonia:predict",
                body=film.read_bytes(),
                headers=headers,
                timeout=30,
                retries=False,
            )
            break
        except urllib3.exceptions.HTTPError as error:
            if time.monotonic() > give_up:
                print(f"No service answers at {url} ({type(error).__name__}); look at its pods.")
                return 1
            time.sleep(1)
    wrong = problems(release, response.status, response.headers, response.data)
    if wrong:
        print("\n".join(wrong))
        return 1
    (answer,) = response.json()["predictions"]
    recorded = response.headers["pneumoserve-recorded"]
    print(f"Release {release} answers; prediction {answer['prediction_id']} is on record ({recorded}).")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]))
