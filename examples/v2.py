"""Ask for a decision by the Open Inference Protocol (V2) over REST, with films as binary tensors.

    python examples/v2.py 127.0.0.1:8080 FILM…

Binary tensors are the films' bytes as they are: a third smaller than base64 in JSON.
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

address, *films = sys.argv[1:]
image = triton.InferInput("image", [len(films)], "BYTES")
image.set_data_from_numpy(np.array([Path(film).read_bytes() for film in films], dtype=np.object_))

with triton.InferenceServerClient(address, network_timeout=60) as client:
    try:
        result = client.infer("pneumonia", [image])
    except triton.InferenceServerException as error:
        sys.exit(f"{error.status()}: {error.message()}")

# Each output is a tensor with one value a film. `reasons` is a JSON list.
NAMES = ("finding", "leaning", "confidence", "pneumonia_type", "type_probability", "notice", "referred", "reasons",
         "prediction_id")  # fmt: skip
outputs = {name: result.as_numpy(name) for name in NAMES}
for number, film in enumerate(films):
    print(film)
    for name, values in outputs.items():
        value = values[number]
        print(f"  {name:18}{value.decode() if isinstance(value, bytes) else value}")
