"""Variables that steps export through $PCC_ENV: who gets them, and what is refused."""

from __future__ import annotations

import time

import pytest

from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, IsolationMode, Outcome, Place, Reason
from pccpipe.record.events import CommandEnded, Warned
from pccpipe.record.exported import Exported, ExportOrigin
from pccpipe.target import EXPORTS, Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Played, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began
from tests.record.script import events as stamped


def leaving(**files: str | bytes) -> dict[str, bytes]:
    return {step: text.encode() if isinstance(text, str) else text for step, text in files.items()}


def played(stage: Stage, text: str, left: dict[str, bytes], failing: tuple[str, ...] = ()) -> Played:
    def script(command: Command) -> Play:
        files = {EXPORTS: left[command.step]} if command.step in left else {}
        return Play(exit=Exit(command.step in failing), files={"r.json": b"{}", **files})

    stage.script = script
    return stage.play(text)


def env_of(run: Played, step: str) -> dict[str, str]:
    """Return the variables of a step's last command, at whatever place."""
    found = [command for target in run.targets.values() for command in target.commands if command.step == step]
    return dict(found[-1].env)


def test_later_steps_get_what_a_step_exports(stage: Stage) -> None:
    text = """
        env: {SET: by the file}
        steps:
          - {id: a, run: 'echo A B SET >>"$PCC_ENV"'}
          - {id: b, run: x, env: {B: its own}}
        always: [{id: c, run: x}]
    """
    run = played(stage, text, leaving(a="A=1\n\nB<<END\ntwo\nlines=\n\nEND\r\nSET=exported\n"))
    assert run.state.outcome is Outcome.SUCCEEDED
    assert env_of(run, "b") == {"A": "1", "B": "its own", "SET": "by the file"}
    assert env_of(run, "c") == {"A": "1", "B": "two\nlines=\n", "SET": "by the file"}
    (ended,) = [event for event in run.notes.of(CommandEnded) if event.exports]
    assert ended.exports == Exported({"A": "1", "B": "two\nlines=\n", "SET": "exported"}, ExportOrigin.LOCAL)
    commands = {command.step: command for command in run.targets[Place.LOCAL].commands}
    assert (commands["a"].has_exports, commands["a"].wants_out) == (True, True)
    assert (commands["b"].has_exports, commands["b"].wants_out) == (False, False)


def test_a_step_that_does_not_name_the_file_exports_nothing(stage: Stage) -> None:
    text = "steps: [{id: a, run: npm test A}, {id: b, run: x}]"
    assert env_of(played(stage, text, leaving(a="A=1")), "b") == {}


def test_an_export_stays_in_its_sequence_and_in_the_groups_inside(stage: Stage) -> None:
    text = """
        steps:
          - {id: a, run: "$PCC_ENV A"}
          - id: loop
            repeat: {max: 2}
            steps:
              - {id: first, run: x}
              - {id: b, run: "$PCC_ENV B"}
              - {id: second, run: x}
          - id: both
            max_parallel: 1
            parallel:
              - {id: inside, repeat: {max: 1}, steps: [{id: c, run: "$PCC_ENV C"}, {id: after, run: x}]}
              - {id: beside, run: x}
          - {id: legs, matrix: {n: [1, 2]}, repeat: {max: 1}, steps: [{id: d, run: "$PCC_ENV D"}, {id: e, run: x}]}
          - {id: last, run: x}
    """
    run = played(stage, text, leaving(a="A=1", b="B=2", c="C=3", d="D=4"))
    assert env_of(run, "first") == {"A": "1"}
    assert env_of(run, "second") == {"A": "1", "B": "2"}
    assert env_of(run, "after") == {"A": "1", "C": "3"}
    assert env_of(run, "e") == {"A": "1", "D": "4"}
    assert env_of(run, "beside") == env_of(run, "last") == env_of(run, "d") == {"A": "1"}


def test_a_failed_step_exports_too_but_a_refused_file_only_warns(stage: Stage) -> None:
    text = """
        steps: [{id: a, run: "$PCC_ENV A"}, {id: never, run: x}]
        always: [{id: tidy, run: x}]
    """
    run = played(stage, text, leaving(a="A=1"), failing=("a",))
    assert env_of(run, "tidy") == {"A": "1"}
    run = played(stage, text, leaving(a="PATH=/evil"), failing=("a",))
    assert (run.end_of("a").code, env_of(run, "tidy")) == (None, {})
    assert "exports nothing" in run.notes.of(Warned)[0].message


