# Tries, as the account for workspace code, what it must not be able to do. A line `open KIND WORDS` for each that it can; the
# line `inside` at the end.

login=$1 pid=$2 root=$3 home=$4 path=$5 socket=$6 system=$3/.system
export LC_ALL=C
cd / && exec 2>/dev/null

can() { # KIND WORDS
  echo "open $*"
}

can_write() { # FILE...
  for file; do
    [ ! -w "$file" ] || can mode write to "$file"
  done
}

can_read() { # FILE...
  for file; do
    [ ! -e "$file" ] || ! head -c 1 "$file" >/dev/null || can mode read "$file"
  done
}

echo "limit $(grep '^Max processes' /proc/self/limits | tr -s ' ' | cut -d ' ' -f 3)"

ls "$system/run-state/" >/dev/null && can mode read "$system/run-state"
ls "$system/run-workspaces/" >/dev/null && can mode read "$system/run-workspaces"
can_read "$system/provisioned.json"
can_write "$system" "$system/run-state" "$system/run-workspaces" "$system/run-io" "$system/lease" "$system/gates" "$system/provisioned.json"

# Who can rename a folder on the way can put another one there.
for start in "$root" "$home"; do
  while [ -n "$start" ]; do
    [ -k "$start" ] || can_write "$start"
    start=${start%/*}
  done
done
can_write /

cd "$home" && for file in .bashrc .bash_profile .bash_login .bash_logout .profile .pam_environment .zshenv .ssh .docker; do
  can_write "$home/$file"
done
can_write "$home/.ssh/rc" "$home/.ssh/environment" "$home/.ssh/authorized_keys" "$home/.docker/config.json"
can_read "$home/.docker/config.json" "$home/.git-credentials" "$home/.netrc"
can_read "$home/.ssh/id_rsa" "$home/.ssh/id_ecdsa" "$home/.ssh/id_ed25519"
cd /

# Where programs are found.
echo "$path" | tr : '\n' | sort -u | while read -r folder; do
  case $folder in /*) can_write "$folder" ;; esac
done
[ -n "$HOME" ] && [ -w "$HOME" ] && can home write to its home "$HOME"

kill -0 "$pid" && can signal signal a process of "$login"
cat "/proc/$pid/environ" >/dev/null && can signal read the environment of a process of "$login"

for file in "$socket" /run/docker.sock /run/containerd/containerd.sock /run/podman/podman.sock; do
  [ -w "$file" ] && can engine use "$file" && break
done

if command -v sudo >/dev/null; then
  timeout 5 sudo -n -u "$login" true </dev/null && can sudo become "$login" by sudo
  timeout 5 sudo -n true </dev/null && can sudo become root by sudo
fi
timeout 10 su -c true "$login" </dev/null >/dev/null && can su become "$login" by su

if command -v crontab >/dev/null && echo | timeout 5 crontab -; then
  crontab -r
  can cron use crontab
fi
command -v at >/dev/null && timeout 5 at -l >/dev/null </dev/null && can at use at
echo inside
