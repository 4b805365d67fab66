#!/bin/sh
# tests/lock.sh [UV ARGUMENTS]: renews requirements.lock, requirements-dev.lock and requirements-fuzz.lock after a change of pyproject.toml.
# Locked versions stay if they still fit; `sh tests/lock.sh --upgrade` takes the newest versions.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=${PYTHON:-python3}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9

compile() { # LOCK [OPTIONS]: for every platform and Python from 3.11 on
  lock=$1
  shift
  "$folder/bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command "sh tests/lock.sh" --output-file "$lock" "$@" pyproject.toml
}
compile requirements-dev.lock --extra build --extra dev "$@"
# The same versions.
compile requirements.lock --extra build --constraint requirements-dev.lock
compile requirements-fuzz.lock --extra build --extra fuzz --constraint requirements-dev.lock
