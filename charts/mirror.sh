#!/bin/sh
# Copies what an install needs into a registry of yours, for a cluster that reaches no other one: every image that the
# chart names with your values, by digest, and the chart itself. Prints where each went.
#
#   sh charts/mirror.sh REGISTRY[/PATH] [what `helm template` takes: --values FILE, --set …]
#
# Wants helm and skopeo, logged in where the registries ask for it. PLAIN_HTTP=1 for registries without TLS.
# IMAGES=FILE, a list that charts/attest.sh made: an image that it does not list by its digest is not copied.
set -eu
case "${1:-}" in
  "" | -*) echo "usage: sh charts/mirror.sh REGISTRY[/PATH] [--values FILE …], where the images and the chart go" >&2; exit 2 ;;
esac
for tool in helm skopeo; do
  command -v $tool > /dev/null || { echo "There is no $tool; install it, or put it into PATH." >&2; exit 2; }
done
target=$1
shift
chart=$(dirname "$0")/pneumoserve
tls=$([ -z "${PLAIN_HTTP:-}" ] || echo false)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

sh "$(dirname "$0")/images.sh" "$@" > "$scratch/images"

while read -r image digest; do
  # Without the registry it comes from: images.registry takes its place.
  path=$image
  case "${image%%/*}" in *.* | *:* | localhost) path=${image#*/} ;; esac
  if [ -n "${IMAGES:-}" ] && ! grep -qxF "$image $digest" "$IMAGES"; then
    echo "$image is $digest, which $IMAGES does not list; nothing more is copied." >&2
    exit 1
  fi
  # By digest, since a tag may move meanwhile.
  name=${image%@*}
  case "${name##*/}" in *:*) name=${name%:*} ;; esac
  skopeo copy --quiet --all --preserve-digests ${tls:+--src-tls-verify=$tls --dest-tls-verify=$tls} "docker://$name@$digest" "docker://$target/$path"
  echo "$target/${path%@*} $digest"
done < "$scratch/images"

helm package "$chart" --destination "$scratch" > /dev/null
helm push ${tls:+--plain-http} "$scratch"/pneumoserve-*.tgz "oci://$target/charts" 2>&1 |
  sed -n 's/^Pushed: \(.*\)/chart \1/p; s/^Digest: /chart digest /p'
echo "install it by: helm install pneumoserve oci://$target/charts/pneumoserve --set images.registry=$target …"
