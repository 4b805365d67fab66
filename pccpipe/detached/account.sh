# Makes the folders of the account that commands run as, and sweeps its processes. tools.sh comes before this text, and before
# that: pcc_system (the folder .system), pcc_run_id, pcc_state, pcc_account (its name), pcc_login (the uid of this shell).
#
#   .system/run-state/RUN                 the login's, 0700: the account cannot reach it
#   .system/run-workspaces/RUN            the login's: 0711 during the run, 0700 afterwards
#   .system/run-workspaces/RUN/workspace  the account's: git wants the owner of a repository to work in it
#   .system/run-copies/RUN/own-workspaces the account's, for copies of that; made if a step has a workspace of its own
#   .system/run-io/RUN/steps              the account's, for ID.in, ID.out and ID.home
#
# The login user never touches the content of the account's folders, where a link could lead it anywhere.

pcc_fail() { # WORDS
  printf '%s\n' "$1" >&2
  exit 1
}

pcc_use_account() { # sets pcc_user, pcc_uid, pcc_gid
  export LC_ALL=C
  pcc_tools || pcc_fail "it lacks:$pcc_missing"
  # With hidepid, /proc would not show the processes that a sweep left.
  [ -r /proc/1/status ] || pcc_fail "/proc shows the processes of other users to nobody (it is mounted with hidepid)"
  pcc_user=$pcc_account
  pcc_uid=$(id -u "$pcc_user" 2>&1) && pcc_gid=$(id -g "$pcc_user" 2>&1) || pcc_fail "$pcc_uid"
  [ "$pcc_uid" -ne 0 ] && [ "$pcc_uid" != "$pcc_login" ] || pcc_fail "the account $pcc_user is the login itself, or root"
}

pcc_prepare() { # [new]: makes the folders; for a new run it sweeps the account first. Prints uid, gid, and 0 if the account may
  # use the engine
  pcc_use_account
  if [ -n "${1-}" ] && ! pcc_sweep; then
    # Without a rule of sudo no sweep is possible. sudo itself answers here, so the account cannot kill it.
    [ "$pcc_login" -eq 0 ] || pcc_words=$(sudo -n -l -u "$pcc_user" true 2>&1 </dev/null) ||
      pcc_fail "${pcc_words:-sudo has no rule that allows it}"
    pcc_name_left
    exit 4
  fi
  [ -z "${1-}" ] || pcc_empty_common
  cd / || exit
  pcc_engine=$(pcc_as sh -c '[ -w "$1" ]; echo $?' sh "$pcc_engine_socket" </dev/null 2>&1)
  case $pcc_engine in 0 | 1) ;; *) pcc_fail "$pcc_engine" ;; esac
  umask 022
  mkdir -p "$pcc_system" && chmod a+x "$pcc_system" || exit
  (umask 077 && mkdir -p "$pcc_system/run-state") && chmod 700 "$pcc_system/run-state" || exit
  pcc_words=$(pcc_as sh -c 'cd "$1"' sh "$pcc_system" 2>&1 </dev/null) || exit 5
  # 755, because a step of the login may work there, and the root of a container without capabilities may read there.
  pcc_make_folder run-workspaces workspace 755
  pcc_make_folder run-io steps 700
  [ -z "$pcc_copies" ] || pcc_make_folder run-copies own-workspaces 755
  pcc_as sh -c 'cd "$1" && cd "$2"' sh "$pcc_system/run-workspaces/$pcc_run_id/workspace" \
    "$pcc_system/run-io/$pcc_run_id/steps" 2>/dev/null </dev/null || pcc_fail "its own folders there are another's"
  printf '%s %s %s\n' "$pcc_uid" "$pcc_gid" "$pcc_engine"
}

pcc_make_folder() { # NAME INNER MODE: makes the run's folder in .system/NAME, and the account's folder in that
  pcc_outer=$pcc_system/$1/$pcc_run_id
  mkdir -p "$pcc_outer" && chmod 711 "$pcc_system/$1" "$pcc_outer" || exit
  [ -d "$pcc_outer/$2" ] && [ ! -h "$pcc_outer/$2" ] && return
  # Only the account can make a folder that it owns.
  chmod 733 "$pcc_outer" || exit
  pcc_words=$(pcc_as mkdir -m "$3" "$pcc_outer/$2" 2>&1 </dev/null) || pcc_fail "$pcc_words"
  chmod 711 "$pcc_outer"
}

pcc_empty() { # FOLDER: removes the content of a folder of the account, as the account
  [ -d "$1" ] || return 0
  pcc_as sh -c 'cd "$1" && { find . -mindepth 1 -delete || { chmod -R u+rwX . && find . -mindepth 1 -delete; }; }' \
    sh "$1" 2>/dev/null </dev/null
}

pcc_empty_common() { # removes the account's files from folders that all users may write to. Programs look there for files of earlier
  # runs, and some execute them. It has a time limit, as there may be any number of them
  pcc_as "$pcc_timeout" -k 1 20 sh -c 'for folder in /tmp /var/tmp /dev/shm /run/lock; do
    find "$folder/" -mindepth 1 -maxdepth 1 -user "$1" \
      -exec sh -c '\''rm -rf -- "$@" || { chmod -R u+rwX -- "$@"; rm -rf -- "$@"; }'\'' sh {} +
  done' sh "$pcc_uid" >/dev/null 2>&1 </dev/null
}

