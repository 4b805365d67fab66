#!/bin/sh
set -e
mkdir -p /var/data
chown 999:999 /var/data
exec setpriv --reuid 999 --regid 999 --clear-groups "$@"
