"""Send DICOM objects of one study, as they are, and keep the receipts.

    python examples/dicom.py http://127.0.0.1:8080 STUDY PATIENT OBJECT.dcm…

STUDY and PATIENT join records of one study or patient. The service keeps keyed hashes of them, never the words.
Send each object in a call of its own where others must be answered if one is refused.
"""

import json
import sys
from pathlib import Path

import httpx

url, study, patient, *objects = sys.argv[1:]
headers = {"Content-Type": "application/dicom", "Pneumoserve-Study": study, "Pneumoserve-Patient": patient}

refused = 0
with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
    for path in objects:
        response = client.post("/v1/models/pneumonia:predict", content=Path(path).read_bytes())
        if response.is_error:
            # Such as 415 for an object that is no CR or DX, or that has text burnt into its pixels.
            print(f"{path}\n  refused     {response.status_code}: {response.json()['error']}")
            refused += 1
            continue
        (prediction,) = response.json()["predictions"]
        # Signed by the service: proof that there was this record, whatever becomes of the archive.
        (receipt,) = json.loads(response.headers["pneumoserve-receipts"])
        print(path)
        print(f"  finding     {prediction['finding'] or 'none: a human must look'}")
        print(f"  referred    {prediction['referred']} {prediction['reasons']}")
        print(f"  record      {prediction['prediction_id']}, kept in the {response.headers['pneumoserve-recorded']}")
        print(f"  receipt     {json.dumps(receipt)}")
sys.exit(1 if refused else 0)
