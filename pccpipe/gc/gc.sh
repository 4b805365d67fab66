# What look.sh and sweep.sh have in common. lease.sh comes before it.

pcc_is_seen_to() { # COMMANDS KIND: does a process of this login see to the end of a command in this folder?
  pcc_turns=0
  for pcc_path in "$1"/*."$2"; do
    pcc_turns=$((pcc_turns + 1))
    [ $pcc_turns -lt 20000 ] || break
    [ -f "$pcc_path" ] && [ ! -L "$pcc_path" ] && pcc_lives "$pcc_path" && return 0
  done 2>/dev/null
  return 1
}
