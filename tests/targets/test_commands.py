"""The guarantees of every target to a command."""

from __future__ import annotations

import hashlib
import resource
import shlex
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pccpipe.detached.lane import Lane
from pccpipe.errors import Lost, ResultError
from pccpipe.machine.base import Machine
from pccpipe.outcome import Stream
from pccpipe.target import Chunk, Exit
from tests.targets.stand import Stand, read_all, read_into, read_until, until

NASTY = "'\"$HOME `id` \\ $(id) ${x} !! % %s \\n é 漢 \U0001f600 \t * ? [a] {b} ~ # ; & | < > \x01\x1e\x7f"


def test_stdout_and_stderr_stay_apart_and_in_order(stand: Stand) -> None:
    out, err, exit_ = stand.run("for i in 1 2 3; do echo out $i; echo err $i >&2; done")
    assert (out, err, exit_) == (b"out 1\nout 2\nout 3\n", b"err 1\nerr 2\nerr 3\n", Exit(0))


def test_output_arrives_while_the_command_runs(stand: Stand) -> None:
    running = stand.start("echo first; sleep 2; echo second")
    started = time.monotonic()
    read_until(running, b"first\n")
    assert time.monotonic() - started < 1.5
    assert read_all(running)[0] == b"second\n"
    running.discard()


@pytest.mark.parametrize("code", [1, 2, 42, 124, 125, 126, 127, 200, 255])
def test_an_exit_code_is_the_commands_own(stand: Stand, code: int) -> None:
    assert stand.run(f"exit {code}")[2] == Exit(code)


def test_the_end_by_a_signal_is_named(stand: Stand) -> None:
    assert stand.run("kill -KILL $$")[2] == Exit(137, "KILL")
    assert stand.run("kill -SEGV $$")[2] == Exit(139, "SEGV")
    # By the shell's convention an exit code of 137 reads the same; it is not a time limit either.
    assert stand.run("exit 137")[2] == Exit(137, "KILL")


def test_a_command_begins_with_no_signal_ignored_or_blocked(stand: Stand) -> None:
    masks = stand.run("grep -E 'Sig(Ign|Blk)' /proc/self/status")[0].split()
    # A C library keeps some for itself, which no program can set.
    of_programs = sum(1 << number - 1 for number in signal.valid_signals())
    assert [int(mask, 16) & of_programs for mask in masks[1::2]] == [0, 0]
    assert stand.run("trap 'echo caught' INT; kill -INT $$; trap - INT; kill -INT $$") == (
        b"caught\n",
        b"",
        Exit(130, "INT"),
    )


def test_output_may_be_any_bytes(stand: Stand) -> None:
    script = 'i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %03o $i)"; i=$((i+1)); done'
    everything = bytes(range(256))
    assert stand.run(script)[0] == everything
    assert stand.run(f"{{ {script}; }} >&2")[1] == everything


def test_a_last_line_needs_no_newline_and_output_may_be_empty(stand: Stand) -> None:
    assert stand.run("printf 'no newline'; printf 'none here' >&2") == (b"no newline", b"none here", Exit(0))
    assert stand.run("") == (b"", b"", Exit(0))


def test_200_mb_arrive_complete_and_do_not_stay_in_memory(stand: Stand) -> None:
    # Each piece of it is different.
    script = "seq 1 30000000 | head -c 200000000"
    before = _peak_kb()
    digest = hashlib.sha256()
    running = stand.start(f"{{ {script} | tee /dev/fd/3 | sha256sum >&2; }} 3>&1")
    said = bytearray()
    count = 0

    def take(chunk: Chunk) -> None:
        nonlocal count
        if chunk.stream is Stream.STDERR:
            said.extend(chunk.data)
        else:
            count += len(chunk.data)
            digest.update(chunk.data)

    assert read_into(running, take).code == 0
    running.discard()
    assert count == 200_000_000
    assert said.split()[0].decode() == digest.hexdigest()
    assert _peak_kb() - before < 60_000


def test_stderr_alone_may_be_long(stand: Stand) -> None:
    assert len(stand.run("head -c 10000000 /dev/zero >&2; echo done")[1]) == 10_000_000


def test_a_command_may_close_its_output_and_go_on(stand: Stand) -> None:
    started = time.monotonic()
    assert stand.run("echo before; exec >&- 2>&-; sleep 1; exit 7") == (b"before\n", b"", Exit(7))
    assert time.monotonic() - started > 0.9


