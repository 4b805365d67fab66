"""Requests that an agent may send to a model's API through the proxy, and those that it may not."""

from __future__ import annotations

import base64
import json

import pytest

from pccpipe import limits
from pccpipe.secrets.proxy.request import RefusedRequestError, Request, Rules, read_request
from tests.secrets.test_proxy import ASK, Client
from tests.stall import measured
from tests.testbed.model import ModelServer


def read(path: str, document: object, **rules: tuple[str, ...]) -> Request:
    return read_request(path, [json.dumps(document).encode()], Rules(**rules))


def user(*parts: object) -> dict[str, object]:
    return {"model": "m", "input": [{"type": "message", "role": "user", "content": list(parts)}]}


def assistant(part: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": [part]}]}


def parts(*each: object) -> dict[str, object]:
    return {"contents": [{"role": "user", "parts": list(each)}]}


FETCHED: list[tuple[str, object, str]] = [
    ("/responses", user({"type": "input_image", "image_url": "https://evil.example/x.png"}), "image_url"),
    ("/responses", user({"type": "input_image", "image_url": "HTTPS://evil.example/x.png"}), "image_url"),
    ("/responses", user({"type": "input_image", "file_id": "file-1"}), "file_id"),
    ("/responses", user({"type": "input_file", "file_url": "https://evil.example/x.pdf"}), "file_url"),
    ("/responses", {"input": [{"type": "item_reference", "id": "rs_1"}]}, "item_reference"),
    ("/responses", {"input": [{"id": "rs_1"}]}, "item_reference"),
    ("/responses", {"input": [{"type": "mcp_approval_response", "approve": True}]}, "mcp"),
    (
        "/responses",
        {
            "input": [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_file", "file_url": "http://x"}],
                }
            ]
        },
        "file_url",
    ),
    ("/responses", {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    ("/responses", {"input": "x", "conversation": "conv_1"}, "conversation"),
    ("/responses", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    ("/responses", {"input": "x", "a_field_of_tomorrow": 1}, "a_field_of_tomorrow"),
    (
        "/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
        "image_url",
    ),
    (
        "/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "http://x"}}]}]},
        "video_url",
    ),
    ("/chat/completions", {"messages": [], "web_search_options": {}}, "web_search_options"),
    (
        "/messages",
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}]},
        "url",
    ),
    (
        "/messages",
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]},
        "file_id",
    ),
    ("/messages", {"messages": [], "mcp_servers": [{"type": "url", "url": "https://x"}]}, "mcp_servers"),
    ("/messages", {"messages": [], "container": {"skills": []}}, "container"),
    ("/messages", {"messages": [], "speed": "fast"}, "speed"),
    ("/v1beta/models/g:generateContent", {"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]}, "fileUri"),
    ("/v1beta/models/g:generateContent", {"contents": [], "cachedContent": "cachedContents/1"}, "cachedContent"),
    ("/v1beta/models/g:generateContent", {"contents": [], "cached_content": "cachedContents/1"}, "cachedContent"),
    ("/v1beta/models/g:generateContent", parts({"file_data": {"file_uri": "https://x"}}), "file_uri"),
    # The result of an agent's tool may have files beside what the tool said.
    (
        "/v1beta/models/g:generateContent",
        parts({"functionResponse": {"response": {}, "parts": [{"fileData": {"fileUri": "https://x"}}]}}),
        "fileUri",
    ),
    ("/v1beta/models/g:generateContent", {"systemInstruction": {"parts": [{"fileData": {"fileUri": "u"}}]}}, "fileUri"),
    # A type of one API hides nothing from the check of another.
    ("/v1beta/models/g:generateContent", parts({"type": "url_citation", "fileData": {"fileUri": "u"}}), "fileUri"),
    (
        "/v1beta/models/g:generateContent",
        parts({"type": "tool_use", "input": {"fileData": {"fileUri": "u"}}}),
        "fileUri",
    ),
    (
        "/v1beta/models/g:generateContent",
        parts({"type": "functionCall", "args": {"fileData": {"fileUri": "u"}}}),
        "fileUri",
    ),
    ("/responses", user({"type": "tool_use", "input": {"image_url": "https://x"}}), "image_url"),
    ("/responses", user({"type": "url_citation", "image_url": {"url": "https://x"}}), "image_url"),
    ("/responses", user({"functionCall": {"args": {"image_url": "https://x"}}}), "image_url"),
    ("/messages", assistant({"type": "shell_call", "action": {"source": {"type": "url", "url": "u"}}}), "url"),
    ("/messages", assistant({"type": "image", "source": {"type": "s3", "key": "k"}}), "s3"),
    ("/messages", assistant({"type": "image", "source": {"type": "url", "URL": "https://x"}}), "URL"),
    ("/messages", assistant({"type": "document", "source": {"Type": "url", "type": "text"}}), "Type"),
    (
        "/messages",
        assistant({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}),
        "url",
    ),
    (
        "/messages",
        assistant(
            {"type": "document", "source": {"type": "content", "content": [{"source": {"type": "url", "url": "u"}}]}}
        ),
        "url",
    ),
    ("/messages", assistant({"type": "container_upload", "file_id": "f"}), "file_id"),
    ("/messages", assistant({"type": "mcp_tool_use", "server_name": "s"}), "mcp"),
    ("/messages", {"system": [{"type": "image", "source": {"type": "url", "url": "u"}}]}, "url"),
    ("/messages", {"messages": [], "Mcp_Servers": []}, "Mcp_Servers"),
    ("/messages/count_tokens", {"messages": [], "mcp_servers": []}, "mcp_servers"),
]


@pytest.mark.parametrize(("path", "document", "name"), FETCHED)
def test_the_provider_fetches_stores_and_runs_only_what_is_named(path: str, document: object, name: str) -> None:
    with pytest.raises(RefusedRequestError, match="hosted_tools") as refused:
        read(path, document)
    assert refused.value.code == "pccpipe_not_allowed"
    read(path, document, hosted_tools=(name,))


def tool(path: str, kind: str) -> tuple[str, dict[str, object], str]:
    """Return a call with a tool of a provider, and the tool's name."""
    if path == "/messages":
        return path, {"messages": [], "tools": [{"type": f"{kind}_20250825", "name": "x"}]}, kind
    return path, {"contents": [], "tools": [{kind: {}, "functionDeclarations": []}]}, kind


HOSTED: list[tuple[str, dict[str, object], str]] = [
    ("/responses", {"input": "x", "tools": [{"type": "mcp", "server_url": "https://evil.example"}]}, "mcp"),
    ("/responses", {"input": "x", "tools": [{"type": "web_search"}]}, "web_search"),
    ("/responses", {"input": "x", "tools": [{"type": "web_search_preview_2025_03_11"}]}, "web_search"),
    ("/responses", {"input": "x", "tools": [{"type": "namespace", "tools": [{"type": "file_search"}]}]}, "file_search"),
    (
        "/responses",
        {"input": "x", "tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
        "container_auto",
    ),
    (
        "/responses",
        {"input": "x", "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        "code_interpreter",
    ),
    ("/responses", {"input": "x", "tools": [{"type": "a_tool_of_tomorrow"}]}, "a_tool_of_tomorrow"),
    ("/messages", {"messages": [], "tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, "web_fetch"),
    ("/v1beta/models/g:streamGenerateContent", {"contents": [], "tools": [{"googleSearch": {}}]}, "googleSearch"),
    tool("/v1beta/models/g:generateContent", "googleSearchRetrieval"),
    tool("/v1beta/models/g:generateContent", "urlContext"),
    tool("/v1beta/models/g:generateContent", "codeExecution"),
    tool("/v1beta/models/g:generateContent", "googleMaps"),
    tool("/v1beta/models/g:generateContent", "fileSearch"),
    tool("/v1beta/models/g:generateContent", "aToolOfTomorrow"),
    tool("/messages", "web_search"),
    tool("/messages", "code_execution"),
    tool("/messages", "advisor"),
    tool("/messages", "mcp_toolset"),
    tool("/messages", "bash_code_execution"),
    tool("/messages", "memory_store"),
    ("/chat/completions", {"messages": [], "tools": [{"name": "x"}]}, "untyped"),
    ("/responses", {"input": "x", "tools": [{"type": "shell", "environment": "container_auto"}]}, "container_auto"),
]


@pytest.mark.parametrize(("path", "document", "name"), HOSTED)
def test_the_agent_gets_a_hosted_tool_only_if_it_is_named(path: str, document: dict[str, object], name: str) -> None:
    request = read(path, document)
    assert name.split("_")[0] in str(request.removed_tools)
    body = json.loads(b"".join(request.body(None)))
    assert name not in json.dumps(body)
    allowed = read(path, document, hosted_tools=(name,))
    assert json.loads(b"".join(allowed.body(None)))["tools"] == document["tools"]


def test_an_agents_own_tools_stay_when_others_are_removed() -> None:
    own = {"type": "function", "name": "f"}
    document = {"input": "x", "tool_choice": "auto", "tools": [{"type": "web_search"}, own]}
    body = json.loads(b"".join(read("/responses", document).body(None)))
    assert (body["tools"], body["tool_choice"]) == ([own], "auto")


SCHEMA = {"properties": {"file_id": {"type": "string"}, "url": {"type": "string"}}}
ARGUMENTS = {"url": "https://x", "file_id": 1}
HISTORY = {
    "type": "web_search_tool_result",
    "content": [{"type": "web_search_result", "url": "https://x", "encrypted_content": "x"}],
}
OWN: list[tuple[str, dict[str, object]]] = [
    ("/responses", user({"type": "input_image", "image_url": "data:image/png;base64,AAAA"})),
    ("/responses", user({"type": "input_text", "text": "see https://example.org and file_id"})),
    ("/responses", {"input": "x", "previous_response_id": None, "store": False}),
    ("/responses", {"input": "x", "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]}),
    (
        "/responses",
        {"input": [{"type": "local_shell_call", "call_id": "c", "action": {"env": {"API_URL": "http://x"}}}]},
    ),
    ("/responses", {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": []}]}),
    ("/chat/completions", {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}], "functions": []}),
    ("/messages", assistant({"type": "tool_use", "id": "t", "name": "Fetch", "input": ARGUMENTS})),
    ("/messages", {"messages": [], "tools": [{"name": "Bash", "input_schema": SCHEMA}, {"type": "bash_20250124"}]}),
    ("/v1beta/models/g:generateContent", {"contents": [{"parts": [{"functionCall": {"args": ARGUMENTS}}]}]}),
    ("/v1beta/models/g:generateContent", {"contents": [], "tools": [{"functionDeclarations": [SCHEMA]}]}),
    (
        "/v1beta/models/g:generateContent",
        {"contents": [], "generationConfig": {"topK": 1, "maxOutputTokens": 5}},
    ),
    ("/messages", {"messages": [], "max_tokens": 5}),
    (
        "/messages",
        assistant({"type": "text", "text": "x", "citations": [{"type": "web_search_result_location", "url": "u"}]}),
    ),
    (
        "/responses",
        user({"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "https://x"}]}),
    ),
    # An earlier search that was allowed is a part of the conversation.
    ("/messages", assistant(HISTORY)),
    ("/messages", assistant({"type": "document", "source": {"type": "base64", "media_type": "x", "data": "AAAA"}})),
    (
        "/messages",
        {"messages": [], "tools": [{"type": "text_editor_20250728"}, {"type": "tool_search_tool_bm25_20251119"}]},
    ),
    (
        "/v1beta/models/g:generateContent",
        parts({"functionResponse": {"id": "c", "name": "f", "response": {"file_id": "f", "url": "https://x"}}}),
    ),
    ("/v1beta/models/g:generateContent", parts({"inlineData": {"mimeType": "image/png", "data": "AAAA"}})),
    ("/embeddings", {"input": "x", "anything": {"url": "https://x"}}),
]


@pytest.mark.parametrize(("path", "document"), OWN)
def test_an_agents_own_tools_and_words_pass(path: str, document: dict[str, object]) -> None:
    body = json.loads(b"".join(read(path, document).body(None)))
    assert {key: value for key, value in body.items() if key != "store"} == {
        key: value for key, value in document.items() if key != "store"
    }


def test_models_and_service_tiers_are_allowed_by_name() -> None:
    for tier in ("auto", "default", "flex", None):
        read("/responses", {"model": "m", "input": "x", "service_tier": tier})
    with pytest.raises(RefusedRequestError, match="service_tiers"):
        read("/responses", {"model": "m", "input": "x", "service_tier": "priority"})
    read("/responses", {"model": "m", "input": "x", "service_tier": "priority"}, service_tiers=("priority",))
    gemini = "/v1beta/models/m:generateContent"
    with pytest.raises(RefusedRequestError, match="service_tiers"):
        read(gemini, {"contents": [], "serviceTier": "priority"})
    read(gemini, {"contents": [], "serviceTier": "priority"}, service_tiers=("priority",))
    for path, document in (
        ("/responses", {"model": "dear", "input": "x"}),
        ("/responses", {"model": ["m"], "input": "x"}),
        ("/v1beta/models/dear:generateContent", {"contents": []}),
    ):
        with pytest.raises(RefusedRequestError, match="these are: m"):
            read(path, document, models=("m",))
    read("/v1beta/models/m:generateContent", {"contents": []}, models=("m",))


def test_the_proxy_sends_only_what_it_read(client: Client, model: ModelServer) -> None:
    connection = client.connection()
    body = b'{"model": "m", "input": "good", "tools": [{"type": "mcp"}], "tools": [], "input": "last"}'
    connection.request("POST", "/v1/responses", body, {"Authorization": f"Bearer {client.tokens['KEY']}"})
    assert connection.getresponse().status == 200
    assert model.requests[0].body == {"model": "m", "input": "last", "tools": [], "store": False}


def test_headers_and_parameters_are_forwarded_by_name_only(client: Client, model: ModelServer) -> None:
    connection = client.connection()
    headers = {
        **{"Authorization": f"Bearer {client.tokens['KEY']}", "OpenAI-Organization": "org-dear", "OpenAI-Project": "p"},
        **{"X-Goog-Api-Key": "k", "X-Goog-User-Project": "p", "X-Forwarded-For": "1.2.3.4", "OpenAI-Beta": "b"},
        **{"X-Stainless-Lang": "js", "Originator": "codex_exec", "Helicone-Auth": "x"},
    }
    connection.request("POST", "/v1/responses?key=k&beta=true&org=dear", json.dumps(ASK), headers)
    assert connection.getresponse().status == 200
    (request,) = model.requests
    assert request.path == "/v1/responses?beta=true"
    sent = {name.lower() for name in request.headers}
    assert {"openai-beta", "x-stainless-lang", "originator"} <= sent
    assert not sent & {"openai-organization", "openai-project", "x-goog-api-key", "x-goog-user-project"}
    assert not sent & {"x-forwarded-for", "helicone-auth"}


def test_a_refusal_is_a_400_that_says_what_to_do_and_a_warning(client: Client, model: ModelServer) -> None:
    status, code, message = client.error("POST", "/v1/responses", {"input": "x", "prompt": {"id": "p"}})
    assert (status, code) == (400, "pccpipe_not_allowed")
    assert "fix: `hosted_tools: [prompt]` at the secret" in message
    assert client.warnings
    assert not model.requests


def test_a_removed_tool_is_a_warning(client: Client, model: ModelServer) -> None:
    for _ in range(3):
        client.ask("POST", "/v1/responses", {"input": "x", "tools": [{"type": "web_search"}]})
    assert len(model.requests) == 3
    (warning,) = client.warnings
    assert "hosted_tools: [web_search]" in warning


def test_a_large_request_with_a_picture_passes(client: Client, model: ModelServer) -> None:
    picture = "data:image/png;base64," + base64.b64encode(b"x" * (6 << 20)).decode()
    status, _ = client.ask("POST", "/v1/responses", user({"type": "input_image", "image_url": picture}))
    assert status == 200
    body = model.requests[0].body
    assert body
    assert body["input"][0]["content"][0]["image_url"] == picture


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"a":[' + b"[]," * (60 << 18) + b"1]}", "pccpipe_too_large"),
        (b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "pccpipe_too_large"),
        (b'{"input": "\\ud83d"}', "pccpipe_uncountable"),
        (b'{"input": 1e999}', "pccpipe_uncountable"),
        (b'{"max_output_tokens": "16"}', "pccpipe_uncountable"),
        (b'{"max_output_tokens": -1}', "pccpipe_uncountable"),
        (b'{"max_output_tokens": true}', "pccpipe_uncountable"),
        (b'{"tools": {"type": "mcp"}}', "pccpipe_uncountable"),
        (b'{"tools": ["mcp"]}', "pccpipe_uncountable"),
    ],
)
def test_a_hostile_request_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(RefusedRequestError) as refused:
        read_request("/responses", [data], Rules())
    assert refused.value.code == code
    assert "Traceback" not in refused.value.message


@pytest.mark.parametrize(
    "config",
    [
        {"max_output_tokens": 9, "maxOutputTokens": 9},
        {"maxoutputtokens": 10**6},
        {"Max_Output_Tokens": 10**6},
        {"CandidateCount": 8},
    ],
)
def test_a_limit_under_an_odd_name_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(RefusedRequestError) as refused:
        read("/v1beta/models/g:generateContent", {"contents": [], "generationConfig": config})
    assert refused.value.code == "pccpipe_uncountable"


def test_names_with_underscores_count_as_geminis_own() -> None:
    config = {"max_output_tokens": 7, "candidate_count": 3}
    request = read("/v1beta/models/g:generateContent", {"contents": [], "generation_config": config})
    assert (request.output, request.choices) == (7, 3)
    tools: list[object] = [{"google_search": {}, "function_declarations": []}]
    request = read("/v1beta/models/g:generateContent", {"contents": [], "tools": tools})
    assert request.removed_tools == ["googleSearch"]
    assert json.loads(b"".join(request.body(None)))["tools"] == [{"functionDeclarations": []}]


@pytest.mark.parametrize("path", ["/responses", "/messages"])
@pytest.mark.parametrize("odd", [{"Type": "mcp"}, {"TYPE": "mcp", "type": "custom"}, {"type": "custom", "Tools": []}])
def test_a_tool_with_an_odd_key_is_refused(path: str, odd: dict[str, object]) -> None:
    with pytest.raises(RefusedRequestError, match="must be written"):
        read(path, {"messages" if path == "/messages" else "input": [], "tools": [odd]})


def test_the_request_says_its_model_and_the_shortest_answer_that_its_api_takes() -> None:
    thinking = {"type": "enabled", "budget_tokens": 31_999}
    request = read("/v1/messages", {"model": "claude", "messages": [], "max_tokens": 32_000, "thinking": thinking})
    assert (request.model, request.shortest) == ("claude", 32_000)
    request = read("/v1beta/models/g:generateContent", {"contents": []})
    assert (request.model, request.shortest) == ("g", 1)
    assert read("/responses", {"input": "x"}).model == ""


@pytest.mark.parametrize("count", [1, 4])
def test_no_request_blocks_the_other_threads(count: int) -> None:
    setup = """
        import threading
        from pccpipe.secrets.proxy.request import Rules, read_request
        piece = b"[]," * 21_000
        pieces = [b'{"a":['] + [piece] * 1000 + [b"1]}"]
        picture = [b'{"input": [{"image_url": "data:image/png;base64,'] + [b"A" * 65536] * 300 + [b'"}]}']
        small = [b'{"a":[' + b"[]," * 85_000 + b"1]}"]
        def ask(pieces):
            try: read_request("/responses", pieces, Rules())
            except Exception: pass
        ask([b"{}"])
    """
    work = f"""
        threads = [threading.Thread(target=ask, args=(p,)) for p in (pieces, picture, small) for _ in range({count})]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """
    longest, memory, said = measured(setup, work)
    assert said == ""
    assert longest < limits.PAUSE
    # The rewritten pictures, and no more.
    assert memory < count * (20 << 20) + limits.MARGIN


def test_a_text_that_looks_like_a_picture_counts_as_text() -> None:
    picture = "data:image/png;base64," + "A" * 60_000
    inline = {"type": "base64", "media_type": "image/png", "data": "A" * 60_000}
    for path, document in (
        ("/responses", user({"type": "input_text", "text": picture})),
        ("/responses", {"input": picture}),
        ("/messages", assistant({"type": "tool_use", "id": "t", "name": "f", "input": {"image_url": picture}})),
        ("/messages", assistant({"type": "tool_use", "id": "t", "name": "f", "input": inline})),
        ("/messages", assistant({"type": "text", "text": "x", "more": inline})),
    ):
        assert read(path, document).most_input > 60_000
    assert 10_000 <= read("/responses", user({"type": "input_image", "image_url": picture})).most_input < 11_000
    assert 10_000 <= read("/messages", assistant({"type": "image", "source": inline})).most_input < 11_000
    data = {"inlineData": {"mimeType": "image/png", "data": "A" * 60_000}}
    gemini = "/v1beta/models/g:generateContent"
    assert 10_000 <= read(gemini, parts(data)).most_input < 11_000
    assert read(gemini, parts({"functionResponse": {"response": data}})).most_input > 60_000
    assert read(gemini, {**parts(), "tools": [{"functionDeclarations": [data]}]}).most_input > 60_000


def test_a_name_allows_its_versions_and_not_longer_names() -> None:
    for kind in ("web_search", "web_search_preview", "web_search_20250305"):
        assert not read(
            "/responses", {"input": "x", "tools": [{"type": kind}]}, hosted_tools=("web_search",)
        ).removed_tools
    assert read("/responses", {"input": "x", "tools": [{"type": "mcpx"}]}, hosted_tools=("mcp",)).removed_tools == [
        "mcpx"
    ]
    assert read("/responses", {"input": "x", "tools": [{"type": "web_search"}]}, hosted_tools=("web_s",)).removed_tools


@pytest.mark.parametrize(
    ("path", "document", "output", "choices"),
    [
        ("/chat/completions", {"messages": [], "max_tokens": 50, "max_completion_tokens": 5}, 5, 1),
        ("/chat/completions", {"messages": [], "max_tokens": 5, "max_completion_tokens": 50}, 5, 1),
        ("/chat/completions", {"messages": [], "n": 128}, None, 128),
        ("/chat/completions", {"messages": [], "best_of": 3}, None, 3),
        ("/v1beta/models/g:generateContent", {"contents": [], "generationConfig": {"candidateCount": 4}}, None, 4),
    ],
)
def test_an_answer_may_have_the_lowest_limit_for_each_choice(
    path: str, document: dict[str, object], output: int | None, choices: int
) -> None:
    request = read(path, document)
    assert (request.output, request.choices) == (output, choices)


@pytest.mark.parametrize("choices", [129, -1, "2", 1.5])
def test_an_invalid_number_of_answers_is_refused(choices: object) -> None:
    with pytest.raises(RefusedRequestError, match="from 1 to 128"):
        read("/chat/completions", {"messages": [], "n": choices})
