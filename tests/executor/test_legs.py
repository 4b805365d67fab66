"""The legs of a matrix in a run: values of inputs and results, their containers, and the list of their results."""

from __future__ import annotations

import json
import time

import pytest

from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome, Place
from pccpipe.record.events import Happening, StepEnded, StepStarted
from pccpipe.record.state import state_of
from pccpipe.record.step_path import split
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from pccpipe.values import Json
from tests.executor.rehearsal import Notes, Played, Script, Stage
from tests.executor.test_replay import began
from tests.record.script import events as stamped


def giving(result: Json, *failing: str) -> Script:
    """Let the step `plan` leave a result, and each other one its own step's name."""

    def play(command: Command) -> Play:
        text = json.dumps(result if command.step == "plan" else command.step)
        return Play(exit=Exit(1 if command.step in failing else 0), files={"out.json": text.encode()})

    return play


def commands(played: Played) -> list[Command]:
    return [command for target in played.targets.values() for command in target.commands]


PLANNED = """
    steps:
      - {id: plan, run: x, result: {path: plan/out.json}}
      - {id: unit, matrix: "${{ steps.plan.result }}", run: "test ${{ matrix.node }}"}
      - {id: after, run: x}
"""


def test_an_input_gives_the_values_of_a_matrix(stage: Stage) -> None:
    text = """
        inputs: {nodes: {type: list, default: [18]}}
        steps:
          - {id: unit, matrix: {node: "${{ inputs.nodes }}", os: [a]}, run: "x ${{ matrix.node }} ${{ matrix.os }}"}
    """
    assert [command.script for command in commands(stage.play(text))] == ["x 18 a"]
    scripts = [command.script for command in commands(stage.play(text, nodes=["1.20", "20"]))]
    assert scripts == ["x 1.20 a", "x 20 a"]


def test_an_earlier_result_gives_the_legs(stage: Stage) -> None:
    stage.script = giving({"node": [18, 20], "exclude": [{"node": 18}], "include": [{"node": 22, "x": 1}]})
    played = stage.play(PLANNED)
    assert [step for step, _ in played.ends] == ["plan", "unit[node=20]", "unit[node=22,x=1]", "unit", "after"]
    (started,) = [event for event in played.notes.of(StepStarted) if event.step == "unit"]
    assert started.legs == ({"node": 20}, {"node": 22, "x": 1})


@pytest.mark.parametrize("empty", [[], {}, {"node": []}])
def test_an_empty_list_skips_the_step_and_says_so(stage: Stage, empty: Json) -> None:
    stage.script = giving(empty)
    played = stage.play(PLANNED)
    end = played.end_of("unit")
    assert (end.outcome, end.message) == (Outcome.SKIPPED, "its matrix has no legs")
    assert played.ends[-1] == ("after", "succeeded")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("18", "must be a mapping or a list of legs"),
        ({"node": [[1]]}, "must be text, a number"),
        ([{"node": 1}, {"node": 1}], "two legs have the same values"),
        ([{"node": each} for each in range(300)], "exceeds the limit of 256"),
        (None, "not nothing"),
    ],
)
def test_what_cannot_be_legs_fails_the_step_and_runs_nothing(stage: Stage, data: Json, words: str) -> None:
    stage.script = giving(data)
    played = stage.play(PLANNED)
    end = played.end_of("unit")
    assert end.outcome is Outcome.FAILED
    assert words in end.message
    assert "pipeline.yaml:6:" in end.message
    assert [command.step for command in commands(played)] == ["plan"]


def test_no_value_of_a_result_forges_the_path_of_another_step(stage: Stage) -> None:
    values: list[Json] = [
        "1].after",
        "2]\nafter",
        "3,node=4",
        "x" * 5000,
        "../../etc",
        "\x1b[2J",
        "round[2].build",
        "]",
        "[",
        "",
    ]
    stage.script = giving({"node": values})
    played = stage.play(PLANNED)
    state = state_of([*stamped([began(), *played.notes.happenings], time.time(), 0.001)])
    legs = [path for path in state.steps if path.startswith("unit[")]
    assert len(legs) == len(values) == len(set(legs))
    assert all(len(split(leg)) == 2 and len(leg) < 300 and leg.isprintable() for leg in legs)
    assert set(state.steps) - set(legs) == {"plan", "unit", "after"}
    ids = [command.id for command in commands(played)]
    assert len(set(ids)) == len(ids)
    assert all("/" not in id_ and len(id_) < 150 for id_ in ids)
    assert [command.script for command in commands(played)][2] == "test '2]\nafter'"


