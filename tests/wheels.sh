#!/bin/sh
# tests/wheels.sh: checks that each supported platform and Python has a wheel of every package in requirements.lock, with a hash
# that the file has. It asks the package index and downloads no wheel.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=.venv/bin/python
[ -x $python ] || python=${PYTHON:-python3}
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9

failed=0
for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 x86_64-unknown-linux-musl aarch64-apple-darwin x86_64-apple-darwin; do
  for version in 3.11 3.12 3.13 3.14; do
    if said=$("$folder/bin/uv" pip install --dry-run --no-config --python "$folder/bin/python" --python-platform $platform \
      --python-version $version --only-binary :all: --require-hashes --target "$folder/none" -r requirements.lock 2>&1); then
      echo "$platform $version: all wheels"
    else
      printf '%s\n' "$platform $version: $said"
      failed=1
    fi
  done
done
exit $failed
