# Looks for the lines of $pcc_patterns. They reach grep through a pipe, so that the search itself puts them into no argument
# list, no environment and no file. What can't be read is said on stderr.
#
# Set before this text: pcc_patterns, pcc_run (the run's id), pcc_minutes (since the run began).

export LC_ALL=C
pcc_newline='
'

pcc_beside= pcc_depth=
pcc_stat='stat -c' pcc_name='name %N' pcc_file='file %s %n'
case $(uname -s) in
Darwin | *BSD) pcc_stat='stat -f' pcc_name="name '%N' -> '%Y'" pcc_file='file %z %N' ;;
esac

pcc_grep() { # FILE...: those in which there is a pattern
  printf '%s\n' "$pcc_patterns" | grep -laF -f - -- "$@"
}

pcc_processes() {
  if [ -r /proc/self/environ ]; then
    pcc_processes_of_proc
  else
    pcc_processes_of_ps
  fi
}

pcc_processes_of_ps() { # their arguments; their environments are for no other program to read
  { printf '%s\n\n' "$pcc_patterns"; ps -axww -o pid= -o command=; } | awk '
    !listing { if ($0 == "") listing = 1; else patterns[++n] = $0; next }
    { count++; for (i = 1; i <= n; i++) if (index($0, patterns[i])) { print "arguments " $1 " " $2; break } }
    END { print "listed " count + 0 }'
}

pcc_processes_of_proc() {
  pcc_readable=0 pcc_denied=0
  for pcc_path in /proc/[0-9]*; do
    if [ -r "$pcc_path/environ" ]; then
      pcc_readable=$((pcc_readable + 1))
    elif [ -e "$pcc_path/environ" ]; then
      pcc_denied=$((pcc_denied + 1))
    fi
  done
  printf 'processes %s %s\n' $pcc_readable $pcc_denied
  [ -d /proc/1 ] || echo hidden
  # Some have ended meanwhile.
  pcc_grep /proc/[0-9]*/cmdline 2>/dev/null | while IFS=/ read -r pcc_root pcc_proc pcc_pid pcc_rest; do
    printf 'arguments %s %s\n' "$pcc_pid" "$(cat "/proc/$pcc_pid/comm" 2>/dev/null)"
  done
  # Every process of a step has this variable, wherever it runs.
  pcc_own=" $(grep -laF "PCC_RUN_ID=$pcc_run" /proc/[0-9]*/environ 2>/dev/null | tr '\n' ' ')"
  pcc_grep /proc/[0-9]*/environ 2>/dev/null | while read -r pcc_path; do
    pcc_whose=other
    case $pcc_own in
    *" $pcc_path "*) pcc_whose=own ;;
    *)
      # It may have begun since then; and ended again.
      if grep -qaF "PCC_RUN_ID=$pcc_run" "$pcc_path" 2>/dev/null; then pcc_whose=own; fi
      [ -e "$pcc_path" ] || pcc_whose=gone
      ;;
    esac
    pcc_pid=${pcc_path#/proc/}
    pcc_pid=${pcc_pid%/environ}
    printf '%s %s %s\n' $pcc_whose "$pcc_pid" "$(cat "/proc/$pcc_pid/comm" 2>/dev/null)"
  done
}

pcc_files() { # FOLDER...: their files that have changed since the run began; no program can set that time (ctime) back
  pcc_limit=
  $pcc_stat "$pcc_file" / >/dev/null 2>&1 || echo 'failed stat does not work'
  # Else the whole look has a limit.
  ! command -v timeout >/dev/null || pcc_limit='timeout 90'
  {
    # Without inner parentheses: in them busybox's find forgets what `+` has gathered.
    $pcc_limit find "$@" -xdev $pcc_depth \( -path /proc -o -path /sys -o -path "$pcc_beside" \) -prune -o \
      ! -cmin "-$pcc_minutes" -o \
      -path "*$pcc_newline*" -exec printf 'odd\n' \; -o \
      -type f -size +1048576k -exec printf 'big %s\n' {} \; -o \
      -type f -print -o \
      ! -type d ! -type l -o \
      -exec $pcc_stat "$pcc_name" {} +
    pcc_code=$?
    case $pcc_code in 0 | 1) ;; 124) echo cut ;; *) echo "failed find ended with $pcc_code" ;; esac
  } | {
    set --
    while IFS= read -r pcc_line; do
      case $pcc_line in
      /*)
        set -- "$@" "$pcc_line"
        [ $# -lt 200 ] && continue
        pcc_look_into "$@"
        set --
        ;;
      *) printf '%s\n' "$pcc_line" ;;
      esac
    done
    [ $# = 0 ] || pcc_look_into "$@"
  }
  echo end
}

pcc_on_top() { # FOLDER...: no deeper than what a program makes for itself in a folder for temporary files
  pcc_depth='-maxdepth 2'
  pcc_files "$@"
}

pcc_look_into() { # FILE...
  $pcc_stat "$pcc_file" -- "$@"
  pcc_grep "$@" | while IFS= read -r pcc_line; do printf 'found %s\n' "$pcc_line"; done
}

pcc_container() { # ID PID HOME: a container's own files, through its first process, if that is seen from here
  if grep -qF "$1" "/proc/$2/cgroup" 2>/dev/null; then
    pcc_files "/proc/$2/root/" "/proc/$2/root$3"
  else
    printf 'unseen\nend\n'
  fi
}

pcc_everywhere() { # ENGINE: every file system on a disk or in memory; below a folder, find goes on by itself to what is no other one;
  # but for the engine's folder
  pcc_beside=$1
  set -- /
  while read -r pcc_what pcc_folder pcc_type pcc_rest; do
    case $pcc_type in ext[234] | xfs | btrfs | zfs | f2fs | jfs | reiserfs | bcachefs | tmpfs) ;; *) continue ;; esac
    pcc_folder=$(printf '%b' "$pcc_folder")
    [ "$(stat -c %d -- "$pcc_folder" 2>/dev/null)" = "$(stat -c %d -- "$pcc_folder/.." 2>/dev/null)" ] ||
      set -- "$@" "$pcc_folder"
  done </proc/mounts
  pcc_files "$@"
}
