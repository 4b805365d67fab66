#!/usr/bin/env bash
# vm-init.sh NAME STATE LOWER [bare]: runs as process 1 of a VM, in fresh namespaces. Its root is an overlay in memory over LOWER.
# /home and Docker's data lie in STATE, on the machine's disk, and outlive a reboot. A bare VM has no group docker, no /home/project.
set -euo pipefail
name=$1 S=$2 lower=$3 bare=${4-} R=$2/root/merged

hostname "$name"
mount -t tmpfs -o mode=755 root "$S/root"
mkdir "$S"/root/{upper,work,merged}
mount -t overlay -o "lowerdir=$lower,upperdir=$S/root/upper,workdir=$S/root/work" root "$R"
mount -t proc proc "$R/proc"
mount -t sysfs sysfs "$R/sys"
mount --rbind /sys/fs/cgroup "$R/sys/fs/cgroup"
# Its top is the machine's own. Debian's cgroupfs-mount would make more hierarchies there, which outlive the VM. With them containerd
# no longer reports that a container ran out of memory.
mount -o remount,bind,ro "$R/sys/fs/cgroup"
mount -t tmpfs -o mode=755 dev "$R/dev"
mkdir "$R"/dev/{pts,shm,net}
for d in null zero full random urandom tty fuse kmsg net/tun; do
  [ ! -e "/dev/$d" ] || { touch "$R/dev/$d"; mount --bind "/dev/$d" "$R/dev/$d"; }
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"; ln -s /proc/self/fd "$R/dev/fd"
ln -s fd/0 "$R/dev/stdin"; ln -s fd/1 "$R/dev/stdout"; ln -s fd/2 "$R/dev/stderr"
mount -t tmpfs -o mode=1777 shm "$R/dev/shm"
mount -t tmpfs -o mode=755 run "$R/run"
mount -t tmpfs -o mode=1777 tmp "$R/tmp"
mount -t tmpfs -o mode=700 root "$R/root"
if [ -f "$S/home.img" ]; then mount -o loop "$S/home.img" "$R/home"; else mount --bind "$S/home" "$R/home"; fi
mkdir -p "$R/var/lib/docker" "$R/bed"
mount --bind "$S/docker" "$R/var/lib/docker"
mount --bind "$S/bed" "$R/bed"        # logs and the ready mark, for the machine to read
cp "$S/host_key" "$R/etc/ssh/bed_host_key"; chmod 600 "$R/etc/ssh/bed_host_key"
# systemd-resolved's stub address would be the VM's own.
resolv=/run/systemd/resolve/resolv.conf; [ -e "$resolv" ] || resolv=/etc/resolv.conf
cp -L "$resolv" "$R/etc/resolv.conf"
pub=$(cat "$S/key.pub")

cd "$R"; mkdir -p .old
pivot_root . .old; cd /; umount -l /.old; rmdir /.old
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /run/sshd /run/lock
useradd -M -d /home/pcc -s /bin/bash -p '*' pcc
mkdir -p /home/pcc/.ssh /root/.ssh
if [ -z "$bare" ]; then
  # The account that the workspace's code may run as: no password, no group docker, and no way to the login.
  useradd -r -M -d /nonexistent -s /bin/sh -p '*' pccrun
  echo 'pcc ALL=(pccrun) NOPASSWD: ALL' >/etc/sudoers.d/pccpipe-pccrun
  chmod 440 /etc/sudoers.d/pccpipe-pccrun
  getent group docker >/dev/null || groupadd -r docker
  usermod -aG docker pcc
  mkdir -p /home/project; chown pcc: /home/project
fi
echo "$pub" | tee /home/pcc/.ssh/authorized_keys >/root/.ssh/authorized_keys
chmod 700 /home/pcc/.ssh /root/.ssh; chown -R pcc: /home/pcc
cat >/etc/ssh/sshd_config <<CFG
Port 22
ListenAddress 0.0.0.0
HostKey /etc/ssh/bed_host_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 100
MaxSessions 100
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
CFG
echo "127.0.0.1 localhost $name" >/etc/hosts
/usr/sbin/sshd -E /bed/sshd.log
echo ok >/bed/ready
exec >/dev/null 2>&1 </dev/null
while :; do sleep 3600 & wait $!; done
