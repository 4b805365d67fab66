# What a run does to the holder from whom it took the machine: it removes the holder's gate, and ends its connection and its
# idle lanes. Commands that are running go on. lease.sh comes before this text.

pcc_find_session() { # sets pcc_session to the sshd process of this connection, if this login may end it
  pcc_session=
  read -r pcc_line <"/proc/$PPID/stat" && kill -0 "$PPID" || return 0
  case $pcc_line in "$PPID (sshd"*) ;; *) return 0 ;; esac
  set -- ${pcc_line##*) }
  pcc_session=$PPID.${20}
} 2>/dev/null

pcc_says_session() { # succeeds if the link names this connection, or if the connection has no name
  [ -z "$pcc_session" ] && return
  case $pcc_holder in *"ssh:$pcc_session") return 0 ;; esac
  return 1
}

pcc_end_sessions() ( # NONCE: ends the connections of the holders before; their commands keep running
  pcc_newest=$pcc_last pcc_back=0
  while pcc_back=$((pcc_back + 1)) && [ $pcc_back -le 4 ] && [ $pcc_back -lt "$pcc_newest" ]; do
    pcc_link=$pcc_lease/$((pcc_newest - pcc_back))
    pcc_read_link && [ "$pcc_nonce" != "$1" ] || continue
    # A holder that gave the lease back closed its own connection, and ended those before it.
    [ "$pcc_touched" -ne 0 ] || break
    pcc_word=${pcc_holder##*ssh:}
    [ "$pcc_boot" = "$pcc_this_boot" ] && [ "$pcc_word" != "$pcc_holder" ] && pcc_is_plain "${pcc_word%%.*}" || continue
    pcc_end_session "${pcc_word%%.*}" "${pcc_word#*.}"
  done
) 2>/dev/null

pcc_end_session() { # PID START
  [ "$1" -ne "$PPID" ] && read -r pcc_line <"/proc/$1/stat" || return
  case $pcc_line in "$1 (sshd"*) ;; *) return ;; esac
  pcc_pid=$1 pcc_start=$2
  set -- ${pcc_line##*) }
  [ "${20}" = "$pcc_start" ] || return
  # A stopped process starts nothing between the look at its children and its end.
  kill -STOP "$pcc_pid" || return
  pcc_children=$(grep -lsE "^PPid:[[:space:]]+$pcc_pid\$" /proc/[0-9]*/status)
  kill -KILL "$pcc_pid"
  pcc_find_guards
  for pcc_child in $pcc_children; do
    pcc_child=${pcc_child%/status} pcc_child=${pcc_child#/proc/}
    # A lane supervises its command, and ends when its input does. Everything else is the holder's own work.
    case $(readlink "/proc/$pcc_child/cwd") in */lane-*) continue ;; esac
    # A process that was just starting has no process group of its own yet.
    case $pcc_guards in *" $pcc_child "*) ;; *) kill -KILL "$pcc_child" ;; esac
    for pcc_path in $(grep -lsE "\\) [A-Za-z] [0-9]+ $pcc_child " /proc/[0-9]*/stat); do
      pcc_pid=${pcc_path%/stat} pcc_pid=${pcc_pid#/proc/}
      case $pcc_guards in *" $pcc_pid "*) ;; *) kill -KILL "$pcc_pid" ;; esac
    done
  done
}

pcc_find_guards() { # sets pcc_guards to the processes that supervise commands and containers of $pcc_run
  pcc_guards=' ' pcc_turns=0
  for pcc_path in "${pcc_lease%/*}/run-state/$pcc_run/commands/"*.sup "${pcc_lease%/*}/run-state/$pcc_run/commands/"*.hold; do
    pcc_turns=$((pcc_turns + 1))
    [ $pcc_turns -lt 20000 ] || break
    [ -f "$pcc_path" ] && [ ! -L "$pcc_path" ] && read -r pcc_pid pcc_rest <"$pcc_path" && pcc_guards="$pcc_guards$pcc_pid "
  done
}

