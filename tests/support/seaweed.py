"""SeaweedFS beyond what the local stack runs: with TLS, and with our credentials by the policies of the chart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from pneumoserve.local.process import Child
from pneumoserve.names import INTAKE_BUCKET
from pneumoserve.store import S3Settings
from tests.support.cluster.certificates import Authority

RIGHTS: Final = Path(__file__).parents[2] / "charts" / "pneumoserve" / "files" / "rights"
NAMES: Final = ("archive", "seal", "rollout", "console", "alerts", "intake", "releases", "setup")


def over_tls(plain: Child, authority: Authority, name: str, *options: str) -> Child:
    """The same server with a certificate that was issued by that name, and further options."""
    pair = [f"-s3.cert.file={authority.folder / f'{name}.crt'}", f"-s3.key.file={authority.folder / f'{name}.key'}"]
    return Child(plain.name, [*plain.command, *pair, *options], plain.environment, plain.log, 2.0)


def give_rights(identities: Path, admin: S3Settings) -> dict[str, S3Settings]:
    """Add them to a SeaweedFS's identities before it starts; what reaches its bucket with each."""
    found = {name: replace(admin, access_key=name, secret_key=f"secret-of-{name}") for name in NAMES}
    known = json.loads(identities.read_text())
    for name, settings in found.items():
        keys = {"accessKey": settings.access_key, "secretKey": settings.secret_key}
        known["identities"].append({"name": name, "credentials": [keys], "policyNames": [name]})
    found["intake"] = found["intake"].in_bucket(INTAKE_BUCKET)
    texts = {name: (RIGHTS / f"{name}.json").read_text() for name in NAMES}
    policies = {
        name: text.replace("BUCKET", admin.bucket).replace("SPOOL", INTAKE_BUCKET) for name, text in texts.items()
    }
    known["policies"] = [{"name": name, "content": content} for name, content in policies.items()]
    identities.write_text(json.dumps(known))
    return found
