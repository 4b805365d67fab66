#!/bin/sh
# examples/demo/run.sh: installs everything, then runs pipelines/default-run.yaml on examples/demo/project.
#
# As root on Debian it makes a project VM on this machine (tests/testbed), where the real Codex CLI works in real containers.
# Elsewhere the run uses this machine itself (`isolation_mode: local`). A script plays the model: no key is needed.
set -eu
cd "$(dirname "$0")/../.."
sh tests/setup.sh ''
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  sh tests/testbed/install.sh
fi
exec .venv/bin/python -m examples.demo "$@"
