# Lists processes of this login that apparently no session, service or command of pccpipe began: one line each, PID and
# command line. Set before: pcc_system; pcc_age, the most hundredths of a second of their age, or empty. Skips a process
# whose environment claims to belong to a command: gc checks for its supervisor.

export LC_ALL=C

pcc_known=' '
for pcc_path in "$pcc_system"/run-state/*/commands/*.sup "$pcc_system"/run-state/*/commands/*.hold; do
  [ -f "$pcc_path" ] && read -r pcc_pid pcc_rest <"$pcc_path" && pcc_known="$pcc_known$pcc_pid "
done 2>/dev/null

pcc_read_stat() { # PID: sets pcc_parent, pcc_comm, pcc_zombie
  read -r pcc_line <"/proc/$1/stat" || return 1
  pcc_comm=${pcc_line#*(}
  pcc_comm=${pcc_comm%)*}
  set -- ${pcc_line##*) }
  pcc_zombie=$1 pcc_parent=$2 pcc_began=${20}
}

pcc_has_session() { # PID: does it descend from a session or service?
  pcc_pid=$1 pcc_turn=0
  while [ "$pcc_pid" -gt 1 ] && [ $pcc_turn -lt 100 ]; do
    # Also the children of a known process, such as its sleep.
    case $pcc_known in *" $pcc_pid "*) return 0 ;; esac
    pcc_read_stat "$pcc_pid" || return 0
    case $pcc_comm in sshd | sshd-* | login | systemd | cron | "(sd-pam)") return 0 ;; esac
    # A parent of another user: a service that works for this login.
    [ "$pcc_parent" -le 1 ] || [ -O "/proc/$pcc_parent" ] || return 0
    pcc_pid=$pcc_parent pcc_turn=$((pcc_turn + 1))
  done
  return 1
}

read -r pcc_now pcc_rest </proc/uptime
# Not read as octal: uptime has two decimals, such as 7.05.
pcc_now=$((${pcc_now%.*} * 100 + 1${pcc_now#*.} - 100))
pcc_since=$(((pcc_now - ${pcc_age:-$pcc_now}) * $(getconf CLK_TCK 2>/dev/null || echo 100) / 100))

for pcc_path in /proc/[0-9]*; do
  [ -O "$pcc_path" ] || continue
  pcc_read_stat "${pcc_path#/proc/}" && [ "$pcc_zombie" != Z ] && [ "$pcc_began" -ge "$pcc_since" ] || continue
  # In a container, or in a service of systemd that runs as this user.
  grep -qE '[0-9a-f]{64}|/system\.slice/' "$pcc_path/cgroup" && ! grep -q '/ssh' "$pcc_path/cgroup" && continue
  grep -qsF PCCPIPE_STEP= "$pcc_path/environ" && continue
  pcc_has_session "${pcc_path#/proc/}" && continue
  printf '%s %s\n' "${pcc_path#/proc/}" "$(head -c 200 "$pcc_path/cmdline" | tr '\0' ' ' | tr -c '[:print:]' '?')"
done 2>/dev/null | head -n 20
