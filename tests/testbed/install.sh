#!/bin/sh
# Installs the Debian packages that the test bed needs. A second run only checks.
set -eu
packages="docker.io openssh-server openssh-client rsync iproute2 iptables debootstrap busybox-static procps util-linux e2fsprogs git"
missing=
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

[ "$(id -u)" = 0 ] || { echo "install.sh: must be root to install:$missing" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
# apt must start no service: the bed runs its own sshd and dockerd, away from the machine's ports and sockets.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
# Another apt may hold the lock, as cloud images do in their first minutes.
apt="apt-get -q -o DPkg::Lock::Timeout=300"
$apt update
# shellcheck disable=SC2086
$apt install -y --no-install-recommends $missing
