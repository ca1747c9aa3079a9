"""Who calls: real Envoy Gateway verifies tokens and keys, limits callers, and the verified name is in the record."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from kserve.protocol.grpc import grpc_predict_v2_pb2 as wire
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from pneumoserve.records import find_record
from tests.e2e.conftest import Cluster, Images, restricted_namespace
from tests.e2e.product import Product, secrets_of, wait_until
from tests.e2e.store import external_store
from tests.support import films
from tests.support.cluster.components import GATEWAY

ISSUER: Final = "https://login.example.org"
AUDIENCE: Final = "pneumonia"
HOST: Final = "signed.example.org"
FILM: Final = films.sample_films()[0].read_bytes()
KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def token(key: rsa.RSAPrivateKey = KEY, **changes: Any) -> str:
    """A token as the issuer makes them, but for some claims."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ward-7", "exp": int(time.time()) + 600, **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, "RS256",
                      headers={"kid": "one"})  # fmt: skip


def key_set() -> str:
    """The issuer's public keys."""
    public = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    return json.dumps({"keys": [{**public, "kid": "one", "alg": "RS256", "use": "sig"}]})


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def prediction_id(self) -> str:
        return str(json.loads(self.body)["predictions"][0]["prediction_id"])


def call(gateway: str, headers: list[tuple[str, str]], *, tls: ssl.SSLContext | None = None) -> Reply:
    """Send a film; headers are a list, since a forger may send one twice."""
    connection = (
        http.client.HTTPConnection(gateway, timeout=30)
        if tls is None
        else http.client.HTTPSConnection(gateway, timeout=30, context=tls)
    )
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/models/pneumonia:predict", skip_host=True)
        for name, value in [("Host", HOST), ("Content-Type", "image/jpeg"), ("Content-Length", str(len(FILM)))]:
            connection.putheader(name, value)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(FILM)
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.read())


def bearer(value: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {value}"


@pytest.fixture(scope="module")
def product(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """An install of which only the gateway's policies change, since each other change would replace pods.

    On our own node its S3 server is outside of the cluster and has a certificate of the hospital's own.
    """
    with contextlib.ExitStack() as opened:
        name = opened.enter_context(restricted_namespace(cluster))
        product = Product(cluster, name, images, tmp_path_factory.mktemp("gateway"))
        product.prepare()
        product.kubectl("create", "configmap", "issuer", f"--from-literal=jwks={key_set()}")
        sign_in = {
            "method": "jwt",
            "jwt": {"issuer": ISSUER, "audiences": [AUDIENCE], "jwksConfigMap": "issuer", "claim": "sub"},
        }
        if cluster.node is not None:
            opened.enter_context(external_store(product))
        product.values |= {"replicas": 1, "route": {"hostnames": [HOST], "signIn": sign_in}}
        product.helm("install")
        product.push(product.folder / "releases" / product.first)
        product.helm("upgrade", release={"id": product.first})
        product.wait_ready(product.first)
        yield product
        cluster.helm("uninstall", "pneumoserve", f"--namespace={name}", "--wait")


@pytest.fixture(scope="module")
def signed(product: Product, gateway: str) -> str:
    """The gateway, once its policy is in force and a signed call is answered."""
    wait_until(lambda: accepted(product, "securitypolicy"), 60, "an accepted SecurityPolicy")
    wait_until(lambda: call(gateway, [bearer(token())]).status == 200, 90, "an answer to a signed call")
    return gateway


def accepted(product: Product, kind: str) -> bool:
    """Whether Envoy Gateway took a policy as it stands now."""
    item = product.get(kind, "pneumoserve")
    ancestors = item.get("status", {}).get("ancestors", [])
    conditions = [condition for each in ancestors for condition in each["conditions"]]
    assert not any(c["status"] == "False" for c in conditions), conditions
    return any(
        c["type"] == "Accepted" and c.get("observedGeneration") == item["metadata"]["generation"] for c in conditions
    )


def recorded_subject(product: Product, prediction_id: str) -> str | None:
    with product.reader() as reader:
        record = find_record(reader, prediction_id)
    assert record is not None
    return record.call.subject


@pytest.mark.skipif("KUBECONFIG" in os.environ, reason="there the store is the trial store")
def test_the_store_is_the_hospitals_own_and_known_by_its_authority(product: Product, signed: str) -> None:
    """Also to KServe's storage-initializer, which fetched the release; each part has the credential for its task."""
    answered = call(signed, [bearer(token())]).prediction_id
    with product.store_settings("setup") as settings:
        assert settings.endpoint.startswith("https://")
    with product.reader("setup") as reader:
        assert find_record(reader, answered) is not None
    (pod,) = product.pods(product.first)
    (front,) = (c for c in pod["spec"]["containers"] if c["name"] == "transformer-container")
    assert secrets_of(front) == {"s3-archive"}
    assert secrets_of(pod["spec"]["initContainers"][0]) == {"s3-releases"}


def test_the_subject_of_a_token_is_in_the_record(product: Product, signed: str) -> None:
    assert recorded_subject(product, call(signed, [bearer(token())]).prediction_id) == "ward-7"
    assert recorded_subject(product, call(signed, [bearer(token(sub="ct-2"))]).prediction_id) == "ct-2"


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        (list, 401, "Jwt is missing"),
        (lambda: [bearer("no.token.atall")], 401, "Jwt"),
        (lambda: [bearer(token(STRANGER))], 401, "Jwt verification fails"),
        (lambda: [bearer(token(exp=int(time.time()) - 600))], 401, "Jwt is expired"),
        (lambda: [bearer(token(iss="https://elsewhere.example.org"))], 401, "Jwt issuer is not configured"),
        (lambda: [bearer(token(aud="another-service"))], 403, "Audiences in Jwt are not allowed"),
        (lambda: [("Pneumoserve-Subject", "ward-7")], 401, "Jwt is missing"),
    ],
    ids=["missing", "garbled", "another's key", "expired", "another issuer", "another audience", "a name alone"],
)
def test_whoever_is_not_known_is_refused(
    signed: str, headers: Callable[[], list[tuple[str, str]]], status: int, reason: str
) -> None:
    """By a token of this minute, since each expires before a long run of tests has come here."""
    reply = call(signed, headers())
    assert (reply.status, reply.body.decode()[: len(reason)]) == (status, reason)


