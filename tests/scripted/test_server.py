"""The scripted server speaks each API as its clients expect, and plays each fault."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from pccpipe.scripted.dialect import Asked
from pccpipe.scripted.reply import (
    CallTool,
    CutStream,
    ErrorAnswer,
    GiveResult,
    ModelUsage,
    Reply,
    Say,
    Shell,
    WriteFile,
)
from pccpipe.scripted.server import ScriptedServer

Json = dict[str, Any]
KEY = "sk-of-this-test"
PATHS = {
    "openai": "/v1/responses",
    "anthropic": "/v1/messages?beta=true",
    "gemini": "/v1beta/models/m:streamGenerateContent?alt=sse",
}
HEADERS = {
    "openai": {"Authorization": f"Bearer {KEY}"},
    "anthropic": {"x-api-key": KEY},
    "gemini": {"x-goog-api-key": KEY},
}
ALL = pytest.mark.parametrize("api", list(PATHS))


class Model:
    """A server whose next replies the test gives; it repeats the last one."""

    def __init__(self) -> None:
        self.replies: list[Reply] = [Reply(Say("ok"))]
        self.asked: list[tuple[str, Asked]] = []
        self.server = ScriptedServer(self._choose, key=KEY)

    def _choose(self, path: str, asked: Asked) -> Reply:
        self.asked.append((path, asked))
        return self.replies[min(asked.done, len(self.replies) - 1)]

    def post(self, path: str, body: Json, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=10)
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return response, response.read()

    def ask(self, api: str, prompt: str = "do it", done: int = 0) -> list[Json]:
        """Ask in the way of an agent, and return the events of the stream."""
        response, data = self.post(PATHS[api], request(api, prompt, done), HEADERS[api])
        assert response.status == 200, data
        return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: ")]


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.server.close()


def request(api: str, prompt: str, done: int = 0) -> Json:
    """Return a request with the prompt, and that many results of tools after it."""
    if api == "openai":
        call = {"type": "function_call_output", "call_id": "c", "output": "fine"}
        user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}
        shell = {"type": "function", "name": "exec_command"}
        return {"model": "m", "stream": True, "input": [user, *[call] * done], "tools": [shell]}
    if api == "anthropic":
        block = {"type": "tool_result", "tool_use_id": "t", "content": "fine"}
        turn = {"role": "user", "content": [block]}
        user = {"role": "user", "content": f"<system-reminder>tidy</system-reminder>{prompt}"}
        system = "Primary working directory: /workspace\n"
        tools: list[Json] = [
            {"name": name, "input_schema": {"properties": {}}} for name in ("Bash", "Write", "StructuredOutput")
        ]
        messages = [user, *[turn] * done]
        return {"model": "m", "stream": True, "system": system, "messages": messages, "tools": tools}
    part = {"functionResponse": {"name": "f", "response": {"output": "fine"}}}
    contents = [{"role": "user", "parts": [{"text": prompt}]}, *[{"role": "user", "parts": [part]}] * done]
    return {"contents": contents, "tools": [{"functionDeclarations": [{"name": "run_shell_command"}]}]}


def text_in(api: str, events: list[Json]) -> str:
    """Join the text of a stream, as a client does."""
    if api == "openai":
        return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    if api == "anthropic":
        return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    return "".join(part.get("text", "") for event in events for part in parts(event))


def parts(event: Json) -> list[Json]:
    found: list[Json] = event["candidates"][0]["content"]["parts"]
    return found


def usage_in(api: str, events: list[Json]) -> tuple[int, int, int]:
    """Return the input, the cached part of it, and the output, as the API's clients read them."""
    if api == "openai":
        usage = events[-1]["response"]["usage"]
        return usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"], usage["output_tokens"]
    if api == "anthropic":
        usage = next(event["usage"] for event in reversed(events) if event["type"] == "message_delta")
        cached = usage["cache_read_input_tokens"]
        return usage["input_tokens"] + cached, cached, usage["output_tokens"]
    usage = events[-1]["usageMetadata"]
    return usage["promptTokenCount"], usage["cachedContentTokenCount"], usage["candidatesTokenCount"]


@ALL
def test_a_message_arrives_in_pieces_with_its_usage(model: Model, api: str) -> None:
    model.replies = [
        Reply(Say("a message of more than forty characters, so of several pieces"), usage=ModelUsage(9, 4, 2))
    ]
    events = model.ask(api)
    assert text_in(api, events) == "a message of more than forty characters, so of several pieces"
    assert usage_in(api, events) == (9, 4, 2)
    assert model.asked[0][1].prompt == "do it"


@ALL
def test_the_reply_is_chosen_by_the_results_after_the_last_prompt(model: Model, api: str) -> None:
    model.replies = [Reply(Shell("ls")), Reply(Say("second")), Reply(Say("third"))]
    assert text_in(api, model.ask(api, done=1)) == "second"
    assert text_in(api, model.ask(api, done=2)) == "third"
    assert [asked.done for _, asked in model.asked] == [1, 2]


def test_each_api_has_a_call_of_the_shell_in_its_own_form(model: Model) -> None:
    model.replies = [Reply(Shell("ls -l"), say="I look.")]
    item = model.ask("openai")[-1]["response"]["output"][-1]
    assert (item["name"], json.loads(item["arguments"])["cmd"]) == ("exec_command", "ls -l")
    events = model.ask("anthropic")
    given = "".join(event.get("delta", {}).get("partial_json", "") for event in events)
    assert json.loads(given)["command"] == "ls -l"
    assert {"stop_reason": "tool_use", "stop_sequence": None} in [event.get("delta") for event in events]
    calls = [part["functionCall"] for event in model.ask("gemini") for part in parts(event) if "functionCall" in part]
    assert [(call["name"], call["args"]["command"]) for call in calls] == [("run_shell_command", "ls -l")]


