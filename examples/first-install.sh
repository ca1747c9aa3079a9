#!/bin/sh
# A first install on the cluster of your kubeconfig: a trial store, the reference release, and one X-ray answered.
# Not for clinical use. Run it again and it goes on where it was; it changes one namespace and nothing else.
#
#   sh examples/first-install.sh [what `helm install` takes: --values FILE, --set …]
#   sh examples/first-install.sh remove      takes all of it away again
#
# It wants kubectl, helm, and a cluster with KServe and a Gateway; the chart says what the cluster lacks.
# On kind or k3s it builds the images by docker. On another cluster, push them first and say where:
#
#   REPOSITORY=registry.example.org/me sh examples/first-install.sh      takes …/me/front and …/me/models
set -eu
NAMESPACE=${NAMESPACE:-pneumonia}
REPOSITORY=${REPOSITORY:-}
FOLDER=${FOLDER:-first-install} # the approver's key, the release and the answer
PNEUMOSERVE=${PNEUMOSERVE:-.venv/bin/pneumoserve}
LABEL=pneumoserve/first-install
FILM=tests/data/xray-sample/originals/virus/person1121_virus_1846.jpeg

cd "$(dirname "$0")/.."

say() { echo "--- $*" >&2; }
fail() { echo "$*" >&2; exit 2; }

check_tools() {
  for tool in kubectl helm; do
    command -v "$tool" > /dev/null || fail "There is no $tool; install it, or put it into PATH."
  done
  command -v "$PNEUMOSERVE" > /dev/null || fail "There is no $PNEUMOSERVE; run \`make install\` first."
  kubectl version --request-timeout=10s > /dev/null 2>&1 ||
    fail "No cluster answers; set KUBECONFIG, and see that \`kubectl version\` reaches the server."
}

# How images get into the cluster: given, kind or k3s.
find_image_way() {
  [ -z "$REPOSITORY" ] || { echo given; return; }
  context=$(kubectl config current-context 2> /dev/null || true)
  case "$context" in kind-*) way=kind ;; *) way= ;; esac
  if [ -z "$way" ]; then
    case "$(kubectl get nodes --output 'jsonpath={.items[*].status.nodeInfo.kubeletVersion}')" in
      *k3s*) way=k3s ;;
      *) fail "This cluster is neither kind nor k3s; push the images, and set REPOSITORY to where they are (docs/how-to/install.md)." ;;
    esac
  fi
  command -v docker > /dev/null || fail "There is no docker to build the images with; install it, or set REPOSITORY."
  [ "$way" = k3s ] || command -v kind > /dev/null || fail "There is no kind; install it, or put it into PATH."
  echo $way
}

# Build one image and put it into the cluster: build_image WAY NAME TAG
build_image() {
  image=docker.io/pneumoserve/$2:$3
  say "building $image"
  docker build --quiet --target "$2" --tag "$image" . > /dev/null
  case "$1" in
    kind) kind load docker-image "$image" --name "${context#kind-}" ;;
    k3s) docker save "$image" | k3s ctr images import - ;;
  esac
}

# Namespaces of ours carry a label, since `remove` deletes them whole.
is_ours() { [ "$(kubectl get namespace "$NAMESPACE" --output "jsonpath={.metadata.labels['$LABEL']}")" = true ]; }

make_namespace() {
  if kubectl get namespace "$NAMESPACE" > /dev/null 2>&1; then
    is_ours || fail "Namespace $NAMESPACE is there and not made by this script; set NAMESPACE to another name."
  else
    kubectl create namespace "$NAMESPACE" > /dev/null
    kubectl label namespace "$NAMESPACE" "$LABEL=true" pod-security.kubernetes.io/enforce=restricted > /dev/null
  fi
}

# An approver's key, and the reference release signed with it.
make_release() {
  mkdir -p "$FOLDER"
  [ -e "$FOLDER/approver.pem" ] || "$PNEUMOSERVE" release key "$FOLDER/approver.pem" --trust "$FOLDER/trust" > /dev/null
  [ -e "$FOLDER/releases" ] ||
    "$PNEUMOSERVE" package model-store/reference --out "$FOLDER/releases" --key "$FOLDER/approver.pem" > /dev/null
  ls "$FOLDER/releases"
}

