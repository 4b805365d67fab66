"""Strangers' names in commands to paste: a shell reads each as one word, and never as an option."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe.checkup.check import Fix
from pccpipe.checkup.checks import account, engine, login, strays, system
from pccpipe.docker_api.problems import ApiCall, unavailable
from pccpipe.errors import Nonsense, Unavailable
from pccpipe.machine.base import Done, Facts
from pccpipe.outcome import Reason
from pccpipe.paste import operands
from pccpipe.ssh.keys import add_to_agent
from pccpipe.ssh.known_hosts import HostKey, KnownHosts
from pccpipe.views.summary import questions

HOSTILE = st.one_of(
    st.sampled_from(
        ["-oProxyCommand=id", "$(id)", "`id`", "a b", "a;id", "'", '"', "a\nid", "&& id", "#", "~", "*", "\\", ">x"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
)
"""No name has a NUL."""
KEY = HostKey("ssh-ed25519", b"key")


def words_of(command: str) -> list[str]:
    """Split as a shell does; names that look like options come after `--`."""
    return shlex.split(command, comments=True)


def holds(command: str, *names: str) -> None:
    words = words_of(command)
    for name in names:
        assert name in words, (command, name)
        assert not name.startswith("-") or "--" in words[: words.index(name)]


class Vm:
    """Answer each script with the same words."""

    host = "vm"
    facts = Facts(1000, 1000, "pcc", "/home/pcc", "Linux", has_engine=False)

    def __init__(self, said: str = "", code: int = 0, user: str = "pcc") -> None:
        self.done = Done(code, said.encode(errors="surrogateescape"), b"")
        self.facts = Facts(1000, 1000, user, "/home/pcc", "Linux", has_engine=False)

    def run(self, script: str, timeout: float = 60.0) -> Done:
        return self.done


def context(machine: Vm, **more: Any) -> Any:
    def run(script: str, timeout: float = 15.0) -> Done:
        return machine.run(script, timeout)

    settings = SimpleNamespace(external_ip="192.0.2.7", port=22, user="pcc", known_hosts=None, key_path=None)
    vm = SimpleNamespace(**{**vars(settings), "proxy_jump": None, "run_as": "pccrun", **more.pop("vm", {})})
    given = {"machine": machine, "vm": vm, "sudo": "sudo ", "root": "/srv/p", "run": run, "has_systemd": True, **more}
    given["words_of"] = lambda script, timeout=15.0: machine.run(script).stdout.decode(errors="replace").strip()
    return SimpleNamespace(**given)


def command(fix: Fix | None) -> str:
    assert fix is not None
    return fix.command


@given(st.lists(HOSTILE, min_size=1, max_size=3))
def test_operands_are_words(names: list[str]) -> None:
    words = shlex.split(f"rm {operands(*names)}")
    assert words[-len(names) :] == names
    assert words[1:2] == ["--"] or not any(name.startswith("-") for name in names)


@given(HOSTILE)
def test_an_image_that_is_missing(name: str) -> None:
    hint = unavailable(ApiCall.CREATE, 404, "no such image", image=name).hint
    pull = hint.removeprefix("pccpipe provision (or, on that engine: ").removesuffix(")")
    end_of_options = ["--"] if name.startswith("-") else []
    assert shlex.split(pull) == ["docker", "pull", *end_of_options, name]


@given(HOSTILE, HOSTILE)
def test_a_host_that_is_not_known(host: str, file: str) -> None:
    for jump in ("", "a b@hop"):
        known = KnownHosts(Path("/nonexistent") / file.replace("/", "_"), host, 2222, jump)
        with pytest.raises(Unavailable) as caught:
            known.check(KEY, accept_new=False)
        scan = caught.value.hint.partition("then: ")[2]
        holds(scan, host)
        assert words_of(scan)[0] == ("ssh" if jump else "ssh-keyscan")


@given(HOSTILE)
def test_keys_for_an_agent(name: str) -> None:
    holds(
        add_to_agent(Path(name)).rpartition("&& ")[2] if "&&" not in name else f"ssh-add {operands(name)}",
        str(Path(name)),
    )


@given(HOSTILE, HOSTILE)
def test_a_vm_that_refuses_the_login(host: str, user: str) -> None:
    settings = {"external_ip": host, "user": user, "key_path": "/home/me/a key"}
    for reason, look, names in (
        (Reason.SSH_HOST_KEY_UNKNOWN, login.host_key, (host,)),
        (Reason.SSH_AUTH_FAILED, login.login, (f"{user}@{host}",)),
        (Reason.SSH_SESSION_REFUSED, login.login, (user,)),
    ):
        found = look(context(Vm(), vm=settings, login_refusal=Unavailable(reason, "the VM gave no shell: exit code 1")))
        holds(command(found.fix), *names)


@given(HOSTILE, HOSTILE)
def test_a_folder_and_a_login_in_advice(folder: str, user: str) -> None:
    machine = Vm("drwx------ /", 1, user)
    holds(command(system.folder(context(machine, root=f"/{folder}")).fix), f"/{folder}")
    holds(command(system.folder(context(Vm("a .system", 1), root=f"/{folder}")).fix), f"/{folder}/.system")
    without = context(
        machine, engine=SimpleNamespace(socket="/s"), engine_refusal=Unavailable(Reason.ENGINE_STOPPED, "no")
    )
    holds(command(engine.group(without).fix), user)


@given(HOSTILE)
def test_a_path_that_the_account_names(name: str) -> None:
    someone = context(Vm(), engine=SimpleNamespace(socket="/var/run/docker.sock"))
    for kind, verb, path in (
        ("mode", "write to ", f"/{name}"),
        ("mode", "read ", f"/srv/p/{name}"),
        ("home", "write to its home ", f"/{name}"),
    ):
        fix = account._close(someone, "pccrun", (kind, f"{verb}{path}"))
        holds(command(fix), path)
        assert not fix.is_safe or path.startswith("/srv/p/.system/run-")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("mode", "read /"),
        ("mode", "read /etc/passwd"),
        ("mode", "write to relative"),
        ("mode", "say /x"),
        ("engine", "use /etc/shadow"),
        ("home", "write to its home "),
        ("other", "read /srv/p/x"),
    ],
)
def test_no_fix_follows_the_accounts_own_words(kind: str, words: str) -> None:
    someone = context(Vm(), engine=SimpleNamespace(socket="/var/run/docker.sock"))
    assert account._close(someone, "pccrun", (kind, words)) is None


def test_fix_changes_no_folder_of_another_root() -> None:
    someone = context(Vm())
    for words in ("read /home/other/.system/run-state", "write to /x/.system/run-workspaces"):
        fix = account._close(someone, "pccrun", ("mode", words))
        assert fix is None or not fix.is_safe


@given(HOSTILE)
def test_processes_to_kill(name: str) -> None:
    someone = context(Vm(f"12 sleep 9\n{name}\n"))
    with contextlib.suppress(Nonsense):
        words = words_of(command(strays.processes(someone).fix))
        assert words[0] == "kill"
        assert all(word.isascii() and word.isdecimal() for word in words[1:])


@pytest.mark.parametrize("said", ["$(id) x\n", "12\n", "12 a\n" * 21, "-1 a\n", "99999999999999 a\n", "1\x0c 2\n"])
def test_a_senseless_list_of_processes_is_nonsense(said: str) -> None:
    with pytest.raises(Nonsense):
        strays.processes(context(Vm(said)))


@pytest.mark.parametrize("uid", ["-1", "x", "1e9", "0x10", "4294967296", "$(id)", ""])
def test_a_senseless_uid_of_the_account_is_nonsense(uid: str) -> None:
    someone = context(Vm(), once=lambda _, ask: account.AccountFacts({"uid": uid, "manager": "enabled"}))
    with pytest.raises(Nonsense):
        account.account(someone)


@given(HOSTILE)
def test_answers_that_a_person_has_to_give(key: str) -> None:
    question = SimpleNamespace(step="a", needed="x", tried="", inputs={key: "why"}, missing=[key])
    state: Any = SimpleNamespace(open_questions=[question], run_id="r")
    line = next(line for line in questions(state, Path(".system/runs/r")) if "answer:" in line)
    words = words_of(line.removeprefix("to answer: "))
    assert words[:3] == ["pccpipe", "answer", "r"]
    assert len(words) == 4


@given(HOSTILE)
def test_an_administrators_commands_are_pccpipes_own(user: str) -> None:
    first, second = account.by_administrator(context(Vm("  rm -rf /\n", user=user)), "pccrun")
    assert shlex.split(first)[:2] == ["useradd", "-r"]
    assert shlex.split(second)[:1] == ["echo"]
    assert shlex.split(second)[1] in {f"{user} ALL=(pccrun) NOPASSWD: ALL", "#1000 ALL=(pccrun) NOPASSWD: ALL"}


def test_they_are_the_ones_of_provision() -> None:
    text = account._script("pccrun").replace("$ACCOUNT", "pccrun").replace("\\$f", "$f")
    first, second = account.by_administrator(context(Vm()), "pccrun")
    make, _, rest = first.partition("; ")
    deny, _, limit = rest.partition("; echo")
    assert make in text
    assert deny in text
    assert limit.partition(" >")[0] in text
    assert limit.partition(" >")[2] in text
    assert second.partition(" >")[2].split(" ")[0] in text
    assert "chmod 440 $rule && visudo -c" in text
