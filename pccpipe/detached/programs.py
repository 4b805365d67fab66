"""Writes the programs for a lane's sh: calls of the functions in lane.sh and control.sh, with a command's values."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from pccpipe.errors import Lost, Refused
from pccpipe.layout import COMMANDS
from pccpipe.machine.account import PATH, PROCESSES, Account
from pccpipe.machine.entering import base_of
from pccpipe.machine.gate import Gate
from pccpipe.machine.script import shell_functions
from pccpipe.outcome import Stream
from pccpipe.search_path import as_shell_word
from pccpipe.shells import dialect_of
from pccpipe.target import EXPORTS, Command, Token

Offsets: TypeAlias = tuple[int, int]
"""Numbers of bytes in a lane's spools: of stdout, of stderr."""

KILL_AFTER = 30.0
"""Seconds between TERM and KILL at `Command.limit`, and the longest grace of `stop`."""

SCRIPT = ".pccpipe-script"
"""The script's file in the HOME of a command of the account, for an interpreter other than a shell."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LANE = ("tools.sh", "lane.sh", "ending.sh")
_CONTROL = ("tools.sh", "control.sh")
_CONTROL_OF_ACCOUNT = ("tools.sh", "account.sh", "control.sh")


class RunDir(Struct, frozen=True):
    """The folder of a run's commands on a machine. Paths are the machine's own."""

    run_id: str
    state: str
    """The folder for the files of the run's commands; the end of the run removes it."""
    account: Account | None = None
    """The account that runs commands there; None for the login."""
    gate: Gate | None = None
    """The gate through which commands begin, where another host may take the machine over."""

    @property
    def tag(self) -> str:
        """The word in the environment of the run's processes. Another run elsewhere may have the same id."""
        return f"{self.run_id}-{hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]}"

    def file_of(self, command_id: str, kind: str) -> str:
        return f"{self.state}/{COMMANDS}/{command_id}.{kind}"

    def reached(self, path: str) -> str:
        """Lead a path below `state` through the gate, so that it works only while the machine is the run's."""
        return self.gate.through(path) if self.gate else path

    def account_of(self, command: Command) -> Account | None:
        """Return the account that a command runs as, or None for the login."""
        return None if command.as_login else self.account


class CommandRef(Struct, frozen=True):
    """A command on a lane, as the record keeps it: the data for following it."""

    id: str
    mark: str
    """The word behind which the lane answers, and ends the command's output. Nobody can guess it."""
    folder: str
    """The lane's folder."""
    offsets: Offsets
    """The beginning of the command's output in the lane's spools."""

    def token(self) -> Token:
        stdout, stderr = self.offsets
        return {"id": self.id, "mark": self.mark, "lane": self.folder, "stdout": stdout, "stderr": stderr}

    @staticmethod
    def of(token: Token) -> CommandRef:
        """Read a token of the record. Raises `Lost` for one that this class did not make."""
        match token:
            case {"id": str(id_), "mark": str(mark), "lane": str(folder), "stdout": int(stdout), "stderr": int(stderr)}:
                return CommandRef(id_, mark, folder, (stdout, stderr))
            case _:
                raise Lost(f"the record does not say where the command runs: {token}")


def open_lane(run_dir: RunDir, mark: str, folder: str) -> bytes:
    """Make a plain sh the lane whose files are in `folder`."""
    return _encoded(_with(_LANE, run_dir, "pcc_open", mark, folder))


def open_control(run_dir: RunDir, mark: str) -> bytes:
    return _encoded(_with(_CONTROL, run_dir, "pcc_open_control", mark))


def attach(run_dir: RunDir, mark: str, folder: str, command_id: str, offsets: Offsets) -> bytes:
    """Show a command of the lane in `folder`, from these bytes of its spools on."""
    call = ["pcc_attach", mark, command_id, folder, *map(str, offsets)]
    return _encoded(_with(_LANE, run_dir, shlex.join(call), mark, folder))


