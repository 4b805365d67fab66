from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from pccpipe.executor.plan import make_plan
from pccpipe.executor.planned import Plan
from pccpipe.outcome import IsolationMode, Place
from pccpipe.spec.inputs import resolve_inputs
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.project_model import Project, Vm
from pccpipe.values import Json
from pccpipe.views.plan import plan_json, plan_text

ROOT = Path(__file__).resolve().parents[2]
Planned = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """Return a function that plans a pipeline's text in a project with an isolation mode."""

    def plan(
        text: str,
        mode: IsolationMode = IsolationMode.VM,
        *,
        fallback_allowed: bool = True,
        environ: Mapping[str, str] = {"SET": "x"},
        **inputs: Json,
    ) -> Plan:
        path = tmp_path / "pipeline.yaml"
        path.write_text("version: 1\nname: test\n" + textwrap.dedent(text))
        pipeline = load_pipeline(path)
        project = Project("p", mode, Vm("192.0.2.1", "pcc"), path=Path("pccpipe.yaml"))
        values = resolve_inputs(pipeline, dict(inputs))
        return make_plan(pipeline, project, values, fallback_allowed=fallback_allowed, environ=environ)

    return plan


BOXED = """
containers: {box: {image: "img:1", memory: 1g}}
steps:
  - id: a
    on: container
    container: box
    run: in the box
    fallback: {on: local, run: on the host}
"""


@pytest.mark.parametrize(
    ("mode", "ways"),
    [
        (
            IsolationMode.VM,
            [(Place.CONTAINER, "pcc@192.0.2.1", "in the box"), (Place.LOCAL, "localhost", "on the host")],
        ),
        (
            IsolationMode.CONTAINER,
            [(Place.CONTAINER, "localhost", "in the box"), (Place.LOCAL, "localhost", "on the host")],
        ),
        (IsolationMode.LOCAL, [(Place.LOCAL, "localhost", "on the host")]),
    ],
)
def test_the_plan_names_the_places_where_a_run_would_run_its_steps(
    planned: Planned, mode: IsolationMode, ways: list[tuple[Place, str, str]]
) -> None:
    (step,) = planned(BOXED, mode).steps
    assert [(way.place, way.host, way.command) for way in step.ways] == ways


def test_without_fallbacks_each_step_has_one_place(planned: Planned) -> None:
    (step,) = planned(BOXED, fallback_allowed=False).steps
    assert [way.place for way in step.ways] == [Place.CONTAINER]


def test_known_values_are_evaluated_and_quoted_and_the_rest_stays_as_written(planned: Planned) -> None:
    plan = planned(
        """
        inputs: {word: {type: string}, n: {type: integer, default: 3}}
        steps:
          - id: first
            run: echo ${{ inputs.word }} ${{ inputs.n + 1 }} ${{ run.id }} "}}" ${{ inputs.word | upper }}
            timeout: ${{ inputs.n * 60 }}
          - id: second
            if: steps.first.succeeded
            run: echo ${{ steps.first.output }} ${{ target }} ${{ project.id }} ${{ run.isolation_mode }}
          - id: third
            if: inputs.n > 5
            run: 'true'
        """,
        word="two words",
    )
    first, second, third = plan.steps
    assert first.ways[0].command == """echo 'two words' 4 ${{ run.id }} "}}" 'TWO WORDS'"""
    assert first.timeout == "180"
    assert second.ways[0].command == "echo ${{ steps.first.output }} local p vm"
    assert second.condition == "steps.first.succeeded"
    assert third.condition == "false"
    assert plan.warnings == ()


def test_the_plan_has_each_leg_of_a_matrix_and_one_round(planned: Planned) -> None:
    plan = planned(
        """
        inputs: {most: {type: integer, default: 4}}
        steps:
          - id: unit
            matrix: {n: [1, 2]}
            run: test ${{ matrix.n }}
          - id: again
            repeat: {max: "${{ inputs.most }}", until: steps.inner.succeeded}
            steps: [{id: inner, run: 'echo ${{ iteration }}', continue_on_error: true}]
        """
    )
    assert [(step.path, step.depth) for step in plan.steps] == [
        ("unit", 0),
        ("unit[n=1]", 1),
        ("unit[n=2]", 1),
        ("again", 0),
        ("again.inner", 1),
    ]
    assert [way.command for step in plan.steps for way in step.ways] == ["test 1", "test 2", "echo ${{ iteration }}"]
    assert plan.steps[3].does == "at most 4 rounds, until steps.inner.succeeded"


