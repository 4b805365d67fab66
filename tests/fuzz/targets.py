"""List every parser of foreign bytes: functions of bytes, with the errors that they may raise beside PccpipeError."""

from __future__ import annotations

import contextlib
import functools
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

from pccpipe.checkup.checks import agent
from pccpipe.detached.lane import LaneShell, understood
from pccpipe.detached.trailer import TrailerFinder
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.stream import Body, EngineAnswer, EngineAnswerError, FrameParser
from pccpipe.errors import PccpipeError
from pccpipe.executor.input_request import check_request, requested_input, unmarked_request
from pccpipe.executor.replay import Replay
from pccpipe.executor.result import masked_result, parse_result
from pccpipe.gc.lease_folder import stray_files
from pccpipe.gc.look import Site, look
from pccpipe.gc.records import OnlyEnded
from pccpipe.gc.unknown import unknown_processes
from pccpipe.json_reader import NotJson, read_json
from pccpipe.machine.base import Done
from pccpipe.machine.lease import read_lease
from pccpipe.machine.provisioned import read_provisioned
from pccpipe.machine.script import parse_facts
from pccpipe.machine.startup import startup_files
from pccpipe.model_api import ModelApi
from pccpipe.record.codec import decode, encode, kind_of
from pccpipe.record.index import list_runs
from pccpipe.record.journal import read_events
from pccpipe.record.lock import is_abandoned
from pccpipe.secrets.mask import Masker
from pccpipe.secrets.proxy.egress import allows, split
from pccpipe.secrets.proxy.exchange import Exchange
from pccpipe.secrets.proxy.grant import Api, Grant
from pccpipe.secrets.proxy.hello import HelloScreen
from pccpipe.secrets.proxy.meter import Meter, ModelUse
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.proxy.request import Rules, read_request
from pccpipe.secrets.proxy.slots import ConnectionSlots
from pccpipe.secrets.proxy.usage import TokenCounter
from pccpipe.spec import jinja
from pccpipe.spec.expression import Expression, Template
from pccpipe.spec.load import check_schema_file, load_pipeline
from pccpipe.spec.position import Position
from pccpipe.spec.project import load_project
from pccpipe.spec.schema import find_schema
from pccpipe.spec.source import BadYaml, parse_source
from pccpipe.ssh.keys import identities
from pccpipe.ssh.known_hosts import HostKey, KnownHosts
from pccpipe.views.text import harmless, harmless_line, harmless_lines
from pccpipe.workspace import intake
from pccpipe.workspace.choice import Choice
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded, Ignored
from pccpipe.workspace.fetch import fetch_paths, fetch_tree
from pccpipe.workspace.listing import list_tree
from pccpipe.workspace.patch import brief
from tests.fuzz import machines, twins, wire
from tests.fuzz.sides import NEXT, FuzzedMachine, FuzzedStream
from tests.fuzz.target import SECRET, WORD, Target, each, file, folder, stays_within

_SCHEMA = Path(__file__).parents[2] / "schemas/builder-result.schema.json"


def _json(data: bytes) -> None:
    read_json(data, "the data")


def _result(data: bytes) -> None:
    value = parse_result(data, "result.json", None)
    masked_result(data, "result.json", Masker([SECRET]))
    unmarked_request(value)
    check_request(value)
    requested_input(value)


def _result_schema(data: bytes) -> None:
    parse_result(data, "result.json", find_schema("builder-result", folder()))


def _pipeline(data: bytes) -> None:
    load_pipeline(file(data, "pipeline.yaml"))


def _expression(data: bytes) -> None:
    text, at = data.decode("utf-8", "replace"), Position("file.yaml", 1, 1)
    scope = {"inputs": {"a": 1, "b": "text", "c": [1, 2, 3]}, "steps": {"s": {"result": {"x": "y"}}}}
    works: list[Callable[[], object]] = []
    for blocks in (False, True):
        if jinja.analyse(text, blocks=blocks).wrong is None:
            works.append(functools.partial(Template(text, at, blocks=blocks).render, scope))
    if jinja.analyse(text).wrong is None:
        works.append(functools.partial(Template(text, at).render_for_shell, scope))
    if jinja.analyse(text, is_expression=True).wrong is None:
        works.append(functools.partial(Expression(text, at).evaluate, scope))
    each(*works)


def _ignore(data: bytes) -> None:
    pattern, _, path = data.partition(NEXT)
    name = path.decode("utf-8", "replace").strip("/") or "a" * 60
    Ignored({".gitignore": len(pattern)}, lambda _: pattern)(name)
    Excluded(pattern.decode("utf-8", "replace").splitlines()).name(name, is_folder=False)


def _fetch_tree(data: bytes) -> None:
    target = folder() / "tree"
    fetch_tree(FuzzedMachine(data), "/w", _EmptyStore(), target, Excluded(), intake.Limits())
    stays_within(target)


