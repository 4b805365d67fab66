# step.sh NAME: waits until pccpipe has inspected it, changes the workspace, leaves a result, and prints its secret, if it
# has one, plain and encoded.
set -eu

ticks=0
while [ ! -e ".looked-$1" ]; do
  [ $ticks -lt 900 ] || { echo "pccpipe did not inspect this step in time" >&2; exit 1; }
  ticks=$((ticks + 1))
  sleep 0.1
done
rm -f ".looked-$1"

mkdir -p reports
echo "step $1 was here" | tee "reports/$1.txt" >>changed.txt
printf '{"step": "%s"}\n' "$1" >"$PCC_OUT/$1.json"

[ -n "${CANARY:-}" ] || exit 0
escaped() { # SED-SCRIPT
  printf '%s\n' "$CANARY" | sed "$1"
}
printf 'as it is: %s\n' "$CANARY"
printf 'to stderr: %s\n' "$CANARY" >&2
printf '%s' "$CANARY"
sleep 0.1
printf ' and at once %s%s\n' "$CANARY" "$CANARY"
for before in "" a ab; do
  printf '%s%s' "$before" "$CANARY" | base64 | tr -d '\n'
  echo " base64"
  printf '%s%s' "$before" "$CANARY" | base64 | tr -d '\n' | tr '+/' '-_'
  echo " base64url"
done
printf 'wrapped, behind other words that make it long: %s' "$CANARY" | base64
printf '%s' "$CANARY" | od -An -v -tx1 | tr -d ' \n'
echo " hex"
printf '"%s" JSON\n' "$(escaped 's/\\/\\\\/g; s/"/\\"/g')"
printf '%s URL\n' "$(escaped 's/%/%25/g; s/ /%20/g; s/"/%22/g; s/&/%26/g; s/'"'"'/%27/g; s/+/%2B/g; s/\//%2F/g; s/=/%3D/g; s/\\/%5C/g')"
printf "'%s' shell\n" "$(escaped "s/'/'\"'\"'/g")"
# As a shell's trace writes it.
set -x
: "$CANARY"
