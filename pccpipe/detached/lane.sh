# A lane: a persistent sh that runs commands detached, one at a time, and shows their output.
#
# It reads programs on its stdin (pccpipe/detached/programs.py writes them). It must work in dash, bash and busybox sh, with GNU
# coreutils and grep beside it. tools.sh comes before this text, ending.sh after it.
#
#   command -> FIFOs o,e -> two `cat` -> spool files out,err (append only) -> two `tail -f` -> this shell's stdout, stderr
#
# The FIFOs are there because a command may reopen /dev/stdout, and that would truncate a regular file. The spools are there because
# the command and its output must outlive the connection. A `cat` reads a FIFO to its end, when the command and all other writers
# have ended, and then the trailer file t. So the trailer in a spool says that the output is complete, and how the command ended.
# Until the command ends, the trailer says `lost`, for the case that something kills the lane. `cat o t o t ...` serves many commands,
# because opening a FIFO waits for its next writer.
#
# The lane waits for its command in the foreground, because a process that a shell starts with `&` can't get SIGINT and SIGQUIT back.
# While the command runs, the lane therefore reads nothing else, and it outlives its connection.
#
# A command of the account (pcc_user) has sudo between the lane and itself. A helper of the lane feeds it its text through a FIFO.
# The helper first records the command's pid, then enforces the time limit, because the command could kill its own `timeout`. The
# login user may not signal the command, nor see its environment, so the account does both.
#
# A claim is made in pcc_claims: the same folder, on a VM through the gate (pcc_gate, see lease.sh).
#
# Files of a command, in pcc_state/commands:
#   ID.sh          its script
#   ID.claim-MARK  the process that makes it decides whether the command begins
#   ID.sup         its supervisor (pid, start time, boot), then how the command ended
#   ID.pid         its process group
#   ID.in, ID.out  its folders
#   ID.stop        pccpipe asked it to end
#   ID.killed      the rest of it was killed
#   ID.ended       nothing of it is running any more
# A command of the account also has ID.fed, the FIFO, and ID.sudo, the process that became it. It has no script and no folders there.

pcc_open() {
  pcc_umask=$(umask)
  umask 077
  if ! pcc_tools; then
    pcc_answer "$pcc_reply" "missing$pcc_missing"
    exit 1
  fi
  if ! pcc_words=$({
    export LC_ALL=C
    mkdir -p "$pcc_state/commands" "$pcc_folder" && cd "$pcc_folder" && mkfifo o e && : >out && : >err
    [ -z "$pcc_gate" ] || printf '%s\n' "${pcc_gate##*/}" >gate
    # The account's commands may reopen /dev/stdout. Nobody else can reach the FIFOs by their paths.
    [ -z "$pcc_account" ] || chmod o+w o e
  } 2>&1); then
    pcc_answer "$pcc_reply" "refused $pcc_words"
    exit 1
  fi
  cd "$pcc_folder" || exit 1
  read -r pcc_boot </proc/sys/kernel/random/boot_id
  pcc_identify self
  export PCCPIPE_STEP="$pcc_run//"
  pcc_answer "$pcc_reply" yes
  printf '\036%s\n' "$pcc_reply" >&2
  pcc_follow 0 0
  pcc_prepare
  # The cats stay, because this shell may end before the command, with its connection.
  trap 'kill $pcc_tail_out $pcc_tail_err' EXIT
}

pcc_follow() { # OUT_OFFSET ERR_OFFSET: shows the spools from there on
  "$pcc_tail" -s 0.1 -c "+$(($1 + 1))" -f out </dev/null 2>/dev/null &
  pcc_tail_out=$!
  "$pcc_tail" -s 0.1 -c "+$(($2 + 1))" -f err </dev/null >&2 2>/dev/null &
  pcc_tail_err=$!
  # From now on, words of this shell itself would look like output of a command.
  exec 2>/dev/null
}

