#!/bin/sh
# Install a requirement file into /opt/venv of an image, with a pip that the image does not keep.
set -eu
python3 -m venv /tmp/pip
[ -d /opt/venv ] || python3 -m venv --without-pip /opt/venv
/tmp/pip/bin/pip --python /opt/venv/bin/python --quiet --no-cache-dir --disable-pip-version-check \
  install --require-hashes --requirement "$1"
rm -rf /tmp/pip
