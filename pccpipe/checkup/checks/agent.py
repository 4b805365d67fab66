"""Checks the agents in a container like their steps', Codex's sandbox, and the model."""

from __future__ import annotations

import contextlib
import re
import shlex
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, skipped, warning, wrong
from pccpipe.checkup.checks.sshd import allow_forwarding
from pccpipe.checkup.context import DOCKERFILE, IMAGE, PROBED, CheckContext
from pccpipe.errors import Unavailable
from pccpipe.layout import SystemDir
from pccpipe.machine.base import ByteStream, ProxyRoute
from pccpipe.outcome import IsolationMode, Reason
from pccpipe.target import Command, ContainerSettings, Exit, Running
from pccpipe.targets.container import ContainerTarget

PROBE_LIMIT = 80.0
"""Seconds. A busy emulated VM needed more than 40."""
ASK_TIMEOUT = 10.0
ANOTHER_KEY = Fix("export OPENAI_API_KEY=...   # a key for that endpoint", FixPlace.HERE)
BYPASS = "--dangerously-bypass-approvals-and-sandbox"
# They print lines of a name and a value.
CODEX_PROBE = """
echo "codex $(codex --version 2>&1 | tail -n 1)"
if words=$(codex sandbox -- true 2>&1); then echo sandbox works; else echo "sandbox $(echo "$words" | tail -n 1)"; fi
"""
PROBE = f"""
{CODEX_PROBE}
echo "claude-code $(claude --version 2>&1 | tail -n 1)"
if command -v curl >/dev/null && [ "$PCC_PROXY_URL" ]; then
  echo "proxy $(curl -sS -m 10 "$PCC_PROXY_URL/doctor" 2>&1 | tail -n 1)"
fi
echo whole probe
"""
HERE_PROBE = f"""
command -v codex >/dev/null || exit 9
home=$(mktemp -d "${{TMPDIR:-/tmp}}/pcc-doctor.XXXXXX") && trap 'rm -rf "$home"' EXIT && export CODEX_HOME=$home
{CODEX_PROBE}"""


def container(context: CheckContext) -> Finding:
    """Check that a container starts with an agent's settings, and its shell runs a script."""
    known = _probe(context)
    if "whole" not in known:
        # The engine's own first process starts even if the image has no shell.
        said = f": {known['said']}" if known["said"] else ""
        return wrong(f"a container of {IMAGE} starts, but ends with {known['code']} before its work is done{said}")
    return ok(f"a container of {IMAGE} starts, without a network")


def codex(context: CheckContext) -> Finding:
    """Check that Codex starts in the container, and has the tested version."""
    return _version(_probe(context).get("codex", ""), context.provision_fix)


def claude_code(context: CheckContext) -> Finding:
    """Check that Claude Code starts in the container, and has the tested version."""
    said = _probe(context).get("claude-code", "")
    if not re.match(r"\d", said):
        words = f"{IMAGE} has no Claude Code, so steps with that agent fail there: {said or 'it says nothing'}"
        return warning(words, context.provision_fix)
    return _tested("Claude Code", said.split()[0], pinned_version("CLAUDE_CODE_VERSION"), context.provision_fix)


def sandbox(context: CheckContext) -> Finding:
    """Say which sandbox of Codex works in a container, which is a sandbox itself."""
    said = _probe(context).get("sandbox", "")
    if said == "works":
        return ok("Codex's own sandbox works in the container, which is a sandbox itself")
    return ok(f"in the container {BYPASS}: the container is the sandbox, and Codex's own does not work there ({said})")


def proxy(context: CheckContext) -> Finding:
    """Check that a container without a network reaches this process, as it reaches its model with `via: proxy`."""
    known = _probe(context)
    refused = known.get("refused")
    if refused:
        if context.vm is None:
            return wrong(refused)
        return wrong(refused, allow_forwarding(context))
    said = known.get("proxy")
    if said is None:
        return skipped("the image has no curl to ask with")
    if said != context.run_id:
        return wrong(f"a container without a network does not reach pccpipe's proxy: {said or 'no answer'}")
    return ok("a container without a network reaches pccpipe's proxy")


def endpoint(context: CheckContext) -> Finding:
    """Check that this machine, where pccpipe's proxy runs, reaches the model's API."""
    code, words = _asked(context.options.endpoint, "")
    return ok(f"{context.options.endpoint} answers") if code else wrong(f"{context.options.endpoint}: {words}")


def key(context: CheckContext) -> Finding:
    """Check that the model's API accepts the key. Only this machine sends it, and to no other address."""
    if not context.options.key:
        return skipped("OPENAI_API_KEY is not set here")
    if not re.fullmatch(r"[!-~]+", context.options.key):
        # An error of the HTTP library would quote the characters, and the key with them.
        return wrong("OPENAI_API_KEY has a character that no key has, perhaps a space or a line break", ANOTHER_KEY)
    where = f"{context.options.endpoint}/models"
    code, words = _asked(context.options.endpoint, context.options.key)
    match code:
        case 200:
            return ok(f"{context.options.endpoint} takes the key in OPENAI_API_KEY")
        case 401 | 403:
            return wrong(f"{where} refuses the key in OPENAI_API_KEY ({code})", ANOTHER_KEY)
        case 0:
            return skipped(f"{where} is not reached from this machine: {words}")
        case _:
            return warning(f"{where} answers {code}, which says nothing about the key")


