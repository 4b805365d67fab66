# sh launch.sh FOLDER COMMAND...: runs a command on the fake Mac, as root, in namespaces for its mounts and its name. FOLDER/proc must exist.
set -e
folder=$1
shift
hostname "$FAKE_MAC_NAME"
mount --bind /proc "$folder/proc"
# On macOS /dev/fd belongs to the kernel and does not lead into /proc.
mount -t tmpfs none "$folder/dev"
for node in null zero full random urandom tty ptmx; do
  [ -e "/dev/$node" ] || continue
  : >"$folder/dev/$node"
  mount --bind "/dev/$node" "$folder/dev/$node"
done
mkdir "$folder/dev/pts"
[ ! -d /dev/pts ] || mount --rbind /dev/pts "$folder/dev/pts"
ln -s "$folder/proc/self/fd" "$folder/dev/fd"
ln -s fd/0 "$folder/dev/stdin"
ln -s fd/1 "$folder/dev/stdout"
ln -s fd/2 "$folder/dev/stderr"
# /bin/sh is bash there.
mount --bind "$(command -v bash)" "$(readlink -f /bin/sh)"
mount --move "$folder/dev" /dev
mount -t tmpfs -o mode=555 none /proc
PATH=$folder/bin
export PATH
exec "$@"
