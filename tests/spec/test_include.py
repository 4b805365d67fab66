"""`include:`: the merged pipeline, and the positions of its parts."""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pccpipe import limits
from pccpipe.data_files import schema_text
from pccpipe.errors import SpecError, UsageError
from pccpipe.spec.agent_task import FileInputKind
from pccpipe.spec.build import build_pipeline
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Parallel, Pipeline, Repeat, Run
from pccpipe.spec.source import parse_source
from pccpipe.spec.write import yaml_text
from pccpipe.values import Json

BASE = """
version: 1
name: base
description: of the base
inputs:
  test: {type: string, default: npm test}
  order: {type: path, default: order.md}
secrets:
  KEY: {from: env, name: OTHER}
env: {A: base, B: base}
containers:
  box: {image: "img:1", memory: 1g, env: {X: base}}
steps:
  - {id: sync, upload: workspace}
  - id: iterate
    repeat: {max: 3}
    steps:
      - id: build
        on: container
        container: box
        run: build
        env: {ONE: base, TWO: base}
        secrets: [KEY]
        files: {task.md: {template: prompts/task.md}}
        result: {path: out.json, schema: out.schema.json}
        timeout: 60m
        fallback: {on: local, run: elsewhere}
      - {id: test, on: vm, run: "${{ inputs.test | raw }}"}
  - id: group
    parallel:
      - {id: one, run: one}
      - {id: two, run: two}
always:
  - {id: clean, remove: workspace}
"""
Included = Callable[[str], Pipeline]


@pytest.fixture
def included(tmp_path: Path) -> Included:
    """Give a function that loads a pipeline in one folder, which includes BASE from another."""
    shared = tmp_path / "shared"
    (shared / "prompts").mkdir(parents=True)
    (shared / "base.yaml").write_text(BASE)
    (shared / "prompts/task.md").write_text("do ${{ inputs.test }}")
    (shared / "out.schema.json").write_text('{"type": "object"}')
    (tmp_path / "own").mkdir()

    def load(text: str) -> Pipeline:
        path = tmp_path / "own/own.yaml"
        path.write_text("version: 1\nname: own\ninclude: ../shared/base.yaml\n" + textwrap.dedent(text))
        return load_pipeline(path)

    return load


def ids(pipeline: Pipeline) -> list[str]:
    return [step.id for step in pipeline.all_steps()]


def run_of(pipeline: Pipeline, step_id: str) -> Run:
    (body,) = [step.body for step in pipeline.all_steps() if step.id == step_id]
    assert isinstance(body, Run)
    return body


def test_an_include_alone_gives_the_included_pipeline_under_its_own_name(included: Included) -> None:
    pipeline = included("")
    assert pipeline.name == "own"
    assert pipeline.description == "of the base"
    assert ids(pipeline) == ["sync", "iterate", "build", "test", "group", "one", "two", "clean"]


def test_mappings_are_merged_by_key_and_all_else_is_replaced(included: Included) -> None:
    pipeline = included(
        """
        inputs: {test: {default: pytest}, more: {type: integer, default: 1}}
        env: {B: own, C: own}
        containers: {box: {memory: 8g, env: {Y: own}}, other: {image: "img:2"}}
        change:
          build:
            set: {timeout: 90m, env: {TWO: own}, fallback: {on: vm}}
        """
    )
    assert {name: spec.default for name, spec in pipeline.inputs.items()} | {"order": ""} == {
        "test": "pytest",
        "order": "",
        "more": 1,
    }
    assert {name: text.source for name, text in pipeline.env.items()} == {"A": "base", "B": "own", "C": "own"}
    build = run_of(pipeline, "build")
    assert build.where.container
    assert build.where.container.settings.memory == 8 << 30
    assert build.where.container.image.source == "img:1"
    assert {name: text.source for name, text in build.where.container.env.items()} == {"X": "base", "Y": "own"}
    assert {name: text.source for name, text in build.where.env.items()} == {"ONE": "base", "TWO": "own"}
    assert build.fallback
    assert (build.fallback.on.value, build.fallback.run.source) == ("vm", "elsewhere")


def test_a_secret_and_a_file_are_replaced_as_a_whole(included: Included, tmp_path: Path) -> None:
    (tmp_path / "own/mine.md").write_text("mine")
    pipeline = included(
        """
        secrets: {KEY: {from: env}}
        change:
          build: {set: {files: {task.md: {file: mine.md}}}}
        """
    )
    assert pipeline.secrets["KEY"].source_name == "KEY"
    (file,) = run_of(pipeline, "build").files
    assert (file.kind, file.content.source) == (FileInputKind.FILE, str(tmp_path / "own/mine.md"))