pcc_prepare() { # starts the cats for the next commands
  pcc_left=0 pcc_out_files= pcc_err_files=
  while [ $pcc_left -lt 100 ]; do
    pcc_left=$((pcc_left + 1)) pcc_out_files="$pcc_out_files o t" pcc_err_files="$pcc_err_files e t"
  done
  cat $pcc_out_files </dev/null >>out &
  pcc_cat_out=$!
  cat $pcc_err_files </dev/null >>err &
  pcc_cat_err=$!
  printf '%s\n%s\n' "$pcc_cat_out" "$pcc_cat_err" >cats
}

pcc_begin() { # MARK ID LIMIT HUNDREDTHS KILL_AFTER FOLDER SCRIPT SHELL...; pcc_env exports, pcc_files makes its folders,
  # pcc_where is the lane and the offsets of its spools, pcc_base and pcc_inner are the workspace's path
  pcc_mark=$1 pcc_command=$pcc_state/commands/$2 pcc_tag=PCCPIPE_STEP=$pcc_run/$2/
  # Reaps processes that have ended.
  jobs >/dev/null
  pcc_look_at_place
  if [ -n "$pcc_place" ]; then
    pcc_answer_unless_shut "$pcc_place"
    return
  fi
  pcc_taken=
  set -C
  true >"$pcc_claims/$2.claim-$pcc_mark" || pcc_taken=1
  set +C
  if [ -n "$pcc_taken" ]; then
    pcc_answer_unless_shut "refused it came too late"
    return
  fi
  if ! pcc_write "$7"; then
    pcc_explain "$7"
    pcc_answer "$pcc_mark" "refused $pcc_words"
    return
  fi
  [ "$pcc_left" -gt 0 ] || pcc_prepare
  pcc_left=$((pcc_left - 1))
  pcc_supervise "$@"
}

pcc_answer_unless_shut() { # TEXT: answers why a command does not begin; a missing gate is the answer `fenced`
  if [ -n "$pcc_gate" ] && [ ! -h "$pcc_gate" ]; then pcc_answer "$pcc_mark" fenced; else pcc_answer "$pcc_mark" "$1"; fi
}

pcc_look_at_place() { # sets pcc_place to what is wrong with the workspace, which a step may have removed, or replaced with a link
  pcc_place= pcc_path=$pcc_base pcc_rest=${pcc_inner:+$pcc_inner/}
  while [ -n "$pcc_rest" ]; do
    pcc_path=$pcc_path/${pcc_rest%%/*} pcc_rest=${pcc_rest#*/}
    if [ -L "$pcc_path" ]; then
      pcc_place=workspace_link
      return
    fi
    [ -d "$pcc_path" ] || pcc_place=workspace_gone
  done
}

pcc_write() { # SCRIPT
  # It does not truncate the file: ext4 writes a truncated file back at its close. All texts in t have one length.
  printf '%s\n' "$pcc_where" >>"$pcc_command.claim-$pcc_mark" && printf '\036%s lost -\n' "$pcc_mark" 1<>t || return
  if [ -n "$pcc_user" ]; then
    [ -p "$pcc_command.fed" ] || mkfifo "$pcc_command.fed"
  else
    printf '%s' "$1" >"$pcc_command.sh"
  fi && pcc_files
}

pcc_explain() { # SCRIPT: sets pcc_words to why pcc_write failed. For a full disk dash only says "I/O error"
  pcc_words=$({ head -c 65536 /dev/zero | LC_ALL=C cat >"$pcc_command.sh"; } 2>&1)
  [ -n "$pcc_words" ] || pcc_words=$(pcc_write "$1" 2>&1)
}

pcc_supervise() { # takes what pcc_begin takes; opens the FIFOs. In busybox sh a child's end interrupts the open, which is then
  # repeated. It never reopens both, because a cat takes a closed FIFO for the command's end. `exec` would end the shell.
  pcc_opened=
  until [ -n "$pcc_opened" ]; do
    {
      until [ -n "$pcc_opened" ]; do
        {
          pcc_opened=1
          pcc_see_to "$@"
        } 4>e || [ -n "$pcc_opened" ] || [ -p e ] || exit 1
      done
    } 3>o || [ -n "$pcc_opened" ] || [ -p o ] || exit 1
  done
}