# A file, so that what you give on the command line wins: write_values WAY
write_values() {
  {
    echo "trialStore: {enabled: true}"
    echo "replicas: 1"
    echo "trust:"
    echo "  keys:"
    echo "    approver.pem: |"
    sed 's/^/      /' "$FOLDER"/trust/*.pem
    [ "$1" != given ] ||
      echo "images: {front: {repository: $REPOSITORY/front}, models: {repository: $REPOSITORY/models}}"
  } > "$FOLDER/values.yaml"
}

# Sets `address` to a port of this machine that leads to one of a Service: forward SERVICE PORT
forward() {
  : > "$FOLDER/forward.log"
  kubectl port-forward --namespace "$NAMESPACE" "service/$1" ":$2" >> "$FOLDER/forward.log" 2>&1 &
  forwarding="$forwarding $!"
  address=
  for _ in $(seq 100); do
    address=$(sed -n 's/^Forwarding from \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$FOLDER/forward.log")
    [ -z "$address" ] || return 0
    kill -0 $! 2> /dev/null || break
    sleep 0.1
  done
  fail "kubectl port-forward does not reach service $1: $(cat "$FOLDER/forward.log")"
}

read_secret() { kubectl get secret --namespace "$NAMESPACE" pneumoserve-setup --output "jsonpath={.data.$1}" | base64 -d; }

push_release() {
  forward pneumoserve-store 8333
  S3_ACCESS_KEY=$(read_secret AWS_ACCESS_KEY_ID)
  S3_SECRET_KEY=$(read_secret AWS_SECRET_ACCESS_KEY)
  export S3_ACCESS_KEY S3_SECRET_KEY S3_ENDPOINT="http://$address" S3_BUCKET=pneumoserve
  "$PNEUMOSERVE" release push "$FOLDER/releases/$1" >&2
}

remove() {
  check_tools
  kubectl get namespace "$NAMESPACE" > /dev/null 2>&1 || fail "There is no namespace $NAMESPACE; set NAMESPACE as you installed."
  is_ours || fail "Namespace $NAMESPACE was not made by this script, so it stays."
  helm uninstall pneumoserve --namespace "$NAMESPACE" --ignore-not-found --wait >&2
  kubectl delete namespace "$NAMESPACE" >&2
  rm -rf "$FOLDER/approver.pem" "$FOLDER/trust" "$FOLDER/releases" "$FOLDER/values.yaml" "$FOLDER/answer.json" \
    "$FOLDER/forward.log"
  say "all of it is gone, but for the images"
}

install() {
  check_tools
  way=$(find_image_way)
  context=$(kubectl config current-context 2> /dev/null || true)
  make_namespace
  release=$(make_release)
  if ! helm status pneumoserve --namespace "$NAMESPACE" > /dev/null 2>&1; then
    write_values "$way"
    set -- --namespace "$NAMESPACE" --values "$FOLDER/values.yaml" "$@"
    say "asking the chart what the cluster lacks"
    helm install pneumoserve charts/pneumoserve "$@" --dry-run=server > /dev/null
    if [ "$way" != given ]; then
      tag=$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/pneumoserve/Chart.yaml)
      build_image "$way" front "$tag"
      build_image "$way" models "$tag"
    fi
    say "installing into namespace $NAMESPACE"
    helm install pneumoserve charts/pneumoserve "$@" > /dev/null
  fi
  say "pushing release $release, and letting it answer"
  push_release "$release"
  helm upgrade pneumoserve charts/pneumoserve --namespace "$NAMESPACE" --reset-then-reuse-values \
    --set-string "release.id=$release" > /dev/null
  kubectl wait --namespace "$NAMESPACE" --for=condition=Ready "inferenceservice/pneumonia-$release" --timeout=10m >&2
  say "sending an X-ray"
  forward "pneumonia-$release-predictor" 80
  "$PNEUMOSERVE" predict "$FILM" --url "http://$address" --json > "$FOLDER/answer.json"
  cat "$FOLDER/answer.json"
  say "it runs; what to do next: helm status pneumoserve --namespace $NAMESPACE"
  say "take all of it away: NAMESPACE=$NAMESPACE sh examples/first-install.sh remove"
}

forwarding=
trap '[ -z "$forwarding" ] || { kill $forwarding 2> /dev/null || true; wait; }' EXIT
if [ "${1:-}" = remove ]; then remove; else install "$@"; fi