def test_a_resumed_run_has_the_legs_of_its_record_though_the_result_differs_now(stage: Stage) -> None:
    stage.script = giving({"node": [18, 20]})
    whole = stage.play(PLANNED)
    first = next(
        number
        for number, event in enumerate(whole.notes.happenings)
        if isinstance(event, StepEnded) and "18" in event.step
    )
    kept = [
        StepEnded("plan", Outcome.SUCCEEDED, 0.0, 0, result=["other"], result_path="plan/out.json")
        if isinstance(event, StepEnded) and event.step == "plan"
        else event
        for event in whole.notes.happenings[: first + 1]
    ]
    notes = Notes()
    resumed = stage.play(PLANNED, notes, replay=Replay(stamped([began(), *kept], time.time(), 0.001)))
    assert [command.script for command in commands(resumed)] == ["test 20", "x"]


def test_a_run_of_an_earlier_version_is_resumed_with_the_names_that_it_gave(stage: Stage) -> None:
    text = "steps: [{id: unit, matrix: {flags: ['-O2,-g', -O0]}, run: 'x ${{ matrix.flags }}'}]"
    old: list[Happening] = [
        StepStarted("unit", "matrix"),
        StepStarted("unit[flags=-O2,-g]", "run", Place.LOCAL),
        StepEnded("unit[flags=-O2,-g]", Outcome.SUCCEEDED, 1.0, 0),
    ]
    resumed = stage.play(text, replay=Replay(stamped([began(), *old], time.time(), 0.001)))
    assert [command.script for command in commands(resumed)] == ["x -O0"]


RESULTS = """
    steps:
      - id: unit
        matrix: {node: [18, 20], include: [{node: 22, os: a}]}
        continue_on_error: true
        run: x
        result: {path: "unit/${{ matrix.node }}/out.json"}
      - {id: all, run: "x ${{ steps.unit.results | tojson }}"}
      - {id: one, if: "steps.unit.results[1].result.status == 'ok'", run: x}
      - {id: bad, if: "steps.unit.results | selectattr('outcome', 'equalto', 'failed') | list | length == 1", run: x}
"""


def test_the_results_of_all_legs_are_a_list_in_order(stage: Stage) -> None:
    stage.script = giving(None, "unit[node=20]")
    played = stage.play(RESULTS)
    (script,) = [command.script for command in commands(played) if command.step == "all"]
    assert json.loads(script.removeprefix("x ").strip("'")) == [
        {"matrix": {"node": 18}, "outcome": "succeeded", "exit_code": 0, "result": "unit[node=18]"},
        {"matrix": {"node": 20}, "outcome": "failed", "exit_code": 1, "result": None},
        {"matrix": {"node": 22, "os": "a"}, "outcome": "succeeded", "exit_code": 0, "result": "unit[node=22]"},
    ]
    assert played.end_of("one").outcome is Outcome.SKIPPED
    assert played.end_of("bad").outcome is Outcome.SUCCEEDED


def test_legs_that_are_groups_have_results_too(stage: Stage) -> None:
    stage.script = giving(None)
    played = stage.play("""
        steps:
          - id: group
            matrix: {n: [1, 2]}
            repeat: {max: 1}
            steps: [{id: inner, run: x}]
          - {id: all, run: "x ${{ steps.group.results | tojson }}"}
    """)
    (script,) = [command.script for command in commands(played) if command.step == "all"]
    assert json.loads(script.removeprefix("x ").strip("'")) == [
        {"matrix": {"n": 1}, "outcome": "succeeded", "exit_code": None, "result": None},
        {"matrix": {"n": 2}, "outcome": "succeeded", "exit_code": None, "result": None},
    ]


