# Functions that lane.sh, control.sh and account.sh share. Set before this text:
#   pcc_state    the run's folder on this machine
#   pcc_run      the tag of its processes
#   pcc_folder   the lane's folder, if there is a lane
#   pcc_reply    the mark of the answer to the program that opens the shell
#   pcc_claims, pcc_gate   see lane.sh
#   pcc_account, pcc_uid, pcc_gid   the account that commands run as, if that is not the login
#   pcc_login    the uid of this shell
# pcc_user is pcc_account while a function works for a command of the account, and empty otherwise.

pcc_answer() { # MARK TEXT
  printf '\036%s %s\036\n' "$1" "$2"
}

pcc_find() { # NAME: sets pcc_found to the file of a program; busybox sh would take its own applet, which lacks options
  pcc_rest=$PATH:
  while [ -n "$pcc_rest" ]; do
    pcc_found=${pcc_rest%%:*}/$1
    pcc_rest=${pcc_rest#*:}
    if [ -x "$pcc_found" ] && [ ! -d "$pcc_found" ]; then
      for pcc_box in /bin/busybox /usr/bin/busybox; do
        [ "$pcc_found" -ef "$pcc_box" ] && continue 2
      done
      return 0
    fi
  done
  return 1
}

pcc_tools() { # finds the programs that a lane needs; sets pcc_missing
  pcc_missing=
  pcc_find timeout && pcc_timeout=$pcc_found || pcc_missing="$pcc_missing timeout (coreutils)"
  pcc_find tail && pcc_tail=$pcc_found || pcc_missing="$pcc_missing tail (coreutils)"
  pcc_find grep && pcc_grep=$pcc_found || pcc_missing="$pcc_missing grep"
  [ -r /proc/self/stat ] || pcc_missing="$pcc_missing /proc"
  [ -z "$pcc_missing" ] && return
  # Alpine's busybox has these programs with too few options.
  if pcc_find apk; then pcc_found="apk add"; else pcc_found="apt-get install"; fi
  pcc_missing="$pcc_missing; install: $pcc_found coreutils grep"
  return 1
}

pcc_user=

pcc_exec_as() { # becomes a program, as the account
  case ${pcc_user:+$pcc_login} in
  '') exec "$@" ;;
  0) exec setpriv "--reuid=$pcc_uid" "--regid=$pcc_gid" --init-groups -- "$@" ;;
  *) exec sudo -n -u "$pcc_user" -- "$@" ;;
  esac
}

pcc_as() { # runs a program as the account
  (pcc_exec_as "$@")
}

pcc_help() { # PROGRAM...: does the same as pcc_as, for at most a few seconds. The processes that it works on may stop it, and sudo
  # stops with its program. Only their own session may continue both. It does so without a pause while they stop again.
  pcc_as "$@" </dev/null &
  pcc_helper=$! pcc_waited=0 pcc_pushed=0
  while read -r pcc_line <"/proc/$pcc_helper/stat"; do
    case ${pcc_line##*) } in
    Z*) break ;;
    T*) pcc_pushed=$((pcc_pushed + 1)) ;;
    *)
      pcc_waited=$((pcc_waited + 1))
      sleep 0.01
      ;;
    esac
    kill -CONT 0
    [ $pcc_waited -lt 200 ] && [ $pcc_pushed -lt 50000 ] || return
  done 2>/dev/null
  wait $pcc_helper
}

pcc_kill() { # takes what `kill` takes; the account signals its own processes, because the login user may not
  if [ -n "$pcc_user" ]; then pcc_help sh -c 'kill "$@"' kill "$@"; else kill "$@"; fi
}

pcc_has_processes() { # sets pcc_found to the account's processes in /proc, zombies too
  # It compares the real uid, because sudo changes its effective one for moments.
  pcc_found=$("$pcc_grep" -lE "^Uid:[[:space:]]+${pcc_uid}[[:space:]]" /proc/[0-9]*/status 2>/dev/null)
  [ -n "$pcc_found" ]
}

pcc_identify() { # PID: sets pcc_self and pcc_start, which identify a process of this boot; fails for a zombie
  read -r pcc_line <"/proc/$1/stat" || return 1
  pcc_self=${pcc_line%% *}
  set -- ${pcc_line##*) }
  pcc_start=${20}
  [ "$1" != Z ]
}

pcc_await() { # COMMAND: waits a moment for the shell that has claimed it to begin it
  pcc_ticks=0
  for pcc_claim in "$1".claim-*; do
    while [ -e "$pcc_claim" ] && [ ! -s "$1.sup" ] && [ $pcc_ticks -lt 20 ]; do
      sleep 0.1
      pcc_ticks=$((pcc_ticks + 1))
    done
  done
}

pcc_is_supervised() { # ID: succeeds if its supervisor is running; sets pcc_pid, pcc_code, pcc_timed
  # Reading a FIFO could take forever.
  [ -f "$pcc_state/commands/$1.sup" ] || return 1
  {
    read -r pcc_pid pcc_began pcc_then || return 1
    read -r pcc_code pcc_timed || pcc_code=lost pcc_timed=-
  } <"$pcc_state/commands/$1.sup"
  read -r pcc_boot </proc/sys/kernel/random/boot_id
  [ "$pcc_code" = lost ] && [ "$pcc_boot" = "$pcc_then" ] && pcc_identify "$pcc_pid" && [ "$pcc_start" = "$pcc_began" ]
}

pcc_tagged() { # sets pcc_found to the processes with the command's tag in their environment
  [ -z "$pcc_user" ] || pcc_has_processes || return
  if [ -n "$pcc_user" ]; then
    pcc_found=$(export LC_ALL=C; pcc_help "$pcc_grep" -lF "$pcc_tag" /proc/[0-9]*/environ)
  else
    pcc_found=$(LC_ALL=C "$pcc_grep" -lF "$pcc_tag" /proc/[0-9]*/environ </dev/null)
  fi
  [ -n "$pcc_found" ]
}

pcc_signal_tagged() { # SIGNAL: signals the tagged processes; TERM skips those in the group, which had it
  pcc_tagged
  for pcc_path in $pcc_found; do
    pcc_pid=${pcc_path#/proc/}
    pcc_pid=${pcc_pid%/environ}
    [ "$1" = TERM ] && pcc_is_in_group "$pcc_pid" && continue
    pcc_kill "-$1" "$pcc_pid"
  done
}

pcc_is_in_group() { # PID
  read -r pcc_line <"/proc/$1/stat" || return 1
  set -- ${pcc_line##*) }
  [ "$3" = "$pcc_group" ]
}
