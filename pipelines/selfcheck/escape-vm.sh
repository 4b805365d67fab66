# Tries to escape from the account for workspace code to the login user. It opens files without writing. Its leftovers are
# small and end by themselves; pccpipe removes them.
. "$PCC_IN/lib.sh"
system=$ESCAPE_ROOT/.system

become() {
  if [ "$(id -un)" = "$ESCAPE_LOGIN" ]; then echo "it runs as $ESCAPE_LOGIN"; fi
  if [ "$(id -u)" = 0 ]; then echo "it runs as root"; fi
  for name in root "$ESCAPE_LOGIN"; do
    if has sudo && sudo -n -u "$name" true 2>/dev/null; then echo "sudo gives it $name"; fi
    if has doas && doas -n -u "$name" true 2>/dev/null; then echo "doas gives it $name"; fi
    if has su && timeout 3 su "$name" -c true </dev/null >/dev/null 2>&1; then echo "su gives it $name"; fi
  done
  if id -Gn | tr ' ' '\n' | grep -qx -e docker -e sudo -e wheel -e lxd -e disk -e shadow; then echo "groups $(id -Gn)"; fi
  if [ -r /etc/shadow ]; then echo "reads /etc/shadow"; fi
}
judge become "$(become)"

judge engine "$(sockets)"

pids_of_login() {
  ps -o pid= -u "$ESCAPE_LOGIN" 2>/dev/null || for folder in /proc/[0-9]*; do
    if [ "$(stat -c %U "$folder" 2>/dev/null)" = "$ESCAPE_LOGIN" ]; then echo "${folder#/proc/}"; fi
  done
}
signals() {
  for pid in $(pids_of_login); do
    if kill -0 "$pid" 2>/dev/null; then echo "can signal process $pid"; fi
  done
}
judge signal "$(signals)"

inspects() {
  decoys_in_environments
  for pid in $(pids_of_login); do
    for file in environ mem maps; do
      if ( head -c 1 >/dev/null <"/proc/$pid/$file" ) 2>/dev/null && [ -n "$(head -c 1 "/proc/$pid/$file" 2>/dev/null | od)" ]; then
        if [ "$file" != mem ]; then echo "/proc/$pid/$file"; fi
      elif [ "$file" = mem ] && ( : <"/proc/$pid/mem" ) 2>/dev/null; then echo "/proc/$pid/mem"; fi
    done
    if ls "/proc/$pid/fd" >/dev/null 2>&1; then echo "/proc/$pid/fd"; fi
  done
}
judge inspect "$(inspects | head -n 5)"

reads() {
  for folder in "$system/run-state" "$system/run-workspaces"; do
    if cat "$folder/$ESCAPE_MARK-other/secret" >/dev/null 2>&1; then echo "reads $folder of another run"; fi
    if ls "$folder/$ESCAPE_MARK-other" >/dev/null 2>&1; then echo "lists $folder of another run"; fi
  done
  if ls "$system/run-state/$PCC_RUN_ID" >/dev/null 2>&1; then echo "lists run-state of its run"; fi
  home=$(getent passwd "$ESCAPE_LOGIN" 2>/dev/null | cut -d: -f6)
  for file in "$home"/.ssh/id_* "$home"/.docker/config.json "$home"/.netrc "$home"/.git-credentials; do
    if [ -r "$file" ] && [ "${file%.pub}" = "$file" ]; then echo "reads $file"; fi
  done
}
judge read "$(reads)"

writes() {
  for folder in "$ESCAPE_ROOT" "$system" "$system"/* "$system"/run-state/* "$system"/run-workspaces/* "$system"/run-io/* \
    "$system"/lease/*; do
    case $PCC_WORKSPACE/ in "$folder"/*) if [ "$folder" = "$PCC_WORKSPACE" ]; then continue; fi ;; esac
    case $PCC_OUT/ in "$folder"/*) continue ;; esac
    if [ -d "$folder" ] && ( : >"$folder/.$ESCAPE_MARK" ) 2>/dev/null; then
      rm -f "$folder/.$ESCAPE_MARK"
      echo "makes files in $folder"
    fi
    if [ -f "$folder" ] && opens "$folder"; then echo "writes $folder"; fi
  done
}
judge write "$(writes)"

startups() {
  home=$(getent passwd "$ESCAPE_LOGIN" 2>/dev/null | cut -d: -f6)
  for file in "$home/.profile" "$home/.bashrc" "$home/.bash_profile" "$home/.ssh/rc" "$home/.ssh/authorized_keys" \
    "$home/.ssh/environment" /etc/profile /etc/environment /etc/bash.bashrc /etc/ld.so.preload /etc/crontab; do
    if [ -e "$file" ] && opens "$file"; then echo "writes $file"; fi
  done
  for folder in "$home" "$home/.ssh" "$home/.config" "$home/bin" "$home/.local/bin" /etc/profile.d /etc/cron.d /usr/local/bin; do
    if [ -d "$folder" ] && [ -w "$folder" ]; then echo "makes files in $folder"; fi
  done
}
judge login_files "$(startups)"

cron() {
  if crontab -l >/dev/null 2>&1; then echo "has a crontab"; return; fi
  if echo "# $ESCAPE_MARK" | crontab - >/dev/null 2>&1; then
    crontab -r >/dev/null 2>&1
    echo "makes a crontab"
  fi
}
if has crontab; then judge cron "$(cron)"; else say cron not_tried "the VM has no crontab"; fi

at_() {
  if echo true | at now + 60 minutes >"$HOME/at" 2>&1; then
    for job in $(atq 2>/dev/null | cut -f 1); do atrm "$job" 2>/dev/null; done
    echo "makes a job"
  fi
}
if has at; then judge at "$(at_)"; else say at not_tried "the VM has no at"; fi

units() {
  if systemd-run --user --collect --quiet sh -c "n=0; while [ \$n -lt 120 ]; do sleep 1; n=\$((n + 1)); done; : $ESCAPE_MARK-left-unit" >/dev/null 2>&1; then
    echo "starts a unit"
  fi
  if loginctl enable-linger "$(id -un)" >/dev/null 2>&1; then
    loginctl disable-linger "$(id -un)" >/dev/null 2>&1
    echo "makes itself linger"
  fi
}
if [ -d /run/systemd/system ]; then judge units "$(units)"; else say units not_tried "the VM has no systemd"; fi

tell vm

# Plants start-up files for the next step, in case it has the same HOME. Never in a person's own home folder.
[ "$(id -un)" = "$ESCAPE_LOGIN" ] || for file in .profile .bashrc .bash_profile .ssh/rc; do
  mkdir -p "$HOME/.ssh" && printf 'export ESCAPE_PLANTED=1 # %s\n: >"%s/.escape-planted"\n' \
    "$ESCAPE_MARK" "$PCC_WORKSPACE" >>"$HOME/$file"
done 2>/dev/null

stay plain
stay setsid setsid
stay nohup nohup
stay bare env -i "$(command -v setsid)"
( stay twice setsid & )
( exec 0<&- 1>&- 2>&- 3>&-; stay closed setsid )
env -i PATH="$PATH" ESCAPE_ROOT="$ESCAPE_ROOT" "$(command -v setsid)" sh -c "$(cat "$PCC_IN/later.sh")" "$ESCAPE_MARK-left-later" \
  </dev/null >/dev/null 2>&1 &
sleep 0.2
