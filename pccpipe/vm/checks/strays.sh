# Names processes of this login that no session and no service of the machine began, as far as is seen: one line each, PID and
# command line. What pccpipe began says so in its environment, which `gc` looks at.

pcc_read_stat() { # PID: sets pcc_parent, pcc_comm, pcc_zombie
  read -r pcc_line <"/proc/$1/stat" || return 1
  pcc_comm=${pcc_line#*(}
  pcc_comm=${pcc_comm%)*}
  set -- ${pcc_line##*) }
  pcc_zombie=$1 pcc_parent=$2
}

pcc_has_session() { # PID: does it descend from something that was asked to begin it?
  pcc_pid=$1 pcc_turn=0
  while [ "$pcc_pid" -gt 1 ] && [ $pcc_turn -lt 100 ]; do
    pcc_read_stat "$pcc_pid" || return 0
    case $pcc_comm in sshd | sshd-* | login | systemd | cron | "(sd-pam)") return 0 ;; esac
    # The parent of another user's: a service that works for this one.
    [ "$pcc_parent" -le 1 ] || [ -O "/proc/$pcc_parent" ] || return 0
    pcc_pid=$pcc_parent pcc_turn=$((pcc_turn + 1))
  done
  return 1
}

for pcc_path in /proc/[0-9]*; do
  [ -O "$pcc_path" ] || continue
  pcc_read_stat "${pcc_path#/proc/}" && [ "$pcc_zombie" != Z ] || continue
  # A container's, or a service's of systemd that runs as this user.
  grep -qE '[0-9a-f]{64}|/system\.slice/' "$pcc_path/cgroup" && ! grep -q '/ssh' "$pcc_path/cgroup" && continue
  grep -qsF PCCPIPE_STEP= "$pcc_path/environ" && continue
  pcc_has_session "${pcc_path#/proc/}" && continue
  printf '%s %s\n' "${pcc_path#/proc/}" "$(head -c 200 "$pcc_path/cmdline" | tr '\0' ' ' | tr -c '[:print:]' '?')"
done 2>/dev/null | head -n 20