def test_a_name_that_equals_a_key_stays_a_name(included: Included) -> None:
    pipeline = included("inputs: {order: {default: other.md}}\nchange: {build: {set: {env: {files: x, secrets: y}}}}")
    assert pipeline.inputs["order"].type.value == "path"
    assert set(run_of(pipeline, "build").where.env) == {"ONE", "TWO", "files", "secrets"}


def test_steps_are_added_and_removed_in_their_places(included: Included) -> None:
    pipeline = included(
        """
        change:
          build:
            before: [{id: lint, run: lint}, {id: types, run: types}]
          test: {after: [{id: report, run: report}]}
          one: {remove: true, before: [{id: instead, run: instead}]}
          clean: {before: [{id: collect, download: out/}]}
        steps: [{id: last, run: "true"}]
        always: [{id: very_last, run: "true"}]
        """
    )
    iterate, group = pipeline.steps[1].body, pipeline.steps[2].body
    assert isinstance(iterate, Repeat)
    assert isinstance(group, Parallel)
    assert [step.id for step in iterate.steps] == ["lint", "types", "build", "test", "report"]
    assert [step.id for step in group.steps] == ["instead", "two"]
    assert [step.id for step in pipeline.steps] == ["sync", "iterate", "group", "last"]
    assert [step.id for step in pipeline.always] == ["collect", "clean", "very_last"]


def test_a_key_is_unset_or_replaced_as_a_whole(included: Included) -> None:
    pipeline = included("change: {build: {unset: [fallback, env, result], set: {env: {THREE: own}}}}")
    build = run_of(pipeline, "build")
    assert build.fallback is None
    assert build.result is None
    assert list(build.where.env) == ["THREE"]


def test_paths_are_relative_to_the_file_that_contains_them(included: Included, tmp_path: Path) -> None:
    (tmp_path / "own/mine.md").write_text("mine")
    pipeline = included("steps: [{id: more, run: cat, files: {mine: {template: mine.md}}}]")
    build, more = run_of(pipeline, "build"), run_of(pipeline, "more")
    assert build.files[0].content.source == "do ${{ inputs.test }}"
    assert build.result
    assert build.result.schema_json == {"type": "object"}
    assert more.files[0].content.source == "mine"
    assert pipeline.inputs["order"].default == str(tmp_path / "own/../shared/order.md")


def test_each_part_keeps_its_position(included: Included, tmp_path: Path) -> None:
    pipeline = included("change:\n  build:\n    set: {timeout: 90m}\n    unset: [env]\n  one: {remove: true}\n")
    steps = {step.id: step for step in pipeline.all_steps()}
    base = str(tmp_path / "own/../shared/base.yaml")
    assert pipeline.included == (base,)
    assert (steps["build"].position.file, steps["build"].position.line) == (base, 18)
    (change,) = steps["build"].changes
    assert (Path(change.position.file).name, change.position.line, change.keys) == ("own.yaml", 5, ("timeout", "env"))
    assert steps["sync"].changes == ()
    assert list(pipeline.removed) == ["one"]


def test_the_recorded_text_needs_no_other_pipeline_file(included: Included, tmp_path: Path) -> None:
    pipeline = included("change: {test: {before: [{id: lint, run: lint}]}}")
    kept = tmp_path / "kept"
    (kept / "files").mkdir(parents=True)
    (kept / "pipeline.yaml").write_text(pipeline.text)
    for name, file in (pipeline.files or {}).items():
        (kept / "files" / name).write_bytes(file.read_bytes())
    for folder in ("own", "shared"):
        (tmp_path / folder).rename(tmp_path / f"{folder}-is-gone")
    again = load_pipeline(kept / "pipeline.yaml", kept / "files")
    assert ids(again) == ids(pipeline)
    assert run_of(again, "build").files[0].content.source == "do ${{ inputs.test }}"
    assert again.included == ()


def test_an_including_file_can_be_included(included: Included, tmp_path: Path) -> None:
    included("change: {build: {set: {timeout: 61m}, before: [{id: lint, run: lint}]}, one: {remove: true}}")
    path = tmp_path / "own/outer.yaml"
    outer = "version: 1\nname: outer\ninclude: ./own.yaml\nchange:\n"
    path.write_text(outer + "  build: {set: {timeout: 62m}}\n  lint: {set: {run: lint harder}}\n")
    pipeline = load_pipeline(path)
    steps = {step.id: step for step in pipeline.all_steps()}
    assert steps["build"].timeout
    assert steps["build"].timeout.known == 62 * 60
    assert [Path(change.position.file).name for change in steps["build"].changes] == ["own.yaml", "outer.yaml"]
    assert run_of(pipeline, "lint").where.run.source == "lint harder"
    path.write_text(outer + "  one: {set: {run: x}}\n")
    with pytest.raises(SpecError, match=r"the step `one` is already removed, at .*own\.yaml:4"):
        load_pipeline(path)


