"""Clients that send what a front must outlive, as processes of their own; each fails where it is served otherwise."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# 48 messages at once: address, gzip or identity, MiB of each.
LARGE_MESSAGES = """
import sys, grpc, collections
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
address, zipped, size = sys.argv[1], sys.argv[2] == "gzip", int(sys.argv[3]) << 20
request = pb.ModelInferRequest(model_name="pneumonia")
request.inputs.add(name="image", datatype="BYTES", shape=[1])
request.raw_input_contents.append(size.to_bytes(4, "little") + bytes(size))
message = request.SerializeToString()
options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
channels = [grpc.insecure_channel(address, options=options) for _ in range(8)]
compression = grpc.Compression.Gzip if zipped else grpc.Compression.NoCompression
path = "/inference.GRPCInferenceService/ModelInfer"
calls = [channels[at % 8].unary_unary(path).future(message, compression=compression, timeout=100) for at in range(48)]
assert all(call.exception() is not None for call in calls)
print(collections.Counter(call.code().name for call in calls))
"""

# 11 documents at once: address, file of the body.
LARGE_DOCUMENTS = """
import sys, threading, httpx
from pathlib import Path
url, body = sys.argv[1], Path(sys.argv[2]).read_bytes()
statuses = []
def call():
    statuses.append(httpx.post(f"{url}/v1/models/pneumonia:predict", content=body, timeout=60).status_code)
threads = [threading.Thread(target=call) for _ in range(11)]
[each.start() for each in threads]
[each.join() for each in threads]
print(sorted(statuses))
assert set(statuses) <= {200, 429} and 200 in statuses
"""


def attacker(program: str, *words: str) -> subprocess.Popen[bytes]:
    """A client that leaves the processor to the others where it can."""
    return subprocess.Popen(["nice", "-n", "5", sys.executable, "-c", program, *words])


def write_large_document(folder: Path) -> Path:
    """A V1 body of 41.6 MB: a valid film of 15.6 megapixels, 16 bit, that no compression makes smaller."""
    pixels = np.random.default_rng(0).integers(0, 65535, (4000, 3900), dtype=np.uint16)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    file = folder / "body.json"
    file.write_text(json.dumps({"instances": [{"image": {"b64": base64.b64encode(png.getvalue()).decode()}}]}))
    return file
