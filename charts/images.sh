#!/bin/sh
# Prints every image that the chart names with your values, one a line, from where it is now: images.registry, which
# says where it will be, is left out.
#
#   sh charts/images.sh [what `helm template` takes: --values FILE, --set …]
set -eu
rendered=$(helm template pneumoserve "$(dirname "$0")/pneumoserve" "$@" --set images.registry=)
printf '%s\n' "$rendered" | sed -n 's/^ *\(- \)\{0,1\}image: "\{0,1\}\([^" ]*\)"\{0,1\}$/\2/p' | sort -u