pcc_see_to() { # takes what pcc_begin takes; runs the command, and records its end
  pcc_limit=$4 pcc_patience=$5
  pcc_sign
  pcc_now
  pcc_began=$pcc_hundredths
  pcc_last_pid
  pcc_first=$pcc_last
  if [ -n "$pcc_user" ]; then
    pcc_feed "$3" "$5" </dev/null >/dev/null 3>&- 4>&- &
    (pcc_become_account) 5>&1 >&3 2>&4 3>&- 4>&-
    pcc_code=$?
    kill $!
  else
    (pcc_become "$@") </dev/null 5>&1 >&3 2>&4 3>&- 4>&-
    pcc_code=$?
  fi
  pcc_timed=- pcc_group=
  read -r pcc_group <"$pcc_command.pid"
  case $pcc_code in
  124 | 137) # the time limit, or its own exit code; /proc/uptime counts in whole hundredths
    pcc_now
    [ $((pcc_hundredths - pcc_began + 1)) -ge "$pcc_limit" ] && pcc_timed=t
    ;;
  esac
  pcc_end_group
  [ "$pcc_timed" = - ] && pcc_has_escaped && pcc_timed=b
  # It overwrites the file in place, which works on a full disk.
  printf '\036%s %-4s %s\n' "$pcc_mark" "$pcc_code" "$pcc_timed" 1<>t
  exec 3>&- 4>&-
  if pcc_may_have_children; then
    {
      # From now on this process supervises the command, and not the lane.
      pcc_identify self
      pcc_sign
      pcc_end_escaped
      pcc_say_ended
    } </dev/null >/dev/null &
  else
    pcc_say_ended
  fi
}

pcc_sign() { # records this process, as pcc_identify found it, as the command's supervisor
  printf '%s %s %s\n' "$pcc_self" "$pcc_start" "$pcc_boot" >"$pcc_command.sup"
}

pcc_say_ended() {
  # It writes into an existing block, which works on a full disk.
  printf '%s %s\n' "$pcc_code" "$pcc_timed" >>"$pcc_command.sup"
  true >"$pcc_command.ended"
}

pcc_say_begun() { # answers on a connection that may be gone by now, which must not end the command
  trap '' PIPE
  pcc_answer "$pcc_mark" yes >&5 2>/dev/null
  trap - PIPE
}