pcc_leave() { # closes the run's folders to the account, which other runs use from now on
  pcc_use_account
  pcc_sweep
  pcc_swept=$?
  pcc_empty "$pcc_system/run-io/$pcc_run_id/steps"
  rm -rf "$pcc_system/run-io/$pcc_run_id"
  pcc_outer=$pcc_system/run-workspaces/$pcc_run_id
  # An empty workspace would be one more folder for the next run to check.
  rmdir "$pcc_outer/workspace" "$pcc_outer" 2>/dev/null || chmod 700 "$pcc_outer" 2>/dev/null
  pcc_outer=$pcc_system/run-copies/$pcc_run_id
  rmdir "$pcc_outer/own-workspaces" "$pcc_outer" 2>/dev/null || chmod 700 "$pcc_outer" 2>/dev/null
  pcc_empty_common
  return $pcc_swept
}

pcc_remove() { # removes everything that an earlier run of this name left
  pcc_use_account
  pcc_sweep
  for pcc_place in run-workspaces run-copies run-io; do
    pcc_outer=$pcc_system/$pcc_place/$pcc_run_id
    [ -d "$pcc_outer" ] || continue
    chmod 711 "$pcc_outer"
    for pcc_inner in "$pcc_outer"/*/; do pcc_empty "${pcc_inner%/}"; done
    rm -rf "$pcc_outer"
  done
}

pcc_sweep_all() { # sweeps, and prints the result
  pcc_use_account
  if pcc_sweep; then echo clean; else echo "left $(pcc_name_left)"; fi
}

pcc_sweep_idle() { # ID...: does the same, unless a command of the run is running that is not one of these ended ones
  pcc_use_account
  for pcc_path in "$pcc_state"/commands/*.sup; do
    pcc_id=${pcc_path##*/} pcc_id=${pcc_id%.sup}
    case " $* " in *" $pcc_id "*) continue ;; esac
    if [ -e "$pcc_path" ] && pcc_is_supervised "$pcc_id"; then
      echo "busy $pcc_id"
      return
    fi
  done
  pcc_sweep_all
}

pcc_sweep() { # kills all processes of the account outside the containers $pcc_spared; fails if some are left after 5 s
  pcc_round=0
  pcc_seconds
  pcc_until=$((pcc_up + 5))
  # On a busy machine one round may take that long.
  while [ $pcc_round -lt 3 ] || [ "$pcc_up" -le $pcc_until ]; do
    pcc_round=$((pcc_round + 1))
    if [ -z "$pcc_spared" ]; then
      pcc_kill_all && ! pcc_living && return
    else
      pcc_living || return 0
      # STOP first, so that none of them forks before KILL.
      { pcc_kill -STOP $pcc_pids; pcc_kill -KILL $pcc_pids; } 2>/dev/null &
      sleep 0.2
    fi
    pcc_seconds
  done
  return 1
}

pcc_seconds() { # sets pcc_up to the seconds since boot
  read -r pcc_up pcc_idle </proc/uptime
  pcc_up=${pcc_up%.*}
}

pcc_kill_all() { # kills all processes of the account in one call; a list of them would miss one that forks faster
  # The killer is a process of the account, so its targets may stop or kill it. pcc_help waits for it only a moment. It has
  # no open file of the login, because a process of the account could take that over.
  pcc_help sh -c 'kill -KILL -1; exit 42' >/dev/null 2>&1
  [ $? = 42 ]
}

pcc_living() { # sets pcc_pids to the account's living processes outside the containers $pcc_spared (ID|ID...)
  pcc_pids=
  pcc_has_processes || return 1
  for pcc_path in $pcc_found; do
    pcc_path=${pcc_path%/status}
    [ -n "$pcc_spared" ] && "$pcc_grep" -qE "$pcc_spared" "$pcc_path/cgroup" 2>/dev/null && continue
    pcc_identify "${pcc_path#/proc/}" 2>/dev/null || pcc_has_threads "$pcc_path" || continue
    pcc_pids="$pcc_pids ${pcc_path#/proc/}"
    # `kill -1` only needs to know of one.
    [ -n "$pcc_spared" ] || return 0
  done
  [ -n "$pcc_pids" ]
}

pcc_has_threads() { # PATH: succeeds for a process with other threads; one whose first thread has ended looks like a zombie
  set -- "$1"/task/*
  [ $# -gt 1 ]
}

pcc_name_left() { # prints the names of a few processes that are left
  pcc_has_processes
  for pcc_path in $pcc_found; do
    read -r pcc_line <"${pcc_path%/status}/stat" && printf '%s ' "${pcc_line%%)*})"
  done 2>/dev/null | head -c 300 | tr -c '[:print:]' ' '
}

pcc_report() { # [kill]: prints a line for the account's processes outside containers: their number, and a few names. With kill it
  # then sweeps, and prints a line for the processes that are left
  pcc_use_account
  pcc_living
  pcc_name_pids
  [ -n "${1-}" ] || return 0
  # Without a container, one call of the kernel kills all, and no process can fork away from that.
  pcc_in_container || pcc_spared=
  pcc_sweep
  pcc_living
  pcc_name_pids
}

pcc_in_container() { # succeeds if one of $pcc_found is in a container $pcc_spared
  [ -n "$(printf '%s\n' $pcc_found | sed 's,/status$,/cgroup,' | xargs "$pcc_grep" -lsE "$pcc_spared" | head -n 1)" ]
}

pcc_name_pids() { # prints the number and a few names of $pcc_pids
  set -- $pcc_pids
  printf '%s ' $#
  pcc_turn=0
  for pcc_pid; do
    pcc_turn=$((pcc_turn + 1))
    [ $pcc_turn -le 5 ] || break
    read -r pcc_line <"/proc/$pcc_pid/comm" && printf '%.15s ' "$pcc_line"
  done 2>/dev/null | tr -c '[:alnum:]._-' ' '
  echo
}
