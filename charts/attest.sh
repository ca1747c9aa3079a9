#!/bin/sh
# Writes down what an install consists of, and signs it, for whoever installs it to check:
#
#   sbom/IMAGE.cdx.json   CycloneDX: every Python distribution of an image with its hashes, as the Dockerfile installs them;
#                         the Debian below is that of BASE, whose publisher has an SBOM of it
#   images                every image that the chart names with your values, by the digest that its registry holds
#   pneumoserve-*.tgz     the chart
#   SHA256SUMS, .sig      the SHA-256 of all of them, and an ed25519 signature over that list
#
#   sh charts/attest.sh KEY.pem FOLDER [what `helm template` takes: --values FILE, --set …]
#
# Check it with the key's public half, and let only these images into a mirror:
#
#   cd FOLDER && openssl pkeyutl -verify -pubin -inkey PUBLIC.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig &&
#     sha256sum --check --strict SHA256SUMS
#   IMAGES=FOLDER/images sh charts/mirror.sh …
#
# Wants helm, skopeo, openssl 3 and cyclonedx-py (`make .venv/.dev` installs it). PLAIN_HTTP=1 for registries without TLS.
set -eu
[ $# -ge 2 ] && [ -f "$1" ] || { echo "usage: sh charts/attest.sh KEY.pem FOLDER [--values FILE …]; KEY.pem is a private ed25519 key (pneumoserve release key)" >&2; exit 2; }
key=$(realpath "$1")
folder=$2
shift 2
root=$(realpath "$(dirname "$0")/..")
PATH=$PATH:$root/.venv/bin
for tool in helm skopeo openssl cyclonedx-py; do
  command -v $tool > /dev/null || { echo "There is no $tool; install it, or put it into PATH." >&2; exit 2; }
done
# Nothing of an earlier run may be signed with this one's.
[ ! -e "$folder" ] || { echo "$folder is there already; name a new folder." >&2; exit 2; }
images=$(sh "$root/charts/images.sh" "$@")
mkdir -p "$folder/sbom"
printf '%s\n' "$images" > "$folder/images"

helm package "$root/charts/pneumoserve" --destination "$folder" > /dev/null

# Image, and the file that its Dockerfile target installs last, which holds all that it installs.
for pair in front:front rollout:rollout review:review intake:intake models:models models-gpu:gpu training:train loadtest:loadtest; do
  # Validating takes a minute in all; a test does that. It warns that it does not.
  listing=$(cyclonedx-py requirements --no-validate --mc-type application --output-reproducible \
    --output-file "$folder/sbom/${pair%:*}.cdx.json" "$root/requirements/${pair#*:}.txt" 2>&1) ||
    { printf '%s\n' "$listing" >&2; exit 1; }
done

cd "$folder"
find . -type f ! -name 'SHA256SUMS*' | sort | xargs sha256sum > SHA256SUMS
openssl pkeyutl -sign -inkey "$key" -rawin -in SHA256SUMS -out SHA256SUMS.sig
printf '%s\n' "$images"
echo "$(wc -l < SHA256SUMS) files are written down and signed in $folder"
