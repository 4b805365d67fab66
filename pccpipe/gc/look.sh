# What runs have left in $pcc_system, the folder `.system` of a machine, and in $pcc_runs, the records in it, if there are
# any. Each answer is five fields, each ending with a NUL:
#
#   now - - - SECONDS                the machine's clock
#   PLACE NAME folder SIZE CHANGED   one of a run's folders: kB on the disk, and when anything in it last changed
#   FOLDER NAME copy SIZE CHANGED    a copy of the code in a run's record, or what is beside it
#   PLACE NAME other - -             something else that lies there: a file, a link, a name that no run has
#   PLACE - wrong - WORDS            that folder can't be looked into
#   tag TAG - - -                    of a process that runs
#   claim RUN - - MARK               a command of a run that has processes
#
# By the time of the last status change (ctime): what was uploaded has the modification time that it had at home.

export LC_ALL=C

pcc_say() {
  printf '%s\0' "$@"
}

pcc_list() { # PLACE
  [ -e "$1" ] || [ -L "$1" ] || return 0
  if [ -L "$1" ]; then
    pcc_say "$1" - wrong - "it is a symbolic link"
  elif ! pcc_words=$({ cd -P -- "$1" && ls -a . >/dev/null; } 2>&1); then
    pcc_say "$1" - wrong - "$pcc_words"
  else
    (cd -P -- "$1" && pcc_list_here "$1")
  fi
}

pcc_list_here() { # PLACE
  for pcc_name in * .[!.]* ..?*; do
    [ -e "$pcc_name" ] || [ -L "$pcc_name" ] || continue
    # It keeps git out (record/fence.py).
    [ "$pcc_name" = .git ] && continue
    pcc_is_ours=yes
    case $pcc_name in *[!A-Za-z0-9._-]*) pcc_is_ours= ;; esac
    if [ -n "$pcc_is_ours" ] && [ -d "$pcc_name" ] && [ ! -L "$pcc_name" ]; then
      # What can't be read in it counts for less, no more.
      set -- "$1" $(du -sk --time=ctime --time-style=+%s -- "./$pcc_name" 2>/dev/null)
      pcc_say "$1" "$pcc_name" folder "${2:--}" "${3:--}"
      [ "$1" = run-state ] && pcc_claims
    else
      pcc_say "$1" "$pcc_name" other - -
    fi
  done
}

pcc_claims() {
  case $pcc_tags in *"$pcc_name"-*) ;; *) return 0 ;; esac
  for pcc_claim in "$pcc_name"/commands/*.claim-*; do
    [ -e "$pcc_claim" ] && pcc_say claim "$pcc_name" - - "${pcc_claim##*claim-}"
  done
}

pcc_list_copies() {
  for pcc_path in "$pcc_runs"/*/workspace "$pcc_runs"/*/workspace-sent "$pcc_runs"/*/.workspace*.* "$pcc_runs"/*/.diff-*; do
    [ -d "$pcc_path" ] && [ ! -L "$pcc_path" ] && [ ! -L "${pcc_path%/*}" ] || continue
    set -- $(du -sk --time=ctime --time-style=+%s -- "./$pcc_path" 2>/dev/null)
    pcc_say "${pcc_path%/*}" "${pcc_path##*/}" copy "${1:--}" "${2:--}"
  done
}

pcc_say now - - - "$(date +%s)"
command -v grep >/dev/null && [ -r /proc/self/environ ] || {
  echo "there is no grep, or no /proc" >&2
  exit 3
}
# A lane without a command, `RUN//`, does nothing: one that was left by a killed process would do that for ever.
pcc_tags=$(grep -aho 'PCCPIPE_STEP=[^/]*/[^/]' /proc/[0-9]*/environ 2>/dev/null | sort -u)
[ -e "$pcc_system" ] || exit 0
if [ -L "$pcc_system" ]; then
  pcc_say .system - wrong - "it is a symbolic link"
  exit 0
fi
cd -P -- "$pcc_system" || exit
printf '%s\n' "$pcc_tags" | while read -r pcc_tag; do
  pcc_tag=${pcc_tag#PCCPIPE_STEP=}
  pcc_say tag "${pcc_tag%/?}" - - -
done
pcc_list run-state
if [ -n "$pcc_runs" ]; then
  pcc_list_copies
else
  pcc_list run-workspaces
fi
