"""A valid pipeline never crashes a run, whatever odd value people and programs write for any one of its keys."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from pccpipe.errors import PccpipeError, SpecError
from pccpipe.executor.plan import make_plan
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.project_model import Project
from pccpipe.spec.source import parse_source
from pccpipe.spec.write import yaml_text
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Stage

PIPELINE = """
env: {A: b}
timeout: 1h
inputs: {n: {type: integer, default: 3, minimum: 1, maximum: 5, description: how many}, word: {type: string, default: a, enum: [a, b]}, many: {type: list, default: [1, a], enum: [1, a]}}
secrets: {KEY: {from: env, name: KEY, via: proxy, api: openai, upstream: "https://example.org", allow: ["GET /x"], models: [m]}}
defaults: {on: vm, timeout: 5m, env: {C: d}, cwd: ., retry: {attempts: 1, backoff: 1s, on: [failed]}, log_limit: 10m, shell: sh, shell_options: [errexit]}
containers:
  box: {image: i, memory: 1g, cpus: 1, pids: 100, home_size: 1g, env: {E: f}, network: none, egress: [example.org], user: root, capabilities: [CHOWN], init: true}
steps:
  - {id: send, upload: workspace, exclude: [x]}
  - id: a
    name: A
    description: of a
    if: inputs.n > 2
    run: echo ${{ inputs.n }}
    env: {G: h}
    timeout: 10
    retry: {attempts: 2, backoff: 0, max_backoff: 2, on: [failed, lost], exit_codes: [75]}
    files: {f: {text: x}}
    secrets: [KEY]
    max_tokens: 100
    budget: {tokens: 2M, usd: 3.5, at_end: ask}
    log_limit: 1m
    continue_on_error: true
    fails_as: not_good
    isolation: preferred
  - {id: coded, run: x, continue_on_error: {exit_codes: [1]}}
  - {id: m, matrix: {v: [1, x, 1.5], w: [true]}, max_parallel: 2, run: "echo ${{ matrix.v }}"}
  - {id: legs, matrix: {v: "${{ inputs.many }}", w: [1, b], include: [{w: 3, x: true}], exclude: [{w: b}]}, run: "echo ${{ matrix.x }}"}
  - {id: chosen, matrix: {box: [box]}, container: "${{ matrix.box }}", run: x}
  - {id: loop, repeat: {max: 2, until: iteration == 1}, steps: [{id: b, on: container, container: box, run: x}]}
  - {id: both, max_parallel: 1, parallel: [{id: c, run: x, env: {PATH: "bin:$PATH"}}, {id: d, on: vm, run: x, fallback: {on: local, run: y, env: {I: j}}}]}
  - {id: image, build: {image: i, context: ., dockerfile: Dockerfile, args: {K: l}, when: missing}}
  - {id: e, shell: python3 -u, run: x, result: {path: out.json, schema: builder-result}, if: "false"}
  - {id: changes, diff: diff.patch}
  - {id: fetch, download: [a, b/]}
always:
  - {id: clean, remove: workspace, timeout: 30}
"""  # noqa: E501 - a table of all keys
ODD: tuple[Any, ...] = (
    *(None, True, 0, 2.0, -1, 1e300, 10**30, float("inf"), float("nan")),
    *(
        "",
        "9" * 400 + "h",
        "9" * 400 + "g",
        "\u00e9\U0001f600",
        "a\nb",
        "$X",
        "${{",
        "${{ x }}",
        "${{ inputs.n * 1.0 }}",
    ),
    *("..", "~", [], {}, [None], ["x", 2.0]),
)


def paths(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield each value below the top, the outer ones first."""
    if path:
        yield path
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield from paths(value, (*path, key))


WHOLE: dict[str, Any] = parse_source(PIPELINE.encode(), "p.yaml").data  # type: ignore[assignment]
TOP = tuple(key for key in WHOLE if key != "steps")
STEPS = tuple(step["id"] for step in WHOLE["steps"])


def written_oddly(
    data: dict[str, Any], inside: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Any, dict[str, Any]]]:
    """Yield the data once for each of its values and each odd value in place of that."""
    part: Any = data
    for key in inside:
        part = part[key]
    for path in [inside + rest for rest in paths(part)] or [inside]:
        for odd in ODD:
            made = copy.deepcopy(data)
            around: Any = made
            for key in path[:-1]:
                around = around[key]
            around[path[-1]] = odd
            yield path, odd, made


def hold(stage: Stage, data: dict[str, Any], inside: tuple[Any, ...]) -> None:
    (stage.folder / "Dockerfile").write_text("FROM x\n")
    stage.secrets = {"KEY": "a-secret-value-of-some-length"}
    stage.script = lambda _: Play(files={"out.json": b"{}"})
    file = stage.folder / "pipeline.yaml"
    valid = 0
    for path, odd, made in written_oddly(data, inside):
        text = yaml_text(made)
        file.write_text("version: 1\nname: odd\n" + text, encoding="utf-8")
        try:
            pipeline = load_pipeline(file)
        except SpecError:
            continue
        valid += 1
        try:
            make_plan(pipeline, Project("p", IsolationMode.LOCAL), {})
            played = stage.play(text)
        except PccpipeError:
            continue
        except Exception as error:
            raise AssertionError(f"{path}: {odd!r}: {type(error).__name__}: {error}") from error
        assert "pccpipe itself" not in played.state.message, (path, odd)
    assert valid > 2


@pytest.mark.parametrize("part", TOP)
def test_a_valid_pipeline_never_crashes_a_run(part: str, stage: Stage) -> None:
    steps = [step for step in WHOLE["steps"] if step["id"] in {"a", "loop"}]
    needed = {"inputs": WHOLE["inputs"], "secrets": WHOLE["secrets"], "containers": WHOLE["containers"]}
    hold(stage, {**needed, part: WHOLE[part], "steps": steps}, (part,))


@pytest.mark.parametrize("step", STEPS)
def test_a_valid_step_never_crashes_a_run(step: str, stage: Stage) -> None:
    needed = {"inputs": WHOLE["inputs"], "secrets": WHOLE["secrets"], "containers": WHOLE["containers"]}
    hold(stage, {**needed, "steps": [WHOLE["steps"][STEPS.index(step)]]}, ("steps", 0))


def test_the_pipeline_of_all_keys_is_valid(stage: Stage) -> None:
    (stage.folder / "Dockerfile").write_text("FROM x\n")
    stage.secrets = {"KEY": "a-secret-value-of-some-length"}
    assert stage.play(PIPELINE).state.outcome is Outcome.SUCCEEDED
