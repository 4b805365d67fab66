"""Measure inputs that no honest side sends, each as large as allowed: memory, and holds of the interpreter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from tests.floods import ANSWERS
from tests.stall import measured

_RESULT = """
    from pccpipe.executor.result import masked_result, parse_result
    from pccpipe.secrets.mask import Masker
    from pccpipe.spec.schema import find_schema
    schema = find_schema("builder-result", __import__("pathlib").Path("/"))
    masker = Masker(["a-secret-value"])
    masked_result(b"[1]", "r", masker)
    try: parse_result(b'{"risks": [1]}', "r", schema)
    except Exception: pass
"""
_REQUEST = """
    from tests.fuzz.sides import FuzzedStream
    from pccpipe.secrets.proxy.exchange import Exchange
    from pccpipe.secrets.proxy.grant import Api, Grant
    from pccpipe.secrets.proxy.meter import Meter, ModelUse
    from pccpipe.secrets.proxy.slots import ConnectionSlots
    from pccpipe.secrets.proxy.proxy import Proxy
    api = Api.at("KEY", "key", "http://127.0.0.1:9/v1", ("POST /responses",))
    proxy = Proxy()
    token = list(proxy.issue(Grant((api,), (), Meter(None, ModelUse(), id), id)).values())[0]
    slot = ConnectionSlots().enter()
    def request(body):
        head = f"POST /v1/responses HTTP/1.1\\r\\nHost: p\\r\\nAuthorization: Bearer {token}\\r\\n"
        return FuzzedStream(f"{head}Content-Length: {len(body)}\\r\\n\\r\\n".encode() + body, piece=1 << 16)
    Exchange(request(b"{}"), slot, proxy.holder).run()
"""
_ENGINE = """
    from tests.fuzz.sides import NEXT, FuzzedMachine
    from pccpipe.docker_api.engine import DockerEngine
    def engine(body):
        head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        ping = b"HTTP/1.1 200 OK\\r\\nApi-Version: 1.47\\r\\n\\r\\n"
        found = DockerEngine(FuzzedMachine(ping + NEXT + head + body, piece=1 << 16), "/s")
        found.open()
        return found
    engine(b"{}").info()
"""
_PATTERNS = "from pccpipe.workspace.gitignore import Patterns, Tree"
_LOG = """
    import tempfile
    from pathlib import Path
    from pccpipe.outcome import Stream
    from pccpipe.record.logs import CommandLog
    folder = tempfile.TemporaryDirectory()
    log = CommandLog.create(Path(folder.name), Path(), "c", short=True)
    piece = b"y\\n" * (1 << 17)
"""
_MASK = """
    from pccpipe.secrets.mask import Masker
    mask = Masker(["s3cret/Of+the=project-42"]).stream()
    mask.feed(b"x" * 1000)
"""
_YAML = "from pccpipe.spec.source import parse_source"
_USAGE = "from pccpipe.secrets.proxy.usage import TokenCounter; counter = TokenCounter(is_stream={stream})"
_SERVER = """
    import subprocess, sys
    def server(kind):
        process = subprocess.Popen([sys.executable, "-m", "tests.floods", kind], stdout=subprocess.PIPE)
        return int(process.stdout.readline())
"""
_SSH = (
    _SERVER
    + """
    import socket, time
    from pccpipe.ssh.bounded import TooMuchError
    from pccpipe.ssh.heard import HeardSocket
    from pccpipe.ssh.login import Transport
    client = Transport(HeardSocket(socket.create_connection(("127.0.0.1", server("ssh")))))
    client.heard.settimeout(0.1)
    client.start_client(timeout=20)
    client.auth_none("anyone")
    channel = client.open_session(timeout=20)
"""
)
_ANSWER = (
    _SERVER
    + """
    from tests.fuzz.sides import FuzzedStream
    from pccpipe.secrets.proxy.exchange import Exchange
    from pccpipe.secrets.proxy.grant import Api, Grant
    from pccpipe.secrets.proxy.meter import Meter, ModelUse
    from pccpipe.secrets.proxy.slots import ConnectionSlots
    from pccpipe.secrets.proxy.proxy import Proxy
    class Agent(FuzzedStream):
        def sendall(self, data):
            pass
    proxy = Proxy()
    def ask(port):
        api = Api.at("KEY", "s3cret/Of+the=project-42", f"http://127.0.0.1:{port}/v1", ("POST /responses",))
        token = list(proxy.issue(Grant((api,), (), Meter(None, ModelUse(), id), id)).values())[0]
        head = f"POST /v1/responses HTTP/1.1\\r\\nHost: p\\r\\nAuthorization: Bearer {token}\\r\\n"
        agent = Agent(f"{head}Content-Length: 2\\r\\n\\r\\n{{}}".encode())
        Exchange(agent, ConnectionSlots().enter(), proxy.holder).run()
    ask(9)