pcc_shut() { # BELOW: removes the gates with lower numbers, and other entries; sets pcc_was_open if there were any
  pcc_was_open=
  [ -d "$pcc_gates" ] || return 0
  [ ! -L "$pcc_gates" ] || pcc_refuse "$pcc_gates is a symbolic link"
  for pcc_path in "$pcc_gates"/*; do
    [ -e "$pcc_path" ] || [ -L "$pcc_path" ] || continue
    pcc_is_number "${pcc_path##*/}" && [ "${pcc_path##*/}" -ge "$1" ] || pcc_was_open=1
  done
  [ -n "$pcc_was_open" ] || return 0
  pcc_words=$(
    for pcc_path in "$pcc_gates"/*; do
      pcc_is_number "${pcc_path##*/}" && [ "${pcc_path##*/}" -ge "$1" ] || printf '%s\0' "$pcc_path"
    done | xargs -0 rm -rf 2>&1
  ) || pcc_refuse "$pcc_words"
}

pcc_open_gate() { # NUMBER NONCE: makes the gate if it is missing
  [ -h "$pcc_gates/$1" ] && return
  [ ! -L "$pcc_gates" ] || pcc_refuse "$pcc_gates is a symbolic link"
  pcc_words=$({
    rm -rf "$pcc_gates/$1"
    umask 077
    mkdir -p "$pcc_gates" && ln -s .. "$pcc_gates/$1"
  } 2>&1) || pcc_refuse "$pcc_words"
  # Another host may have taken over in the meantime, and have removed it.
  pcc_look
  [ "$pcc_nonce" = "$2" ] || rm -f "$pcc_gates/$1"
}

pcc_end_lanes() ( # RUN GATE: ends the lanes of other holders, except those whose command is still running
  pcc_runs=$(cd -P "${pcc_lease%/*}/run-state" && pwd -P) || exit
  pcc_find_lanes "$2"
  [ -n "$pcc_lanes" ] || exit
  # A lane that has just claimed a command begins it now, or never.
  sleep 0.2
  pcc_find_lanes "$2"
  printf '%s\n' "$pcc_lanes" | while read -r pcc_pid pcc_run pcc_folder; do
    [ -n "$pcc_pid" ] || continue
    pcc_path=$pcc_runs/$pcc_run/$pcc_folder
    # Output of a command of this run may still be on its way into the spools. The end of the run removes these.
    [ "$pcc_run" = "$1" ] && grep -qsx "$pcc_pid" "$pcc_path/cats" && continue
    kill -KILL "$pcc_pid"
  done
) 2>/dev/null

pcc_find_lanes() { # GATE: sets pcc_lanes to lines "PID RUN LANE" of the processes in lanes of other holders
  pcc_busy=' '
  pcc_lanes=$(
    ls -ld /proc/[0-9]*/cwd | sed -n 's,.* /proc/\([0-9]*\)/cwd -> \(/.*\),\1 \2,p' | while read -r pcc_pid pcc_path; do
      case $pcc_path in "$pcc_runs"/*/lane-????????????????) ;; *) continue ;; esac
      pcc_folder=${pcc_path##*/} pcc_path=${pcc_path%/*}
      [ "$pcc_runs" = "${pcc_path%/*}" ] || continue
      pcc_run=${pcc_path##*/} pcc_of=
      read -r pcc_of <"$pcc_path/$pcc_folder/gate"
      [ "${pcc_of:-0}" = "$1" ] || printf '%s %s %s\n' "$pcc_pid" "$pcc_run" "$pcc_folder"
    done
  )
  for pcc_run in $(printf '%s\n' "$pcc_lanes" | cut -d ' ' -f 2 | sort -u); do
    pcc_turns=0
    for pcc_path in "$pcc_runs/$pcc_run/commands/"*.sup; do
      pcc_turns=$((pcc_turns + 1))
      [ $pcc_turns -lt 20000 ] || break
      [ -f "$pcc_path" ] && [ ! -L "$pcc_path" ] && pcc_lives "$pcc_path" && pcc_path=$(readlink "/proc/$pcc_pid/cwd") &&
        pcc_busy="$pcc_busy$pcc_path "
    done
  done
  pcc_lanes=$(
    [ -z "$pcc_lanes" ] || printf '%s\n' "$pcc_lanes" | while read -r pcc_pid pcc_run pcc_folder; do
      case $pcc_busy in *" $pcc_runs/$pcc_run/$pcc_folder "*) ;; *) echo "$pcc_pid $pcc_run $pcc_folder" ;; esac
    done
  )
}

pcc_look_again() { # NONCE RUN GATE: ends what was just starting when this run took over
  pcc_look
  if [ "$pcc_nonce" != "$1" ]; then
    pcc_tell
    return
  fi
  pcc_shut "$3"
  pcc_end_sessions "$1"
  pcc_end_lanes "$2" "$3"
  echo held
}
