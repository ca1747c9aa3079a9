"""The archive's and the reading room's keys, made inside the cluster: no value, template or release Secret holds one.

Run by a Job of the chart whose account may create Secrets and read none. A Secret that is there already stays as it is.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import secrets
import ssl
import sys
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pneumoserve.errors import PneumoserveError
from pneumoserve.termination import explain_end

Kind = Literal["signing", "sealer", "references", "review"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_SECONDS: Final = 10.0


class ApiError(PneumoserveError):
    """The API server did not take a Secret; the text says what to do."""


def new_secret(kind: Kind, name: str, namespace: str, instance: str) -> dict[str, Any]:
    """A Secret with new keys: `key.pem` and `public.pem` of a signer, `key` for references, or the reading room's."""
    labels = {"name": "pneumoserve", "part-of": "pneumoserve", "component": "archive", "instance": instance}
    # Helm does not own it. Charts up to 0.2.0 rendered it, and take one up that says so: an install can go back.
    labels["managed-by"] = "Helm"
    annotations = {
        "helm.sh/resource-policy": "keep",
        "meta.helm.sh/release-name": instance,
        "meta.helm.sh/release-namespace": namespace,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {f"app.kubernetes.io/{key}": value for key, value in labels.items()},
            "annotations": annotations,
        },
        "type": "Opaque",
        "stringData": _new_keys(kind),
    }


def _new_keys(kind: Kind) -> dict[str, str]:
    match kind:
        case "references":
            return {"key": secrets.token_hex(32)}
        case "review":
            private, public = _pem_pair(X25519PrivateKey.generate())
            links = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            drawn = {name: secrets.token_hex(32) for name in ("chance", "session")}
            return {"envelope.pem": private, "envelope.pub.pem": public, "links": links, **drawn}
        case _:
            private, public = _pem_pair(Ed25519PrivateKey.generate())
            return {"key.pem": private, "public.pem": public}


def _pem_pair(key: Ed25519PrivateKey | X25519PrivateKey) -> tuple[str, str]:
    """Both halves of a key, the private one first."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def create(connection: http.client.HTTPConnection, token: str, secret: dict[str, Any]) -> bool:
    """Have the API server make a Secret; False where one of that name is there.

    Raises:
        ApiError: it did not.
    """
    name, namespace = secret["metadata"]["name"], secret["metadata"]["namespace"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"/api/v1/namespaces/{namespace}/secrets", json.dumps(secret), headers)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ApiError(
            f"The API server cannot be reached ({type(error).__name__}); let pods of component keys reach its port."
        ) from None
    if response.status == http.HTTPStatus.CONFLICT:
        return False
    if response.status != http.HTTPStatus.CREATED:
        raise ApiError(
            f"The API server did not make the Secret {name} (status {response.status}); make it yourself, and name it "
            "in archive.signing, archive.sealer, archive.references or review.keys."
        )
    return True


def main(arguments: list[str] | None = None) -> int:
    """Make the Secrets that are named; 1 where one could not be made."""
    parser = argparse.ArgumentParser(prog="python -m pneumoserve.ledger.keys", description=__doc__)
    parser.add_argument("--instance", required=True, help="name of the install, for the Secrets' labels")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", help="name of the Secret to make; none: it is not made")
    options = parser.parse_args(arguments)
    server = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
    trusted = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    connection = http.client.HTTPSConnection(*server, timeout=_TIMEOUT_SECONDS, context=trusted)
    token, namespace = ((_ACCOUNT / name).read_text() for name in ("token", "namespace"))
    try:
        for kind in KINDS:
            if name := getattr(options, kind):
                made = create(connection, token, new_secret(kind, name, namespace, options.instance))
                sys.stdout.write(f"the Secret {name} {'is made' if made else 'is there already, and stays'}\n")
    except ApiError as error:
        explain_end(str(error))
        return 1
    finally:
        connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
