#!/bin/sh
set -e
cat "$STAGING/orders.csv" "$STAGING/customers.csv" >"$STAGING/rows.csv"
