#!/usr/bin/env bash
# Resolve pyproject.toml's extras into requirement files with hashes: run after changing a dependency.
# dev.txt is resolved first and holds every package; the others are cuts of it, so that one environment can grow.
set -euo pipefail
cd "$(dirname "$0")/.."
python3.11 -m venv .venv/uv
.venv/uv/bin/pip install --quiet uv==0.13.9
compile() {
  local out=$1; shift
  .venv/uv/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-emit-index-url --no-annotate --no-header "$@" --output-file "requirements/$out.txt"
  echo "requirements/$out.txt: $(grep -c '==' "requirements/$out.txt") packages"
}
compile build requirements/build.in
compile dev pyproject.toml --extra dev requirements/loadtest.in
for extra in front models local rollout gpu; do compile "$extra" -c requirements/dev.txt pyproject.toml --extra "$extra"; done
# A layer of its own in the images that need it: 5 GB that a new version of anything else must not move.
compile torch -c requirements/dev.txt requirements/torch.in
compile train -c requirements/dev.txt pyproject.toml --extra local --extra train
# The load generator holds nothing of pneumoserve.
compile loadtest -c requirements/dev.txt requirements/loadtest.in