def test_the_plan_has_the_legs_that_inputs_give_and_says_which_values_a_run_will_give(planned: Planned) -> None:
    plan = planned(
        """
        inputs: {n: {type: list, default: [1, 2]}}
        containers: {a: {image: "x:${{ matrix.n }}"}, b: {image: y}}
        steps:
          - {id: known, matrix: {n: "${{ inputs.n }}", box: [a], include: [{n: 2, box: b}]}, run: "x ${{ matrix.n }}"}
          - {id: none, matrix: {n: "${{ inputs.n | reject('number') | list }}"}, run: x}
          - {id: plan, run: x, result: {path: plan.json}}
          - id: unknown
            matrix: {n: "${{ steps.plan.result.n }}", box: [a, b], exclude: [{box: b}]}
            max_parallel: 2
            container: ${{ matrix.box }}
            run: x ${{ matrix.n }}
        """
    )
    assert [step.path for step in plan.steps] == [
        *("known", "known[n=1,box=a]", "known[n=2,box=a]", "known[n=2,box=b]"),
        *("none", "plan", "unknown", "unknown[...]"),
    ]
    assert plan.steps[4].does == "no legs: it will be skipped"
    each = "n: each of steps.plan.result.n; box: a, b; excluded: box b; at most 2 at once"
    assert plan.steps[6].does == each
    assert plan.steps[7].ways[0].command == "x ${{ matrix.n }}"
    assert plan.steps[7].ways[0].choice == "${{ matrix.box }}"
    assert "in the container ${{ matrix.box }} on the VM" in "\n".join(plan_text(plan))
    assert plan.warnings == ()


def test_the_plan_says_what_is_wrong_with_the_legs_that_inputs_give(planned: Planned) -> None:
    plan = planned(
        """
        inputs: {n: {type: list}}
        containers: {a: {image: x}}
        steps: [{id: unit, matrix: {n: "${{ inputs.n }}"}, container: "${{ matrix.n }}", run: x}]
        """,
        n=["b"],
    )
    assert "there is no container `b`" in "".join(plan.warnings)


def test_an_expression_that_will_fail_is_a_warning(planned: Planned) -> None:
    plan = planned(
        """
        inputs: {n: {type: integer, default: 0}}
        steps: [{id: a, run: 'echo ${{ 1 / inputs.n }}'}]
        """
    )
    assert plan.steps[0].ways[0].command == "echo ${{ 1 / inputs.n }}"
    (warning,) = plan.warnings
    assert warning.startswith("a: ")
    assert "division by zero" in warning


def test_a_secret_without_a_value_is_a_warning_and_no_value_is_shown(planned: Planned) -> None:
    plan = planned(
        """
        secrets: {GONE: {from: env}, SET: {from: env}, TOOL: {from: command, command: "exit 3"}}
        steps: [{id: a, run: 'true', secrets: [GONE, SET, TOOL]}]
        """
    )
    (warning,) = plan.warnings
    assert "GONE" in warning
    text = "\n".join(plan_text(plan))
    assert "secrets: GONE, SET, TOOL" in text


def test_the_plan_names_secrets_that_stay_here_and_the_egress_of_containers(planned: Planned) -> None:
    plan = planned(
        """
        secrets: {KEY: {from: env, via: proxy}}
        containers: {box: {image: i, network: none, egress: [pypi.org, "*.npmjs.org"]}}
        steps: [{id: a, on: container, container: box, run: 'true', secrets: [KEY], max_tokens: 5000}]
        """
    )
    text = "\n".join(plan_text(plan))
    assert (
        "KEY from the environment's KEY (stays on this machine: steps get a token for https://api.openai.com/v1)"
        in text
    )
    assert "network none but for pypi.org, *.npmjs.org" in text
    assert "at most 5000 tokens" in text