def test_a_forged_name_beside_a_token_never_counts(product: Product, signed: str) -> None:
    """The gateway replaces what the caller claims, or the front refuses two names; the forged one is never kept."""
    for forged in (["chief"], ["chief", "boss"]):
        reply = call(signed, [*(("Pneumoserve-Subject", name) for name in forged), bearer(token())])
        if reply.status == 200:
            assert recorded_subject(product, reply.prediction_id) == "ward-7"
        else:
            assert reply.status == 401


def infer(gateway: str, metadata: list[tuple[str, str]]) -> Any:
    contents = wire.InferTensorContents(bytes_contents=[FILM])
    tensor = wire.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1], contents=contents)
    request = wire.ModelInferRequest(model_name="pneumonia", id="one", inputs=[tensor])
    with grpc.insecure_channel(gateway, [("grpc.default_authority", HOST)]) as channel:
        return GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata, timeout=30)


def test_grpc_calls_sign_in_too(product: Product, signed: str) -> None:
    answer = infer(signed, [("authorization", f"Bearer {token(sub='pacs')}")])
    (place,) = (number for number, each in enumerate(answer.outputs) if each.name == "prediction_id")
    # One BYTES element: four bytes of length, then the text.
    assert recorded_subject(product, answer.raw_output_contents[place][4:].decode()) == "pacs"
    with pytest.raises(grpc.RpcError) as refused:
        infer(signed, [])
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_past_the_gateway_nobody_is_answered(product: Product, signed: str) -> None:
    """The service itself, as another pod of the cluster would reach it where no NetworkPolicy is enforced."""
    service = f"service/pneumonia-{product.first}-predictor"
    with product.cluster.forwarded(product.namespace, service, 80) as address:
        reply = call(address, [])
    assert reply.status == 401
    assert "call through the gateway" in json.loads(reply.body)["error"]


def test_api_keys_name_their_client_and_do_not_travel_on(product: Product, signed: str) -> None:
    product.kubectl("create", "secret", "generic", "clients", "--from-literal=pacs-3=a-long-secret-key")
    route = product.values["route"]
    keys = {"method": "apiKeys", "apiKeys": {"existingSecrets": ["clients"]}}
    product.helm("upgrade", route={**route, "signIn": keys})
    with_key = [("X-API-Key", "a-long-secret-key")]
    wait_until(lambda: call(signed, with_key).status == 200, 60, "an answer to a call with a key")
    assert recorded_subject(product, call(signed, with_key).prediction_id) == "pacs-3"
    assert call(signed, [("X-API-Key", "another")]).status == 401
    assert call(signed, []).status == 401
    wait_until(lambda: call(signed, [bearer(token())]).status == 401, 60, "tokens to count no longer")
    forged = call(signed, [("Pneumoserve-Subject", "chief"), *with_key])
    assert forged.status == 401 or recorded_subject(product, forged.prediction_id) == "pacs-3"


def test_a_caller_beyond_the_limit_is_told_to_wait_and_another_is_not(product: Product, signed: str) -> None:
    route = product.values["route"]
    secret = base64.b64encode(b"another-long-key").decode()
    product.kubectl("patch", "secret", "clients", "--patch", json.dumps({"data": {"ward-9": secret}}))
    product.helm("upgrade", route={**route, "limits": {"callsPerMinute": 5, "bodyMebibytes": 68}})
    wait_until(lambda: accepted(product, "backendtrafficpolicy"), 60, "an accepted BackendTrafficPolicy")
    busy, quiet = [("X-API-Key", "a-long-secret-key")], [("X-API-Key", "another-long-key")]
    wait_until(lambda: call(signed, busy).status == 429, 60, "the sixth call of a minute to be refused")
    assert call(signed, quiet).status == 200


def test_over_tls_by_the_gateways_certificate(
    product: Product, signed: str, secure_gateway: str, gateway_trust: ssl.SSLContext
) -> None:
    """The route bound to a listener with TLS: there it answers, and no longer where anybody can listen."""
    route = product.values["route"]
    keys = {"method": "apiKeys", "apiKeys": {"existingSecrets": ["clients"]}}
    gateway = {"sectionName": "https"}
    product.helm("upgrade", route={"hostnames": route["hostnames"], "signIn": keys, "gateway": gateway})
    with_key = [("X-API-Key", "a-long-secret-key")]

    def answered() -> bool:
        with contextlib.suppress(OSError):
            return call(secure_gateway, with_key, tls=gateway_trust).status == 200
        return False

    wait_until(answered, 60, f"an answer over TLS by gateway {GATEWAY}")
    wait_until(lambda: call(signed, with_key).status == 404, 60, "the listener without TLS to know the route no longer")


def test_refused_calls_name_no_secret(product: Product) -> None:
    """What the front logged of all this: neither tokens nor keys."""
    (pod,) = product.ready_pods(product.first)
    sentence = product.kubectl("logs", pod, "--container=transformer-container")
    assert "Bearer" not in sentence
    assert "a-long-secret-key" not in sentence
    assert yaml.safe_load(product.kubectl("get", "httproute", "pneumoserve", "--output=yaml"))["spec"]["hostnames"] == [
        HOST
    ]
