"""Reads a test file into its cases, or reports all its problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

import msgspec

from pccpipe.api import load
from pccpipe.errors import SpecError, UsageError
from pccpipe.record.agent_events import Activity
from pccpipe.record.events import Happening, Output
from pccpipe.scripted.case import Expectation, RunFault, ScriptedCase
from pccpipe.scripted.reply import (
    ALWAYS,
    Action,
    CallTool,
    CutStream,
    ErrorAnswer,
    Fault,
    GiveResult,
    Hang,
    ModelUsage,
    Reply,
    Say,
    Shell,
    WriteFile,
)
from pccpipe.scripted.script import ScriptTurn, id_of
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.load import load_source
from pccpipe.spec.model import Run, Step
from pccpipe.spec.paths import beside, is_file
from pccpipe.spec.position import KeyPath
from pccpipe.spec.problem import Problem, did_you_mean
from pccpipe.spec.schema import structure_problems
from pccpipe.spec.source import Source
from pccpipe.spec.units import seconds
from pccpipe.values import Json

_MERGED = ("inputs", "script", "workspace")
_BY_STEP = ("rounds", "steps", "results", "calls", "prompts", "agents")
"""Keys of `expect:` whose keys are steps."""
_EVENTS = frozenset(
    str(kind.__struct_config__.tag)
    for kind in get_args(Happening)
    if "step" in kind.__struct_fields__ and kind not in {Output, Activity}
)
"""The recorded events that a fault can come after."""
_CALLS = ("run", "write", "tool", "result")
"""The answers that a message can come with."""
_LAST = ("result", "empty")


def load_cases(path: Path) -> tuple[ScriptedCase, ...]:
    """Read a test file.

    Raises SpecError with every problem, of it or of a pipeline, and UsageError if one can't be read.
    """
    source = load_source(path, "test", lambda source: list(dict.fromkeys(_problems(source, path.parent))))
    return tuple(_case(path.parent, data) for _, data in _cases(source))


def _cases(source: Source) -> Iterator[tuple[KeyPath, Mapping[str, Json]]]:
    """Yield each case with its path, and with what the file says for all cases."""
    base = {key: value for key, value in mapping(source.data).items() if key not in {"cases", "version", "$schema"}}
    for index, data in enumerate(listed(mapping(source.data).get("cases"))):
        whole = {**base, **mapping(data)}
        for key in _MERGED:
            if isinstance(base.get(key), dict) and isinstance(whole.get(key), dict):
                whole[key] = {**mapping(base[key]), **mapping(whole[key])}
        yield ("cases", index), whole


def _problems(source: Source, folder: Path) -> Iterator[Problem]:
    if structure_problems(source, "test"):
        return
    known: dict[str, Sequence[Step]] = {}
    names: set[str] = set()
    for path, data in _cases(source):
        name, pipeline = str(data.get("name")), data.get("pipeline")
        if name in names:
            yield _problem(source, (*path, "name"), f"two cases have the name {name!r}")
        names.add(name)
        if not isinstance(pipeline, str):
            yield _problem(
                source, path, "this case has no pipeline", "name one: `pipeline: FILE`, here or for all cases"
            )
            continue
        if pipeline not in known:
            try:
                known[pipeline] = tuple(load(_pipeline(folder, pipeline)).all_steps())
            except SpecError:
                raise
            except UsageError as error:
                place = (*(path if "pipeline" in _own(source, path) else ()), "pipeline")
                yield _problem(source, place, error.message, error.hint)
                known[pipeline] = ()
        if known[pipeline]:
            yield from _unknown_steps(source, path, data, known[pipeline])
        for index, fault in enumerate(listed(_own(source, path).get("faults"))):
            event = mapping(fault).get("event")
            if event is not None and event not in _EVENTS:
                place = (*path, "faults", index, "event")
                yield _problem(source, place, f"no step has an event `{event}`", did_you_mean(str(event), _EVENTS))
    for path, _ in _cases(source):
        yield from _after_the_end(source, path, _own(source, path))
    yield from _after_the_end(source, (), mapping(source.data))


def _own(source: Source, path: KeyPath) -> Mapping[str, Json]:
    """Return what a case says itself."""
    return mapping(listed(mapping(source.data)["cases"])[cast("int", path[1])])


def _unknown_steps(source: Source, path: KeyPath, data: Mapping[str, Json], steps: Sequence[Step]) -> Iterator[Problem]:
    known = {step.id for step in steps}
    asking = {step.id for step in steps if isinstance(step.body, Run) and (step.body.agent or step.body.secrets)}
    places: list[tuple[KeyPath, str]] = []
    own = _own(source, path)
    for name in mapping(data.get("script")):
        places.append(((*(path if name in mapping(own.get("script")) else ()), "script", name), name))
    for index, fault in enumerate(listed(own.get("faults"))):
        places.append(((*path, "faults", index, "step"), str(mapping(fault).get("step"))))
    for key in _BY_STEP:
        places += [((*path, "expect", key, name), name) for name in mapping(mapping(own.get("expect")).get(key))]
    for index, step in enumerate(listed(mapping(own.get("expect")).get("downgraded"))):
        places.append(((*path, "expect", "downgraded", index), str(step)))
    for place, name in places:
        if id_of(name) not in known:
            yield _problem(source, place, f"the pipeline has no step `{id_of(name)}`", did_you_mean(id_of(name), known))
        elif place[-2] == "script" and id_of(name) not in asking:
            message = f"the step `{id_of(name)}` asks no model: it has no `agent:` and no secret"
            yield _problem(source, place, message, did_you_mean("", asking))


def _after_the_end(source: Source, path: KeyPath, data: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield a problem for each answer that comes after the end of its turn."""
    for step, turns in mapping(data.get("script")).items():
        for number, turn in enumerate(listed(turns)):
            answers = [mapping(each) for each in listed(mapping(turn).get("do"))]
            for index, answer in enumerate(answers[:-1]):
                later = next(
                    (each for each in answers[index + 1 :] if not {"wait", "fail", "cut", "hang"} & set(each)), {}
                )
                is_last = any(key in answer for key in _LAST) or ("say" in answer and not set(later) & set(_CALLS))
                if is_last and later:
                    place = (*path, "script", step, number, "do", index + 1)
                    yield _problem(
                        source, place, "the turn has ended before this answer", "leave it out, or the one before"
                    )
                    break