def test_steps_that_run_locally_because_there_is_no_project_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\nname: t\nsteps: [{id: far, on: vm, run: a}, {id: near, run: b}]\n")
    pipeline = load_pipeline(path)
    plan = make_plan(pipeline, Project("p", IsolationMode.LOCAL), {}, environ={})
    assert plan.warnings == ("there is no project file, so everything runs on this machine, also far",)


def test_the_text_has_place_command_rules_and_fallback(planned: Planned) -> None:
    plan = planned(
        """
        containers: {box: {image: "img:1", memory: 1g, network: none, workspace: read-only}}
        steps:
          - id: a
            on: container
            container: box
            run: |
              first line
              second line
            timeout: 90m
            retry: {attempts: 2, on: [failed]}
            fallback: {on: vm}
        always: [{id: z, remove: workspace}]
        """
    )
    assert plan_text(plan)[3:] == [
        "  a: run in a container of img:1 on the VM pcc@192.0.2.1, network none, memory 1g, pids 2048, "
        "workspace read-only",
        "      $ first line",
        "        second line",
        "      timeout: 1h30m",
        "      at most 2 attempts, again after failed",
        "      if unavailable: on the VM pcc@192.0.2.1, the same command",
        "",
        "always, whatever happens:",
        "  z: remove the run's copy of the workspace",
    ]


def test_the_plan_says_that_an_upload_has_a_git_repository(planned: Planned) -> None:
    plan = planned("steps: [{id: a, upload: {workspace: true, git: base}}, {id: b, upload: workspace}]")
    first, second = [line for line in plan_text(plan) if "the workspace to" in line]
    assert "; with a git repository of it" in first
    assert "git" not in second


def test_the_plan_shows_how_a_container_is_loosened(planned: Planned) -> None:
    plan = planned("""
        containers:
          box:
            {image: "img:1", network: host, user: root, capabilities: [NET_RAW], new_privileges: true, pids: unlimited}
          free:
            {extends: box, memory: unlimited, seccomp: unconfined, apparmor: unconfined, init: false, runtime: runsc}
          hard: {image: "img:1", read_only_root: true}
        steps:
          - {id: a, on: container, container: box, run: x}
          - {id: b, on: container, container: free, run: x}
          - {id: c, on: container, container: hard, run: x}
    """)
    a, b, c = ("\n".join(plan_text(replace(plan, steps=(step,)))) for step in plan.steps)
    root = "user: root; capabilities: [DAC_OVERRIDE, NET_RAW]; new_privileges: true"
    assert f"loosened: network: host; pids: unlimited; {root}\n" in f"{a}\n"
    assert (
        f"loosened: network: host; memory: unlimited; pids: unlimited; {root}; seccomp: unconfined; "
        "apparmor: unconfined; init: false"
    ) in b
    assert "memory unlimited, pids unlimited, runtime runsc" in b
    assert "memory 4g, pids 2048, root file system read-only" in c
    assert "loosened" not in c


AT_HAND = "may use Docker (so: as root)"
BUILT = """
containers: {box: {image: "img:1"}, judge: {image: "img:1", workspace: read-only}}
steps:
  - {id: before, on: vm, run: npm test}
  - {id: build, on: container, container: box, run: codex exec, isolation: required}
  - {id: after, on: vm, run: npm test, fallback: {on: local}}
  - {id: here, run: npm publish}
  - {id: inside, on: container, container: judge, run: npm test, fallback: {on: local}}
  - {id: known, if: "false", run: npm test}
"""


def test_a_plan_warns_where_code_of_an_agent_runs_in_no_container(planned: Planned) -> None:
    assert planned(BUILT).warnings == (
        "after runs on the VM pcc@192.0.2.1 or on this machine, in no container, code that build may have written, "
        "where pcc may use Docker (so: as root)",
        "here runs on this machine, in no container, code that build may have written",
    )
    after, here = planned(BUILT, IsolationMode.CONTAINER).warnings
    for text in (after, here):
        assert f"you {AT_HAND}" in text
    refused, after, here, inside = planned(BUILT, IsolationMode.LOCAL).warnings
    assert inside == "inside runs on this machine, in no container, code that build may have written"
    assert refused.startswith("build will be `unavailable`: ")
    assert AT_HAND not in after + here


