"""Make this Python one of macOS, as far as a process can: see ../README.md. PYTHONPATH loads it before all else."""

from __future__ import annotations

import builtins
import ctypes
import enum
import errno
import fcntl
import functools
import hashlib
import io
import os
import select
import signal
import socket
import stat
import sys
import types
import unicodedata
from pathlib import Path
from typing import Any

REAL_PROC = os.environ["FAKE_MAC_PROC"]
FOLDERS = [folder for folder in os.environ.get("FAKE_MAC_ONE_NAME", "").split(":") if folder]
"""Folders in which names that differ only in case or normal form are one, as on APFS."""
SYNCED = os.environ.get("FAKE_MAC_SYNCED", "")
"""A file that gets a letter for each sync: B for F_BARRIERFSYNC, F for F_FULLFSYNC, s for fsync."""

LACKS: dict[Any, str] = {
    os: "fdatasync pipe2 memfd_create posix_fadvise posix_fallocate sched_getaffinity sched_setaffinity splice "
    "copy_file_range getxattr setxattr listxattr removexattr pidfd_open eventfd getrandom "
    "setresuid getresuid setresgid getresgid O_PATH O_TMPFILE O_NOATIME O_DIRECT O_LARGEFILE O_RSYNC",
    select: "epoll",
    socket: "TCP_QUICKACK TCP_USER_TIMEOUT TCP_KEEPIDLE SO_PEERCRED SO_BINDTODEVICE MSG_NOSIGNAL MSG_CMSG_CLOEXEC "
    "SOCK_CLOEXEC SOCK_NONBLOCK AF_NETLINK AF_PACKET AF_VSOCK SCM_CREDENTIALS",
    signal: "SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT SIGPOLL sigtimedwait sigwaitinfo",
    fcntl: "F_GETPIPE_SZ F_SETPIPE_SZ F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW F_ADD_SEALS F_GET_SEALS",
}
for module, names in LACKS.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

sys.platform = "darwin"
# urllib.request asks it for the proxies of the System Settings.
proxies: Any = types.ModuleType("_scproxy")
proxies._get_proxy_settings = proxies._get_proxies = dict
sys.modules["_scproxy"] = proxies
os.uname = lambda: os.uname_result(("Darwin", socket.gethostname(), "24.6.0", "Darwin Kernel Version 24.6.0", "arm64"))


class Library(ctypes.CDLL):
    def __getattr__(self, name: str) -> Any:
        return gethostuuid if name == "gethostuuid" else super().__getattr__(name)


def gethostuuid(uuid: Any, wait: Any) -> int:
    uuid.raw = hashlib.md5(REAL_PROC.encode()).digest()
    return 0


ctypes.__dict__["CDLL"] = Library


class Signals(enum.IntEnum):
    """macOS's numbers, to look up by name; the constants of `signal` stay this kernel's."""

    SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGEMT, SIGFPE = 1, 2, 3, 4, 5, 6, 7, 8
    SIGKILL, SIGBUS, SIGSEGV, SIGSYS, SIGPIPE, SIGALRM, SIGTERM, SIGURG = 9, 10, 11, 12, 13, 14, 15, 16
    SIGSTOP, SIGTSTP, SIGCONT, SIGCHLD, SIGTTIN, SIGTTOU, SIGIO, SIGXCPU = 17, 18, 19, 20, 21, 22, 23, 24
    SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGINFO, SIGUSR1, SIGUSR2 = 25, 26, 27, 28, 29, 30, 31


signal.Signals = Signals  # type: ignore[assignment,misc]


# Syncing.

fcntl.__dict__["F_FULLFSYNC"] = 51
real_fcntl, real_fsync = fcntl.fcntl, os.fsync


def note_sync(letter: str) -> None:
    if SYNCED:
        with real_open(SYNCED, "a") as file:
            file.write(letter)


def fake_fcntl(fd: Any, command: int, argument: Any = 0) -> Any:
    if command in {51, 85}:
        real_fsync(fd)
        note_sync("F" if command == 51 else "B")
        return 0
    return real_fcntl(fd, command, argument)


def fake_fsync(fd: Any) -> None:
    real_fsync(fd)
    note_sync("s")


