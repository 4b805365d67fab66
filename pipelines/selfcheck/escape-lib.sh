# Common functions of the attempts to escape. Each reports a route as `held`, `broke` or `not_tried`, with a comment.
routes=
say() { # ROUTE VERDICT [WORDS]
  words=$(printf '%s' "${3:-}" | tr '\n' ';' | tr -c 'A-Za-z0-9 .,:;/_()=@-' ' ' | sed 's/;/; /g' | cut -c 1-160)
  routes="$routes${routes:+, }{\"route\": \"$1\", \"verdict\": \"$2\", \"words\": \"$words\"}"
}
tell() { # NAME
  printf '{"routes": [%s]}\n' "$routes" >"$PCC_OUT/$1.json"
}
judge() { # ROUTE WORDS: it broke if there are any
  if [ -n "$2" ]; then say "$1" broke "$2"; else say "$1" held; fi
}
has() { command -v "$1" >/dev/null 2>&1; }
opens() { # FILE: succeeds if the existing file can be opened for writing; writes nothing
  [ -e "$1" ] && ( : >>"$1" ) 2>/dev/null
}
decoy='PCCPIPE-DECOY-[0-9a-f]\{32\}'
decoys_in_environments() {
  for file in /proc/[0-9]*/environ; do
    if tr '\0' '\n' 2>/dev/null <"$file" | grep -q "$decoy"; then echo "$file"; fi
  done 2>/dev/null
}
sockets() {
  for path in /var/run/docker.sock /run/docker.sock /run/podman/podman.sock /run/containerd/containerd.sock; do
    if [ -S "$path" ] && [ -w "$path" ]; then echo "$path"; fi
  done
}
stay() { # HOW COMMAND...: leaves a process that ends by itself after two minutes
  how=$1
  shift
  "$@" sh -c "n=0; while [ \$n -lt 120 ]; do sleep 1; n=\$((n + 1)); done; : $ESCAPE_MARK-left-$how" </dev/null >/dev/null 2>&1 &
}
