"""An S3 server of the hospital's own: outside the cluster, over TLS by an authority that only the hospital knows."""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Iterator
from typing import Final

from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.store import S3Settings
from tests.e2e.product import Product
from tests.support.cluster.certificates import new_authority
from tests.support.cluster.node import ADDRESS
from tests.support.seaweed import give_rights, over_tls

AUTHORITY: Final = "s3-authority"


@contextlib.contextmanager
def external_store(product: Product) -> Iterator[None]:
    """Such a server, and values and Secrets with which the chart uses it; nothing is installed yet."""
    folder = product.folder / "store"
    authority = new_authority(folder)
    authority.issue("store", "store", hosts=(ADDRESS,))
    admin = S3Settings(
        f"https://{ADDRESS}:{free_ports(1)[0]}", "admin", secrets.token_hex(20), "films", ca_file=str(authority.file)
    )
    plain = s3_child(folder / "data", admin, folder / "s3.log")
    product.stores = give_rights(folder / "data" / "identities.json", admin)
    child = over_tls(plain, authority, "store", "-s3.ip.bind=0.0.0.0")
    # The set-up Job makes the bucket.
    start_s3(child, admin.in_bucket("another"))
    try:
        _tell(product, admin, authority.file.read_text())
        yield
    finally:
        child.stop()


def _tell(product: Product, admin: S3Settings, certificate: str) -> None:
    product.kubectl("create", "configmap", AUTHORITY, f"--from-literal=cabundle.crt={certificate}")
    for name, settings in product.stores.items():
        keys = {"AWS_ACCESS_KEY_ID": settings.access_key, "AWS_SECRET_ACCESS_KEY": settings.secret_key}
        literals = [f"--from-literal={key}={value}" for key, value in keys.items()]
        product.kubectl("create", "secret", "generic", f"s3-{name}", *literals)
    given = {name: {"existingSecret": f"s3-{name}"} for name in product.stores}
    product.values |= {
        "trialStore": {"enabled": False},
        "s3": {"endpoint": admin.endpoint, "bucket": admin.bucket, "caConfigMap": AUTHORITY, **given},
        "networkPolicies": {"store": {"cidrs": [f"{ADDRESS}/32"]}},
    }
    # KServe wants annotations; the chart's refusal has the command.
    refused = product.try_helm("install", product.values).stderr
    (advice,) = (line for line in refused.splitlines() if "run: kubectl annotate secret" in line)
    product.kubectl(*shlex.split(advice.partition("run: kubectl ")[2]))
