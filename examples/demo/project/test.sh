#!/bin/sh
# Runs each case, prints what differs, and leaves a report in test-results/.
set -u
cd "$(dirname "$0")" || exit 1
mkdir -p test-results
failed=0

check() { # EXPECTED ARGUMENT...
  expected=$1
  shift
  got=$(sh ./slug.sh "$@" 2>&1)
  if [ "$got" = "$expected" ]; then
    echo "ok      $*"
  else
    echo "FAILED  $*: expected '$expected', got '$got'"
    failed=$((failed + 1))
  fi
}

run() {
  check hello-world "Hello, World!"
  check a-b-c "a  b--c"
  check 2026-plan "  2026 plan "
  if grep -q -- --max slug.sh; then
    check hello --max 5 "Hello, World!"
    check hello --max 6 "Hello, World!"
    check hello-world --max 40 "Hello, World!"
  fi
  echo "$failed failed"
}

run >test-results/report.txt
failed=$(sed -n 's/ failed$//p' test-results/report.txt)
cat test-results/report.txt
[ "$failed" -eq 0 ]
