"""Ask for a decision by KServe's V1 protocol: the film's file as base64, in JSON.

    python examples/v1.py http://127.0.0.1:8080 FILM…

All films of one call are answered together, or none of them is. One call takes at most 16.
"""

import base64
import sys
from pathlib import Path

import httpx

url, *films = sys.argv[1:]
instances = [{"image": {"b64": base64.b64encode(Path(film).read_bytes()).decode()}} for film in films]
response = httpx.post(f"{url}/v1/models/pneumonia:predict", json={"instances": instances}, timeout=60)
if response.is_error:
    # One sentence that says what to do, and the id under which the refusal is on record.
    sys.exit(f"{response.status_code}: {response.json()['error']}")

for film, prediction in zip(films, response.json()["predictions"], strict=True):
    # No finding is stated where a human must look; `reasons` says why.
    print(film)
    print(f"  finding     {prediction['finding'] or 'none: a human must look'}")
    print(f"  leaning     {prediction['leaning']}, with a probability of {prediction['confidence']}")
    if prediction["pneumonia_type"]:
        print(f"  type        {prediction['pneumonia_type']}, with a probability of {prediction['type_probability']}")
        print(f"              {prediction['notice']}")
    print(f"  referred    {prediction['referred']} {prediction['reasons']}")
    print(f"  record      {prediction['prediction_id']}")
