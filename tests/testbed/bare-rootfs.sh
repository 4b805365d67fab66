#!/bin/sh
# bare-rootfs.sh ROOT: turns a fresh Debian in ROOT into a cloud's new VM: sshd, a user who may become root, no engine. It copies the
# machine's own apt settings and certificate authorities.
set -eu
R=$1

for sources in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
  [ -s "$sources" ] || continue
  rm -f "$R/etc/apt/sources.list"
  cp "$sources" "$R/etc/apt/${sources#/etc/apt/}"
  break
done
for settings in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf; do
  [ ! -f "$settings" ] || cp "$settings" "$R/etc/apt/apt.conf.d/"
done
mkdir -p "$R/usr/local/share/ca-certificates"
cp /usr/local/share/ca-certificates/*.crt "$R/usr/local/share/ca-certificates/" 2>/dev/null || true
echo 'pcc ALL=(ALL) NOPASSWD:ALL' >"$R/etc/sudoers.d/pcc"

# Replaces an init system: starts the one service that the tests start, as the bed starts it elsewhere.
cat >"$R/usr/local/sbin/service" <<'SH'
#!/bin/sh
[ "$*" = "docker start" ] || { echo "$0: $*: the test bed knows only 'docker start'" >&2; exit 1; }
options="--host unix:///run/docker.sock --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /pccbed-$(hostname)"
rm -f /run/docker.pid
setsid dockerd $options </dev/null >>/bed/dockerd.log 2>&1 &
SH
chmod 755 "$R/usr/local/sbin/service"
rm -rf "$R"/var/lib/apt/lists/* "$R"/var/cache/apt/archives/*.deb
