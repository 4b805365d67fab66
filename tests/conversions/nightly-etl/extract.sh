#!/bin/sh
set -e
mkdir -p "$STAGING"
./fetch.sh 8021 "$1" >"$STAGING/$1.csv"
test -s "$STAGING/$1.csv" || { echo "the source has no $1 of $2" >&2; exit 1; }