def test_a_leg_that_had_no_turn_did_not_run(stage: Stage) -> None:
    stage.script = giving(None)
    stage.on_event = lambda event: stage.cancel.request("INT") if isinstance(event, StepEnded) else None
    played = stage.play("""
        steps: [{id: unit, matrix: {n: [1, 2]}, run: x}]
        always: [{id: say, run: "x ${{ steps.unit.results[1].outcome }}"}]
    """)
    assert [command.script for command in commands(played)][-1] == "x not_run"


def test_a_value_that_only_some_legs_have_is_empty_in_the_others(stage: Stage) -> None:
    played = stage.play("""
        steps:
          - id: unit
            matrix: {node: [18], include: [{node: 20, os: a}]}
            run: 'x ${{ matrix.node }} ${{ matrix.os or "none" }}'
    """)
    assert [command.script for command in commands(played)] == ["x 18 none", "x 20 a"]


def test_the_results_of_a_plan_that_the_vm_could_forge_taint_the_legs_and_their_results(stage: Stage) -> None:
    stage.script = giving({"node": [18]})
    played = stage.play("""
        containers: {box: {image: x}}
        steps:
          - {id: plan, on: vm, run: x, result: {path: plan/out.json}}
          - id: unit
            matrix: "${{ steps.plan.result }}"
            on: vm
            run: x
            result: {path: "unit/${{ matrix.node }}/out.json"}
          - {id: strict, if: "steps.unit.results[0].result", container: box, isolation: required, run: x}
    """)
    assert played.end_of("unit").unattested
    assert played.end_of("strict").outcome is Outcome.UNAVAILABLE
    strict = stage.play("""
        containers: {box: {image: x}}
        steps:
          - {id: plan, on: vm, run: x, result: {path: plan/out.json}}
          - {id: unit, matrix: "${{ steps.plan.result }}", container: box, isolation: required, run: x}
    """)
    assert strict.end_of("unit[node=18]").outcome is Outcome.UNAVAILABLE


BOXES = """
    containers: {old: {image: "node:18"}, new: {image: "node:${{ matrix.node }}", network: none}}
    steps:
      - {id: plan, run: x, result: {path: plan/out.json}}
      - {id: unit, matrix: "${{ steps.plan.result }}", container: "${{ matrix.box }}", run: x, continue_on_error: true}
"""


def test_each_leg_runs_in_the_container_and_the_image_that_its_values_name(stage: Stage) -> None:
    stage.script = giving([{"box": "old"}, {"box": "new", "node": 20}, {"box": "nw"}, {"box": "new", "node": 22}])
    played = stage.play(BOXES)
    ran = [(command.container.image, command.container.network) for command in commands(played) if command.container]
    assert ran == [("node:18", "bridge"), ("node:20", "none"), ("node:22", "none")]
    end = played.end_of("unit[box=nw]")
    assert end.outcome is Outcome.FAILED
    assert "there is no container `nw`: did you mean `new`?" in end.message


def test_the_container_of_a_step_inside_follows_the_matrix_around(stage: Stage) -> None:
    played = stage.play("""
        containers: {a: {image: x, env: {E: e}}, b: {image: y, env: {E: f}}}
        steps:
          - id: group
            matrix: {box: [a, b]}
            parallel: [{id: inner, container: "${{ matrix.box }}", run: x}]
    """)
    ran = [(command.container.image, command.env["E"]) for command in commands(played) if command.container]
    assert ran == [("x", "e"), ("y", "f")]


def test_matrices_in_one_another_stay_within_the_limit_of_steps(stage: Stage) -> None:
    stage.script = giving({"n": list(range(120))})
    played = stage.play("""
        steps:
          - {id: plan, run: x, result: {path: plan/out.json}}
          - id: outer
            matrix: "${{ steps.plan.result }}"
            parallel: [{id: inner, matrix: "${{ steps.plan.result }}", run: x}]
    """)
    assert "exceeds the limit of 10,000" in played.end_of("outer[n=0].inner").message
    assert [command.step for command in commands(played)] == ["plan"]
