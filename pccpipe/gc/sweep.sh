# Removes a run's folders. In front: pcc_system, and pcc_tag, which its processes have. Answers are lines: `gone`, `alive`, or
# `left KILOBYTES WORDS`.

export LC_ALL=C

pcc_is_at_work() {
  grep -q "PCCPIPE_STEP=$pcc_tag/[^/]" /proc/[0-9]*/environ 2>/dev/null
}

pcc_sweep() { # PLACE NAME
  # It may have been gone on with since we looked.
  if pcc_is_at_work; then
    echo alive
  elif [ -L "$pcc_system" ] || [ -L "$pcc_system/$1" ]; then
    echo "left 0 $pcc_system/$1 is a symbolic link now"
  elif ! pcc_words=$(cd -P -- "$pcc_system/$1" 2>&1); then
    pcc_left 0
  else
    cd -P -- "$pcc_system/$1" && pcc_remove "./$2"
  fi
}

pcc_remove() { # NAME
  pcc_words=$(rm -rf -- "$1" 2>&1) && echo gone && return
  # Go's module cache, for one, is made of folders that their owner can't write. No link is followed.
  chmod -R u+rwX -- "$1" 2>/dev/null
  pcc_words=$(rm -rf -- "$1" 2>&1) && echo gone && return
  pcc_left $(du -sk -- "$1" 2>/dev/null)
}

pcc_left() { # KILOBYTES
  printf 'left %s %s\n' "${1:-0}" "$(printf '%s\n' "$pcc_words" | head -n 1)"
}
