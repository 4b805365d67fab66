# Who has this machine: the highest of the numbered symbolic links in $pcc_lease.
#
#   7 -> NONCE BOOT SINCE RUN HOLDER
#
# A link appears with its whole text, and only one can make number 8: to take and to take over are both that one step, so
# nobody can die in the midst of it. The highest number is never removed, and lower ones mean nothing: whoever was judged dead
# and comes back, or comes late with a number that was free long ago, harms nobody.
#
# A link's modification time is not a date but the last sign of life in seconds of uptime, rounded up, or 0 once the lease is
# given back: to set it needs no space on the disk. SINCE is in hundredths of a second of uptime. The clock is never asked.

export LC_ALL=C

pcc_refuse() { # WORDS
  printf 'refused %s\n' "$1"
  exit
}

pcc_uptime() { # sets pcc_now, in hundredths of a second
  read -r pcc_now pcc_rest </proc/uptime || pcc_refuse "/proc/uptime cannot be read"
  pcc_now=$((${pcc_now%.*} * 100 + 1${pcc_now#*.} - 100))
}

pcc_links() { # sets pcc_found to the numbers of all links
  pcc_found=
  for pcc_path in "$pcc_lease"/*; do
    case ${pcc_path##*/} in *[!0-9]*) ;; *) pcc_found="$pcc_found ${pcc_path##*/}" ;; esac
  done
}

pcc_look() { # sets pcc_state to free, released, stale or alive, and what the highest link says
  pcc_last=0 pcc_nonce= pcc_run= pcc_holder= pcc_state=free
  read -r pcc_this_boot </proc/sys/kernel/random/boot_id || pcc_refuse "/proc/sys/kernel/random/boot_id cannot be read"
  pcc_links
  for pcc_number in $pcc_found; do
    [ "$pcc_number" -gt "$pcc_last" ] && pcc_last=$pcc_number
  done
  [ "$pcc_last" -gt 0 ] || return 0
  pcc_link=$pcc_lease/$pcc_last
  # Before the sign of life is read: a shell that was held up does not take the living for dead.
  pcc_uptime
  pcc_then=$pcc_now
  pcc_touched=$(stat -c %Y "$pcc_link") && pcc_text=$(readlink "$pcc_link") || pcc_refuse "$pcc_link cannot be read"
  pcc_uptime
  read -r pcc_nonce pcc_boot pcc_since pcc_run pcc_holder <<END
$pcc_text
END
  pcc_sign=$pcc_since
  # A later one is the clock's: its maker has not yet set it.
  [ "$pcc_touched" -le $((pcc_now / 100 + 1)) ] && [ $((pcc_touched * 100)) -gt "$pcc_since" ] &&
    pcc_sign=$((pcc_touched * 100))
  if [ "$pcc_touched" -eq 0 ]; then
    pcc_state=released
  elif [ "$pcc_boot" != "$pcc_this_boot" ] || [ "$pcc_since" -gt "$pcc_now" ]; then
    # A container's uptime begins anew while its kernel goes on.
    pcc_state=stale pcc_since=- pcc_sign=-
  elif [ $((pcc_then - pcc_sign)) -gt "$pcc_stale" ]; then
    pcc_state=stale
    # Its process is gone or cut off; but a command of it that goes on here has the machine no less.
    if grep -q "PCCPIPE_STEP=$pcc_run-[0-9a-f]*/[^/]" /proc/[0-9]*/environ 2>/dev/null; then pcc_state=alive; fi
  else
    pcc_state=alive
  fi
}

pcc_tell() { # what pcc_look found; for those of another boot the times are not known
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

pcc_put() { # NONCE RUN HOLDER: make the next link; fails if another was faster
  [ -d "$pcc_lease" ] || pcc_words=$(mkdir -p "$pcc_lease" 2>&1) || pcc_refuse "$pcc_words"
  pcc_uptime
  pcc_link=$pcc_lease/$((pcc_last + 1))
  if ! pcc_words=$(ln -s "$1 $pcc_this_boot $pcc_now $2 $3" "$pcc_link" 2>&1); then
    case $pcc_words in *"File exists"*) return 1 ;; *) pcc_refuse "$pcc_words" ;; esac
  fi
  pcc_touch $((pcc_now / 100 + 1))
  pcc_links
  for pcc_number in $pcc_found; do
    # Some stay, so that who reads the folder now cannot miss the highest for all the changes.
    [ "$pcc_number" -lt $((pcc_last - 16)) ] && rm -f "$pcc_lease/$pcc_number"
  done
  return 0
}

pcc_take() { # NONCE RUN HOLDER FROM: a living lease is taken over from the run FROM alone; may be done twice
  pcc_made=
  while pcc_look && [ "$pcc_nonce$pcc_state" != "$1alive" ]; do
    # After a link of our own that came too late, another process of the same run is as good as another run.
    [ $pcc_state = alive ] && { [ "$pcc_run" != "$4" ] || [ -n "$pcc_made" ]; } && break
    pcc_put "$@" && pcc_made=1
  done
  if [ "$pcc_nonce" = "$1" ]; then echo held; else pcc_tell; fi
}

pcc_beat() { # NONCE RUN HOLDER
  pcc_look
  if [ $pcc_state = free ] || { [ "$pcc_nonce" = "$1" ] && [ "$pcc_boot" != "$pcc_this_boot" ]; }; then
    # The folder was removed, or the machine started anew, and nobody else came.
    pcc_put "$@"
    echo held
  elif [ "$pcc_nonce" = "$1" ]; then
    [ $pcc_state = released ] || pcc_touch $((pcc_now / 100 + 1))
    echo held
  else
    pcc_tell
  fi
}

pcc_read() {
  pcc_look
  if [ $pcc_state = released ]; then echo free; else pcc_tell; fi
}

pcc_give_back() { # NONCE [FOLDER]: a folder that is to go with the lease, if there is nothing in it
  pcc_look
  if [ "$pcc_nonce" = "$1" ]; then
    [ -z "${2-}" ] || rmdir "$2" 2>/dev/null
    pcc_touch 0
  fi
  echo free
}