def test_in_a_loop_a_step_before_the_builder_also_comes_after_it(planned: Planned) -> None:
    plan = planned("""
        containers: {box: {image: "img:1"}}
        steps:
          - {id: baseline, on: vm, run: npm test}
          - id: loop
            repeat: {max: 2}
            steps:
              - {id: test, on: vm, run: npm test, matrix: {node: [18, 20]}}
              - {id: build, on: container, container: box, run: agent}
        always: [{id: report, on: vm, run: npm run report}]
    """)
    assert [warning.split(" ")[0] for warning in plan.warnings] == ["loop.test", "report"]


def test_the_plan_marks_results_that_a_command_on_the_vm_could_forge(planned: Planned, tmp_path: Path) -> None:
    text = """
    containers: {box: {image: i}}
    steps:
      - {id: before, on: container, container: box, run: x, result: {path: before.json}}
      - id: loop
        repeat: {max: 2}
        steps:
          - {id: build, on: container, container: box, run: x, result: {path: build.json}}
          - {id: test, on: vm, run: x}
      - {id: here, on: local, run: x, result: {path: here.json}}
      - {id: strict, on: container, container: box, run: x, isolation: required, result: {path: strict.json}}
    """
    plan = planned(text)
    assert [step.path for step in plan.steps if step.unattested] == ["loop.build", "strict"]
    assert any("strict will be `unavailable`" in warning for warning in plan.warnings)
    assert "unattested" in "\n".join(plan_text(plan))
    project = replace(plan.project, vm=Vm("192.0.2.1", "pcc", run_as="pccrun"))
    assert not any(step.unattested for step in make_plan(plan.pipeline, project, {}).steps)


def test_the_plan_names_the_account_of_steps(planned: Planned) -> None:
    plan = planned("""
        steps:
          - {id: test, on: vm, run: x}
          - {id: setup, on: vm, account: login, run: x}
    """)
    plan = replace(plan, project=replace(plan.project, vm=Vm("192.0.2.1", "pcc", run_as="pccrun")))
    lines = plan_text(plan)
    assert "/home/project, steps run there as pccrun" in lines[1]
    assert [line.strip() for line in lines if "account:" in line] == ["account: the login user, not `run_as`"]
    assert json.loads(json.dumps(plan_json(plan)))["project"]["vm"]["run_as"] == "pccrun"


def test_a_builder_that_only_reads_causes_no_warning(planned: Planned) -> None:
    plan = planned("""
        containers: {judge: {image: "img:1", workspace: read-only}}
        steps:
          - {id: review, on: container, container: judge, run: codex exec}
          - {id: after, on: vm, run: npm test}
    """)
    assert plan.warnings == ()


def test_the_plan_warns_of_agents_without_a_container_or_any_sandbox(planned: Planned) -> None:
    text = """
        containers: {box: {image: "img:1"}}
        steps:
          - {id: bare, on: vm, run: codex exec --dangerously-bypass-approvals-and-sandbox}
          - {id: boxed, on: container, container: box, run: codex exec -s danger-full-access}
    """
    assert planned(text).warnings == (
        "bare switches off the agent's own sandbox on the VM pcc@192.0.2.1, in no container: "
        "nothing confines the agent",
        "bare is an agent that runs on the VM pcc@192.0.2.1, in no container, where pcc may use Docker (so: as root)",
    )
    assert [warning.split(" ")[:2] for warning in planned(text, IsolationMode.LOCAL).warnings] == [
        ["bare", "switches"],
        ["bare", "is"],
        ["boxed", "switches"],
        ["boxed", "is"],
    ]


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("pipelines/*.yaml"), *ROOT.glob("examples/pipelines/*.yaml")]), ids=str
)
@pytest.mark.parametrize("mode", list(IsolationMode))
def test_every_built_in_pipeline_can_be_planned(path: Path, mode: IsolationMode) -> None:
    pipeline = load_pipeline(path)
    given = {name: str(path) for name, spec in pipeline.inputs.items() if spec.default is None}
    plan = make_plan(pipeline, Project("p", mode, Vm("192.0.2.1", "pcc")), resolve_inputs(pipeline, given))
    assert len(plan_text(plan)) > len(plan.steps)


