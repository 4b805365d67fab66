# Removes a run's folders. lease.sh comes before it. Set before: pcc_system, pcc_run (the run's id), pcc_tag (the tag in the
# environment of its processes) and pcc_account (the owner of workspaces, if not the login). Each answer is one line:
# `gone [KILOBYTES]`, `alive`, or `left KILOBYTES WORDS`.

export LC_ALL=C
# A system without this file is not Linux; there, locks show which supervisors are alive.
read -r pcc_this_boot 2>/dev/null </proc/sys/kernel/random/boot_id || [ "$(uname -s)" != Linux ] || exit

pcc_uid= pcc_become=
if [ -n "$pcc_account" ] && pcc_uid=$(id -u "$pcc_account" 2>/dev/null) && [ "$pcc_uid" -ne 0 ]; then
  pcc_become="sudo -n -u $pcc_account --"
  [ "$(id -u)" -ne 0 ] || pcc_become="setpriv --reuid=$pcc_uid --regid=$(id -g "$pcc_account") --init-groups --"
fi

pcc_is_begun() {
  pcc_is_seen_to "$pcc_system/run-state/$pcc_run/commands" sup
}

pcc_sweep_folder() { # PLACE NAME
  # The run may have resumed since the listing.
  if pcc_is_begun; then
    echo alive
  elif [ -L "$pcc_system" ] || [ -L "$pcc_system/$1" ]; then
    echo "left 0 $pcc_system/$1 is a symbolic link now"
  elif ! pcc_words=$(cd -P -- "$pcc_system/$1" 2>&1); then
    pcc_left 0
  else
    cd -P -- "$pcc_system/$1" && pcc_remove "./$2"
  fi
}

pcc_remove() { # NAME
  pcc_kilobytes=
  [ -z "$pcc_become" ] || pcc_remove_as_account "$1"
  pcc_words=$(rm -rf -- "$1" 2>&1) && echo "gone $pcc_kilobytes" && return
  # Some folders are read-only to their owner (Go's module cache). chmod -R follows no link.
  chmod -R u+rwX -- "$1" 2>/dev/null
  pcc_words=$(rm -rf -- "$1" 2>&1) && echo "gone $pcc_kilobytes" && return
  pcc_left $(du -sk -- "$1" 2>/dev/null)
}

pcc_remove_as_account() { # NAME: removes the account's files in it, as the account, which cannot reach other files that way
  [ ! -L "$1" ] || return
  for pcc_inner in "$1"/*; do
    [ -d "$pcc_inner" ] && [ ! -L "$pcc_inner" ] && [ "$(stat -c %u -- "$pcc_inner")" = "$pcc_uid" ] || continue
    chmod 711 "$1"
    pcc_kilobytes=$($pcc_become sh -c '
      cd "$1" || exit
      du -sk . | cut -f 1
      find . -mindepth 1 -delete && exit
      chmod -R u+rwX .
      find . -mindepth 1 -delete' sh "$PWD/$pcc_inner" 2>/dev/null </dev/null)
  done
}

pcc_left() { # KILOBYTES
  printf 'left %s %s\n' "${1:-0}" "$(printf '%s\n' "$pcc_words" | head -n 1)"
}

pcc_strays_left() { # after the end of the run's processes
  for pcc_path in /proc/[0-9]*; do
    [ -O "$pcc_path" ] && grep -qasF "PCCPIPE_STEP=$pcc_tag/" "$pcc_path/environ" || continue
    # A zombie has no exe.
    [ -e "$pcc_path/exe" ] || continue
    echo "left 0 process ${pcc_path#/proc/} does not end"
    return
  done
  echo gone
}
