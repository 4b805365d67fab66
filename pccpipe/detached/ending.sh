# Ends a command of a lane: its process group, the processes that left that, and its output. tools.sh and lane.sh come before
# this text.

pcc_may_have_children() { # fails if no process began since then but the command's own two, `timeout` and its shell
  if [ -n "$pcc_user" ]; then
    pcc_has_processes
    return
  fi
  pcc_last_pid
  pcc_made=$((pcc_last - pcc_first))
  [ "$pcc_code" -ge 128 ] || [ $pcc_made -lt 0 ] || [ $pcc_made -gt 2 ]
}

pcc_is_being_stopped() { # succeeds while pcc_stop gives it its grace period
  [ -e "$pcc_command.stop" ] && [ ! -e "$pcc_command.killed" ]
}

pcc_end_group() { # gives the rest of the command's group 2 s; after a time limit, KILL_AFTER
  pcc_term=20
  [ $pcc_timed = t ] && pcc_term=$((${pcc_patience%.*} * 10))
  pcc_ticks=0
  while pcc_has_group && [ $pcc_ticks -lt $((pcc_term + 40)) ]; do
    case $((pcc_ticks - pcc_term)) in
    0)
      [ "$pcc_timed" = t ] || pcc_is_being_stopped || pcc_timed=b
      pcc_kill -TERM "-$pcc_group"
      ;;
    10) pcc_kill -KILL "-$pcc_group" ;;
    esac
    pcc_is_being_stopped || pcc_ticks=$((pcc_ticks + 1))
    sleep 0.1
  done
}

pcc_has_group() { # succeeds if the command's group has a process
  if [ -n "$pcc_user" ]; then
    [ -n "$pcc_group" ] && pcc_has_processes || return
  fi
  pcc_kill -0 "-$pcc_group"
}

pcc_has_escaped() { # succeeds if a process left the group and does not end by itself in a moment
  pcc_may_have_children && ! pcc_is_being_stopped && pcc_tagged && sleep 0.3 && pcc_tagged
}

pcc_end_escaped() { # ends processes that left the group (setsid, a double fork); it knows them by their environment, or by the FIFOs
  pcc_ticks=0
  while pcc_tagged || pcc_is_copying; do
    case $pcc_ticks in
    20) pcc_signal_tagged TERM ;;
    30)
      pcc_signal_tagged KILL
      pcc_kill_holders
      ;;
    40)
      # A foreign process holds the FIFOs, so this lane can't be used again.
      pcc_give_up
      return
      ;;
    esac
    pcc_is_being_stopped || pcc_ticks=$((pcc_ticks + 1))
    sleep 0.1
  done
}

pcc_is_copying() { # succeeds while a cat still reads a FIFO for this command
  for pcc_path in "/proc/$pcc_cat_out/fd/"* "/proc/$pcc_cat_err/fd/"*; do
    if [ "$pcc_path" -ef o ] || [ "$pcc_path" -ef e ]; then
      # The next command writes its mark there before it opens the FIFOs.
      read -r pcc_line <t
      case $pcc_line in
      *"$pcc_mark"*) return 0 ;;
      esac
      return 1
    fi
  done
  return 1
}

pcc_kill_holders() {
  if [ -n "$pcc_user" ]; then
    pcc_kill -KILL $(pcc_help find /proc/[0-9]*/fd -maxdepth 1 -lname "$pcc_folder/[oe]" | cut -d / -f 3)
    return
  fi
  for pcc_path in /proc/[0-9]*/fd/*; do
    if [ "$pcc_path" -ef o ] || [ "$pcc_path" -ef e ]; then
      pcc_pid=${pcc_path#/proc/}
      pcc_pid=${pcc_pid%%/*}
      [ "$pcc_pid" = "$pcc_cat_out" ] || [ "$pcc_pid" = "$pcc_cat_err" ] || kill -KILL "$pcc_pid"
    fi
  done
}

pcc_give_up() { # ends the spools in place of the cats
  pcc_is_copying || return
  printf '\036%s %-4s d\n' "$pcc_mark" "$pcc_code" 1<>t
  pcc_finish_spool "$pcc_cat_out" o out
  pcc_finish_spool "$pcc_cat_err" e err
}

pcc_finish_spool() { # CAT FIFO SPOOL
  for pcc_path in "/proc/$1/fd/"*; do
    if [ "$pcc_path" -ef "$2" ]; then
      kill -KILL "$1"
      # A zombie has no exe.
      while [ -e "/proc/$1/exe" ]; do sleep 0.01; done
      cat t >>"$3"
      return
    fi
  done
}
