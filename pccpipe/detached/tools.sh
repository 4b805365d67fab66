# What lane.sh, control.sh and account.sh have in common. Set before this text: pcc_state (the run's folder on this machine),
# pcc_run (its processes' tag), pcc_folder (of the lane, if any), pcc_reply (marks the answer to the program that opens the
# shell), pcc_claims and pcc_gate (lane.sh); pcc_account, pcc_uid, pcc_gid of the account that commands run as, if that is not the login, and pcc_login, the uid of
# who runs this. pcc_user is pcc_account where something is done for a command that runs as it, and else empty.

pcc_answer() { # MARK TEXT
  printf '\036%s %s\036\n' "$1" "$2"
}

pcc_find() { # NAME: sets pcc_found to the file of a program. busybox sh would take its own applet, which lacks options.
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

pcc_tools() { # finds what a lane needs; sets pcc_missing
  pcc_missing=
  pcc_find timeout && pcc_timeout=$pcc_found || pcc_missing="$pcc_missing timeout (coreutils)"
  pcc_find tail && pcc_tail=$pcc_found || pcc_missing="$pcc_missing tail (coreutils)"
  pcc_find grep && pcc_grep=$pcc_found || pcc_missing="$pcc_missing grep"
  [ -r /proc/self/stat ] || pcc_missing="$pcc_missing /proc"
  [ -z "$pcc_missing" ] && return
  # Alpine's busybox has all but enough of them.
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

pcc_help() { # PROGRAM...: as pcc_as, for at most some seconds. What it works on may stop it, and sudo stops with what it runs:
  # only their own session may let both go on, and does so without a pause while they are stopped again and again.
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

pcc_kill() { # as `kill`, of the account's processes: the login user may not signal them
  if [ -n "$pcc_user" ]; then pcc_help sh -c 'kill "$@"' kill "$@"; else kill "$@"; fi
}

pcc_has_processes() { # sets pcc_found to what /proc has of the account's processes, zombies too
  # By the real uid: sudo takes on another as its effective one for moments.
  pcc_found=$("$pcc_grep" -lE "^Uid:[[:space:]]+${pcc_uid}[[:space:]]" /proc/[0-9]*/status 2>/dev/null)
  [ -n "$pcc_found" ]
}

pcc_identify() { # PID: sets pcc_self and pcc_start, which together no other process of this boot has; fails for a zombie
  read -r pcc_line <"/proc/$1/stat" || return 1
  pcc_self=${pcc_line%% *}
  set -- ${pcc_line##*) }
  pcc_start=${20}
  [ "$1" != Z ]
}

pcc_await() { # COMMAND: the shell that has claimed it may be just about to begin
  pcc_ticks=0
  for pcc_claim in "$1".claim-*; do
    while [ -e "$pcc_claim" ] && [ ! -s "$1.sup" ] && [ $pcc_ticks -lt 20 ]; do
      sleep 0.1
      pcc_ticks=$((pcc_ticks + 1))
    done
  done
}

pcc_is_supervised() { # ID: does somebody see to its end? Sets pcc_pid, pcc_code, pcc_timed
  # To read a FIFO could take for ever.
  [ -f "$pcc_state/commands/$1.sup" ] || return 1
  {
    read -r pcc_pid pcc_began pcc_then || return 1
    read -r pcc_code pcc_timed || pcc_code=lost pcc_timed=-
  } <"$pcc_state/commands/$1.sup"
  read -r pcc_boot </proc/sys/kernel/random/boot_id
  [ "$pcc_code" = lost ] && [ "$pcc_boot" = "$pcc_then" ] && pcc_identify "$pcc_pid" && [ "$pcc_start" = "$pcc_began" ]
}

pcc_tagged() { # sets pcc_found to the processes that have the command's tag in their environment
  [ -z "$pcc_user" ] || pcc_has_processes || return
  if [ -n "$pcc_user" ]; then
    pcc_found=$(export LC_ALL=C; pcc_help "$pcc_grep" -lF "$pcc_tag" /proc/[0-9]*/environ)
  else
    pcc_found=$(LC_ALL=C "$pcc_grep" -lF "$pcc_tag" /proc/[0-9]*/environ </dev/null)
  fi
  [ -n "$pcc_found" ]
}

pcc_signal_tagged() { # SIGNAL; TERM does not go a second time to those in the group
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