def test_the_files_that_include_one_another_are_limited(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text("version: 1\nname: n\nsteps: [{id: a, run: 'true'}]\n")
    for number in range(1, limits.INCLUDED.most + 1):
        (tmp_path / f"{number}.yaml").write_text(f"version: 1\nname: n\ninclude: {number - 1}.yaml\n")
    assert len(load_pipeline(tmp_path / f"{limits.INCLUDED.most - 1}.yaml").included) == limits.INCLUDED.most - 1
    with pytest.raises(SpecError, match=f"over {limits.INCLUDED.most} files"):
        load_pipeline(tmp_path / f"{limits.INCLUDED.most}.yaml")


def test_the_size_of_included_files_is_limited(tmp_path: Path) -> None:
    for name, rest in (("a", "include: b.yaml"), ("b", "steps: [{id: a, run: 'true'}]")):
        (tmp_path / f"{name}.yaml").write_text(f"version: 1\nname: n\n{rest}\n#{'-' * (limits.PIPELINE.most // 2)}\n")
    with pytest.raises(SpecError, match="with its included files"):
        load_pipeline(tmp_path / "a.yaml")


def test_a_built_in_pipeline_is_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_pipeline(Path("default-run")).name == "default-run"
    with pytest.raises(UsageError, match="there is no file defalt-run") as raised:
        load_pipeline(Path("defalt-run"))
    assert "`default-run`" in raised.value.hint
    with pytest.raises(UsageError) as raised:
        load_pipeline(Path("./defalt-run.yaml"))
    assert raised.value.hint == ""


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default-run").write_text("version: 1\nname: mine\nsteps: [{id: a, run: 'true'}]\n")
    assert load_pipeline(Path("default-run")).name == "mine"


def test_the_default_pipeline_keeps_its_prompts(tmp_path: Path) -> None:
    files = load_pipeline(Path("default-run")).files
    assert files
    assert {"prompts/builder.md", "prompts/reviewer.md"} <= set(files)


def test_a_file_named_by_an_expression_cannot_be_copied(tmp_path: Path) -> None:
    text = (
        "version: 1\nname: n\ninputs: {which: {type: string}}\n"
        "steps: [{id: a, run: 'true', files: {x: {file: '${{ inputs.which }}'}}}]\n"
    )
    source = parse_source(text.encode(), str(tmp_path / "p.yaml"))
    assert build_pipeline(source, tmp_path / "p.yaml").files is None


def test_a_change_may_set_a_part_of_a_key_that_the_step_has(included: Included) -> None:
    pipeline = included("change: {iterate: {set: {repeat: {until: steps.test.succeeded}}}}")
    iterate = pipeline.steps[1].body
    assert isinstance(iterate, Repeat)
    assert iterate.max.known == 3
    assert iterate.until
    with pytest.raises(SpecError, match="`result` needs the key `path`"):
        included("change: {test: {set: {result: {schema: builder-result}}}}")


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["build", "run", "vm", "${{ steps.x }}", "x.md"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "set", "unset", "before", "after", "remove", "env", "files", "steps", "run", "on"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_own = st.dictionaries(
    st.sampled_from(["inputs", "secrets", "containers", "env", "defaults", "steps", "always", "timeout"]),
    _anything | st.dictionaries(st.sampled_from(["test", "KEY", "box"]), _anything, max_size=2),
    max_size=3,
)
_change = st.dictionaries(st.sampled_from(["sync", "iterate", "build", "one", "clean", "other"]), _anything, max_size=3)


@given(_own, _change | _anything)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_including_file_loads_or_is_a_problem(included: Included, own: dict[str, Json], change: Json) -> None:
    with contextlib.suppress(SpecError):
        pipeline = included(yaml_text({**own, "change": change}))
        assert parse_source(pipeline.text.encode(), "kept.yaml").data


def test_an_including_file_may_change_every_key_that_the_schema_has() -> None:
    schema = json.loads(schema_text("pipeline"))
    defined = schema["definitions"]
    keys = set(defined["step"]["properties"]) - {"id"}
    change = defined["change"]["properties"]
    assert set(change["set"]["properties"]) == keys
    assert set(change["unset"]["items"]["enum"]) == keys
    # The schema of a file without `include:` names every key, so that none counts as misspelt.
    alone = schema["else"]["properties"]
    assert set(alone) == set(schema["properties"])
    for name, of in (("inputs", "input"), ("containers", "container"), ("agents", "agent")):
        assert set(alone[name]["additionalProperties"]["properties"]) == set(defined[of]["properties"])
