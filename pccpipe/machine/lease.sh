# The lease of a machine: which run may use it. The highest of the numbered symbolic links in $pcc_lease names the holder.
#
#   7 -> NONCE BOOT SINCE RUN HOLDER [ssh:PID.START]
#
# A link appears with its whole text, and only one process can make number 8. Taking the lease and taking it over are both this
# one step, so nobody can die in the middle of it. The highest number is never removed, and lower ones mean nothing. A holder
# that was judged dead and comes back, or that comes late with a number that was free long ago, therefore does no harm.
#
# The modification time of a link is not a date. It is the last sign of life in seconds of uptime, rounded up, or 0 once the
# holder gave the lease back. Setting it needs no space on the disk. SINCE is in hundredths of a second of uptime. Nothing here
# reads the clock.
#
# The last word is the sshd process that serves the holder's connection. The run that takes the lease over ends that process. A
# holder that only stood still then has no connection to this machine, and asks here first when it has reconnected. Through a new
# connection it makes the next link, so only one of the two can have the lease.
#
# The folder `gates` beside this one has a link N -> .. for the holder of lease number N. A run reaches the files of everything
# that it starts here through that name: the claim of a command, the mount without which a container does not start. A run that
# takes the lease over first removes the lower ones. Whatever the old holder still has on its way then finds nothing, however late
# it comes. The name stays the same for a holder that reconnects.
#
# Everything in the folder is untrusted data. Only a well-formed link of this login's counts. The rest is ignored, and removed when
# a run takes the lease. Nothing there can make a loop here longer.

