#!/bin/sh
# tests/setup.sh [EXTRA]: makes .venv with pccpipe (editable) and the packages of pyproject.toml's extra EXTRA (default: dev), in the
# versions and with the hashes of requirements-EXTRA.lock (requirements.lock without an extra); tests/lock.sh renews those.
# Quick if .venv is up to date. On Debian, as root, it installs Python's venv module if that is missing.
set -eu
cd "$(dirname "$0")/.."
extra=${1-dev}

python=
for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "pccpipe needs Python 3.11 or newer, and found none. Set PYTHON=/path/to/python3." >&2
  exit 2
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2
    exit 2
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi

lock=requirements${extra:+-$extra}.lock
# Make it again if the lock file, pyproject.toml or Python has changed.
stamp=$(cat pyproject.toml "$lock"; echo "$extra $python"; "$python" --version)
stamp=$(printf '%s' "$stamp" | cksum)
if [ ! -x .venv/bin/pccpipe ] || [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
  echo "Making .venv ..." >&2
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  pip=".venv/bin/python -m pip --disable-pip-version-check"
  $pip install --quiet --require-hashes --requirement "$lock"
  # The build's requirements are installed by now, also from the lock file.
  $pip install --quiet --no-deps --no-build-isolation --editable .
  if ! said=$($pip check); then
    printf '%s\n' "$said" "$lock and pyproject.toml do not agree. To renew the lock files: sh tests/lock.sh" >&2
    exit 2
  fi
  printf '%s' "$stamp" >.venv/stamp
fi