def codex_here(context: CheckContext) -> Finding:
    """Check that agent steps could run on this machine, where only Codex's own sandbox holds them."""
    from pccpipe.machine.local import LocalMachine

    done = LocalMachine().run(HERE_PROBE, PROBE_LIMIT)
    is_local = context.options.project.isolation_mode is IsolationMode.LOCAL
    install = Fix(f"npm install -g @openai/codex@{pinned_version()}", FixPlace.HERE)
    if done.code == 9:
        if is_local:
            return wrong("there is no codex on this machine", install)
        return skipped("there is no codex on this machine: agent steps can't fall back to it")
    known = _lines(done.stdout)
    said = known.get("sandbox", "")
    if said != "works":
        words = f"Codex's own sandbox does not work on this machine ({said}): agents could run no command"
        fix = Fix("sudo sysctl kernel.unprivileged_userns_clone=1", FixPlace.HERE) if "userns" in said else None
        return wrong(words, fix) if is_local else warning(words, fix)
    return _version(known.get("codex", ""), install)


def pinned_version(argument: str = "CODEX_VERSION") -> str:
    """Return the version of a program that the image has and pccpipe's tests use."""
    found = re.search(rf"^ARG {argument}=(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert found, f"{DOCKERFILE} has no {argument}"
    return found[1]


def _version(said: str, fix: Fix) -> Finding:
    found = re.search(r"codex-cli (\d\S*)", said)
    if not found:
        return wrong(f"Codex does not start: {said or 'it says nothing'}", fix)
    return _tested("Codex", found[1], pinned_version(), fix)


def _tested(name: str, version: str, pinned: str, fix: Fix) -> Finding:
    if version != pinned:
        return warning(f"{name} {version}; pccpipe is tested with {pinned}", fix)
    return ok(f"{name} {version}")


def _asked(base: str, key: str) -> tuple[int, str]:
    """Return the status of GET /models, or 0 and the error. Follows no redirection: the key must not leave."""
    request = urllib.request.Request(f"{base}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=ASK_TIMEOUT) as answer:
            return int(answer.status), ""
    except urllib.error.HTTPError as error:
        return error.code, ""
    except (OSError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _probe(context: CheckContext) -> Mapping[str, str]:
    return context.once(PROBED, lambda: _run_probe(context))


@contextlib.contextmanager
def opened_target(context: CheckContext) -> Iterator[ContainerTarget]:
    """Open a target for the doctor's own containers, with a workspace. Raises `Unavailable`."""
    system = SystemDir.on_vm(context.root)
    workspace = system.workspace(context.run_id)
    target = ContainerTarget(
        context.machine,
        context.run_id,
        system.state(context.run_id),
        lambda: workspace,
        context.engine.socket,
        proxy=ProxyRoute(context.listening_machine, lambda stream: _answer(stream, context.run_id)),
    )
    # With the mode that a run gives it: the account for workspace code cannot list it.
    folder = shlex.quote(system.workspaces)
    make = f"mkdir -p {shlex.quote(system.path)} && {{ [ -d {folder} ] || mkdir -m 711 {folder}; }}"
    made = context.run(f"{make} && mkdir {shlex.quote(workspace)}")
    if made.code:
        raise Unavailable(Reason.WORKSPACE_REFUSED, made.stderr.decode(errors="replace").strip())
    try:
        target.open()
        yield target
    finally:
        target.close()
        context.run(f"rm -rf {shlex.quote(workspace)}")


def _run_probe(context: CheckContext) -> Mapping[str, str]:
    """Run a container with an agent's settings, and read its answers. Raises `Unavailable`."""
    settings = ContainerSettings(IMAGE, network="none", memory=4 << 30, cpus=2, pids=1000)
    command = Command("probe-1", "probe", 1, PROBE, is_proxied=True, limit=PROBE_LIMIT, container=settings)
    with opened_target(context) as target:
        try:
            return answers_of(target.start(command))
        except Unavailable as error:
            if error.reason is not Reason.PROXY_REFUSED:
                raise
            without = replace(command, id="probe-2", serial=2, is_proxied=False)
            return {
                **answers_of(target.start(without)),
                "refused": f"{error.words}; {error.hint}" if error.hint else error.words,
            }


def answers_of(running: Running) -> Mapping[str, str]:
    """Read the lines of a probe to its end: names with values, its exit `code`, and its last line as `said`."""
    output = b""
    deadline = time.monotonic() + PROBE_LIMIT
    while not isinstance(chunk := running.read(1.0), Exit):
        output += chunk.data if chunk else b""
        if time.monotonic() > deadline:
            raise _too_slow()
    running.discard()
    if chunk.timed_out:
        raise _too_slow()
    said = output.decode(errors="replace").strip().rpartition("\n")[2]
    return {**_lines(output), "code": str(chunk.code), "said": said}


def _too_slow() -> TimeoutError:
    return TimeoutError(f"a container of {IMAGE} starts, but is not done in {PROBE_LIMIT:g} s: the machine may be busy")


def _answer(stream: ByteStream, word: str) -> None:
    """Answer any request of the container with the word."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            stream.settimeout(ASK_TIMEOUT)
            stream.recv(4096)
            stream.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(word)}\r\n\r\n{word}".encode())
        stream.close()

    threading.Thread(target=answer, name="doctor-answer", daemon=True).start()


def _lines(output: bytes) -> Mapping[str, str]:
    lines = output.decode(errors="replace").splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(" ") for line in lines)}


IN_CONTAINER = [
    Check("container", container, ("image", "folder"), limit=150),
    Check("codex", codex, ("container",)),
    Check("claude-code", claude_code, ("container",)),
    Check("sandbox", sandbox, ("codex",)),
    Check("proxy", proxy, ("container",)),
]
HERE = [Check("endpoint", endpoint), Check("key", key), Check("codex-here", codex_here, limit=60)]
