#!/usr/bin/env bash
# Resolve what pyproject.toml asks for into requirement files with hashes: `make lock`, after changing a dependency.
#
# Pins stay as they are where they still fit; ARGS="--upgrade" or ARGS="--upgrade-package NAME" moves them.
# No file names an index, so that a mirror can serve them all.
#
# dev.txt is resolved first and holds every package. The others are cuts of it, so that one environment can grow;
# but for KServe's storage-initializer, which the tests' node has in an image of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
options=("$@")
compile() {
  local out=$1; shift
  # One version of a package for every Python ("fewest"): an image's SBOM is made of these files.
  sh requirements/uv.sh pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
    --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
    "$@" "${options[@]}" --output-file "$out"
  # tool.uv.environments, which uv repeats in every line: elsewhere pip must fail, not install nothing.
  sed -i -E -e "s/python_full_version < '3.14' and //" -e "s/implementation_name == 'cpython' and //" \
    -e "s/platform_machine == 'x86_64' and //" -e "s/platform_python_implementation == 'CPython' and //" \
    -e "s/ (;|and) sys_platform == 'linux'//" "$out"
  echo "$out: $(grep -c '==' "$out") packages"
}
compile requirements/dev.txt pyproject.toml --extra dev --group build --group loadtest
cut() { compile "requirements/$1.txt" "${@:2}" -c requirements/dev.txt; }
for extra in front models local rollout review gpu check; do cut "$extra" pyproject.toml --extra "$extra"; done
cut train pyproject.toml --extra local --extra train
# Its image has what the front's has.
cut intake pyproject.toml --extra front --extra intake
# Nothing of pneumoserve: what builds it, the documents' site, the load generator, and torch, a layer of its own in the
# images that need it.
for group in build docs loadtest torch; do cut "$group" --group "$group"; done
compile tests/support/cluster/storage-initializer/requirements.txt --group storage-initializer