def begin(
    run_dir: RunDir,
    ref: CommandRef,
    command: Command,
    workspace: str,
    kill_after: float = KILL_AFTER,
    *,
    is_own: bool = False,
) -> bytes:
    """Begin a command on the lane that `ref` names.

    Args:
        is_own: the workspace is pccpipe's own. The lane refuses the command if it is missing, or a link.

    The program is one group of braces, so it does nothing at all if a broken connection cuts it short.

    Raises `Refused` for values that no shell can take: a NUL byte, or an invalid name of a variable.
    """
    account = run_dir.account_of(command)
    folder = workspace if command.cwd in ("", ".") else f"{workspace}/{command.cwd}"
    call = [
        *("pcc_begin", ref.mark, command.id),
        *(_seconds(command.limit), str(int(command.limit * 100)), _seconds(kill_after)),
        *(folder, "" if account else command.script, *shlex.split(command.shell)),
    ]
    where = f"pcc_where={shlex.quote(' '.join([*map(str, ref.offsets), ref.folder]))}"
    if account:
        functions = _of_account(account, run_dir, command, workspace, folder, kill_after)
    else:
        functions = f"pcc_env() {{\n{_exports(run_dir, command, workspace)}}}\n{_folders(run_dir, command)}"
    user = f"pcc_user={shlex.quote(account.name if account else '')}"
    base, inner = base_of(workspace) if is_own else ("", "")
    within = f"pcc_base={shlex.quote(base)} pcc_inner={shlex.quote(inner)}"
    text = f"{{\n{where} {user} {within}\n{functions}{_join(call)}\n}}\n"
    if "\0" in text:
        raise Refused("a NUL byte in its script or environment: no shell can take that")
    return _encoded(text)


def stop(command_id: str, grace: float) -> bytes:
    return _call("pcc_stop", command_id, str(max(0, round(grace * 10))))


def discard(command_ids: list[str]) -> bytes:
    return _call("pcc_discard", *command_ids)


def discard_lane(folder: str) -> bytes:
    return _call("pcc_discard_lane", folder)


def is_alive(mark: str, command_id: str) -> bytes:
    """Ask whether a command's supervisor is still running: `yes` or `no`."""
    return _call("pcc_is_alive", mark, command_id)


def measure(mark: str, folder: str) -> bytes:
    """Ask for the sizes of the two spools of the lane in `folder`."""
    return _call("pcc_measure", mark, folder)


def punch(folder: str, stream: Stream, start: int, size: int) -> bytes:
    """Free the disk of a part of a spool, which then reads as zeros, if the file system can do that."""
    return _call("pcc_punch", f"{folder}/{'out' if stream is Stream.STDOUT else 'err'}", str(start), str(size))


def seek(mark: str, command_id: str) -> bytes:
    """Look for a command that another process of the run may have begun: mark, offsets, lane; or `none`."""
    return _call("pcc_seek", mark, command_id)


def void(mark: str, command_id: str, its_mark: str) -> bytes:
    """Make sure that an unconfirmed command never begins: `void`, or `begun` if it did."""
    return _call("pcc_void", mark, command_id, its_mark)


def end_run(run_dir: RunDir) -> str:
    """Write a script that kills the run's processes on the machine, and removes the files of its commands."""
    files = _CONTROL_OF_ACCOUNT if run_dir.account else _CONTROL
    return _with(files, run_dir, "pcc_end_run")


def sweep(run_dir: RunDir, ended: Iterable[str], spared: Iterable[str] = (), *, only_if_idle: bool) -> str:
    """Write a script that kills all processes of the account.

    It prints `clean`, `busy ID`, or `left` with the names of processes that it could not kill in 5 s.

    Args:
        ended: commands of the run that have ended.
        spared: the ids of the run's containers that are running.
        only_if_idle: do nothing while a command of the run is running that is not in `ended`.
    """
    words = ["pcc_sweep_idle", *ended] if only_if_idle else ["pcc_sweep_all"]
    call = f"pcc_spared={shlex.quote('|'.join(spared))}\n{shlex.join(words)}"
    return _with(_CONTROL_OF_ACCOUNT, run_dir, call)


