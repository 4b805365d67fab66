"""Lets one run at a time use a machine, from any host: by a lease on it, kept alive by a heartbeat (lease.sh)."""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from pccpipe import limits
from pccpipe.errors import Fenced, Nonsense, Unavailable, VmBusy
from pccpipe.layout import SystemDir
from pccpipe.machine.base import Done, Machine, cannot_write
from pccpipe.machine.gate import Gate
from pccpipe.machine.retry import reconnecting
from pccpipe.machine.script import shell_functions
from pccpipe.outcome import VM_AWAY
from pccpipe.record.journal import RUN_ID

STALE_AFTER = 60.0
"""Seconds without a sign of life after which a lease may be taken over."""
BEAT_EVERY = 15.0
OVERDUE = 1.5
"""Times `beat_every` after which our own last sign of life is too old to rely on."""
POLL_EVERY = 1.0
ANSWER_TIMEOUT = 20.0
"""Seconds for a script that reads and makes a few links, in a folder that someone may have filled."""
_SESSION = re.compile(r" ?ssh:[0-9.]*$")
"""The holder's connection, for the run that takes the lease over."""
_HELD = re.compile(r"held ([1-9][0-9]{0,7})( took)?")
_TIME = r"-|-?[0-9]{1,15}"
_STATE = re.compile(
    rf"(?P<word>released|stale|alive) (?P<since>{_TIME}) (?P<beat>{_TIME}) (?P<run>{RUN_ID.pattern})( (?P<holder>.*))?"
)


class LeaseState(Struct, frozen=True):
    """The holder of a machine at one moment. Times are seconds ago, or None for a lease from before a reboot."""

    run_id: str
    holder: str
    """The host and process of the run, in words."""
    held_since: float | None
    last_beat: float | None
    is_stale: bool


