# The control lane: an sh that ends, checks and removes commands. Its programs are short. Longer work runs in a process of its
# own, so that the shell reads the next program at once. lane.sh lists the files.

pcc_open_control() {
  umask 077
  if ! pcc_tools; then
    pcc_answer "$pcc_reply" "missing$pcc_missing"
    exit 1
  fi
  if ! pcc_words=$(LC_ALL=C mkdir -p "$pcc_state/commands" 2>&1); then
    pcc_answer "$pcc_reply" "refused $pcc_words"
    exit 1
  fi
  pcc_answer "$pcc_reply" yes
  # It keeps stderr open, because the end of stderr would look like the end of this shell.
  exec 9>&2 2>/dev/null
}

pcc_use_owner() { # ID: sets pcc_user to the owner of the command's processes
  pcc_user=
  [ ! -e "$pcc_state/commands/$1.sudo" ] || pcc_user=$pcc_account
}

pcc_stop() { # ID TENTHS: sends TERM now, and KILL after TENTHS of a second; a second call only adds its own KILL
  pcc_command=$pcc_state/commands/$1 pcc_tag=PCCPIPE_STEP=$pcc_run/$1/ pcc_kill=$2
  pcc_use_owner "$1"
  jobs >/dev/null
  pcc_stop_now </dev/null >/dev/null 9>&- &
}

pcc_stop_now() {
  pcc_again=
  [ -e "$pcc_command.stop" ] && pcc_again=1
  true >"$pcc_command.stop"
  pcc_ticks=0
  while [ ! -s "$pcc_command.pid" ] && [ $pcc_ticks -lt 50 ]; do
    sleep 0.1
    pcc_ticks=$((pcc_ticks + 1))
  done
  read -r pcc_group <"$pcc_command.pid" || exit
  if [ -z "$pcc_again" ]; then
    pcc_ticks=0
    while pcc_is_starting "$pcc_group" && [ $pcc_ticks -lt 20 ]; do
      sleep 0.05
      pcc_ticks=$((pcc_ticks + 1))
    done
    # `timeout` passes the signal on to the group. Once `timeout` has ended, the signal goes to the group directly.
    pcc_kill -TERM "$pcc_group" || pcc_kill -TERM "-$pcc_group"
    pcc_signal_tagged TERM
  fi
  pcc_ticks=0
  while [ $pcc_ticks -lt "$pcc_kill" ]; do
    sleep 0.1
    pcc_ticks=$((pcc_ticks + 1))
    # A missing pid file means that the command was discarded.
    [ -e "$pcc_command.ended" ] || [ -e "$pcc_command.killed" ] || [ ! -e "$pcc_command.pid" ] && exit
  done
  pcc_kill -KILL "-$pcc_group" || pcc_kill -KILL "$pcc_group"
  # Twice, because the first look may have missed a child that was just starting.
  pcc_signal_tagged KILL
  sleep 0.05
  pcc_signal_tagged KILL
  true >"$pcc_command.killed"
}

pcc_is_starting() { # PID: succeeds while a `timeout` may be in fork(); a TERM would then end it alone, and leave the command
  read -r pcc_line <"/proc/$1/stat" || return 1
  set -- ${pcc_line##*) }
  [ "$1" = R ] || [ "$1" = D ]
}

pcc_discard() { # ID...
  jobs >/dev/null
  pcc_owned=
  (
    cd "$pcc_state/commands" || exit
    for pcc_id; do
      shift
      [ -e "$pcc_id.sudo" ] && pcc_owned="$pcc_owned $pcc_id.in $pcc_id.out $pcc_id.home"
      set -- "$@" "$pcc_id.sh" "$pcc_id".claim-* "$pcc_id.sup" "$pcc_id.pid" "$pcc_id.in" "$pcc_id.out"
      set -- "$@" "$pcc_id.stop" "$pcc_id.killed" "$pcc_id.ended" "$pcc_id.sudo" "$pcc_id.fed"
    done
    pcc_user=$pcc_account
    [ -z "$pcc_owned" ] || pcc_as sh -c 'cd "$1" && shift && exec rm -rf -- "$@"' sh "$pcc_io" $pcc_owned
    exec rm -rf -- "$@"
  ) </dev/null >/dev/null 9>&- &
}

pcc_discard_lane() { # FOLDER
  while read -r pcc_pid; do
    [ "/proc/$pcc_pid/fd/1" -ef "$1/out" ] || [ "/proc/$pcc_pid/fd/1" -ef "$1/err" ] && kill "$pcc_pid"
  done <"$1/cats"
  rm -rf "$1" </dev/null >/dev/null 9>&- &
}

pcc_end_run() { # kills the rest of the run, with cats and tails, and removes its files
  exec 2>/dev/null
  pcc_tools
  pcc_tag=PCCPIPE_STEP=$pcc_run/ pcc_group=
  for pcc_path in "$pcc_state"/commands/*.sup; do
    pcc_id=${pcc_path##*/}
    pcc_is_supervised "${pcc_id%.sup}" && kill -KILL "$pcc_pid"
  done
  [ -z "$pcc_account" ] || pcc_end_account
  for pcc_signal in TERM KILL KILL KILL; do
    pcc_tagged || break
    pcc_signal_tagged $pcc_signal
    # pccpipe's own processes end at once. Processes of a step get a moment before KILL.
    for pcc_tick in 1 2 3 4 5; do
      pcc_tagged || break 2
      sleep 0.02
    done
  done
  # A process that is just ending may still write a file there.
  for pcc_tick in 1 2 3 4 5; do
    rm -rf "$pcc_state" && break
    sleep 0.02
  done
}

pcc_end_account() {
  pcc_user=$pcc_account
  pcc_sweep
  pcc_empty "$pcc_io"
  pcc_user=
}

pcc_is_alive() { # MARK ID
  if pcc_is_supervised "$2"; then pcc_answer "$1" yes; else pcc_answer "$1" no; fi
}

pcc_seek() { # MARK ID: answers the mark of a command that began, the offsets of its output, and its lane; or none
  pcc_seen=none
  pcc_await "$pcc_state/commands/$2"
  for pcc_claim in "$pcc_state/commands/$2".claim-*; do
    [ -s "$pcc_state/commands/$2.sup" ] && read -r pcc_where <"$pcc_claim" && pcc_seen="${pcc_claim##*claim-} $pcc_where"
  done
  pcc_answer "$1" "$pcc_seen"
}

pcc_void() { # MARK ID ITS_MARK: makes sure that a command never begins, if it has not begun
  set -C
  pcc_void=begun
  true >"$pcc_state/commands/$2.claim-$3" && pcc_void=void
  set +C
  pcc_answer "$1" $pcc_void
}

pcc_measure() { # MARK FOLDER: answers the sizes of a lane's spools
  pcc_sizes=$(stat -c %s "$2/out" "$2/err") || pcc_sizes=
  pcc_answer "$1" "$(printf '%s ' $pcc_sizes)"
}

pcc_punch() { # FILE START SIZE: frees the disk of these bytes; the file keeps its length
  pcc_find fallocate || return 0
  "$pcc_found" --punch-hole --offset "$2" --length "$3" "$1" </dev/null >/dev/null
}
