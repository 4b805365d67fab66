# Looks at an account, as the login. Set before: pcc_account, pcc_sudo, pcc_become (what makes a command the account's), pcc_login,
# pcc_root (the folder for projects), pcc_home (the login's), pcc_shared (shared_home's folders, in lines), pcc_socket (the engine's)
# and pcc_walls (the account's own script).
# Each line of the answer is a name and what is known of it; behind the line `walls` the account itself speaks. Exit status 3:
# there is no such account.

pcc_line=$(getent passwd "$pcc_account") || exit 3
pcc_uid=$(id -u "$pcc_account")
pcc_gid=$(id -g "$pcc_account")
pcc_own=$(id -gn "$pcc_account")
echo "uid $pcc_uid"
# Mounted with hidepid, /proc shows the login no process of the account.
[ -r /proc/1/status ] || echo "hidden yes"
echo "own $pcc_own"
echo "groups $(id -Gn "$pcc_account" | tr ' ' '\n' | grep -vxF -e "$pcc_own" | tr '\n' ' ')"
# Others with the same group as their own one.
echo "sharing $(getent passwd | grep -E "^[^:]*:[^:]*:[^:]*:$pcc_gid:" | cut -d : -f 1 | grep -vxF -e "$pcc_account" | tr '\n' ' ')"
echo "ranges $(grep -lE "^($pcc_account|$pcc_uid):" /etc/subuid /etc/subgid 2>/dev/null | tr '\n' ' ')"
echo "password $($pcc_sudo passwd -S "$pcc_account" 2>/dev/null | cut -d ' ' -f 2)"
[ ! -d /run/systemd/system ] || echo "manager $(systemctl is-enabled "user@$pcc_uid.service" 2>/dev/null)"
eval "pcc_become=\"$pcc_become\""
$pcc_become true || exit 4
printf '%s\n' "$pcc_shared" | while read -r pcc_folder; do
  [ -z "$pcc_folder" ] || $pcc_become sh -c 'ls "$1/bin/" >/dev/null' sh "$pcc_folder" 2>/dev/null || echo "unread $pcc_folder"
done
echo walls
printf '%s\n' "$pcc_walls" | $pcc_become sh -s -- "$pcc_login" "$$" "$pcc_root" "$pcc_home" "$PATH" "$pcc_socket"
