"""No limit on a stranger's data hides outside of pccpipe/limits/, where the reference does not list it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pccpipe"
LARGE = 1000
WORDS = re.compile(r"(^|_)(MAX|MOST|LIMIT|LONGEST|LARGEST|DEEPEST|BYTES)(_|$)")

SECONDS = "Seconds of waiting: they bound no data."
AT_ONCE = "The bytes that are read or written at a time, of data with a limit of its own."
SHOWN = "The part that a view shows of data with a limit of its own."
OURS = "Bounds what pccpipe itself makes or begins, not what a stranger sends."
FACT = "A fact of the kernel or a protocol."
LOCAL = "Reads the beginning of the user's own file on this machine."

ALLOWED = {
    "aio.py": {"QUEUE": "The events that wait for a slow listener; a limit of each bounds its size."},
    "apart.py": {"_PIECE": AT_ONCE},
    "canary/escape.py": {"OVERRUN_LIMIT": SECONDS},
    "cli/process.py": {"DESCRIPTORS": OURS},
    "docker_api/stream.py": {"READ_SIZE": AT_ONCE},
    "executor/agents.py": {"LONGEST_WAIT": SECONDS},
    "executor/cause.py": {"_LONGEST_VALUE": SHOWN},
    "executor/follow.py": {
        "LONGEST_READ": SECONDS,
        "SIGN_LIMIT": SECONDS,
        "MARGIN": "What is dropped of a flood, beside its gap.",
    },
    "executor/command_watch.py": {"LIMIT_GRACE": SECONDS},
    "executor/context.py": {"STEP_LIMIT": SECONDS, "ALWAYS_LIMIT": SECONDS},
    "executor/services.py": {"END_LIMIT": SECONDS},
    "executor/waiting.py": {"LONGEST_PAUSE": SECONDS},
    "errors.py": {"_LONGEST_QUOTE": SHOWN},
    "docker_api/home.py": {"_PIECE": AT_ONCE},
    "executor/transcripts.py": {"_PIECE": AT_ONCE},
    "gc/decide.py": {"CUT_OFF_LIMIT": SECONDS},
    "gc/sweep.py": {"DAY": SECONDS},
    "json_reader.py": {"_PIECE": AT_ONCE},
    "record/activity.py": {"_LAST": OURS},
    "record/index.py": {"_END": LOCAL},
    "record/ended_runs.py": {"_LONGEST": OURS, "_LARGEST": OURS},
    "record/logs.py": {"LEAST_LOG": "What each command's log has at least, beyond the limit `RUN_LOGS`."},
    "record/reading.py": {"LOG_PIECE": AT_ONCE},
    "record/step_path.py": {"LONGEST_NAME": OURS},
    "record/tail.py": {"PIECE": AT_ONCE},
    "record/ring.py": {"PIECE": AT_ONCE},
    "policy/check_file.py": {"_READ": LOCAL},
    "scripted/play.py": {"END_LIMIT": SECONDS, "_STDERR": SHOWN},
    "scripted/reply.py": {"ALWAYS": OURS},
    "scripted/responses.py": {"_WAIT_MS": SECONDS},
    "secrets/mask.py": {"_PIECE": AT_ONCE},
    "secrets/proxy/provider_limits.py": {"LONGEST_WAIT": SECONDS, "LONGEST_UNTOLD_WAIT": SECONDS},
    "secrets/proxy/egress.py": {"IDLE_LIMIT": SECONDS},
    "secrets/proxy/exchange.py": {
        "IDLE_LIMIT": SECONDS,
        "SEND_LIMIT": SECONDS,
        "LINGER_LIMIT": SECONDS,
        "PIECE": AT_ONCE,
    },
    "secrets/prices.py": {"MICROS": "A unit of money.", "MOST_USD": "More than any budget; it bounds no data."},
    "secrets/proxy/day.py": {"LOCK_LIMIT": SECONDS, "_PIECE": AT_ONCE},
    "secrets/proxy/meter.py": {
        "TURN_LIMIT": SECONDS,
        "OTHERS_LIMIT": SECONDS,
        "LONGEST_ANSWER": "The tokens that an answer counts as before it comes.",
    },
    "session/answers.py": {"MOST": "A person's own budget."},
    "secrets/proxy/grant.py": {
        "END_LIMIT": SECONDS,
    },
    "secrets/proxy/hello.py": {"_RECORD": FACT},
    "secrets/proxy/request.py": {
        "IMAGE_TOKENS": "The tokens that a picture counts as.",
    },
    "secrets/proxy/upstream.py": {
        "CONNECT_LIMIT": SECONDS,
        "ANSWER_LIMIT": SECONDS,
        "ERROR_LIMIT": SECONDS,
        "DRAIN_LIMIT": SECONDS,
        "PIECE": AT_ONCE,
    },
    "secrets/proxy/usage.py": {"BYTES_A_TOKEN": "How tokens are estimated."},
    "secrets/sources.py": {"COMMAND_LIMIT": SECONDS},
    "machine/account.py": {"PROCESSES": OURS},
    "detached/commands.py": {"DOUBT_LIMIT": SECONDS},
    "machine/script.py": {"READ_SIZE": AT_ONCE},
    "detached/lane.py": {"READ_SIZE": AT_ONCE},
    "machine/local_engine.py": {"_LONGEST": LOCAL},
    "detached/pool.py": {"CLOSE_LIMIT": SECONDS},
    "machine/retry.py": {"LONGEST_PAUSE": SECONDS},
    "detached/running.py": {"LEAST_AHEAD": "From how far ahead on a flood is skipped; the log's limit bounds it."},
    "spec/build.py": {"MOST_AT_ONCE": "What a parallel group has if it does not say; the user sets it."},
    "spec/matrix.py": {"LONGEST_LABEL": SHOWN},
    "spec/source.py": {"_PIECE": AT_ONCE},
    "spec/units.py": {"LONGEST": "A longer duration means this one.", "LARGEST": "A larger size means this one."},
    "ssh/channels.py": {"PIECE": AT_ONCE},
    "ssh/entrance.py": {"LIMIT": SECONDS, "READ_SIZE": AT_ONCE},
    "ssh/forwards.py": {"AGAIN_LIMIT": SECONDS},
    "ssh/heard.py": {"SILENCE_LIMIT": SECONDS, "AHEAD": AT_ONCE},
    "ssh/keys.py": {"PUBLIC_LIMIT": LOCAL},
    "starter.py": {"_LONGEST": LOCAL},
    "supervisor/files.py": {"_PIECE": AT_ONCE},
    "supervisor/holes.py": {"_BLOCK": FACT},
    "supervisor/lines.py": {"_READ_SIZE": AT_ONCE, "_LONGEST_ADDRESS": FACT},
    "supervisor/loop.py": {"_RECEIVED": AT_ONCE, "_LONGEST_PAUSE": SECONDS},
    "supervisor/running.py": {
        "READ_SIZE": AT_ONCE,
        "MOST_WORDS": AT_ONCE,
        "LEAST_AHEAD": "From how far ahead on a flood is skipped; the log's limit bounds it.",
    },
    "supervisor/spool.py": {"PIECE": AT_ONCE, "_LARGEST_PIPE": FACT},
    "supervisor/wire.py": {"LONGEST": OURS, "_LONGEST_LINE": OURS},
    "targets/service_running.py": {"CHECK_LIMIT": SECONDS, "REMOVE_LIMIT": SECONDS},
    "targets/as_root.py": {"LIMIT": SECONDS},
    "machine/answers.py": {"PORTS": FACT, "IDS": FACT},
    "targets/container_running.py": {"LOG_FILE": "The size that pccpipe sets for the engine's log of a container."},
    "targets/container.py": {"CLOSE_LIMIT": SECONDS},
    "targets/container_files.py": {
        "LEAST_FREE": "The room that a disk must have.",
        "LEAST_INODES": "The room that a disk must have.",
    },
    "targets/container_start.py": {"DOUBT_LIMIT": SECONDS, "BEGIN_LIMIT": SECONDS},
    "targets/container_stop.py": {"KILL_LIMIT": SECONDS},
    "targets/known_images.py": {"LIMIT": SECONDS},
    "targets/local.py": {"LIMIT": OURS},
    "targets/vm.py": {"LIMIT": OURS},
    "agents/stream.py": {"_SHORT": AT_ONCE},
    "views/ending.py": {"_READ": SHOWN},
    "views/board.py": {"MOST_TAIL": SHOWN, "MOST_AGENT": SHOWN, "MOST_FINAL": SHOWN},
    "views/show.py": {"LONGEST_RESULT": SHOWN},
    "views/summary.py": {"MOST_STEPS": SHOWN},
    "views/text.py": {"LONGEST_LINE": SHOWN},
    "checkup/checks/account.py": {"PROCESSES": OURS},
    "checkup/checks/agent.py": {"PROBE_LIMIT": SECONDS},
    "checkup/checks/controller.py": {"LITTLE_DISK": "The room that a machine should have."},
    "checkup/checks/engine.py": {"BUILD_LIMIT": SECONDS},
    "checkup/checks/system.py": {
        "LITTLE_DISK": "The room that a machine should have.",
        "FEW_INODES": "The room that a machine should have.",
        "LITTLE_MEMORY": "The room that a machine should have.",
    },
    "workspace/tree_copy.py": {"MOST_TIME": SECONDS},
    "workspace/fetch.py": {"AT_ONCE": AT_ONCE},
    "workspace/folder.py": {"PIECE": AT_ONCE},
    "workspace/git.py": {"_PIECE": AT_ONCE},
    "workspace/gitignore.py": {"_KEPT": "The folders whose answer is remembered; the others are looked at again."},
    "workspace/guard.py": {"HEAD": "The beginning of a file in which a private key is looked for."},
    "workspace/pack.py": {"BUFFER": AT_ONCE},
    "workspace/patch.py": {"_BUFFER": AT_ONCE, "_LINE": AT_ONCE},
    "workspace/reading.py": {"PIECE": AT_ONCE},
}


def limits_in(code: str) -> Iterator[str]:
    """Yield names in capitals with a large number, or with any number if the name speaks of a limit."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value:
            targets, value = [node.target], node.value
        else:
            continue
        figure = number(value)
        for target in targets:
            if figure is None or not isinstance(target, ast.Name) or not target.id.isupper():
                continue
            if figure >= LARGE or WORDS.search(target.id):
                yield target.id


