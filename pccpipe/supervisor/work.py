"""Begins, watches and ends one command. Times are those of time.monotonic().

Files of a command, in the folder `commands`:

    ID.sh                  its script
    ID.claim-MARK          the process that makes it decides whether the command begins; then its process group
    ID.sup                 its supervisor (pid, start time, boot), then how it ended
    ID.stdout, ID.stderr   its output
    ID.in, ID.out          its folders

A command has ended once its first process, its process group, and every process that may write to its pipes have
ended. The rest of the group gets 2 s; after the time limit, `kill_after`. With /proc, processes that left the group
are found by their environment, or by the pipes that they hold. Without /proc they are not found.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import errno
import os

from pccpipe.supervisor import processes
from pccpipe.supervisor.spool import Spool

GRACE = 2.0
"""Seconds in which processes that a command leaves may end by themselves."""
SOON = 0.05
"""Seconds between two checks of a command that is ending, and of a full disk."""
LOOK_EVERY = 0.1
"""Seconds between two searches through all processes."""
_MOMENT = 0.3
"""Seconds in which processes that left the group may end without a report."""
_YOUNG = 10.0
"""Seconds in which pids do not wrap around."""
_DEFAULT = [number for number in signal.valid_signals() if number not in {signal.SIGKILL, signal.SIGSTOP}]
_GROUP = 12
"""Bytes reserved for the number of a process group."""
_TIMED_OUT = 124
_NOT_FOUND, _NOT_RUN = 127, 126


class NotBegun(Exception):
    """The command certainly never began: it came `late`, its `files` cannot be written, or no process can `start`."""

    def __init__(self, kind: bytes, words: str) -> None:
        super().__init__(words)
        self.kind = kind


class Order:
    """The request to begin a command."""

    def __init__(self, fields: list[bytes]) -> None:
        number, mark, holder, limit, kill_after, folder, tag, self.argv, self.env = fields
        self.id, self.mark, self.holder = os.fsdecode(number), os.fsdecode(mark), holder
        self.limit, self.kill_after = float(limit), float(kill_after)
        self.folder, self.tag = folder, tag


class Work:
    """A command that has begun, or tried to.

    Args:
        own: the first line of its `.sup`, which names this supervisor.
        home: a descriptor of this process's folder, which has `commands`.
        umask: the umask of the command.
        most_unread: bytes of a stream's output that may wait for a reader.
    """

    def __init__(
        self,
        order: Order,
        argv: list[bytes],
        env: dict[bytes, bytes],
        own: bytes,
        home: int,
        umask: int,
        most_unread: int,
        now: float,
    ) -> None:
        self.id = order.id
        self.code: int | None = None
        self.over = False
        """True once nothing of it is left."""
        self.said = b"-"
        """The way in which it ended, in the words of the `.sup` file; `-` before."""
        self._tag, self._limit_at, self._kill_after = order.tag, now + order.limit, order.kill_after
        self._began = self._since = now
        self._timed = self._left = self._stops = self._killed = self._group_gone = False
        self._group_signalled = self._escaped_signalled = False
        self._kill_at = float("inf")
        self._looked = self._has_children = False
        self._known_at = self._look_at = 0.0
        self.pid = 0
        name = f"commands/{order.id}"
        claim = self._claim(f"{name}.claim-{order.mark}", order.holder)
        try:
            os.write(claim, b" " * _GROUP)
            self._sup = os.open(f"{name}.sup", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.write(self._sup, own)
            self.out = Spool(f"{name}.stdout", most_unread)
            self.err = Spool(f"{name}.stderr", most_unread)
            self._first = processes.newest()
            self._begin(argv, env, order.folder, home, umask)
        except (OSError, ValueError) as error:
            os.close(claim)
            self._undo(name, order.mark)
            full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise NotBegun(b"files" if full else b"start", str(error)) from error
        self._record_group(claim)
        self.out.begun()
        self.err.begun()

    @property
    def spools(self) -> tuple[Spool, Spool]:
        return self.out, self.err

    @property
    def state(self) -> tuple[int, int, bytes]:
        """The sizes of its output, and how it ended."""
        return self.out.size, self.err.size, self.said

    def reaped(self, status: int, now: float) -> None:
        """Record the end of its first process."""
        if os.WIFSIGNALED(status):
            self.code = 128 + os.WTERMSIG(status)
        else:
            self.code = os.WEXITSTATUS(status)
        if self._timed and not (self._killed and self.code == 128 + signal.SIGKILL):
            self.code = _TIMED_OUT
        self._since = now

    def stop(self, grace: float, now: float) -> None:
        """Send TERM now, and KILL after `grace` seconds; a second call only adds its own KILL."""
        if not self._stops:
            self._stops = True
            self._term()
            for pid in self._tagged():
                if processes.group_of(pid) != self.pid:
                    processes.signal_one(pid, signal.SIGTERM)
        self._kill_at = min(self._kill_at, now + grace)

    def kill(self) -> None:
        """Kill every process of it that can be found."""
        self._killed = True
        if not self._group_gone:
            processes.signal_group(self.pid, signal.SIGKILL)
        # The first search may have missed a child that was just starting.
        for _ in range(3):
            found = self._tagged()
            for pid in found:
                processes.signal_one(pid, signal.SIGKILL)
            if not found:
                break

    def tick(self, now: float) -> float:
        """Do the due work; return the seconds until the next call."""
        if self._kill_at <= now and not self._killed:
            self.kill()
        if self.code is None:
            if now >= self._limit_at and not self._timed:
                self._timed = True
                self._term()
                self._kill_at = min(self._kill_at, now + self._kill_after)
            due = self._kill_at if self._timed else min(self._kill_at, self._limit_at)
            held = self.out.is_held or self.err.is_held
            return SOON if held else max(0.0, due - now) if not self._killed else LOOK_EVERY
        if not self._group_gone:
            self._end_group(now)
        if self._group_gone:
            was_running = self.said == b"-"
            self._end_escaped(now)
            if was_running and self.said != b"-":
                return 0.0  # followers hear of it before a search through all processes
        return SOON

    def _claim(self, path: str, holder: bytes) -> int:
        """Decide that the command begins. Raises NotBegun."""
        try:
            claim = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise NotBegun(b"late", "it came too late") from error
        except OSError as error:
            raise NotBegun(b"files", error.strerror or str(error)) from error
        # After the claim, because a process that resumes a run first names itself, then searches claims.
        try:
            with open("holder", "rb", buffering=0) as file:
                held = file.read()
        except OSError:
            held = b""
        if held != holder:
            os.close(claim)
            os.unlink(path)
            raise NotBegun(b"late", "another process resumed the run")
        return claim

    def _begin(self, argv: list[bytes], env: dict[bytes, bytes], folder: bytes, home: int, umask: int) -> None:
        """Start the first process. Raises OSError, ValueError if no process can start.

        A fault of this command alone, such as a missing shell, makes the command fail instead.
        """
        try:
            os.chdir(folder)
        except OSError:
            words = b"pccpipe: the folder %s cannot be entered\n" % folder
            self._fail(_NOT_FOUND, words)
            return
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self.out.source, 1),
            (os.POSIX_SPAWN_DUP2, self.err.source, 2),
        ]
        before = os.umask(umask)
        try:
            if b"/" not in argv[0]:
                raise FileNotFoundError(errno.ENOENT, "not in PATH")
            self.pid = os.posix_spawn(
                argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT
            )
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
                raise
            words = b"pccpipe: %s cannot be started: %s\n" % (argv[0], (error.strerror or "").encode())
            self._fail(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN, words)
        finally:
            os.umask(before)
            os.fchdir(home)

    def _fail(self, code: int, words: bytes) -> None:
        self.code, self._group_gone = code, True
        self.err.say(words)

    def _record_group(self, claim: int) -> None:
        """Record the process group, so that another process can end the command. It has begun, so this never fails."""
        try:
            # It writes into reserved bytes, which works on a full disk.
            os.pwrite(claim, b"%d" % self.pid, 0)
        except OSError:
            pass
        os.close(claim)

    def _undo(self, name: str, mark: str) -> None:
        for what in ("out", "err"):
            if spool := getattr(self, what, None):
                spool.close()
        if hasattr(self, "_sup"):
            os.close(self._sup)
        for end in (f"claim-{mark}", "sup", "stdout", "stderr"):
            try:
                os.unlink(f"{name}.{end}")
            except OSError:
                pass

    def _term(self) -> None:
        if not self._group_gone:
            processes.signal_group(self.pid, signal.SIGTERM)
            # A stopped process gets the signal only when it continues.
            processes.signal_group(self.pid, signal.SIGCONT)

    def _is_being_stopped(self) -> bool:
        return self._stops and not self._killed

    def _end_group(self, now: float) -> None:
        if not processes.signal_group(self.pid, 0):
            self._group_gone, self._since = True, now
            return
        if self._is_being_stopped():
            self._since = now
            return
        wait, passed = self._kill_after if self._timed else GRACE, now - self._since
        if passed >= wait and not self._group_signalled:
            self._group_signalled = True
            self._left = not self._timed and not self._stops
            self._term()
        if passed >= wait + 1:
            processes.signal_group(self.pid, signal.SIGKILL)
        if passed >= wait + 4:
            self._group_gone, self._since = True, now

    def _end_escaped(self, now: float) -> None:
        for spool in self.spools:
            # It reads what the last writer left in the pipe, but not endless output of a background process.
            for _ in range(16):
                if not (spool.is_open and spool.read(at_end=True)):
                    break
        if not self._is_known(now):
            return
        if self._drained() and self.said == b"-":
            self._record_end()
            self.over = not self._has_children
            return
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        found = self._tagged(now)
        if self._drained() and not found:
            self.over = True
            return
        if self._is_being_stopped():
            self._since = now
            return
        passed = now - self._since
        if passed >= GRACE and not self._escaped_signalled:
            self._escaped_signalled = True
            for pid in found:
                processes.signal_one(pid, signal.SIGTERM)
        if passed >= GRACE + 1:
            pipes = {spool.name for spool in self.spools if spool.is_open}
            for pid in [*found, *(processes.holders(pipes) if pipes else [])]:
                processes.signal_one(pid, signal.SIGKILL)
        if passed >= GRACE + 2 and not self._waits_for_room(now):
            # A foreign process holds its pipes.
            for spool in self.spools:
                spool.close()
            self._record_end()
            self.over = True

    def _is_known(self, now: float) -> bool:
        """Return whether it is known by now if a process left the group and does not end by itself in a moment."""
        if not self._looked:
            self._looked = True
            self._has_children = self._may_have_children(now)
            if self._has_children and not self._timed and not self._stops and self._tagged(now):
                self._known_at = now + _MOMENT
        if now < self._known_at:
            return False
        if self._known_at and not self._left:
            self._left = bool(self._tagged(now))
        self._known_at = 0.0
        return True

    def _waits_for_room(self, now: float) -> bool:
        held = any(spool.is_held for spool in self.spools)
        return held and not self._timed and not self._stops and now < self._limit_at

    def _drained(self) -> bool:
        return not (self.out.is_open or self.err.is_open)

    def _may_have_children(self, now: float) -> bool:
        """Return False if no process began since then but the command's own one."""
        if self.pid == 0:
            return False
        made = processes.newest() - self._first
        return processes.can_look() and (now - self._began > _YOUNG or not 0 <= made <= 1)

    def _tagged(self, now: float | None = None) -> list[int]:
        if now is not None and now - self._began < _YOUNG and (last := processes.newest()) >= self._first:
            return processes.tagged(self._tag, self._first, last)
        return processes.tagged(self._tag)

    def _record_end(self) -> None:
        """Record how it ended, once."""
        if self.said != b"-":
            return
        flags = "t" * self._timed + "b" * self._left + "l" * (self.out.lost or self.err.lost)
        self.said = f"{self.code} {flags or '-'}".encode()
        try:
            # It writes into an existing block, which works on a full disk.
            os.write(self._sup, self.said + b"\n")
        except OSError:
            pass
        os.close(self._sup)