def test_a_command_may_reopen_its_output_by_name(stand: Stand) -> None:
    script = "echo one; echo two >/dev/stdout; echo three | tee /dev/stderr; echo four >>/dev/stdout"
    assert stand.run(script) == (b"one\ntwo\nthree\nfour\n", b"three\n", Exit(0))


def test_stdin_is_empty(stand: Stand) -> None:
    assert stand.run("cat; echo $?") == (b"0\n", b"", Exit(0))


CHILDREN = {
    "in the group": "sleep {nap} >/dev/null 2>&1 &",
    "in the group, holding the output": "sleep {nap} &",
    "with setsid": "setsid sleep {nap} >/dev/null 2>&1 &",
    "with setsid, holding the output": "setsid sleep {nap} &",
    "forked twice": "(setsid sh -c 'sleep {nap} & sleep {nap}' &) >/dev/null 2>&1",
    "in the group, with an empty environment": "env -i sleep {nap} >/dev/null 2>&1 &",
    "with an empty environment, holding the output": "env -i setsid sleep {nap} &",
    "deaf to TERM": "(trap '' TERM; sleep {nap} & wait) &",
}


@pytest.mark.parametrize("how", CHILDREN)
def test_children_left_behind_end_with_the_command(stand: Stand, how: str) -> None:
    started = time.monotonic()
    out, _, exit_ = stand.run(CHILDREN[how].format(nap=stand.nap) + "\necho done; exit 3")
    # A process that left the group ends after the command; without its environment, pccpipe cannot find it.
    assert (out, exit_) == (b"done\n", Exit(3, left_processes="env -i setsid" not in CHILDREN[how]))
    until(lambda: not stand.naps())
    assert time.monotonic() - started < 8
    assert stand.run("echo next")[0] == b"next\n"


def test_children_may_finish_in_a_moment(stand: Stand) -> None:
    assert stand.run("(sleep 0.5; echo late) & echo early")[0] == b"early\nlate\n"


TREE = """
    trap '' TERM
    sleep {nap} &
    setsid sleep {nap} >/dev/null 2>&1 &
    (setsid sh -c 'trap "" TERM; sleep {nap}; sleep {nap}' &)
    echo ready
    while :; do sleep {nap}; done
"""


def test_stop_ends_the_whole_tree_also_processes_that_ignore_term(stand: Stand) -> None:
    running = stand.start(TREE.format(nap=stand.nap))
    assert read_until(running, b"ready\n") == b"ready\n"
    until(lambda: stand.naps() >= 4)
    started = time.monotonic()
    running.stop(1.0)
    assert time.monotonic() - started < 0.5
    exit_ = read_all(running)[2]
    assert (exit_.code, exit_.timed_out) == (137, False)
    assert 0.9 < time.monotonic() - started < 4
    until(lambda: not stand.naps())
    running.discard()