export LC_ALL=C
pcc_gates=${pcc_lease%/*}/gates

pcc_refuse() { # WORDS
  printf 'refused %s\n' "$1"
  exit
}

pcc_uptime() { # sets pcc_now, in hundredths of a second
  read -r pcc_now pcc_rest </proc/uptime || pcc_refuse "/proc/uptime cannot be read"
  pcc_now=$((${pcc_now%.*} * 100 + 1${pcc_now#*.} - 100))
}

pcc_is_number() { # NAME: succeeds for a number that a lease can have. No VM ever has 90 million runs
  case $1 in '' | 0* | *[!0-9]* | 9??????? | ?????????*) return 1 ;; esac
}

pcc_is_plain() { # WORD: succeeds for digits that the shell can count with
  case $1 in '' | 0?* | *[!0-9]* | ????????????????*) return 1 ;; esac
}

pcc_find_last() { # BELOW: sets pcc_last to the highest number under it, or to 0
  pcc_last=0
  for pcc_path in "$pcc_lease"/*; do
    pcc_is_number "${pcc_path##*/}" && [ "${pcc_path##*/}" -gt "$pcc_last" ] && [ "${pcc_path##*/}" -lt "$1" ] &&
      pcc_last=${pcc_path##*/}
  done
  pcc_link=$pcc_lease/$pcc_last
}

pcc_is_filled() { # succeeds if there are more entries than leases leave
  set -- "$pcc_lease"/*
  [ $# -gt 200 ]
}

pcc_choose() { # sets pcc_top to the highest number, pcc_last to the highest one of a lease, pcc_bogus to those between
  pcc_bogus=' ' pcc_turn=0
  if pcc_is_filled; then
    pcc_choose_of_many
    return
  fi
  pcc_find_last 90000000
  pcc_top=$pcc_last
  while [ "$pcc_last" -gt 0 ] && ! pcc_read_link; do
    pcc_turn=$((pcc_turn + 1))
    [ $pcc_turn -lt 400 ] || pcc_refuse "$pcc_lease keeps changing; fix: pccpipe gc"
    if [ -e "$pcc_link" ] || [ -L "$pcc_link" ]; then
      pcc_bogus="$pcc_bogus$pcc_last "
      pcc_find_last "$pcc_last"
    else
      # Another run removed it just now, so there are newer ones.
      pcc_bogus=' '
      pcc_find_last 90000000
      pcc_top=$pcc_last
    fi
  done
}

pcc_number_form='([1-9][0-9]{0,6}|[1-8][0-9]{7})'
pcc_lease_form="^$pcc_number_form [0-9a-f]{32} [0-9a-f-]{36} (0|[1-9][0-9]{0,14}) [A-Za-z0-9][A-Za-z0-9._-]{0,63}( .{0,400})?\$"

pcc_all() { # TEST...: the entries of the folder
  find "$pcc_lease/" -mindepth 1 -maxdepth 1 "$@" 2>/dev/null
}

pcc_choose_of_many() { # does the same as pcc_choose with one listing of the folder
  pcc_bogus=all
  pcc_top=$(pcc_all -name '[1-9]*' ! -name '*[!0-9]*' -printf '%f\n' | grep -xE "$pcc_number_form" | sort -n | tail -n 1)
  pcc_last=$(
    {
      pcc_all -type l ! -lname '*[[:cntrl:]]*' -printf '%f %l\n'
      # Without GNU find the listing is incomplete.
      find / -prune -printf '' 2>/dev/null || echo 99999999
    } | grep -aE "$pcc_lease_form|^99999999\$" | sort -n | tail -n 1
  )
  pcc_last=${pcc_last%% *}
  pcc_link=$pcc_lease/${pcc_last:=0}
  pcc_top=${pcc_top:-0}
  [ "$pcc_last" = 0 ] || pcc_read_link || pcc_refuse "$pcc_lease is full of files that are not leases; fix: pccpipe gc"
}

pcc_read_link() { # sets what the link says; fails if it is not a lease of this login's
  pcc_nonce= pcc_boot= pcc_since= pcc_run= pcc_holder=
  [ -L "$pcc_link" ] && pcc_text=$(readlink "$pcc_link") &&
    pcc_stats=$(stat -c '%u %Y' /proc/self/. "$pcc_lease" "$pcc_link") || return 1
  case $pcc_text in *[[:cntrl:]]*) return 1 ;; esac
  pcc_is_ours $pcc_stats || return 1
  read -r pcc_nonce pcc_boot pcc_since pcc_run pcc_holder <<END
$pcc_text
END
  pcc_is_well_formed && return
  pcc_nonce= pcc_boot= pcc_since= pcc_run= pcc_holder=
  return 1
}

pcc_is_ours() { # OWNER TIME, three times: of this process, of the folder, of the link. Sets pcc_touched
  pcc_touched=$6
  # A time beyond any uptime comes from the clock.
  case $6 in *[!0-9]* | ???????????*) pcc_touched=9999999999 ;; esac
  [ "$5" = "$1" ] || [ "$5" = "$3" ] || [ "$5" = 0 ]
}

pcc_is_well_formed() {
  case $pcc_nonce in *[!0-9a-f]*) return 1 ;; esac
  case $pcc_boot in *[!0-9a-f-]*) return 1 ;; esac
  case $pcc_run in [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | '') return 1 ;; esac
  [ ${#pcc_nonce} -eq 32 ] && [ ${#pcc_boot} -eq 36 ] && [ ${#pcc_run} -le 64 ] && [ ${#pcc_holder} -le 400 ] &&
    pcc_is_plain "$pcc_since"
}

pcc_look() { # sets pcc_state to free, released, stale or alive, and reads the highest link
  pcc_nonce= pcc_run= pcc_holder= pcc_state=free
  read -r pcc_this_boot </proc/sys/kernel/random/boot_id || pcc_refuse "/proc/sys/kernel/random/boot_id cannot be read"
  # It reads the uptime before the sign of life, so that a shell that was held up does not judge a living holder dead.
  pcc_uptime
  pcc_then=$pcc_now
  pcc_choose
  [ "$pcc_last" -gt 0 ] || return 0
  pcc_uptime
  pcc_sign=$pcc_since
  # A later time comes from the clock: the link's maker has not set it yet.
  [ "$pcc_touched" -le $((pcc_now / 100 + 1)) ] && [ $((pcc_touched * 100)) -gt "$pcc_since" ] &&
    pcc_sign=$((pcc_touched * 100))
  if [ "$pcc_touched" -eq 0 ]; then
    pcc_state=released
  elif [ "$pcc_boot" != "$pcc_this_boot" ] || [ "$pcc_since" -gt "$pcc_now" ]; then
    # The uptime of a container restarts while its kernel keeps running.
    pcc_state=stale pcc_since=- pcc_sign=-
  elif [ $((pcc_then - pcc_sign)) -gt "$pcc_stale" ]; then
    pcc_state=stale
    # The holder's process is gone or disconnected. A command of the run that is still running keeps the lease alive.
    if pcc_is_at_work; then pcc_state=alive; fi
  else
    pcc_state=alive
  fi
}

pcc_is_at_work() { # succeeds if a process of this login supervises a command of $pcc_run. An environment would prove nothing
  pcc_is_seen_to "${pcc_lease%/*}/run-state/$pcc_run/commands" sup || pcc_is_seen_to "${pcc_lease%/*}/run-state/$pcc_run/commands" hold
}

pcc_is_seen_to() { # COMMANDS KIND: succeeds if a process of this login supervises a command in this folder
  pcc_turns=0
  for pcc_path in "$1"/*."$2"; do
    pcc_turns=$((pcc_turns + 1))
    [ $pcc_turns -lt 20000 ] || break
    [ -f "$pcc_path" ] && [ ! -L "$pcc_path" ] && pcc_lives "$pcc_path" && return 0
  done 2>/dev/null
  return 1
}

pcc_lives() { # FILE: its first line names a process; once the command has ended it has a second line
  { read -r pcc_pid pcc_began pcc_then_boot && ! read -r pcc_code; } <"$1" || return 1
  pcc_is_plain "$pcc_pid" && [ "$pcc_then_boot" = "$pcc_this_boot" ] && read -r pcc_line <"/proc/$pcc_pid/stat" || return 1
  set -- ${pcc_line##*) }
  [ "${20}" = "$pcc_began" ] && [ "$1" != Z ] && [ -O "/proc/$pcc_pid" ]
}

pcc_tell() { # prints what pcc_look found; the times of another boot are unknown
  case $pcc_state in
  free) echo free ;;
  *)
    [ "$pcc_since" = - ] || pcc_since=$((pcc_then - pcc_since)) pcc_sign=$((pcc_then - pcc_sign))
    printf '%s %s %s %s %s\n' "$pcc_state" "$pcc_since" "$pcc_sign" "$pcc_run" "$pcc_holder"
    ;;
  esac
}

pcc_touch() { # SECONDS
  pcc_words=$(touch -h -c -d "@$1" "$pcc_link" 2>&1) || pcc_refuse "$pcc_words"
}

pcc_put() { # NONCE RUN HOLDER: makes the next link; fails if another run was faster
  [ ! -L "$pcc_lease" ] || pcc_refuse "$pcc_lease is a symbolic link"
  [ -d "$pcc_lease" ] || pcc_words=$(mkdir -p "$pcc_lease" 2>&1) || pcc_refuse "$pcc_words"
  if [ "$pcc_top" -ge 89999999 ]; then
    # No run got this far by counting.
    pcc_all -name '8???????' -exec rm -rf {} +
    rm -rf "$pcc_gates"/8???????
    return 1
  fi
  pcc_uptime
  pcc_link=$pcc_lease/$((pcc_top + 1))
  if ! pcc_words=$(ln -s "$1 $pcc_this_boot ${pcc_kept_since:-$pcc_now} $2 $3${pcc_session:+ ssh:$pcc_session}" "$pcc_link" 2>&1); then
    case $pcc_words in *"File exists"*) return 1 ;; *) pcc_refuse "$pcc_words" ;; esac
  fi
  pcc_touch $((pcc_now / 100 + 1))
  case $pcc_bogus in
  # This may take longer than pccpipe waits for an answer.
  all) pcc_clear_many </dev/null >/dev/null 2>&1 & ;;
  *) pcc_clear </dev/null >/dev/null 2>&1 ;;
  esac
  return 0
}

pcc_clear() ( # removes the entries that will never have a meaning
  cd "$pcc_lease" || exit
  for pcc_path in * .[!.]* ..?*; do
    { [ -e "$pcc_path" ] || [ -L "$pcc_path" ]; } && pcc_is_past "$pcc_path" && printf '%s\0' "./$pcc_path"
  done | xargs -0 rm -rf
)

pcc_clear_many() (
  cd "$pcc_lease" || exit
  pcc_all \( ! -name '[1-9]*' -o -name '*[!0-9]*' -o -name '9???????' -o -name '?????????*' \) -exec rm -rf {} +
  { pcc_all -name '[1-9]*' ! -name '*[!0-9]*' -printf '%f\n'; echo "$pcc_top"; } | sort -n | sed "/^$pcc_top\$/q" |
    grep -vx "$pcc_last" | xargs rm -rf
)

pcc_is_past() { # NAME
  pcc_is_number "$1" || return 0
  [ "$1" -le "$pcc_top" ] || return 1
  case $pcc_bogus in *" $1 "*) return 0 ;; esac
  # Some stay, so that a run that reads the folder now cannot miss the highest one among the changes.
  [ "$1" -lt $((pcc_last - 16)) ]
}

pcc_take() { # NONCE RUN HOLDER FROM: takes over a living lease only from the run FROM. It is safe to do twice
  pcc_made= pcc_tries=0 pcc_kept_since= pcc_took=
  pcc_find_session
  while pcc_look && [ "$pcc_nonce$pcc_state" != "$1alive" ]; do
    # Once our own link came too late, another process of the same run counts as another run.
    [ $pcc_state = alive ] && { [ "$pcc_run" != "$4" ] || [ -n "$pcc_made" ]; } && break
    pcc_tries=$((pcc_tries + 1))
    [ $pcc_tries -le 50 ] || pcc_refuse "$pcc_lease keeps changing; fix: pccpipe gc"
    case $pcc_state in stale | alive) pcc_took=' took' ;; esac
    pcc_put "$@" && pcc_made=1
  done
  if [ "$pcc_nonce" != "$1" ]; then
    pcc_tell
    return
  fi
  pcc_number=$pcc_last
  pcc_shut "$pcc_number"
  [ -z "$pcc_was_open" ] || pcc_took=' took'
  pcc_end_sessions "$1"
  [ -z "$pcc_took" ] || pcc_end_lanes "$2" "$pcc_number"
  pcc_open_gate "$pcc_number" "$1"
  if pcc_says_session; then echo "held $pcc_number$pcc_took"; else pcc_beat "$1" "$2" "$3" "$pcc_number"; fi
}

pcc_beat() { # NONCE RUN HOLDER [GATE]: gives a sign of life. Prints `held GATE`, and `took` if the lease was not given back before
  pcc_tries=0
  pcc_find_session
  while pcc_look && [ "$pcc_state$pcc_nonce" != "released$1" ]; do
    if [ $pcc_state != free ] && [ "$pcc_nonce" != "$1" ]; then
      pcc_tell
      return
    fi
    pcc_kept_since=
    if [ $pcc_state != free ] && [ "$pcc_boot" = "$pcc_this_boot" ]; then
      pcc_touch $((pcc_now / 100 + 1))
      pcc_says_session && break
      [ "$pcc_since" = - ] || pcc_kept_since=$pcc_since
    fi
    # Something removed the folder, or the machine or the connection restarted, and no other run came.
    pcc_tries=$((pcc_tries + 1))
    [ $pcc_tries -le 50 ] || pcc_refuse "$pcc_lease keeps changing; fix: pccpipe gc"
    pcc_put "$1" "$2" "$3" && break
  done
  [ -z "${4-}" ] || pcc_open_gate "$4" "$1"
  echo "held${4:+ $4}${pcc_took-}"
}

pcc_read() {
  pcc_look
  if [ $pcc_state = released ]; then echo free; else pcc_tell; fi
}

pcc_give_back() { # NONCE [FOLDER]: also removes this folder if it is empty
  pcc_look
  if [ "$pcc_nonce" = "$1" ]; then
    [ -z "${2-}" ] || rmdir "$2" 2>/dev/null
    # record/fence.py made it to keep git out during the run.
    pcc_fence=${pcc_lease%/*}/.git
    pcc_shut 90000000
    rmdir "$pcc_gates" 2>/dev/null
    if grep -qs 'folders-of-a-pccpipe-run-are-no-repository' "$pcc_fence/config"; then rm -rf "$pcc_fence"; fi
    pcc_touch 0
  fi
  echo free
}