@pytest.mark.parametrize(
    ("origin", "reached"),
    [("local", "local vm box"), ("vm", "vm box"), ("box", "box")],
)
def test_an_export_reaches_places_with_as_much_isolation_alone(stage: Stage, origin: str, reached: str) -> None:
    on = {"local": "on: local", "vm": "on: vm", "box": "container: box"}
    steps = "\n".join(f"  - {{id: {name}, {where}, run: 'x $A'}}" for name, where in on.items())
    text = f"containers: {{box: {{image: i}}}}\nsteps:\n  - {{id: a, {on[origin]}, run: $PCC_ENV A}}\n{steps}"
    run = played(stage, text, leaving(a="A=1"))
    assert " ".join(name for name in on if "A" in env_of(run, name)) == reached
    warned = {event.step: event.message for event in run.notes.of(Warned)}
    assert set(warned) == set(on) - set(reached.split())
    assert all("does not get A, which a exported" in message for message in warned.values())


def test_the_account_of_a_vm_exports_nothing_to_its_login(stage: Stage) -> None:
    stage.run_as = "pccrun"
    text = """
        defaults: {on: vm}
        steps:
          - {id: a, run: "$PCC_ENV A"}
          - {id: login, account: login, run: x}
          - {id: account, run: x}
    """
    run = played(stage, text, leaving(a="A=1"))
    assert (env_of(run, "login"), env_of(run, "account")) == ({}, {"A": "1"})


def test_no_agent_and_no_step_with_a_key_behind_the_proxy_gets_an_export(stage: Stage) -> None:
    stage.secrets = {"KEY": "sk-made-up-0123456789"}
    text = """
        agents: {codex: {use: codex, model: m, secret: KEY}}
        secrets: {KEY: {from: env}}
        containers: {box: {image: i}}
        steps:
          - {id: a, run: "$PCC_ENV A"}
          - {id: build, container: box, agent: codex, prompt: {text: x}}
    """
    assert "A" not in env_of(played(stage, text, leaving(a="A=1")), "build")
    proxied = """
        secrets: {KEY: {from: env, via: proxy}}
        steps:
          - {id: a, run: "$PCC_ENV A"}
          - {id: asks, run: "x $A", secrets: [KEY]}
    """
    run = played(stage, proxied, leaving(a="A=1"))
    assert "A" not in env_of(run, "asks")
    assert [event.message for event in run.notes.of(Warned)] == [
        "it does not get A, which a exported: no agent, and no step with a key behind the proxy, gets exports"
    ]


@pytest.mark.parametrize("mode", [IsolationMode.VM, IsolationMode.LOCAL])
def test_a_result_is_unattested_after_an_export_that_the_vm_could_forge(stage: Stage, mode: IsolationMode) -> None:
    stage.mode = mode
    text = """
        steps:
          - {id: tests, on: vm, run: x, result: {path: t/r.json}}
          - {id: before, run: x, result: {path: b/r.json}}
          - {id: a, run: "echo A=${{ steps.tests.result }} >>$PCC_ENV"}
          - {id: judge, run: x, result: {path: j/r.json}}
    """
    run = played(stage, text, leaving(a="A=1"))
    unattested = [run.end_of(step).unattested for step in ("tests", "before", "judge")]
    assert unattested == ([True, False, True] if mode is IsolationMode.VM else [False, False, False])


def test_isolation_required_refuses_a_step_that_gets_a_forged_export(stage: Stage) -> None:
    text = """
        containers: {box: {image: i}}
        steps:
          - {id: tests, on: vm, run: "echo A=1 >>$PCC_ENV"}
          - {id: judge, container: box, run: x, isolation: required}
    """
    ended = played(stage, text, leaving(tests="A=1")).end_of("judge")
    assert (ended.reason, "could forge the result of tests" in ended.message) == (Reason.UNATTESTED, True)
    stage.run_as = "pccrun"
    run = played(stage, text, leaving(tests="A=1"))
    assert (run.state.outcome, env_of(run, "judge")) == (Outcome.SUCCEEDED, {"A": "1"})


REFUSED = """
PATH HOME IFS ENV BASH_ENV SHELLOPTS PS4 LD_PRELOAD LD_LIBRARY_PATH DYLD_INSERT_LIBRARIES NODE_OPTIONS
NODE_PATH PYTHONPATH PYTHONSTARTUP PERL5OPT RUBYOPT GIT_SSH_COMMAND GIT_CONFIG_COUNT DOCKER_HOST SSH_AUTH_SOCK
http_proxy HTTPS_PROXY ALL_PROXY no_proxy PCC_OUT PCCPIPE_STEP TMPDIR JAVA_TOOL_OPTIONS MAKEFLAGS CC
npm_config_registry XDG_CONFIG_HOME OPENAI_BASE_URL TOKEN
"""


