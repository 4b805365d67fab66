#!/bin/sh
exec ./fetch.sh "$1" health
