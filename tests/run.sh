#!/bin/sh
# tests/run.sh [PYTEST ARGUMENTS]: installs the tests' requirements, checks the code, runs all tests.
# With arguments it runs only pytest with them: tests/run.sh tests/spec -k loader
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh dev
sh tests/testbed/install.sh
PATH=$PWD/.venv/bin:$PATH
export PATH
# With it set, each of the many processes would compile all of pccpipe again: 0.1 s each.
unset PYTHONDONTWRITEBYTECODE

if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi
ruff check .
ruff format --check .
mypy
lint-imports
check-jsonschema --check-metaschema schemas/*.json
python -m tests.testbed images
exec python -m pytest -n 5 --dist worksteal
