"""Meaning: what no schema can say of a pipeline. Works on the plain data, also where the structure is wrong
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from pccpipe.spec import jinja
from pccpipe.spec.problem import Problem, did_you_mean
from pccpipe.spec.schema import BUILT_IN_RESULTS, find_schema
from pccpipe.spec.shell_text import misplaced_value
from pccpipe.spec.source import Data, Key, Source

Path_ = tuple[Key, ...]

STEP_NAMES = ("outcome", "succeeded", "failed", "exit_code", "result", "last_result", "output", "stdout", "stderr")
RUN_NAMES = ("id", "status", "outcome", "isolation_mode", "folder")
_PLACES = ("local", "vm", "container")


def meaning_problems(source: Source, folder: Path) -> list[Problem]:
    """Everything that is wrong with names, references and order, in order of position."""
    checker = _Checker(source, folder)
    checker.check()
    return sorted(set(checker.problems), key=lambda problem: (problem.position, problem.message))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an expression may name where it stands."""

    steps: frozenset[str]
    iteration: bool = False
    matrix: tuple[str, ...] = ()
    target: bool = False
    always: bool = False


@dataclass
class _Checker:
    source: Source
    folder: Path
    problems: list[Problem] = field(default_factory=list)

    def check(self) -> None:
        data = _mapping(self.source.data)
        self.inputs = _mapping(data.get("inputs"))
        self.secrets = _mapping(data.get("secrets"))
        self.containers = _mapping(data.get("containers"))
        self.defaults = _mapping(data.get("defaults"))
        self.step_ids: dict[str, Path_] = {}
        for path, step in (*_steps(data, "steps"), *_steps(data, "always")):
            self._unique(path, step)
        for name in self.inputs:
            self._input(name)
        for name in self.containers:
            self._container(name)
        nothing = _Seen(frozenset())
        self._texts(("env",), data.get("env"), replace(nothing, target=True))
        self._expression_or_text(("timeout",), data.get("timeout"), nothing)
        self._where(("defaults",), self.defaults, replace(nothing, target=True))
        done = self._sequence(("steps",), data.get("steps"), nothing)
        self._sequence(("always",), data.get("always"), replace(nothing, steps=done, always=True))

    def _say(self, path: Path_, message: str, hint: str = "", *, at_key: bool = False) -> None:
        position = self.source.of_key(path) if at_key else self.source.of_value(path)
        self.problems.append(Problem(position, message, hint, self.source.line(position.line)))

    def _unique(self, path: Path_, step: Mapping[str, Data]) -> None:
        step_id = step.get("id")
        if not isinstance(step_id, str):
            return
        if step_id in self.step_ids:
            line = self.source.of_value((*self.step_ids[step_id], "id")).line
            self._say(
                (*path, "id"),
                f"there is a step `{step_id}` already, on line {line}",
                "ids are unique in the whole pipeline",
            )
        else:
            self.step_ids[step_id] = path

    def _input(self, name: str) -> None:
        spec = _mapping(self.inputs[name])
        path = ("inputs", name)
        default = spec.get("default")
        kind = spec.get("type")
        if default is not None and isinstance(kind, str):
            wrong = input_problem(default, kind, spec)
            if wrong:
                self._say((*path, "default"), f"the default of the input `{name}` {wrong}")
        for word in ("minimum", "maximum"):
            if word in spec and kind in {"string", "boolean", "path"}:
                self._say((*path, word), f"`{word}` is for numbers, and `{name}` is a {kind}", at_key=True)

    def _container(self, name: str) -> None:
        seen = [name]
        at = name
        while isinstance(parent := _mapping(self.containers.get(at)).get("extends"), str):
            if parent not in self.containers:
                if at == name:
                    self._unknown(("containers", name, "extends"), "container", parent, self.containers)
                return
            if parent in seen:
                self._say(("containers", name, "extends"), f"`{name}` extends itself: {' -> '.join([*seen, parent])}")
                return
            seen.append(parent)
            at = parent
        spec = _mapping(self.containers[name])
        self._texts(("containers", name, "env"), spec.get("env"), _Seen(frozenset(), target=True))
        self._text(("containers", name, "image"), spec.get("image"), _Seen(frozenset()))

    def _sequence(
        self, path: Path_, steps: Data, seen: _Seen, *, looped: frozenset[str] = frozenset()
    ) -> frozenset[str]:
        """Check steps that run in order; gives the ids that are known after them."""
        known = seen.steps
        for index, step in enumerate(steps if isinstance(steps, list) else []):
            if isinstance(step, dict):
                known |= self._step((*path, index), step, replace(seen, steps=known | looped))
        return known

    def _step(self, path: Path_, step: dict[str, Data], seen: _Seen) -> frozenset[str]:
        matrix = tuple(_mapping(step.get("matrix")))
        self._expression((*path, "if"), step.get("if"), seen)
        self._expression_or_text((*path, "timeout"), step.get("timeout"), seen)
        inside = replace(seen, matrix=(*seen.matrix, *matrix))
        self._body(path, step, inside)
        own = frozenset([str(step["id"])] if isinstance(step.get("id"), str) else [])
        if "repeat" in step:
            return own | self._repeat(path, step, inside)
        if "parallel" in step:
            return own | self._parallel(path, step, inside)
        return own

    def _repeat(self, path: Path_, step: dict[str, Data], seen: _Seen) -> frozenset[str]:
        body = frozenset(name for name in _ids(step.get("steps")))
        self._expression_or_text((*path, "repeat", "max"), _mapping(step["repeat"]).get("max"), seen)
        # In a round a step may name a later one of the same loop: it means the round before.
        self._sequence((*path, "steps"), step.get("steps"), replace(seen, iteration=True), looped=body)
        until = replace(seen, steps=seen.steps | body, iteration=True)
        self._expression((*path, "repeat", "until"), _mapping(step["repeat"]).get("until"), until)
        return body

    def _parallel(self, path: Path_, step: dict[str, Data], seen: _Seen) -> frozenset[str]:
        for index, inner in enumerate(_listed(step["parallel"])):
            if isinstance(inner, dict):
                self._step((*path, "parallel", index), inner, seen)
        return frozenset(_ids(step.get("parallel")))

    def _body(self, path: Path_, step: dict[str, Data], seen: _Seen) -> None:
        at_target = replace(seen, target=True)
        if "run" in step:
            self._run(path, step, at_target)
        for index, each in enumerate(_listed(step.get("download"))):
            place = (*path, "download", index) if isinstance(step["download"], list) else (*path, "download")
            self._text(place, each, seen)
        self._text((*path, "diff"), step.get("diff"), seen)
        build = _mapping(step.get("build"))
        self._text((*path, "build", "image"), build.get("image"), seen)
        self._texts((*path, "build", "args"), build.get("args"), seen)
        for key in ("context", "dockerfile"):
            name = build.get(key)
            if isinstance(name, str) and not (self.folder / name).exists():
                what = "folder" if key == "context" else "file"
                self._say((*path, "build", key), f"there is no {what} {self.folder / name}")

    def _run(self, path: Path_, step: dict[str, Data], seen: _Seen) -> None:
        on = self._place(step)
        self._where(path, step, seen, on=on)
        for index, name in enumerate(_listed(step.get("secrets"))):
            if isinstance(name, str) and name not in self.secrets:
                self._unknown(
                    (*path, "secrets", index), "secret", name, self.secrets, "declare it under `secrets:` at the top"
                )
        self._files(path, _mapping(step.get("files")), seen)
        result = _mapping(step.get("result"))
        self._text((*path, "result", "path"), result.get("path"), seen)
        if isinstance(name := result.get("schema"), str):
            self._schema((*path, "result", "schema"), name)
        if isinstance(step.get("fallback"), dict):
            self._fallback(path, cast("dict[str, Data]", step["fallback"]), on, seen)

    def _place(self, step: Mapping[str, Data]) -> str:
        if isinstance(on := step.get("on"), str):
            return on
        return (
            "container"
            if "container" in step
            else str(self.defaults.get("on", "container" if "container" in self.defaults else "local"))
        )

    def _where(self, path: Path_, where: Mapping[str, Data], seen: _Seen, on: str | None = None) -> None:
        """What a step, its fallback and `defaults:` have in common."""
        container = where.get("container")
        if isinstance(container, str) and container not in self.containers:
            self._unknown(
                (*path, "container"), "container", container, self.containers, "declare it under `containers:`"
            )
        if on == "container" and container is None and "container" not in self.defaults and path[-1] != "fallback":
            at = (*path, "on") if "on" in where else path
            self._say(at, "`on: container` needs a `container:`", did_you_mean("", self.containers))
        if isinstance(container, str) and on in {"local", "vm"}:
            self._say(
                (*path, "container"),
                f"a step with `on: {on}` runs in no container",
                "leave out `container:`, or say `on: container`",
                at_key=True,
            )
        self._script((*path, "run"), where.get("run"), seen)
        self._text((*path, "cwd"), where.get("cwd"), seen)
        self._texts((*path, "env"), where.get("env"), seen)

    def _fallback(self, path: Path_, fallback: dict[str, Data], on: str, seen: _Seen) -> None:
        to = fallback.get("on")
        self._where((*path, "fallback"), fallback, seen, on=to if isinstance(to, str) else None)
        if to not in _PLACES:
            return
        if on == "local":
            self._say(
                (*path, "fallback"),
                "a step that runs here has nothing to fall back to",
                "leave out `fallback:`",
                at_key=True,
            )
        elif to == on:
            self._say((*path, "fallback", "on"), f"the step runs on `{on}` already: a fallback is to another place")
        elif on == "vm" and to == "container":
            self._say(
                (*path, "fallback", "on"),
                "where the VM is not to be had, its containers are not either",
                "fall back to `local`",
            )

    def _files(self, path: Path_, files: Mapping[str, Data], seen: _Seen) -> None:
        for name, spec in files.items():
            at = (*path, "files", name)
            given = _mapping(spec)
            self._text((*at, "text"), given.get("text"), seen)
            self._text((*at, "file"), file := given.get("file"), seen)
            if isinstance(file, str) and "${{" not in file and not (self.folder / Path(file).expanduser()).is_file():
                self._say((*at, "file"), f"there is no file {self.folder / Path(file).expanduser()}")
            if isinstance(schema := given.get("schema"), str):
                self._schema((*at, "schema"), schema)
            if isinstance(template := given.get("template"), str):
                self._template_file((*at, "template"), template, seen)

    def _schema(self, path: Path_, name: str) -> None:
        try:
            find_schema(name, self.folder)
        except OSError:
            self._say(
                path,
                f"there is no schema `{name}`",
                f"{did_you_mean(name, BUILT_IN_RESULTS)} A file beside the pipeline will do as well.",
            )
        except ValueError as error:
            self._say(path, f"{name} is no JSON Schema: {error}")

    def _template_file(self, path: Path_, name: str, seen: _Seen) -> None:
        try:
            text = (self.folder / name).read_text(encoding="utf-8")
        except OSError as error:
            self._say(path, f"cannot read the template {self.folder / name}: {error.strerror}")
            return
        except UnicodeDecodeError:
            self._say(path, f"the template {self.folder / name} is not UTF-8 text")
            return
        wrong = jinja.syntax_error(text, blocks=True)
        if wrong:
            self._say(path, f"the template {name} is wrong: {wrong}")
        else:
            self._references(path, text, seen, is_expression=False, blocks=True)

    def _texts(self, path: Path_, values: Data, seen: _Seen) -> None:
        for name, value in _mapping(values).items():
            self._text((*path, name), value, seen)

    def _text(self, path: Path_, value: Data, seen: _Seen) -> bool:
        if not isinstance(value, str) or "${{" not in value:
            return True
        wrong = jinja.syntax_error(value)
        if wrong:
            self._say(path, f"the ${{{{ }}}} is wrong: {wrong}")
            return False
        self._references(path, value, seen, is_expression=False)
        return True

    def _script(self, path: Path_, value: Data, seen: _Seen) -> None:
        if not isinstance(value, str) or not self._text(path, value, seen) or "${{" not in value:
            return
        why = misplaced_value(jinja.pieces(value))
        if why:
            hint = (
                'pccpipe quotes each value as one word: put the ${{ }} outside of it, or into `env:` and write "$NAME"'
            )
            self._say(path, f"a ${{{{ }}}} stands {why}", hint)

    def _expression_or_text(self, path: Path_, value: Data, seen: _Seen) -> None:
        if isinstance(value, str) and "${{" in value:
            self._expression(path, value, seen)

    def _expression(self, path: Path_, value: Data, seen: _Seen) -> None:
        if not isinstance(value, str):
            return
        wrong = jinja.syntax_error(value, is_expression=True)
        if wrong:
            self._say(path, f"the expression `{jinja.bare(value)}` is wrong: {wrong}")
        else:
            self._references(path, value, seen, is_expression=True)

    def _references(self, path: Path_, text: str, seen: _Seen, *, is_expression: bool, blocks: bool = False) -> None:
        for chain in jinja.references(text, is_expression=is_expression, blocks=blocks):
            for message, hint in self._reference_problems(chain, seen):
                self._say(path, message, hint)

    def _reference_problems(self, chain: tuple[str, ...], seen: _Seen) -> Iterator[tuple[str, str]]:
        root, rest = chain[0], chain[1:]
        match root:
            case "inputs":
                if rest and rest[0] not in self.inputs:
                    yield (
                        f"there is no input `{rest[0]}`",
                        did_you_mean(rest[0], self.inputs) or "declare it under `inputs:`",
                    )
            case "steps":
                yield from self._step_reference(rest, seen)
            case "run":
                if rest and rest[0] not in RUN_NAMES:
                    yield f"`run` has no `{rest[0]}`", did_you_mean(rest[0], RUN_NAMES)
            case "project":
                if rest and rest[0] != "id":
                    yield f"`project` has no `{rest[0]}`", "it has `id`"
            case "iteration":
                if not seen.iteration:
                    yield "`iteration` is known only inside of a `repeat:`", ""
            case "matrix":
                if not seen.matrix:
                    yield "`matrix` is known only in a step with a `matrix:`", ""
                elif rest and rest[0] not in seen.matrix:
                    yield f"the matrix has no `{rest[0]}`", did_you_mean(rest[0], seen.matrix)
            case "target":
                if not seen.target:
                    yield "`target` is known only in what a `run:` step runs", ""
            case "secrets":
                yield (
                    "a secret has no place in an expression",
                    'name it in the step\'s `secrets:`, and write "$NAME" in `run:`',
                )
            case "range":
                pass
            case _:
                known = [
                    "inputs",
                    "steps",
                    "run",
                    "project",
                    "target",
                    *(["iteration"] if seen.iteration else []),
                    *(["matrix"] if seen.matrix else []),
                ]
                yield f"`{root}` is not defined", did_you_mean(root, known)

    def _step_reference(self, rest: tuple[str, ...], seen: _Seen) -> Iterator[tuple[str, str]]:
        if not rest:
            return
        name = rest[0]
        if name not in self.step_ids:
            yield f"there is no step `{name}`", did_you_mean(name, self.step_ids)
        elif name not in seen.steps:
            yield f"the step `{name}` comes later, so nothing is known of it here", ""
        if len(rest) > 1 and rest[1] not in STEP_NAMES:
            yield f"a step has no `{rest[1]}`", did_you_mean(rest[1], STEP_NAMES)

    def _unknown(self, path: Path_, what: str, name: str, known: Mapping[str, Data], otherwise: str = "") -> None:
        self._say(path, f"there is no {what} `{name}`", did_you_mean(name, known) or otherwise)


