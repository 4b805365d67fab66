# Tries to escape from a container. It opens files without writing, and looks at names without using them.
. "$PCC_IN/lib.sh"

judge socket "$(sockets)"

privileges() {
  if [ "$(id -u)" = 0 ]; then echo "its user is root"; fi
  sed -n 's/^\(Cap[BPE][a-z]*\):[^1-9a-f]*\([1-9a-f][0-9a-f]*\)$/\1 \2/p' /proc/self/status
  grep -q '^NoNewPrivs:.1' /proc/self/status || echo "setuid programs work"
  grep -q '^Seccomp:.[12]' /proc/self/status || echo "system calls are not filtered"
}
judge privileges "$(privileges)"

devices() {
  find /dev -type b 2>/dev/null
  for device in /dev/mem /dev/kmsg /dev/kvm; do if opens "$device"; then echo "$device"; fi; done
  mkdir -p "$HOME/mount" && mount -t proc proc "$HOME/mount" 2>/dev/null && umount "$HOME/mount" && echo "mount works"
}
judge devices "$(devices)"

kernel() {
  for file in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper /proc/sys/vm/panic_on_oom; do
    if [ -e "$file" ] && opens "$file"; then echo "$file"; fi
  done
  find /sys/fs/cgroup -maxdepth 2 -name release_agent 2>/dev/null | while read -r file; do
    if opens "$file"; then echo "$file"; fi
  done
}
judge kernel "$(kernel)"

processes() {
  for folder in /proc/[0-9]*; do
    if tr '\0' ' ' 2>/dev/null <"$folder/cmdline" | grep -q "$ESCAPE_MARK-decoy"; then echo "sees process ${folder#/proc/}"; fi
  done 2>/dev/null
}
judge processes "$(processes)"

judge key "$(env | grep "$decoy" | cut -d= -f1; decoys_in_environments)"

others() {
  for top in "" /host /mnt /proc/1/root /proc/1/cwd/../../..; do
    for folder in run-state run-workspaces run-io; do
      if [ -d "$top$ESCAPE_ROOT/.system/$folder" ]; then echo "$top$ESCAPE_ROOT/.system/$folder"; fi
    done
  done
  for up in .. ../.. ../../..; do
    if ls "$PCC_WORKSPACE/$up/$ESCAPE_MARK-other" "$PCC_OUT/$up/$ESCAPE_MARK-other" 2>/dev/null; then :; fi
  done
}
judge others "$(others)"

prompt() {
  if opens "$PCC_IN/try.sh"; then echo "writes its own files"; fi
  if ( : >"$PCC_IN/more" ) 2>/dev/null; then echo "makes files of its own"; fi
  if mv "$PCC_IN/try.sh" "$PCC_IN/moved" 2>/dev/null; then echo "moves its files"; fi
}
judge prompt "$(prompt)"

network() {
  for name in /sys/class/net/*; do
    case ${name##*/} in lo | "*") ;; *) echo "has the interface ${name##*/}" ;; esac
  done
  sed 1d /proc/net/route | cut -f 1-2
  for address in 169.254.169.254 1.1.1.1 172.17.0.1; do
    if has bash; then
      timeout 3 bash -c "exec 3<>/dev/tcp/$address/80" 2>/dev/null && echo "reaches $address"
    elif has wget; then
      timeout 3 wget -q -O /dev/null "http://$address/" 2>/dev/null && echo "reaches $address"
    fi
  done
}
judge network "$(network)"

home() {
  head -c 12000000 /dev/zero 2>/dev/null >"$HOME/fill"
  size=$(wc -c <"$HOME/fill")
  rm -f "$HOME/fill"
  if [ "$size" -gt 8388608 ]; then echo "wrote $size bytes of 8388608"; fi
}
judge home "$(home)"

pids() {
  count=0
  # A shell that cannot fork ends.
  ( while [ $count -lt 150 ]; do sleep 2 & count=$((count + 1)); echo $count; done ) 2>/dev/null >"$HOME/forks"
  # It waits for their end without a fork of its own.
  set -- /proc/[0-9]*
  while [ $# -gt 40 ]; do set -- /proc/[0-9]*; done
  started=$(tail -n 1 "$HOME/forks")
  if [ "${started:-0}" -ge 150 ]; then echo "started $started, of 100"; fi
}
judge pids "$(pids)"

tell box
stay box setsid
stay boxbare env -i "$(command -v setsid)"