def _fetch_paths(data: bytes) -> None:
    target = folder() / "paths"
    choice = Choice(["out", "report.txt", "a/**/*.[a-f]?", "*b*/"], ["*.log"])
    fetch_paths(FuzzedMachine(data), "/w", choice, choice.roots, target, intake.Limits(), Masker([SECRET]))
    stays_within(target)


class _EmptyStore:
    """A store without an earlier tree."""

    entries: dict[str, Entry] = {}  # noqa: RUF012 - as Known has it

    def put(self, path: str, target: Path) -> None:
        raise AssertionError("nothing was known")


def _listing(data: bytes) -> None:
    for _ in list_tree(FuzzedMachine(data), "/w", None, Excluded()):
        pass


def _gc(data: bytes) -> None:
    machine = FuzzedMachine(data)
    look(Site.on_vm(machine, "/home/user", OnlyEnded(lambda _: True), DockerEngine(machine, "/sock")))


def _words_of_a_vm(data: bytes) -> None:
    each(
        lambda: read_lease(FuzzedMachine(data), "/root"),
        lambda: stray_files(FuzzedMachine(data), "/root"),
        lambda: read_provisioned(FuzzedMachine(data), "/root"),
        lambda: unknown_processes(FuzzedMachine(data), "/root"),
        lambda: startup_files(FuzzedMachine(data)),
        lambda: agent._lines(data),
    )
    parse_facts(Done(0, data, b""))


def _lane(data: bytes) -> None:
    understood(FuzzedMachine(data), LaneShell(FuzzedStream(data)).ask(b"", "mark"))


def _trailer(data: bytes) -> None:
    finder = TrailerFinder("mark", "vm")
    shown = b""
    for start in range(0, len(data), 7):
        shown += finder.feed(data[start : start + 7])
    shown += finder.give_up()
    assert data.startswith(shown)