def fetch(run_dir: RunDir, command_id: str, name: str, limit: int) -> str:
    """Write a script that prints a file of PCC_OUT. It exits with 3 if that is missing, with 4 if it is not plain."""
    script = _fetch_from(run_dir.file_of(command_id, "out"), name, limit)
    if run_dir.account is None:
        return script
    # Only commands of the login have their folders there, where the account cannot make one.
    out = shlex.quote(run_dir.file_of(command_id, "out"))
    of_account = _fetch_from(run_dir.account.folder_of(command_id, "out"), name, limit)
    as_account = shlex.join([*run_dir.account.become, "sh", "-c", of_account])
    return f"[ -e {out} ] || {{ cd /; exec {as_account}; }}{script}"


def _fetch_from(out: str, name: str, limit: int) -> str:
    folder, file = shlex.quote(out), shlex.quote(f"{out}/{name}")
    return f"""
        [ -d {folder} ] && [ ! -L {folder} ] || exit 3
        [ -L {file} ] && exit 4
        [ -e {file} ] || exit 3
        [ -f {file} ] || exit 4
        exec head -c {limit + 1} {file}"""


def _with(files: tuple[str, ...], run_dir: RunDir, call: str, mark: str = "", folder: str = "") -> str:
    values = {
        "pcc_state": run_dir.state,
        "pcc_run": run_dir.tag,
        "pcc_folder": folder,
        "pcc_reply": mark,
        "pcc_account": "",
        "pcc_claims": run_dir.reached(f"{run_dir.state}/{COMMANDS}"),
        "pcc_gate": run_dir.gate.link if run_dir.gate else "",
    }
    if account := run_dir.account:
        values |= {
            "pcc_account": account.name,
            "pcc_uid": str(account.uid),
            "pcc_gid": str(account.gid),
            "pcc_login": str(account.login_uid),
            "pcc_io": account.io,
            "pcc_spared": "",
        }
    return script_of(files, values, call)


def script_of(files: tuple[str, ...], values: Mapping[str, str], call: str) -> str:
    """Write a script that sets these variables, defines the functions of files beside this one, and makes a call."""
    settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return f"{settings}{shell_functions(*(Path(__file__).with_name(file) for file in files))}{call}\n"


def _exports(run_dir: RunDir, command: Command, workspace: str) -> str:
    """Write lines that set the command's environment."""
    values = environment(run_dir, command, workspace)
    words = {name: shlex.quote(value) for name, value in values.items()}
    if "PATH" in values:
        words["PATH"] = as_shell_word(values["PATH"], workspace, PATH)
    lines = "".join(f"export {name}={word}\n" for name, word in words.items())
    return f"unset PCC_IN PCC_OUT PCC_ENV\n{lines}"


def _of_account(
    account: Account, run_dir: RunDir, command: Command, workspace: str, folder: str, kill_after: float
) -> str:
    """Write the functions that a lane calls for a command of the account. Its script goes through stdin, not a file."""
    end = f"end-{secrets.token_hex(8)}"
    script = command.script if command.script.endswith("\n") else f"{command.script}\n"
    quoted = shlex.quote(folder)
    words = _join(["-k", _seconds(kill_after), _seconds(command.limit)])
    shell, *rest = map(shlex.quote, command.shell.split(" "))
    options, file, keep = " ".join(rest), "/proc/self/fd/9", ""
    find = f"pcc_shell=$(command -v {shell}) || pcc_shell={shell}"
    if not dialect_of(command.shell):
        # Not every interpreter reads a pipe by its path, and the command's own PATH has it.
        file, find = shlex.quote(f"{account.folder_of(command.id, 'home')}/{SCRIPT}"), f"pcc_shell={shell}"
        keep = f"cat <&9 >{file} && exec 9<&- || {{ echo 'pccpipe: HOME cannot store the script' >&2; exit 126; }}\n"
    text = (
        "exec </dev/null\n"
        # Shells name this limit in two ways.
        f"ulimit -u {PROCESSES} 2>/dev/null || ulimit -p {PROCESSES} 2>/dev/null\n"
        f"cd {quoted} 2>/dev/null ||"
        f" {{ printf 'pccpipe: the folder %s cannot be entered\\n' {quoted} >&2; exit 127; }}\n"
        # The command's own PATH may not have its shell.
        f"{find}\n"
        f'set -- "$1" {words} "$pcc_shell" {options} {file}\nunset OLDPWD pcc_shell\nexport PWD\n'
        f"exec 9<<'{end}'\n{script}{end}\n{keep}"
        f"{account.environment(command.id)}{_exports(run_dir, command, workspace)}"
        'exec $pcc_walls "$@"\n# pccpipe: this is all of it'
    )
    lay_out = shlex.quote(_account_folders(account, command))
    boot = """sh -c 'p=$(cat) && eval "$p"'"""
    return (
        f"pcc_text() {{\nprintf %s {shlex.quote(text)}\n}}\n"
        f"pcc_files() {{\nprintf %s {lay_out} | (cd / && pcc_exec_as {boot})\n}}\n"
    )