def test_a_result_goes_through_the_tool_for_it_if_there_is_one(model: Model) -> None:
    model.replies = [Reply(GiveResult({"status": "approved"}))]
    events = model.ask("anthropic")
    assert [e["content_block"]["name"] for e in events if e["type"] == "content_block_start"] == ["StructuredOutput"]
    assert json.loads(text_in("openai", model.ask("openai"))) == {"status": "approved"}
    assert json.loads(text_in("gemini", model.ask("gemini"))) == {"status": "approved"}


def test_a_file_is_written_with_the_agents_own_tool(model: Model) -> None:
    model.replies = [Reply(WriteFile("a/b.txt", "one\ntwo\n"))]
    given = "".join(event.get("delta", {}).get("partial_json", "") for event in model.ask("anthropic"))
    assert json.loads(given) == {"file_path": "/workspace/a/b.txt", "content": "one\ntwo\n"}
    command = json.loads(model.ask("openai")[-1]["response"]["output"][-1]["arguments"])["cmd"]
    assert "*** Add File: a/b.txt\n+one\n+two\n*** End Patch" in command


def test_a_command_that_still_runs_is_asked_about(model: Model) -> None:
    body = request("openai", "go")
    still = {"type": "function_call_output", "call_id": "c", "output": "Process running with session ID 7"}
    _, data = model.post(
        PATHS["openai"], {**body, "stream": False, "input": [*body["input"], still]}, HEADERS["openai"]
    )
    item = json.loads(data)["output"][0]
    assert (item["name"], json.loads(item["arguments"])["session_id"]) == ("write_stdin", 7)


@ALL
def test_an_error_comes_as_often_as_it_should_and_in_the_apis_form(model: Model, api: str) -> None:
    model.replies = [Reply(Say("at last"), faults=(ErrorAnswer(429, 2, headers={"retry-after": "7"}),))]
    for _ in range(2):
        response, data = model.post(PATHS[api], request(api, "x"), HEADERS[api])
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        assert json.loads(data)["error"]["message"]
    assert text_in(api, model.ask(api, "x")) == "at last"


@ALL
def test_a_cut_stream_has_no_end_and_the_next_one_is_whole(model: Model, api: str) -> None:
    model.replies = [Reply(Say("words " * 40), faults=(CutStream(),))]
    cut, whole = model.ask(api), model.ask(api)
    assert 0 < len(cut) < len(whole)
    assert cut[-1] != whole[-1]
    assert text_in(api, whole) == "words " * 40


@ALL
def test_another_key_is_refused(model: Model, api: str) -> None:
    wrong = {name: value.replace(KEY, "sk-other") for name, value in HEADERS[api].items()}
    response, _ = model.post(PATHS[api], request(api, "x"), wrong)
    assert response.status == 401
    elsewhere = {"x-other": KEY}
    assert model.post(PATHS[api], request(api, "x"), elsewhere)[0].status == 401


@ALL
def test_an_answer_may_be_empty(model: Model, api: str) -> None:
    model.replies = [Reply(None)]
    events = model.ask(api)
    assert events
    assert text_in(api, events) == ""


def test_requests_beside_the_models_calls_are_answered(model: Model) -> None:
    count = model.post("/v1/messages/count_tokens", request("anthropic", "x"), HEADERS["anthropic"])
    assert json.loads(count[1])["input_tokens"] > 0
    assert model.post("/v1/else", {}, {})[0].status == 404
    connection = http.client.HTTPConnection(urlsplit(model.server.url).netloc, timeout=10)
    connection.request("HEAD", "/v1")
    assert connection.getresponse().status == 200
    assert not model.asked


@pytest.mark.parametrize(
    "body", [{}, {"input": 5}, {"input": [None, 1, {"role": "user", "content": 3}]}, {"tools": [[]]}]
)
@ALL
def test_an_odd_request_is_answered(model: Model, api: str, body: Json) -> None:
    odd = {**body, "messages": body.get("input"), "contents": body.get("input")}
    assert model.post(PATHS[api], odd, HEADERS[api])[0].status == 200


def test_any_tool_can_be_called(model: Model) -> None:
    model.replies = [Reply(CallTool("Read", {"file_path": "/x"}))]
    given = "".join(event.get("delta", {}).get("partial_json", "") for event in model.ask("anthropic"))
    assert json.loads(given) == {"file_path": "/x"}


def test_a_file_that_claude_code_must_read_first_is_read_and_then_written(model: Model) -> None:
    model.replies = [Reply(WriteFile("a.txt", "x"))]
    body = request("anthropic", "go")
    call = {"type": "tool_use", "id": "toolu_1", "name": "Write", "input": {"file_path": "/workspace/a.txt"}}
    refused = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "File has not been read yet. Read it first."}
    body["messages"] += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [refused]}]
    _, data = model.post(PATHS["anthropic"], {**body, "stream": False}, HEADERS["anthropic"])
    (read,) = json.loads(data)["content"]
    assert (read["name"], read["input"]) == ("Read", {"file_path": "/workspace/a.txt"})
    shown = {"type": "tool_result", "tool_use_id": read["id"], "content": "1 old"}
    body["messages"] += [{"role": "assistant", "content": [read]}, {"role": "user", "content": [shown]}]
    _, data = model.post(PATHS["anthropic"], {**body, "stream": False}, HEADERS["anthropic"])
    assert json.loads(data)["content"][0]["name"] == "Write"
    assert [asked.done for _, asked in model.asked] == [0]