fcntl.fcntl = fake_fcntl
os.fsync = fake_fsync


# Unix sockets: sun_path has 104 bytes on macOS, the last one for a zero.


class Socket(socket.socket):
    def bind(self, address: Any) -> None:
        self._check(address)
        super().bind(address)

    def connect(self, address: Any) -> None:
        self._check(address)
        super().connect(address)

    def _check(self, address: Any) -> None:
        if self.family == socket.AF_UNIX and len(os.fsencode(address)) > 103:
            raise OSError("AF_UNIX path too long")


socket.socket = Socket  # type: ignore[misc]


# Names: no hard links to symbolic ones, and names that differ only in case or normal form are one.


def one(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def where(path: Any, dir_fd: int | None) -> str:
    text = os.fsdecode(path)
    if text.startswith("/"):
        return text
    base = str(Path.cwd()) if dir_fd is None else real_readlink(f"{REAL_PROC}/self/fd/{dir_fd}")
    return f"{base}/{text}"


def found(path: Any, dir_fd: int | None = None) -> Any:
    """Return the path with the disk's own names, if one of them is the same to macOS."""
    if isinstance(path, int) or not FOLDERS:
        return path
    try:
        whole = where(path, dir_fd)
    except (OSError, TypeError):
        return path
    folder = next((each for each in FOLDERS if whole.startswith(f"{each}/")), None)
    if folder is None or real_exists(whole):
        return path
    at = folder
    for part in whole[len(folder) :].split("/"):
        if part in {"", ".", ".."} or real_exists(f"{at}/{part}"):
            at = f"{at}/{part}" if part else at
            continue
        try:
            siblings = real_listdir(at)
        except OSError:
            siblings = []
        at = f"{at}/{next((each for each in siblings if one(each) == one(part)), part)}"
    return os.fsencode(at) if isinstance(path, bytes) else at


def real_exists(path: str) -> bool:
    try:
        real_lstat(path)
    except (OSError, ValueError):
        return False
    return True


real_open, real_readlink, real_lstat, real_listdir, real_link = io.open, os.readlink, os.lstat, os.listdir, os.link
ONE_PATH = "open stat lstat mkdir rmdir unlink remove chmod chown utime access readlink mkfifo chdir listdir scandir"


def with_found(call: Any) -> Any:
    @functools.wraps(call)
    def wrapped(path: Any = ".", *arguments: Any, dir_fd: int | None = None, **options: Any) -> Any:
        path = found(path, dir_fd)
        if dir_fd is not None:
            options["dir_fd"] = dir_fd
        return call(path, *arguments, **options)

    return wrapped


if FOLDERS:
    for name in ONE_PATH.split():
        wrapped = with_found(getattr(os, name))
        for supporting in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if getattr(os, name) in supporting:
                supporting.add(wrapped)
        setattr(os, name, wrapped)
    real_rename, real_replace, real_symlink = os.rename, os.replace, os.symlink

    def fake_rename(old: Any, new: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None) -> None:
        real_rename(found(old, src_dir_fd), found(new, dst_dir_fd), src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def fake_symlink(text: Any, path: Any, target_is_directory: bool = False, *, dir_fd: Any = None) -> None:
        real_symlink(text, found(path, dir_fd), dir_fd=dir_fd)

    def fake_open(file: Any, *arguments: Any, **options: Any) -> Any:
        return real_open(found(file), *arguments, **options)

    os.__dict__.update(rename=fake_rename, replace=fake_rename, symlink=fake_symlink)
    io.open = builtins.open = fake_open


def fake_link(
    old: Any, new: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None, follow_symlinks: bool = True
) -> None:
    old = found(old, src_dir_fd)
    if stat.S_ISLNK(os.stat(old, dir_fd=src_dir_fd, follow_symlinks=False).st_mode):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), old, None, new)
    new = found(new, dst_dir_fd)
    real_link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)


os.__dict__["link"] = fake_link
os.supports_follow_symlinks.add(fake_link)
os.supports_dir_fd.add(fake_link)


# Programs that Python starts get this Python as well, also with options that ignore the environment.
sys.executable = os.environ.get("FAKE_MAC_PYTHON", sys.executable)