def _engine(data: bytes) -> None:
    engine = DockerEngine(FuzzedMachine(b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\n\r\n" + NEXT + data), "/sock")
    engine.open()
    each(
        lambda: engine.inspect("c"),
        lambda: engine.containers("a"),
        lambda: engine.listed({"a": "b"}),
        engine.info,
        lambda: engine.image_labels("i"),
        lambda: engine.image_id("i"),
    )


def _engine_version(data: bytes) -> None:
    DockerEngine(FuzzedMachine(data), "/sock").open()


def _engine_build(data: bytes) -> None:
    context = folder() / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\n")
    engine = DockerEngine(FuzzedMachine(b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\n\r\n" + NEXT + data), "/sock")
    engine.build("i", context, context / "Dockerfile", {}, lambda _: None)


def _engine_stream(data: bytes) -> None:
    answer = EngineAnswer(FuzzedStream(data), "GET", "/x")
    frames = FrameParser()
    while answer.has_more:
        list(frames.feed(answer.read()))


def _frames(data: bytes) -> None:
    frames = FrameParser()
    body = Body(chunked=True)
    for start in range(0, len(data), 5):
        list(frames.feed(data[start : start + 5]))
    for start in range(0, len(data), 5):
        body.feed(data[start : start + 5])


def _proxy(data: bytes) -> None:
    for kind in ModelApi:
        _proxy_of(data, kind)


def _proxy_of(data: bytes, kind: ModelApi) -> None:
    api = Api.at("KEY", SECRET, "http://127.0.0.1:9/v1", (*kind.calls, "GET /models"), kind=kind)
    grant = Grant((api,), ("127.0.0.1:9", "*.invalid:80"), Meter(1000, ModelUse(), lambda _: None), lambda _: None)
    proxy = Proxy()
    tokens = list(proxy.issue(grant).values())
    stream = FuzzedStream(data.replace(WORD, tokens[0].encode()))
    slot = ConnectionSlots().enter()
    assert slot is not None
    Exchange(stream, slot, proxy.holder).run()
    slot.leave()
    proxy.end(grant)
    assert SECRET.encode() not in b"".join(stream.sent)


def _request(data: bytes) -> None:
    for path in ("/responses", "/chat/completions", "/messages"):
        with contextlib.suppress(PccpipeError):
            up = b"".join(read_request(path, [data], Rules()).body(100))
            document = json.loads(up)
            assert 100 in [document.get(key) for key in _LIMITS]
            assert "mcp_servers" not in document
            for tool in document.get("tools") or ():
                assert not str(tool.get("type")).startswith(("mcp", "web_search", "code_interpreter", "file_search"))
            # The request that went up parses to the same content.
            assert json.loads(b"".join(read_request(path, [up], Rules()).body(100))) == document


_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")


def _usage(data: bytes) -> None:
    for is_stream in (False, True):
        counter = TokenCounter(is_stream=is_stream)
        for start in range(0, len(data), 100):
            counter.feed(data[start : start + 100])
        tokens = counter.tokens(100)
        assert tokens.total >= 0
        assert tokens.cached_input <= tokens.input


def _hello(data: bytes) -> None:
    up, _, down = data.partition(NEXT)
    for plain in (False, True):
        screen = HelloScreen("example.org", plain=plain)
        passed = b"".join(screen.from_client(up[start : start + 50]) for start in range(0, len(up), 50))
        assert up.startswith(passed)
        if down:
            screen.from_server(down)
            screen.from_client(up)


def _connect(data: bytes) -> None:
    host, port = split(data.decode("latin-1"))
    assert not allows(("example.org", "*.example.com:8080"), host, port) or host.lower().rstrip(".").endswith(
        (".example.com", "example.org")
    )


def _known_hosts(data: bytes) -> None:
    known = KnownHosts(file(data), "vm.example", 2222)
    assert known.key_types is not None
    known.check(HostKey("ssh-ed25519", b"key"), accept_new=False)


def _keys(data: bytes) -> None:
    list(identities(file(data)))


def _record(data: bytes) -> None:
    run = folder() / "runs" / "r1"
    run.mkdir(parents=True, exist_ok=True)
    (run / "events.jsonl").write_bytes(data)
    (run / "lock").write_bytes(data)
    list_runs(run.parent)
    is_abandoned(run)
    Replay(read_events(run))


def _event(data: bytes) -> None:
    event = decode(data)
    assert kind_of(decode(encode(event)).what) == kind_of(event.what)


_DISGUISES: tuple[str, ...] = ("{0}", "\\u{1:04x}", "\\x{1:02X}", "%{1:02x}", "&#{1};", "\\U{1:08x}", "\\{1:03o}")
_DISGUISES += ("\n{0}", "\x1b[31m{0}", "\u200b%25{1:02x}", "\\n{0}", "\\\\u{1:04x}", "\\u001b[0m&#x{1:x};")


def _mask(data: bytes) -> None:
    secret = SECRET.encode()
    data = data.replace(WORD, secret)
    assert secret not in Masker([SECRET]).data(data)
    stream = Masker([SECRET]).stream()
    pieces = [stream.feed(data[start : start + 13]) for start in range(0, len(data), 13)]
    assert secret not in b"".join([*pieces, stream.finish()])
    # The bytes also choose the disguise of each character of the secret; no choice hides it.
    text = "".join(
        _DISGUISES[byte % len(_DISGUISES)].format(each, ord(each)) for each, byte in zip(SECRET, data, strict=False)
    )
    if len(data) >= len(SECRET):
        assert Masker([SECRET]).text(f"<{text}>").endswith("***>")


def _escape(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for shown in (harmless(text), harmless_line(text), harmless_lines(text)):
        assert not [each for each in shown if unicodedata.category(each) in {"Cc", "Cs"} and each not in "\n\t"]


def _schema_file(data: bytes) -> None:
    check_schema_file(file(data, "own.schema.json"))


TARGETS: dict[str, Target] = {
    **machines.TARGETS,
    **twins.TARGETS,
    **wire.TARGETS,
    "connect": Target(_connect),
    "engine": Target(_engine),
    "engine-build": Target(_engine_build, (ConnectionError, TimeoutError)),
    "engine-stream": Target(_engine_stream, (EngineAnswerError, ValueError, ConnectionError)),
    "engine-version": Target(_engine_version),
    "escape": Target(_escape),
    "event": Target(_event),
    "expression": Target(_expression),
    "fetch-paths": Target(_fetch_paths, (ConnectionError, TimeoutError)),
    "fetch-tree": Target(_fetch_tree, (ConnectionError, TimeoutError)),
    "frames": Target(_frames, (ValueError,)),
    "gc": Target(_gc, (ConnectionError, TimeoutError)),
    "hello": Target(_hello),
    "ignore": Target(_ignore),
    "json": Target(_json, (NotJson,)),
    "keys": Target(_keys),
    "known-hosts": Target(_known_hosts),
    "lane": Target(_lane, (ConnectionError, TimeoutError)),
    "listing": Target(_listing, (ConnectionError, TimeoutError)),
    "mask": Target(_mask),
    "patch": Target(lambda data: brief(file(data))),
    "pipeline": Target(_pipeline),
    "project": Target(lambda data: load_project(file(data, "project.yaml"), {})),
    "proxy": Target(_proxy),
    "record": Target(_record),
    "request": Target(_request),
    "result": Target(_result),
    "result-schema": Target(_result_schema),
    "schema-file": Target(_schema_file),
    "trailer": Target(_trailer),
    "usage": Target(_usage),
    "vm-words": Target(_words_of_a_vm, (ValueError,)),
    "yaml": Target(lambda data: parse_source(data, "file.yaml"), (BadYaml,)),
}