def test_a_plan_shows_no_secret(planned: Planned) -> None:
    plan = planned(
        """
        inputs: {token: {type: string, default: none}}
        secrets: {SET: {from: env}}
        env: {ALSO: "key=an-x-value"}
        steps:
          - id: a
            run: 'curl -H "Auth: an-x-value" ${{ inputs.token }}'
            if: inputs.token == 'an-x-value'
            secrets: [SET]
        """,
        environ={"SET": "an-x-value"},
        token="an-x-value",
    )
    text = "\n".join(plan_text(plan))
    assert "an-x-value" not in text + json.dumps(plan_json(plan))
    assert "key=***" in text
    assert "an-x-value" not in repr([step.ways for step in plan.steps]) + repr(plan.inputs)


def test_each_part_of_an_included_pipeline_is_shown_with_its_origin(planned: Planned, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "version: 1\nname: base\ninputs: {test: {type: string, default: npm test}, n: {type: integer, default: 1}}\n"
        "secrets: {SET: {from: env}}\n"
        "steps:\n  - {id: a, run: '${{ inputs.test | raw }}', secrets: [SET]}\n  - {id: gone, run: x}\n"
    )
    plan = planned(
        """
        include: base.yaml
        inputs:
          test: {default: pytest}
        change:
          a:
            set: {timeout: 90m, cwd: sub}
            after: [{id: b, run: echo}]
          gone: {remove: true}
        """
    )
    assert plan_text(plan) == [
        f"test ({tmp_path}/pipeline.yaml)",
        f"  includes: {tmp_path}/base.yaml",
        "  removed:  gone (pipeline.yaml:11)",
        "  project:  p (pccpipe.yaml), isolation vm, VM pcc@192.0.2.1:22, /home/project",
        '  inputs:   test="pytest" (pipeline.yaml:6), n=1 (base.yaml:3)',
        "  secrets:  SET from the environment's SET (base.yaml:4)",
        "",
        "  a: run on this machine",
        "      $ pytest",
        "      in: sub",
        "      secrets: SET",
        "      timeout: 1h30m",
        "      from base.yaml:6; timeout, cwd at pipeline.yaml:8",
        "",
        "  b: run on this machine",
        "      $ echo",
        "      from pipeline.yaml:10",
    ]


def test_the_json_has_the_same_facts_for_programs(planned: Planned) -> None:
    plan = planned(BOXED)
    shown = json.loads(json.dumps(plan_json(plan)))
    assert shown["project"]["vm"]["external_ip"] == "192.0.2.1"
    (step,) = shown["steps"]
    assert (step["path"], step["kind"], step["on"]) == ("a", "run", "container")
    assert [(way["place"], way["command"]) for way in step["ways"]] == [
        ("container", "in the box"),
        ("local", "on the host"),
    ]
    assert step["ways"][0]["container"]["memory"] == 1 << 30
    assert (step["from"]["line"], step["from"]["column"]) == (6, 5)
    assert step["changes"] == []


def test_the_api_of_a_secret_is_shown_as_far_as_it_is_known(planned: Planned) -> None:
    plan = planned(
        """
        inputs: {api: {type: string, default: "https://api.test/v1"}}
        secrets:
          SET: {from: env, via: proxy, upstream: "${{ inputs.api }}"}
          C: {from: env, via: proxy, api: anthropic}
          D: {from: env, via: proxy}
        agents: {claude: {use: claude-code, model: m, secret: D}}
        steps: [{id: a, run: echo, secrets: [SET, C]}]
        """
    )
    assert "steps get a token for https://api.test/v1)" in "\n".join(plan_text(plan))
    secrets = json.loads(json.dumps(plan_json(plan)))["secrets"]
    assert (secrets["SET"]["via"], secrets["SET"]["upstream"]) == ("proxy", "https://api.test/v1")
    assert (secrets["SET"]["api"], secrets["C"]["api"]) == ("openai", "anthropic")
    assert secrets["C"]["upstream"] == secrets["D"]["upstream"] == "https://api.anthropic.com"
    assert secrets["D"]["api"] == "anthropic"
