#!/bin/sh
# Prints every image that the chart names with your values, one a line, and the digest that its registry holds. It is asked
# where it is now: images.registry, which says where it will be, is left out.
#
#   sh charts/images.sh [what `helm template` takes: --values FILE, --set …]
#
# Wants helm and skopeo, logged in where the registries ask for it. PLAIN_HTTP=1 for registries without TLS.
set -eu
tls=$([ -z "${PLAIN_HTTP:-}" ] || echo false)
rendered=$(helm template pneumoserve "$(dirname "$0")/pneumoserve" "$@" --set images.registry=)
for image in $(printf '%s\n' "$rendered" | sed -n 's/^ *\(- \)\{0,1\}image: "\{0,1\}\([^" ]*\)"\{0,1\}$/\2/p' | sort -u); do
  digest=$(skopeo inspect ${tls:+--tls-verify=$tls} --no-tags --format '{{.Digest}}' "docker://$image")
  echo "$image $digest"
done