class Lease:
    """A run's right to use a machine alone.

    Args:
        root: the machine's folder for projects (`vm.root`).
        run_id: the run that takes the lease.
        resumes: this process resumes the run. It takes the lease over from the run's dead process at once, from any
            host. A new run never takes over from another run of the same name.
        holder: the run's process in words, for others that wait: `host pid 123`.
        stale_after: seconds without a sign of life after which it takes over another run's lease.
        beat_every: seconds between two signs of life of our own.
        on_lost: gets one sentence, from any thread, when another run takes the lease over.
        gate: the lease opens it.
        in_line_for: identifies the machine and its root. Runs of this process that wait for the same ones get the
            lease in their order. Only the first one asks the machine for it.
    """

    def __init__(
        self,
        machine: Machine,
        root: str,
        run_id: str,
        *,
        holder: str,
        resumes: bool = False,
        stale_after: float = STALE_AFTER,
        beat_every: float = BEAT_EVERY,
        on_lost: Callable[[str], None] = lambda _: None,
        gate: Gate | None = None,
        in_line_for: str = "",
    ) -> None:
        self._machine = machine
        self._folder = folder_of(root)
        self._stale_after = stale_after
        self._beat_every = beat_every
        self._nonce = secrets.token_hex(16)
        self._words = (self._nonce, run_id, _plain(holder)[: limits.LEASE_HOLDER.most])
        self._taken_from = run_id if resumes else ""
        self._may_be_ours = False
        self._lost: str | None = None
        self._on_lost = on_lost
        self._heard = 0.0
        self._gate = gate or Gate(SystemDir.on_vm(root).path)
        self._line = _line_for(in_line_for) if in_line_for else _Line()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    @property
    def lost(self) -> str | None:
        """A sentence on the run that took the machine over, after this run gave no sign of life."""
        return self._lost

    def acquire(self, wait: float, give_up: Callable[[], bool], on_wait: Callable[[str], None]) -> None:
        """Take the lease, once, and keep it alive until `release`.

        If the machine goes away while another run has it, the wait continues and keeps its place in the line.

        Args:
            wait: seconds to wait for the other run's end; 0 for no wait.
            give_up: returns True to end the wait; called about every second.
            on_wait: gets a sentence on the run that we wait for: first one of this process, then the holder.

        Raises `VmBusy`; `Unavailable` if the machine is unreachable, or the lease cannot be written there.
        """
        deadline = time.monotonic() + wait
        holder: LeaseState | None = None
        with self._line.joined(self):
            if wait and not self._line.is_first(self):
                on_wait(f"waiting for the VM {self._machine.host}: other runs of this process come before this one")
                self._line.come_first(self, deadline, give_up)
            while state := self._tried(holder):
                left = deadline - time.monotonic()
                if left <= 0 or give_up():
                    self._may_be_ours = False
                    raise VmBusy(
                        f"the VM {self._machine.host} is busy: {_in_words(state)}",
                        f"wait for it with --wait 10m, or cancel it: pccpipe cancel {state.run_id}",
                    )
                if not holder:
                    on_wait(f"waiting for the VM {self._machine.host}: {_in_words(state)}")
                holder = state
                self._line.wait(deadline)
        self._heard = _now()
        self._thread.start()

    def hello(self, run: Callable[[str, float], Done]) -> None:
        """Ask through a new connection whether the lease is still ours, before anything else uses the connection.

        Raises `Fenced` if it is not; `Unavailable`, ConnectionError and TimeoutError as `run` does.
        """
        done = run(_script(self._folder, self._stale_after, *self._beat), ANSWER_TIMEOUT)
        try:
            state = _answer(self._machine.host, self._folder, done)
        except Unavailable:
            return  # perhaps a full disk; no other run has the lease
        self._heard = _now()
        if state:
            raise Fenced(self._note_lost(state))

    def check(self) -> None:
        """Raise `Fenced` if another run took the lease over.

        It asks the machine only if the last sign of life is overdue, as in a process that was suspended. Raises
        `Unavailable` if there is no answer.
        """
        if self._lost is None and not self._end.is_set() and _now() - self._heard > OVERDUE * self._beat_every:
            self._make_sure()
        if self._lost is not None:
            raise Fenced(self._lost)

    def _make_sure(self) -> None:
        """Ask the machine whether the lease is still ours. Raises `Fenced`, `Unavailable`."""
        self._heed(self._ask(*self._beat))

    def _heed(self, state: LeaseState | None) -> None:
        """Use an answer. Raises `Fenced` if another run has the lease."""
        self._heard = _now()
        if state:
            self._on_lost(self._note_lost(state))
            raise Fenced(self._note_lost(state))

    def _look_again(self) -> None:
        """End what was just starting when this run took over. Raises `Fenced`, `Unavailable`."""
        nonce, run_id, _ = self._words
        self._heed(self._ask("pcc_look_again", nonce, run_id, str(self._gate.number)))

    @property
    def _beat(self) -> tuple[str, ...]:
        return ("pcc_beat", *self._words, str(self._gate.number or ""))

    def _note_lost(self, state: LeaseState) -> str:
        self._lost = f"the VM {self._machine.host} was taken over from this run: {_in_words(state)}"
        return self._lost

    def _tried(self, holder: LeaseState | None) -> LeaseState | None:
        """Try to take the lease; return None on success, else its holder.

        Args:
            holder: the holder at the last answer. While the machine is away, that run counts as the holder.
        """
        self._may_be_ours = True
        try:
            return reconnecting(self._machine, self._take)
        except Unavailable as no:
            if holder and no.reason in VM_AWAY:
                return holder
            raise

    def _take(self) -> LeaseState | None:
        script = _script(self._folder, self._stale_after, "pcc_take", *self._words, self._taken_from)
        done = self._machine.run(script, ANSWER_TIMEOUT)
        if held := _HELD.fullmatch(done.stdout.decode(errors="replace").strip()):
            self._gate.open(int(held[1]), self._make_sure, self._look_again if held[2] else None)
            return None
        return _answer(self._machine.host, self._folder, done)

    def keep(self) -> None:
        """Stop the heartbeat, and leave the lease to the run's next process. Idempotent; never raises."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_TIMEOUT)
        self._may_be_ours = False
        self._line.move()

    def release(self, folder: str = "") -> None:
        """Give the lease back if it is still ours. Idempotent; never raises: otherwise the lease goes stale.

        Args:
            folder: a folder that goes too if it is empty.
        """
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_TIMEOUT)
        if self._may_be_ours and not self._lost:
            self._may_be_ours = False
            with contextlib.suppress(Unavailable, OSError):
                self._ask("pcc_give_back", self._nonce, folder)
            self._gate.close()
            self._line.move()

    def _ask(self, *call: str) -> LeaseState | None:
        return reconnecting(self._machine, lambda: _ask(self._machine, self._folder, self._stale_after, *call))

    def _beat_on(self) -> None:
        due = time.monotonic() + self._beat_every
        while not self._end.wait(max(0.0, due - time.monotonic())):
            # Counted from the start of this beat: after a long failed one, the next follows at once.
            due = time.monotonic() + self._beat_every
            try:
                state = _ask(self._machine, self._folder, self._stale_after, *self._beat)
            except Fenced:
                return
            except (Unavailable, OSError):
                continue
            self._heard = _now()
            if state:
                self._on_lost(self._note_lost(state))
                return


class _Line:
    """The leases of this process that wait for one machine, in their order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Lease] = []

    @contextlib.contextmanager
    def joined(self, lease: Lease) -> Iterator[None]:
        with self._changed:
            self._waiting.append(lease)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.remove(lease)
                self._changed.notify_all()

    def is_first(self, lease: Lease) -> bool:
        with self._changed:
            return self._waiting[0] is lease

    def come_first(self, lease: Lease, deadline: float, give_up: Callable[[], bool]) -> None:
        """Wait until the lease is the first, or its time is over."""
        with self._changed:
            while self._waiting[0] is not lease and time.monotonic() < deadline and not give_up():
                self._wait(deadline)

    def wait(self, deadline: float) -> None:
        """Wait until the next question is due: `POLL_EVERY` has passed, or something changed in this process."""
        with self._changed:
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        self._changed.wait(min(POLL_EVERY, max(0.0, deadline - time.monotonic())))

    def move(self) -> None:
        """Wake the others: a run let the machine go."""
        with self._changed:
            self._changed.notify_all()


