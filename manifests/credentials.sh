#!/bin/sh
# Makes what must not stand in a repository, as files below base/credentials: the archive's keys, the trial store's
# credentials, and which approver's signature counts. What is there already stays as it is.
#
#   sh manifests/credentials.sh APPROVER.pem      the public half of the approver's key (`pneumoserve release key`)
set -eu
umask 077
[ $# = 1 ] && [ -f "$1" ] || { echo "usage: sh manifests/credentials.sh APPROVER.pem, a public key in PEM form" >&2; exit 2; }
openssl pkey -pubin -in "$1" -noout || { echo "$1 is no public key; give the .pem that \`pneumoserve release key\` put into the trust folder." >&2; exit 2; }
approver=$(realpath "$1")
target=$(dirname "$0")/base/credentials
mkdir -p "$target"
cd "$target"
mkdir -p trust signing sealer references
cp "$approver" trust/approver.pem

for name in signing sealer; do
  [ -e $name/key.pem ] || openssl genpkey -algorithm ed25519 -out $name/key.pem
  openssl pkey -in $name/key.pem -pubout -out $name/public.pem
done
[ -e references/key ] || openssl rand -hex 32 | tr -d '\n' > references/key

# The trial store's: its credentials, and who has which of the policies that the chart gave.
if [ -e ../policies.json ]; then
  names=$(grep -o '"name": "[a-z]*"' ../policies.json | cut -d '"' -f 4 | sort)
  for name in $names; do
    [ -e $name.env ] || printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$name-$(openssl rand -hex 4)" "$(openssl rand -hex 20)" > $name.env
  done
  identity() {
    . "./$1.env"
    printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "policyNames": ["%s"]}\n' \
      "$1" "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" "$1"
  }
  identities=$(for name in $names; do identity $name; done | paste -s -d ,)
  printf '{"identities": [%s], "policies": %s}\n' "$identities" "$(cat ../policies.json)" > identities.json
fi
echo "keys and credentials are in $(pwd); keep a copy of them where the archive's backups are, and out of the repository"