def _problem(source: Source, path: KeyPath, message: str, hint: str = "") -> Problem:
    position = source.of_key(path)
    return Problem(position, message, hint, source.line(position.line))


def _pipeline(folder: Path, name: str) -> Path:
    """Return the path of a pipeline's file, or the name of a built-in one. Raises UsageError."""
    found = _beside(folder, name)
    return found.absolute() if is_file(found) or "/" in name or "." in name else Path(name)


def _beside(folder: Path, name: str) -> Path:
    """Return the path of a file that the test file names. Raises UsageError."""
    try:
        return beside(folder, name)
    except ValueError as error:
        raise UsageError(f"the path {name!r} {error}") from error


def _case(folder: Path, data: Mapping[str, Json]) -> ScriptedCase:
    workspace, project = data.get("workspace", {}), data.get("project")
    return ScriptedCase(
        name=str(data["name"]),
        folder=folder.absolute(),
        pipeline=_pipeline(folder, str(data["pipeline"])),
        project=_beside(folder, str(project)).absolute() if project else None,
        inputs=mapping(data.get("inputs")),
        workspace=_beside(folder, workspace).absolute()
        if isinstance(workspace, str)
        else {name: str(text) for name, text in mapping(workspace).items()},
        timeout=_seconds(data.get("timeout", "10m")),
        script={
            name: tuple(_turn(mapping(turn)) for turn in listed(turns))
            for name, turns in mapping(data.get("script")).items()
        },
        faults=msgspec.convert(data.get("faults", []), tuple[RunFault, ...]),
        answers={key: str(value) for key, value in mapping(data.get("answers")).items()},
        resumes=cast("int", data.get("resumes", 0)),
        expect=msgspec.convert(data.get("expect", {}), Expectation),
    )


def _seconds(value: Json) -> float:
    return seconds(cast("str | float", value))


def _turn(data: Mapping[str, Json]) -> ScriptTurn:
    usage = msgspec.convert(data.get("usage", {}), ModelUsage)
    selectors = {key: cast("int | None", data.get(key)) for key in ("round", "attempt", "prompt")}
    model = data.get("model")
    replies = tuple(_replies([mapping(each) for each in listed(data.get("do"))], usage))
    return ScriptTurn(replies, model=str(model) if model else None, **selectors)


def _replies(answers: list[dict[str, Json]], usage: ModelUsage) -> Iterator[Reply]:
    faults: list[Fault] = []
    said, delay = "", 0.0
    for answer in answers:
        match answer:
            case {"say": text}:
                said = str(text)
            case {"wait": time}:
                delay = _seconds(time)
            case {"fail": error}:
                faults.append(_error(error))
            case {"cut": times}:
                faults.append(CutStream(cast("int", times)))
            case {"hang": _}:
                faults.append(Hang())
            case _:
                for action in _actions(answer):
                    yield Reply(action, said, usage, tuple(faults), delay)
                    faults, said, delay = [], "", 0.0
    if said or faults or delay:
        yield Reply(Say(said or "Done."), "", usage, tuple(faults), delay)


def _actions(answer: Mapping[str, Json]) -> Iterator[Action | None]:
    match answer:
        case {"run": command}:
            yield Shell(str(command))
        case {"write": files}:
            for path, text in mapping(files).items():
                yield WriteFile(path, str(text))
        case {"tool": tool}:
            yield CallTool(str(mapping(tool)["name"]), mapping(mapping(tool).get("arguments")))
        case {"result": value}:
            yield GiveResult(value)
        case _:
            yield None


def _error(data: Json) -> ErrorAnswer:
    error = data if isinstance(data, dict) else {"status": data}
    times, after = error.get("times", 1), error.get("retry_after")
    headers = {"retry-after": f"{_seconds(after):g}"} if after is not None else {}
    message = str(error.get("message", "scripted failure"))
    return ErrorAnswer(
        cast("int", error["status"]), ALWAYS if times == "always" else cast("int", times), message, headers
    )