@functools.cache
def _line_for(address: str) -> _Line:  # noqa: ARG001 - one line for each address
    return _Line()


def read_lease(machine: Machine, root: str, stale_after: float = STALE_AFTER) -> LeaseState | None:
    """Return the holder of the machine, if there is one. Raises `Unavailable`."""
    return reconnecting(machine, lambda: _ask(machine, folder_of(root), stale_after, "pcc_read"))


def _ask(machine: Machine, folder: str, stale_after: float, *call: str) -> LeaseState | None:
    """Call a function of lease.sh; return the other run that has the lease, if there is one."""
    return _answer(machine.host, folder, machine.run(_script(folder, stale_after, *call), ANSWER_TIMEOUT))


def _script(folder: str, stale_after: float, *call: str) -> str:
    settings = f"pcc_lease={shlex.quote(folder)} pcc_stale={round(stale_after * 100)}\n"
    return f"{settings}{program()}{shlex.join(call)}"


def _answer(host: str, folder: str, done: Done) -> LeaseState | None:
    """Read the answer of lease.sh; return the other run that has the lease. Raises `Unavailable` if the call failed."""
    said = done.stdout[: limits.LEASE_ANSWER.most].decode(errors="replace").strip()
    if said in ("held", "free") or _HELD.fullmatch(said):
        return None
    if state := _STATE.fullmatch(said):
        since, beat = _seconds(state["since"]), _seconds(state["beat"])
        holder = _SESSION.sub("", _plain(state["holder"] or ""))
        return LeaseState(state["run"], holder, since, beat, state["word"] == "stale")
    if said.startswith("refused ") or not said:
        words = said.removeprefix("refused ") or done.stderr.decode(errors="replace").strip()
        raise cannot_write(host, words or f"{folder} cannot be used")
    raise Nonsense(host, "lease", said)


@functools.cache
def program() -> str:
    """Return the shell functions that the calls of a lease use."""
    return shell_functions(*(Path(__file__).with_name(name) for name in ("lease.sh", "takeover.sh")))


def folder_of(root: str) -> str:
    """Return the folder with the lease of a machine whose folder for projects is `root`."""
    return SystemDir.on_vm(root).lease


def _now() -> float:
    # Unlike time.monotonic(), this clock runs while the machine is suspended.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _seconds(hundredths: str) -> float | None:
    # lease.sh rounds a sign of life up, so the last one may be in the future.
    return None if hundredths == "-" else max(0.0, int(hundredths) / 100)


def _plain(words: str) -> str:
    """Make one line that fits into the text of a link, and onto a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())


def _in_words(state: LeaseState) -> str:
    name = f"run {state.run_id} ({state.holder})"
    if state.held_since is None or state.last_beat is None:
        return f"{name} has had it since before the VM's last reboot"
    held, beat = _duration(state.held_since), _duration(state.last_beat)
    return f"{name} has had it for {held}, its last sign of life was {beat} ago"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