def number(node: ast.expr) -> float | None:
    """Return the number that literals and operators make; None if a name is part of it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, int | float) else None
    if isinstance(node, ast.UnaryOp):
        return number(node.operand)
    if not isinstance(node, ast.BinOp) or number(node.left) is None or number(node.right) is None:
        return None
    return float(eval(ast.unparse(node), {"__builtins__": {}}))  # numbers and operators alone


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("LIMIT = 5", ["LIMIT"]),
        ("_MOST_TOLD: int = 3", ["_MOST_TOLD"]),
        ("ROOM = 64 << 20", ["ROOM"]),
        ("ROOM = 10**3", ["ROOM"]),
        ("ROOM = 999", []),
        ("LIMIT = limits.LOG.most", []),
        ("LIMIT = 2 * limits.LOG.most", []),
        ("LIMIT = 'text'", []),
        ("def f():\n    LIMIT = 5", []),
    ],
)
def test_a_limit_is_found_by_its_figure_or_its_name(code: str, found: list[str]) -> None:
    assert list(limits_in(code)) == found


def test_a_limit_outside_of_the_list_has_a_reason() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE / "limits"
        for name in limits_in(path.read_text(encoding="utf-8"))
    }
    allowed = {(path, name) for path, names in ALLOWED.items() for name in names}
    assert found - allowed == set(), (
        "move them to pccpipe/limits/, or give the reason here why they bound no stranger's data"
    )
    assert allowed - found == set(), "they are gone: remove them from the list"
