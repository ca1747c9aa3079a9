"""tritonclient's gRPC client in a process of its own: its protobuf types collide with those of KServe's SDK.

Reads one JSON request from stdin, {"url", "do": "infer" | "describe" | "unload", "model", "images": [base64]}; prints
one JSON answer.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton


def main() -> None:
    request = json.load(sys.stdin)
    with triton.InferenceServerClient(request["url"]) as client:
        answer = {"infer": infer, "describe": describe, "unload": unload}[request["do"]](client, request)
    print(json.dumps(answer))


def infer(client: triton.InferenceServerClient, request: dict[str, Any]) -> Any:
    images = [base64.b64decode(image) for image in request["images"]]
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_))
    result = client.infer(request["model"], [tensor], request_id="triton-2")
    assert result.get_response().id == "triton-2"
    outputs = {output.name: result.as_numpy(output.name).tolist() for output in result.get_response().outputs}
    return {
        name: [value.decode() if isinstance(value, bytes) else value for value in values]
        for name, values in outputs.items()
    }


def describe(client: triton.InferenceServerClient, request: dict[str, Any]) -> Any:
    metadata = client.get_model_metadata(request["model"])
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(request["model"]),
        "server": client.get_server_metadata().name,
        "versions": list(metadata.versions),
        "outputs": [output.name for output in metadata.outputs],
    }


def unload(client: triton.InferenceServerClient, request: dict[str, Any]) -> Any:
    try:
        client.unload_model(request["model"])
    except triton.InferenceServerException as error:
        return error.status()
    return "unloaded"


if __name__ == "__main__":
    main()