@pytest.mark.parametrize("name", REFUSED.split())
def test_a_name_that_changes_what_later_steps_run_is_refused(stage: Stage, name: str) -> None:
    stage.secrets = {"TOKEN": "made-up-0123456789"}
    text = f"""
        secrets: {{TOKEN: {{from: env}}}}
        steps: [{{id: a, run: "$PCC_ENV A {name}"}}, {{id: never, run: x}}]
    """
    run = played(stage, text, leaving(a=f"A=1\n{name}=x"))
    assert (run.end_of("a").outcome, run.end_of("a").code) == (Outcome.FAILED, Code.EXPORT_REFUSED)
    assert f"sets {name}, which changes what later steps run" in run.end_of("a").message
    assert run.order == ["a@local"]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("A=1\nEVIL=1", "sets EVIL, which the step's `run:` does not name"),
        ("A=x\nB\n", "neither NAME=value nor NAME<<END on line 2"),
        ("A<<END\nx\nEN", "no end of the block that begins on line 1"),
        ("=x", "invalid name: ''"),
        ("A B=x", "invalid name: 'A B'"),
        ("é=x", "invalid name: 'é'"),
        ("a" * 200 + "=x", "invalid name"),
        (b"A=\xff\xfe", "not UTF-8 text"),
        ("A=\0", "NUL byte"),
        ("A=" + "x" * 70_000, "its file $PCC_ENV cannot be taken"),
        ("\n".join(f"A{number}=1" for number in range(101)), "variables in $PCC_ENV exceeds the limit of 100"),
        ("A=the key is sk-made-up-0123456789!", "has a secret's value in A"),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_wrong_file_fails_the_step_and_says_why(stage: Stage, left: str | bytes, words: str) -> None:
    stage.secrets = {"KEY": "sk-made-up-0123456789"}
    names = " ".join(f"A{number}" for number in range(101))
    text = f"""
        secrets: {{KEY: {{from: env}}}}
        steps: [{{id: a, secrets: [KEY], run: "$PCC_ENV A B {names}"}}, {{id: never, run: x}}]
    """
    run = played(stage, text, leaving(a=left))
    assert run.end_of("a").outcome is Outcome.FAILED
    assert words in run.end_of("a").message
    assert "sk-made-up" not in str(run.notes.happenings)
    assert run.order == ["a@local"]


@pytest.mark.parametrize("name", ["made-up:0123456789" * 8, "made'up\"0123456789"])
def test_an_invalid_name_that_is_a_secret_is_masked_before_it_is_cut_or_quoted(stage: Stage, name: str) -> None:
    stage.secrets = {"KEY": name}
    text = """
        secrets: {KEY: {from: env}}
        steps: [{id: a, secrets: [KEY], run: "$PCC_ENV"}]
    """
    run = played(stage, text, leaving(a=f"{name}=\n"))
    assert "invalid name: '***'" in run.end_of("a").message
    assert "0123456789" not in str(run.notes.happenings)


def test_a_run_killed_at_any_event_gives_later_steps_the_same_variables(stage: Stage) -> None:
    text = """
        containers: {box: {image: i}}
        steps:
          - {id: a, on: vm, run: "$PCC_ENV A", retry: {attempts: 2, backoff: 0s}}
          - id: loop
            repeat: {max: 2}
            steps: [{id: b, container: box, run: "$PCC_ENV B"}, {id: c, container: box, run: x}]
          - {id: d, on: vm, run: x}
        always: [{id: e, on: vm, run: x}]
    """

    def script(command: Command) -> Play:
        value = {"a": f"A={command.serial}", "b": f"B={command.serial}"}.get(command.step)
        return Play(exit=Exit(command.id == "a-1"), files={EXPORTS: value.encode()} if value else {})

    def seen(run: Played) -> dict[str, dict[str, str]]:
        return {command.id: dict(command.env) for target in run.targets.values() for command in target.commands}

    stage.script = script
    whole = stage.play(text)
    assert seen(whole)["loop-2.c-2"] == {"A": "2", "B": "2"}
    assert seen(whole)["e-1"] == {"A": "2"}
    for life in range(len(whole.notes.happenings)):
        notes, targets = MortalNotes(life), stage.targets()
        with pytest.raises(KilledError):
            stage.play(text, notes, targets)
        rest = Notes()
        rest.happenings = list(notes.happenings)
        resumed = stage.play(text, rest, targets, Replay(stamped([began(), *notes.happenings], time.time(), 0.001)))
        assert seen(resumed) == seen(whole), f"killed after {life} events"