pcc_become() { # takes what pcc_begin takes; becomes the command, in a process group that `timeout` makes
  pcc_identify self
  printf '%s\n' "$pcc_self" >"$pcc_command.pid"
  pcc_say_begun
  exec 5>&-
  umask "$pcc_umask"
  cd "$6" 2>/dev/null || {
    printf 'pccpipe: the folder %s cannot be entered\n' "$6" >&2
    exit 127
  }
  unset OLDPWD
  pcc_before=$5 pcc_seconds=$3
  shift 7
  # The command's own PATH may not have its shell, but it has any other interpreter.
  pcc_found=$1 pcc_rest=
  case ${1##*/} in sh | dash | bash) pcc_rest=$PATH: ;; esac
  while [ -n "$pcc_rest" ]; do
    pcc_found=${pcc_rest%%:*}/$1
    pcc_rest=${pcc_rest#*:}
    [ -x "$pcc_found" ] && [ ! -d "$pcc_found" ] && break
    pcc_found=$1
  done
  shift
  set -- "$pcc_timeout" -k "$pcc_before" "$pcc_seconds" "$pcc_found" "$@" "$pcc_command.sh"
  # It comes last, because it may set any variable.
  pcc_env
  exec "$@"
}

pcc_become_account() { # becomes the account's command
  pcc_identify self
  printf '%s\n' "$pcc_self" >"$pcc_command.sudo"
  pcc_say_begun
  exec 5>&- <"$pcc_command.fed"
  cd /
  # It passes on nothing of the login's environment, reads no start-up file, and runs the text only if all of it came.
  pcc_exec_as env -i sh -c 'p=$(cat) && case $p in *"# pccpipe: this is all of it") eval "$p";; *) exit 121;; esac'
}

pcc_feed() { # LIMIT KILL_AFTER: feeds the account's command its text, and kills it when its time is over
  trap 'kill $pcc_pause; exit' TERM
  exec 6>"$pcc_command.fed"
  read -r pcc_sudo <"$pcc_command.sudo"
  until pcc_find_own "$pcc_sudo"; do
    pcc_identify "$pcc_sudo" || exit
    sleep 0.01
  done
  printf '%s\n' "$pcc_own" >"$pcc_command.pid"
  # The root of a container may have left a setuid program in the workspace.
  pcc_walls=
  pcc_find setpriv && pcc_walls="$pcc_found --no-new-privs"
  {
    printf 'umask %s\npcc_walls="%s"\nset -- %s\n' "$pcc_umask" "$pcc_walls" "$pcc_timeout"
    pcc_text
  } >&6
  exec 6>&-
  pcc_now
  # It is later than the command's own `timeout`, which lets the command end well.
  pcc_end=$((pcc_hundredths + (${1%.*} + ${2%.*} + 3) * 100))
  while pcc_identify "$pcc_sudo"; do
    sleep 2 &
    pcc_pause=$!
    wait $pcc_pause
    pcc_let_sudo_go_on
    pcc_now
    [ "$pcc_hundredths" -lt "$pcc_end" ] && continue
    pcc_kill -KILL "-$pcc_own"
    pcc_kill -KILL "$pcc_own"
    pcc_signal_tagged KILL
  done
}

pcc_let_sudo_go_on() { # sudo stops with its command, and stays stopped when that is killed; only its own session may continue it
  pcc_identify "$pcc_own" && return
  read -r pcc_line <"/proc/$pcc_sudo/stat"
  case ${pcc_line##*) } in T*) kill -CONT "$pcc_sudo" ;; esac
}

pcc_find_own() { # PID: sets pcc_own to the first process of the account: this one, or one below it
  pcc_own=$1
  for pcc_depth in 1 2 3 4; do
    "$pcc_grep" -qE "^Uid:[[:space:]]+${pcc_uid}[[:space:]]" "/proc/$pcc_own/status" && return
    pcc_found=$("$pcc_grep" -lE "^PPid:[[:space:]]+$pcc_own$" /proc/[0-9]*/status) || return
    pcc_own=${pcc_found#/proc/}
    pcc_own=${pcc_own%%/*}
  done
  return 1
}

pcc_now() { # sets pcc_hundredths, of a second since boot
  read -r pcc_uptime pcc_idle </proc/uptime
  pcc_hundredths=${pcc_uptime%.*}${pcc_uptime#*.}
}

pcc_last_pid() { # sets pcc_last to the pid of the newest process
  read -r pcc_1 pcc_5 pcc_15 pcc_running pcc_last </proc/loadavg
}

pcc_attach() { # MARK ID LANE OUT_OFFSET ERR_OFFSET: shows a command of another lane
  pcc_command=$pcc_state/commands/$2
  pcc_await "$pcc_command"
  if ! pcc_tools; then
    pcc_answer "$1" "missing$pcc_missing"
  elif [ ! -d "$pcc_state" ]; then
    pcc_answer "$1" "removed $pcc_state"
  elif ! cd "$3" 2>/dev/null || [ ! -s "$pcc_command.sup" ]; then
    pcc_answer "$1" gone
  else
    export PCCPIPE_STEP="$pcc_run//"
    if pcc_is_supervised "$2" 2>/dev/null; then pcc_state_now=alive; else pcc_state_now=dead; fi
    [ "$pcc_boot" = "$pcc_then" ] || pcc_state_now=restarted
    pcc_answer "$1" "$pcc_state_now $pcc_code $pcc_timed"
    printf '\036%s\n' "$1" >&2
    if [ $pcc_state_now = alive ]; then
      trap 'kill $pcc_tail_out $pcc_tail_err 2>/dev/null' EXIT
      pcc_follow "$4" "$5"
      return
    fi
    "$pcc_tail" -c "+$(($4 + 1))" out
    "$pcc_tail" -c "+$(($5 + 1))" err >&2
  fi
  exit 0
}
