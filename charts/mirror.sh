#!/bin/sh
# Copies what an install needs into a registry of yours, for a cluster that reaches no other one: every image that the
# chart names with your values, by digest, and the chart itself. Prints where each went.
#
#   sh charts/mirror.sh REGISTRY[/PATH] [what `helm template` takes: --values FILE, --set …]
#
# Wants helm and skopeo, logged in where the registries ask for it. PLAIN_HTTP=1 for registries without TLS.
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

# From where the images are now, whatever the values say of where they will be.
helm template pneumoserve "$chart" "$@" --set images.registry= > "$scratch/rendered.yaml"
sed -n 's/^ *\(- \)\{0,1\}image: "\{0,1\}\([^" ]*\)"\{0,1\}$/\2/p' "$scratch/rendered.yaml" | sort -u > "$scratch/images"

while read -r image; do
  # Without the registry it comes from: images.registry takes its place.
  path=$image
  case "${image%%/*}" in *.* | *:* | localhost) path=${image#*/} ;; esac
  skopeo copy --quiet --all --preserve-digests ${tls:+--src-tls-verify=$tls --dest-tls-verify=$tls} "docker://$image" "docker://$target/$path"
  digest=$(skopeo inspect ${tls:+--tls-verify=$tls} --no-tags --format '{{.Digest}}' "docker://$target/$path")
  echo "$target/${path%@*} $digest"
done < "$scratch/images"

helm package "$chart" --destination "$scratch" > /dev/null
helm push ${tls:+--plain-http} "$scratch"/pneumoserve-*.tgz "oci://$target/charts" 2>&1 |
  sed -n 's/^Pushed: \(.*\)/chart \1/p; s/^Digest: /chart digest /p'
echo "install it by: helm install pneumoserve oci://$target/charts/pneumoserve --set images.registry=$target …"