def _account_folders(account: Account, command: Command) -> str:
    """Write a script that makes a command's folders, as the account. It replaces everything that is already there."""
    home, files, out = (account.folder_of(command.id, kind) for kind in ("home", "in", "out"))
    steps = ["umask 077", _join(["rm", "-rf", "--", home, files, out]), _join(["mkdir", home])]
    if command.files:
        steps.append(_join(["mkdir", files]))
        steps += [f"{_printf(data)} >{shlex.quote(f'{files}/{name}')}" for name, data in command.files.items()]
    if command.wants_out:
        steps.append(_join(["mkdir", out]))
    return " &&\n".join(steps)


def environment(run_dir: RunDir, command: Command, workspace: str) -> Mapping[str, str]:
    """Return the variables of a command, with those that pccpipe itself sets. Raises `Refused` for an invalid name."""
    values = {
        **command.env,
        **command.secrets,
        "PCC_WORKSPACE": workspace,
        "PCC_RUN_ID": run_dir.run_id,
        # This marks the command's processes, so that they can be found wherever they went.
        "PCCPIPE_STEP": f"{run_dir.tag}/{command.id}/",
    }
    account = run_dir.account_of(command)
    folder_of = account.folder_of if account else run_dir.file_of
    if command.files:
        values["PCC_IN"] = folder_of(command.id, "in")
    if command.wants_out:
        values["PCC_OUT"] = folder_of(command.id, "out")
    if command.has_exports:
        values["PCC_ENV"] = f"{values['PCC_OUT']}/{EXPORTS}"
    for name in values:
        if not _NAME.fullmatch(name):
            raise Refused(f"invalid name of an environment variable: {name!r}")
    return values


def _folders(run_dir: RunDir, command: Command) -> str:
    steps = []
    if command.files:
        folder = run_dir.file_of(command.id, "in")
        steps.append(_join(["mkdir", folder]))
        steps += [f"{_printf(data)} >{shlex.quote(f'{folder}/{name}')}" for name, data in command.files.items()]
    if command.wants_out:
        steps.append(_join(["mkdir", run_dir.file_of(command.id, "out")]))
    body = " &&\n".join(steps) or ":"
    return f"pcc_files() {{\n{body}\n}}\n"


def _printf(data: bytes) -> str:
    """Write a call of printf that prints these bytes; an argument can hold any byte but NUL."""
    parts = [part.decode(errors="surrogateescape") for part in data.split(b"\0")]
    return _join(["printf", "\\000".join(["%s"] * len(parts)), *parts])


def _call(*words: str) -> bytes:
    return _encoded(_join(words) + "\n")


def _join(words: tuple[str, ...] | list[str]) -> str:
    return " ".join(map(shlex.quote, words))


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}"


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def write_files(run_dir: RunDir, folder: str, files: Mapping[str, bytes]) -> str:
    """Write a script that makes a command's private folder, with these files in it."""
    to = run_dir.reached(folder)
    writes = [f"{_printf(data)} >{shlex.quote(f'{to}/{name}')}" for name, data in files.items()]
    return " &&\n".join(
        ["umask 077", f"mkdir -p {shlex.quote(f'{run_dir.state}/{COMMANDS}')}", make_folder(to), *writes]
    )


def make_folder(folder: str) -> str:
    """Write a line that makes a folder without its parents, so that it fails behind a gate that is gone."""
    return f"{{ [ -d {shlex.quote(folder)} ] || mkdir {shlex.quote(folder)}; }}"
