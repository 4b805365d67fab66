#!/bin/sh
# Builds forward-x86_64 and forward-aarch64 beside this file, with gcc and gcc-aarch64-linux-gnu. Prints the sum of the source.
set -eu
cd "$(dirname "$0")"
flags="-Os -std=gnu11 -Wall -Wextra -Werror -static -nostdlib -ffreestanding -fno-stack-protector -fno-pie -no-pie
  -fno-asynchronous-unwind-tables -fno-ident -fno-tree-loop-distribute-patterns
  -Wl,--build-id=none,-z,norelro,-z,noseparate-code,-z,noexecstack -s"
# shellcheck disable=SC2086
gcc $flags -o forward-x86_64 forward.c
# shellcheck disable=SC2086
aarch64-linux-gnu-gcc $flags -mno-outline-atomics -o forward-aarch64 forward.c
sha256sum forward.c >forward.c.sha256
