#!/bin/sh
# slug.sh TITLE: prints TITLE as a part of a web address.
set -eu
printf '%s\n' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9]\{1,\}/-/g; s/^-//; s/-$//'