def input_problem(value: object, kind: str, spec: Mapping[str, Data]) -> str | None:
    """What is wrong with an input's value, as the end of a sentence; None if nothing."""
    right: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "path": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if not isinstance(value, right.get(kind, object)) or (isinstance(value, bool) and kind != "boolean"):
        words = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
        return f"is to be {words.get(kind, 'text')}, and is {value!r}"
    choices = spec.get("enum")
    if isinstance(choices, list) and value not in choices:
        return f"is to be one of {', '.join(str(choice) for choice in choices)}, and is {value!r}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = spec.get("minimum"), spec.get("maximum")
        if isinstance(low, int | float) and value < low:
            return f"is to be at least {low:g}, and is {value:g}"
        if isinstance(high, int | float) and value > high:
            return f"is to be at most {high:g}, and is {value:g}"
    return None


def _mapping(data: Data) -> dict[str, Data]:
    return data if isinstance(data, dict) else {}


def _listed(data: Data) -> list[Data]:
    return data if isinstance(data, list) else [data] if data is not None else []


def _steps(data: Mapping[str, Data], key: str, path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Data]]]:
    for index, step in enumerate(_listed(data.get(key))):
        if isinstance(step, dict):
            at = (*path, key, index)
            yield at, step
            for inner in ("steps", "parallel"):
                if isinstance(step.get(inner), list):
                    yield from _steps(step, inner, at)


def _ids(steps: Data) -> Iterator[str]:
    for _, step in _steps({"steps": steps}, "steps"):
        if isinstance(step.get("id"), str):
            yield str(step["id"])