def test_stop_gives_a_command_the_time_that_its_end_takes(stand: Stand) -> None:
    running = stand.start("trap 'sleep 1; echo goodbye; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
    read_until(running, b"ready\n")
    started = time.monotonic()
    running.stop(20.0)
    assert read_all(running)[::2] == (b"goodbye\n", Exit(9))
    assert 0.9 < time.monotonic() - started < 4
    running.discard()


def test_a_child_gets_the_grace_although_its_parent_ended_at_once(stand: Stand) -> None:
    child = "trap 'sleep 4; echo child has ended; exit' TERM; echo ready; while :; do sleep 0.1; done"
    running = stand.start(f'sh -c "{child}"')
    read_until(running, b"ready\n")
    running.stop(20.0)
    assert b"child has ended\n" in read_all(running)[0]
    running.discard()


def test_a_second_stop_shortens_the_grace(stand: Stand) -> None:
    running = stand.start("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    read_until(running, b"ready\n")
    running.stop(25.0)
    assert running.read(1.0) is None
    started = time.monotonic()
    running.stop(0.2)
    assert read_all(running)[2] == Exit(137, "KILL")
    assert time.monotonic() - started < 3
    running.discard()


def test_a_limit_ends_the_command_from_its_own_side_and_keeps_the_output(stand: Stand) -> None:
    out, _, exit_ = stand.run(f"echo so far; sleep {stand.nap}", limit=1.0)
    assert (out, exit_) == (b"so far\n", Exit(124, timed_out=True))
    out, _, exit_ = stand.run(f"trap '' TERM; echo so far; sleep {stand.nap} & sleep {stand.nap}", limit=1.0)
    assert out == b"so far\n"
    assert exit_.timed_out
    until(lambda: not stand.naps())


def test_scripts_and_values_may_contain_any_character(stand: Stand) -> None:
    assert stand.run(f"cat <<'END'\n{NASTY}\nEND\n")[0].decode() == f"{NASTY}\n"
    value = f"\n{NASTY}\n\n"
    out = stand.run('printf %s "$VALUE$SECRET"', env={"VALUE": value}, secrets={"SECRET": value})[0]
    assert out.decode() == value * 2


def test_a_script_may_be_long(stand: Stand) -> None:
    line = f"# {NASTY}\n"
    script = line * (1_000_000 // len(line.encode())) + "echo end"
    assert stand.run(script) == (b"end\n", b"", Exit(0))


def test_a_script_without_a_last_newline_and_with_a_syntax_error_is_the_commands_failure(stand: Stand) -> None:
    _, err, exit_ = stand.run("if true; then echo yes")
    assert exit_.code == 2
    assert b"yntax error" in err


def test_env_files_and_results(stand: Stand) -> None:
    files = {"plain.txt": b"text\n", "binary": bytes(range(256)) * 3, "empty": b"", "it's": b"\0\0"}
    script = """
        cd "$PCC_IN" && sha256sum plain.txt binary empty "it's" | cut -d' ' -f1
        printf '\\000result\\377' >"$PCC_OUT/result.json"; printf 12345 >"$PCC_OUT/long"
        ln -s /etc/passwd "$PCC_OUT/link"; mkdir "$PCC_OUT/folder"; mkfifo "$PCC_OUT/fifo"
        echo "$PCC_RUN_ID"; cd "$PCC_WORKSPACE" && pwd
    """
    running = stand.start(script, files=files, wants_out=True)
    out, err, exit_ = read_all(running)
    assert (err, exit_) == (b"", Exit(0))
    *digests, run_id, workspace = out.decode().splitlines()
    assert digests == [hashlib.sha256(data).hexdigest() for data in files.values()]
    assert run_id.startswith("run-")
    assert workspace == stand.workspace

    assert running.fetch("result.json", 8) == b"\0result\xff"
    assert running.fetch("long", 5) == b"12345"
    for name, message in {
        "missing": "is missing",
        "link": "not a plain file",
        "folder": "not a plain file",
        "fifo": "not a plain file",
        "long": "more than 4 bytes",
    }.items():
        with pytest.raises(ResultError, match=message):
            running.fetch(name, 4)
    running.discard()


def test_without_files_and_results_there_are_no_such_folders(stand: Stand) -> None:
    assert stand.run('echo "${PCC_IN-none} ${PCC_OUT-none}"')[0] == b"none none\n"


def test_cwd_is_in_the_workspace(stand: Stand) -> None:
    assert stand.run("mkdir -p 'a b'; pwd")[0].decode() == f"{stand.workspace}\n"
    assert stand.run("pwd", cwd="a b")[0].decode() == f"{stand.workspace}/a b\n"


def test_a_missing_cwd_is_the_commands_failure(stand: Stand) -> None:
    out, err, exit_ = stand.run("echo ran", cwd="no/such")
    assert (out, exit_.code) == (b"", 127)
    assert b"no/such" in err


def test_another_shell_may_be_asked_for(stand: Stand) -> None:
    assert stand.run("a=(1 2 3); echo ${#a[@]}; false; echo after", shell="bash -e") == (b"3\n", b"", Exit(1))
    out, err, exit_ = stand.run("true", shell="no-such-shell")
    assert (out, exit_.code) == (b"", 127)
    assert b"no-such-shell" in err


def test_a_secret_is_on_no_disk_and_in_no_argument_list(stand: Stand) -> None:
    secret = f"s3cret-{stand.nap}"
    running = stand.start('echo ready; [ -n "$KEY" ] && sleep 2; echo "${#KEY}"', secrets={"KEY": secret})
    read_until(running, b"ready\n")
    assert stand.shell(f"grep -rlF {secret} {shlex.quote(stand.state)} || true") == ""
    # The search itself, and the shell around it, name it too.
    found = stand.shell(f"grep -lzF {secret[:-3]}'{secret[-3:]}' /proc/[0-9]*/cmdline || true").split()
    lines = [stand.shell(f"tr '\\0' ' ' <{path} 2>/dev/null || true") for path in found]
    assert [line for line in lines if line and "grep" not in line and "nsenter" not in line] == []
    assert read_all(running)[0].decode() == f"{len(secret)}\n"
    running.discard()


def test_twenty_parallel_commands_are_not_mixed_up(stand: Stand) -> None:
    def one(number: int) -> None:
        script = (
            f"for i in 1 2 3; do echo {number}.$i; echo {number}.$i >&2; sleep 0.0{number % 5}; done; exit {number}"
        )
        expected = b"".join(b"%d.%d\n" % (number, i) for i in (1, 2, 3))
        assert stand.run(script, id=f"many-{number}") == (expected, expected, Exit(number))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(one, range(20)))


def test_reading_after_the_end_returns_the_exit_again(stand: Stand) -> None:
    running = stand.start("exit 5")
    assert read_all(running)[2] == Exit(5)
    assert running.read(0.0) == Exit(5)
    assert running.read(0.0) == Exit(5)
    running.discard()


def test_reading_takes_no_longer_than_its_timeout(stand: Stand) -> None:
    running = stand.start("sleep 2")
    started = time.monotonic()
    assert running.read(0.2) is None
    assert running.read(0.0) is None
    assert time.monotonic() - started < 1
    assert read_all(running)[2] == Exit(0)
    running.discard()


def test_another_process_attaches_and_reads_everything_again(stand: Stand) -> None:
    # Not the first command: its output begins somewhere in the middle of the target's files.
    stand.run("head -c 100000 /dev/zero; echo before >&2")
    running = stand.start("echo one; echo err >&2; sleep 2; echo two; exit 6")
    read_until(running, b"one\n")
    restarted = stand.again()
    restarted.open()
    attached = restarted.attach(running.token)
    assert read_all(attached) == (b"one\ntwo\n", b"err\n", Exit(6))
    assert attached.isolation == running.isolation
    attached.discard()
    assert read_all(running)[::2] == (b"two\n", Exit(6))


def test_attaching_after_the_end_reads_everything_again(stand: Stand) -> None:
    running = stand.start("echo one; echo err >&2; exit 6")
    read_all(running)
    attached = stand.again().attach(running.token)
    assert read_all(attached) == (b"one\n", b"err\n", Exit(6))
    attached.discard()


def test_an_attached_command_can_be_stopped_and_its_result_fetched(stand: Stand) -> None:
    running = stand.start('echo 1 >"$PCC_OUT/r"; echo ready; sleep ' + stand.nap, wants_out=True)
    read_until(running, b"ready\n")
    attached = stand.again().attach(running.token)
    read_until(attached, b"ready\n")
    attached.stop(5.0)
    assert read_all(attached)[2] == Exit(143, "TERM")
    assert attached.fetch("r", 10) == b"1\n"
    assert not stand.naps()
    attached.discard()


@pytest.mark.parametrize("ended", [False, True])
def test_a_command_whose_start_was_not_recorded_is_found_with_all_its_output(stand: Stand, *, ended: bool) -> None:
    stand.run("head -c 100000 /dev/zero; echo before >&2")
    command = stand.command(f"echo one; echo err >&2; sleep {0 if ended else 2}; echo two; exit 6")
    running = stand.target.start(command)
    if ended:
        read_all(running)
    else:
        read_until(running, b"one\n")
    restarted = stand.again()
    restarted.open()
    found = restarted.find(command)
    assert found is not None
    assert read_all(found) == (b"one\ntwo\n", b"err\n", Exit(6))
    found.discard()
    assert restarted.find(stand.command("true")) is None


def test_attaching_to_an_unknown_command_raises_lost(stand: Stand) -> None:
    running = stand.start("true")
    read_all(running)
    token = running.token
    with pytest.raises(Lost):
        stand.target.attach({**token, "id": "never-was"})
    with pytest.raises(Lost):
        stand.target.attach({"id": "never-was"})
    running.discard()


def test_close_ends_and_removes_everything(stand: Stand) -> None:
    running = stand.start(f"trap '' TERM; setsid sleep {stand.nap} & echo ready; sleep {stand.nap}")
    read_until(running, b"ready\n")
    until(lambda: stand.naps() == 2)
    stand.target.close()
    until(lambda: not stand.naps())
    assert stand.processes() == []


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_command_begins_although_the_word_of_its_start_is_lost(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(lane: Lane, machine: Machine, program: bytes, mark: str, workspace: str) -> None:
        lane.send(program)
        lane.close()
        raise ConnectionResetError("it was closed at that moment")

    monkeypatch.setattr(Lane, "begin", begin)
    for number in range(5):
        assert stand.run(f"echo {number}; exit 3") == (b"%d\n" % number, b"", Exit(3))
