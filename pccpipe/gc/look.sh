# Lists what runs left in $pcc_system, the folder `.system` of a machine, and in $pcc_runs, the records in it, if any.
# lease.sh comes before it. Each answer is five fields, each ending with a NUL:
#
#   now - - - SECONDS                the machine's clock
#   PLACE NAME folder SIZE CHANGED   one of a run's folders: kB on the disk, and the time of its last change
#   FOLDER NAME copy SIZE CHANGED    a copy of the code in a run's record, or beside it
#   PLACE NAME other - -             something else: a file, a link, a name that no run has
#   PLACE - more COUNT -             there are COUNT more things, which are not listed
#   PLACE - wrong - WORDS            the folder is unreadable
#   live RUN - - -                   a process of this login supervises a command of the run
#   held RUN - - -                   the same for a container, also for some moments after its end
#   claim RUN - - MARK               a command of such a run
#   tag TAG - - -                    the tag of a process of this login that a command began
#   lane TAG - - -                   the tag of a process of this login that waits for commands
#   blind - - - -                    the processes are not visible: this is not Linux
#
# Uses the time of the last status change (ctime): uploaded files keep their modification times.
# All files are untrusted: follows no link, and no number or name of files makes a loop endless.

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
  pcc_count=0 pcc_folders=0
  for pcc_name in * .[!.]* ..?*; do
    # `.git` keeps git out of the folder; no run left it.
    if [ "$pcc_name" = .git ]; then
      continue
    elif pcc_is_folder; then
      pcc_folders=$((pcc_folders + 1))
    elif [ -e "$pcc_name" ] || [ -L "$pcc_name" ]; then
      pcc_count=$((pcc_count + 1))
      [ $pcc_count -gt 50 ] || pcc_say "$1" "$pcc_name" other - -
    fi
  done
  [ $pcc_count -le 50 ] || pcc_say "$1" - more $((pcc_count - 50)) -
  [ $pcc_folders -le 5000 ] || pcc_say "$1" - more $((pcc_folders - 5000)) -
  pcc_folders=0
  # An unreadable part of a folder does not count.
  for pcc_name in *; do
    pcc_is_folder && pcc_folders=$((pcc_folders + 1)) && [ $pcc_folders -le 5000 ] && printf './%s\0' "$pcc_name"
  done | pcc_measure | while read -r pcc_size pcc_time pcc_name; do
    pcc_say "$1" "${pcc_name#./}" folder "$pcc_size" "$pcc_time"
  done
  [ "$1" != run-state ] || pcc_list_living
}

pcc_measure() { # reads names of folders, each ending with a NUL: kB, the time of the last change, the name
  if du -sk --time=ctime --time-style=+%s --files0-from=/dev/null 2>/dev/null; then
    du -sk --time=ctime --time-style=+%s --files0-from=- 2>/dev/null
    return
  fi
  case $(uname -s) in Darwin | *BSD) pcc_changed='stat -f %c' ;; *) pcc_changed='stat -c %Z' ;; esac
  xargs -0 -n 1 sh -c '
    [ -n "$2" ] || exit 0
    printf "%s %s %s\n" "$(du -sk -- "$2" | cut -f 1)" "$(find "$2" -exec $1 {} + | sort -n | tail -n 1)" "$2"
  ' sh "$pcc_changed" 2>/dev/null
}

pcc_is_folder() { # can $pcc_name be a run's folder?
  case $pcc_name in *[!A-Za-z0-9._-]* | .*) return 1 ;; esac
  [ -d "$pcc_name" ] && [ ! -L "$pcc_name" ]
}

pcc_list_living() {
  for pcc_name in *; do
    pcc_is_folder && [ -d "$pcc_name/commands" ] || continue
    pcc_is_seen_to "$pcc_name/commands" hold && pcc_say held "$pcc_name" - - -
    pcc_is_seen_to "$pcc_name/commands" sup || continue
    pcc_say live "$pcc_name" - - -
    for pcc_claim in "$pcc_name"/commands/*.claim-*; do
      [ ! -e "$pcc_claim" ] || pcc_say claim "$pcc_name" - - "${pcc_claim##*claim-}"
    done
  done
}

pcc_list_tags() { # KIND PATTERN: of processes of this login; the environment of another user's process proves nothing
  for pcc_path in /proc/[0-9]*; do
    [ -O "$pcc_path" ] && printf '%s\0' "$pcc_path/environ"
  done | xargs -0 grep -ahoE "PCCPIPE_STEP=[A-Za-z0-9._-]{1,99}$2" 2>/dev/null | sort -u | head -n 1000 |
    while read -r pcc_tag; do
      pcc_tag=${pcc_tag#PCCPIPE_STEP=}
      pcc_say "$1" "${pcc_tag%%/*}" - - -
    done
}

pcc_list_copies() {
  for pcc_path in "$pcc_runs"/*/workspace "$pcc_runs"/*/workspace-sent "$pcc_runs"/*/.workspace*.* "$pcc_runs"/*/.diff-*; do
    [ -d "$pcc_path" ] && [ ! -L "$pcc_path" ] && [ ! -L "${pcc_path%/*}" ] || continue
    set -- $(printf '%s\0' "./$pcc_path" | pcc_measure)
    pcc_say "${pcc_path%/*}" "${pcc_path##*/}" copy "${1:--}" "${2:--}"
  done
}

pcc_say now - - - "$(date +%s)"
pcc_sees=1
if ! command -v grep >/dev/null || [ ! -r /proc/self/environ ]; then
  if [ "$(uname -s)" = Linux ]; then
    echo "there is no grep, or no /proc" >&2
    exit 3
  fi
  pcc_sees=
  pcc_say blind - - - -
fi
[ -e "$pcc_system" ] || exit 0
if [ -L "$pcc_system" ]; then
  pcc_say .system - wrong - "it is a symbolic link"
  exit 0
fi
cd -P -- "$pcc_system" || exit
if [ -n "$pcc_sees" ]; then
  read -r pcc_this_boot </proc/sys/kernel/random/boot_id || exit
  pcc_list_tags tag '/[^/]'
  pcc_list_tags lane '//'
fi
pcc_list run-state
if [ -n "$pcc_runs" ]; then
  pcc_list_copies
else
  pcc_list run-workspaces
  pcc_list run-copies
  pcc_list run-io
fi
