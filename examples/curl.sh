#!/bin/sh
# Ask for a decision with nothing but curl: V1, V2 and a DICOM object.
#
#   sh examples/curl.sh http://127.0.0.1:8080
set -eu
url=${1:-http://127.0.0.1:8080}
sample=$(dirname "$0")/../tests/data/xray-sample
film=$sample/originals/virus/person1121_virus_1846.jpeg

echo "Whether it is ready"
curl --fail-with-body --silent --show-error "$url/v2/models/pneumonia/ready"

echo; echo "V1: the film as base64 in JSON"
# By stdin, since a film may be larger than an argument of a command.
printf '{"instances": [{"image": {"b64": "%s"}}]}' "$(base64 -w0 "$film")" |
  curl --fail-with-body --silent --show-error "$url/v1/models/pneumonia:predict" --data @-

echo; echo "V2, the Open Inference Protocol"
printf '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["%s"]}]}' "$(base64 -w0 "$film")" |
  curl --fail-with-body --silent --show-error "$url/v2/models/pneumonia/infer" --data @-

echo; echo "A DICOM object as it is"
curl --fail-with-body --silent --show-error "$url/v1/models/pneumonia:predict" \
  --header "Content-Type: application/dicom" --data-binary "@$sample/dicom/RG1_J2KI.dcm"

echo; echo "What is no film is refused with one sentence, and the refusal is on record"
curl --silent --show-error "$url/v1/models/pneumonia:predict" --data "no film"
echo