"""
)
FLOODS: Mapping[str, tuple[str, str]] = {
    "an SSH server that ignores the window": (
        _SSH,
        """
        channel.sendall(b"!")
        until = time.monotonic() + 60
        while client.is_active() and time.monotonic() < until: time.sleep(0.02)
        error = client.get_exception()
        if not isinstance(error, TooMuchError): raise AssertionError(repr(error))
        """,
    ),
    **{
        f"an API's answer without an end: {kind}": (_ANSWER + f"    port = server({kind!r})", "ask(port)")
        for kind in ANSWERS
    },
}
"""Inputs from servers that never end."""

INPUTS: Mapping[str, tuple[str, str]] = {
    "a result that matches no schema": (
        _RESULT + "    data = b'{\"risks\": [' + b'1,' * 90_000 + b'1]}'",
        "parse_result(data, 'r', schema)",
    ),
    "a result of 4 MiB of brackets": (
        _RESULT + "    data = b'[' + b'[],' * ((4 << 20) // 3 - 2) + b'1]'",
        "masked_result(data, 'r', masker); parse_result(data, 'r', None)",
    ),
    "a result of 4 MiB of escapes": (
        _RESULT + "    data = b'[\"' + b'\\\\u0041' * ((4 << 20) // 6 - 2) + b'\"]'",
        "masked_result(data, 'r', masker); parse_result(data, 'r', None)",
    ),
    "YAML of aliases of aliases in a request for help": (
        "from pccpipe.executor.input_request import check_request, InputRequest\n"
        "import yaml\n"
        "text = 'a0: &a0 [x]\\n' + ''.join(f'a{i}: &a{i} [{\",\".join([f\"*a{i-1}\"] * 9)}]\\n' for i in range(1, 30))",
        "check_request({'escalation': 'PCCPIPE INPUT\\n' + text})",
    ),
    "a request of 62 MiB of brackets": (
        _REQUEST + "    stream = request(b'[' + b'[],' * (62 << 20 >> 2) + b'1]')",
        _RUN := "Exchange(stream, slot, proxy.holder).run()",
    ),
    "a request of 62 MiB of one text": (
        _REQUEST + '    stream = request(b\'{"input":"\' + b"x" * (62 << 20) + b\'"}\')',
        _RUN,
    ),
    "an engine's answer of 300 MB": (
        _ENGINE + "    large = engine(b'[\"' + b'x' * 300_000_000 + b'\"]')",
        "large.info()",
    ),
    "an engine's answer of 16 MB of brackets": (
        _ENGINE + "    large = engine(b'[' + b'[],' * 5_300_000 + b'1]')",
        "large.info()",
    ),
    "a pattern of stars": (_PATTERNS, "Tree({'': Patterns(['*a' * 490 + 'b'])}).ignores('a' * 255, is_folder=False)"),
    "a pattern of folders": (
        _PATTERNS,
        "Tree({'': Patterns(['**/a' * 240 + '/b'])}).ignores('/'.join(['a'] * 100), is_folder=False)",
    ),
    "a log of 1 GB": (_LOG, "for _ in range(4000): log.write(Stream.STDOUT, piece)"),
    "200 MB of a secret's beginning, masked": (_MASK, "for _ in range(3200): mask.feed(b's3cret/' * 9362)"),
    "a pipeline of 1 MB of brackets": (_YAML, "parse_source(b'[' * 1_000_000, 'f')"),
    "a pipeline of 1 MB of keys": (_YAML, "parse_source(b'a: 1\\n' * 200_000, 'f')"),
    "an API's answer of 30 MB of brackets": (
        _USAGE.format(stream=False),
        "counter.feed(b'{\"usage\":[' + b'[],' * 10_000_000 + b'1]}'); counter.tokens(1)",
    ),
    "an API's stream of 30 MB without a line": (
        _USAGE.format(stream=True),
        "for _ in range(500): counter.feed(b'x' * 60_000)",
    ),
    **FLOODS,
}
"""Inputs by name: code that prepares one, and pccpipe's work on it."""


@dataclass(frozen=True)
class Cost:
    """Costs of an input.

    Attributes:
        memory: bytes beyond the input itself.
        stall: seconds of computing while another thread waited.
    """

    name: str
    memory: int
    stall: float


def measure_all() -> list[Cost]:
    """Measure all of them, and print each."""
    found: list[Cost] = []
    for name, (setup, work) in INPUTS.items():
        stall, memory, said = measured(setup, work)
        found.append(Cost(name, memory, stall))
        print(f"{name}: {memory / 1e6:.0f} MB, {1000 * stall:.0f} ms {said[:100]}", file=sys.stderr, flush=True)
    return found
