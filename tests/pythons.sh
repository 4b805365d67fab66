#!/bin/sh
# tests/pythons.sh [PYTEST ARGUMENTS]: runs a short part of the suite, or the given tests, under each Python newer than
# 3.11 that this machine has (PATH, pyenv), with warnings as errors. It installs requirements-dev.lock into .venvs/VERSION. It
# stops a Python that needs more than its minutes: a busy machine fails nothing.
set -eu
cd "$(dirname "$0")/.."
minutes=${PCCPIPE_MINUTES:-4}
# With this set, Hypothesis does not report slowness as a failure.
export CI=true
[ $# -gt 0 ] || set -- tests/executor tests/record tests/spec/test_corpus.py tests/cli/test_run.py tests/machine/test_local.py

find_python() { # VERSION: prints the program, if there is one that runs
  for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python3; do
    "$candidate" -c 'import ensurepip, venv' 2>/dev/null && { echo "$candidate"; return; }
  done
  return 0
}

failed=0
for version in 3.12 3.13 3.14; do
  python=$(find_python $version)
  [ -n "$python" ] || { echo "Python $version: not on this machine"; continue; }
  venv=.venvs/$version
  stamp=$(cat pyproject.toml requirements-dev.lock | cksum)
  if [ "$(cat $venv/stamp 2>/dev/null)" != "$stamp" ]; then
    "$python" -m venv --clear $venv
    pip="$venv/bin/python -m pip --disable-pip-version-check -qq"
    $pip install --require-hashes --requirement requirements-dev.lock
    $pip install --no-deps --no-build-isolation --editable .
    printf '%s' "$stamp" >$venv/stamp
  fi
  status=0
  timeout $((minutes * 60)) $venv/bin/python -W error -m pytest -q -p no:cacheprovider -n 2 "$@" || status=$?
  case $status in
  0) echo "Python $version: passed" ;;
  124) echo "Python $version: stopped after $minutes minutes" ;;
  *) echo "Python $version: FAILED"; failed=1 ;;
  esac
done
exit $failed
