#!/bin/sh
# Run uv, which pip brings into .venv in the version below: `sh requirements/uv.sh pip install …`
# It asks the index that pip is set up for (PIP_INDEX_URL, pip.conf), and trusts the authority of PIP_CERT.
set -eu
cd "$(dirname "$0")/.."
version=0.13.9
folder=.venv/uv-$version
if [ ! -x $folder/bin/uv ]; then
  .venv/bin/python -m venv $folder
  $folder/bin/pip --quiet --disable-pip-version-check install uv==$version
fi
index=${PIP_INDEX_URL:-$($folder/bin/pip config get global.index-url 2> /dev/null || true)}
[ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="$PIP_CERT"
exec $folder/bin/uv "$@"
