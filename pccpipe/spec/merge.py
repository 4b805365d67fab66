"""Merges an including pipeline into the included one: plain data in which each part keeps its position.

Mappings are merged key by key; all else is replaced. `change:` changes included steps by id, and the including file's
own steps follow them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.spec.data import listed, mapping, walk
from pccpipe.spec.position import KeyPath, SourceSpan
from pccpipe.spec.problem import Problem, did_you_mean
from pccpipe.spec.source import Change, Source
from pccpipe.values import Json

_LISTS = ("steps", "always")
_INNER = ("steps", "parallel", "always")


def merge(over: Source, under: Source) -> tuple[Source, list[Problem]]:
    """Return the pipeline that `over` makes of the included `under`, and the problems with its changes."""
    merger = _Merger(over, under)
    return merger.merged(), merger.problems


class _Merger:
    def __init__(self, over: Source, under: Source) -> None:
        self._over = over
        self._under = under
        self._change = mapping(mapping(over.data).get("change"))
        self._places = SourceSpan(over.of_value(()))
        self._changes = dict(under.changes)
        self._removed = dict(under.removed)
        self._found: set[str] = set()
        self.problems: list[Problem] = []

    def merged(self) -> Source:
        own, theirs = mapping(self._over.data), mapping(self._under.data)
        self._at(self._over, ("include",), ("include",))
        data: dict[str, Json] = {}
        for key in dict.fromkeys((*theirs, *own)):
            if key in _LISTS:
                data[key] = self._sequence(key, own, theirs)
            elif key not in {"include", "change"}:
                data[key] = self._laid_over((key,), own, theirs, (key,), (key,))
        self._unknown()
        return replace(
            self._over,
            data=data,
            places=self._places,
            included={self._under.file: self._under.lines, **self._under.included},
            changes=self._changes,
            removed={name: at for name, at in self._removed.items() if name not in _ids(data)},
        )

    def _laid_over(
        self, new: KeyPath, own: Mapping[str, Json], theirs: Mapping[str, Json], over: KeyPath, under: KeyPath
    ) -> Json:
        """Merge one key of two mappings: `new` is its path in the result, `over` and `under` those in the files."""
        key = str(new[-1])
        if key not in own:
            return self._taken(self._under, under, new, theirs[key])
        mine, other = own[key], theirs.get(key)
        if not (isinstance(mine, dict) and isinstance(other, dict)) or _is_one_of_several_kinds(new):
            return self._taken(self._over, over, new, mine)
        self._at(self._over, over, new)
        return {
            name: self._laid_over((*new, name), mine, other, (*over, name), (*under, name))
            for name in dict.fromkeys((*other, *mine))
        }

    def _taken(self, source: Source, old: KeyPath, new: KeyPath, data: Json) -> Json:
        """Copy a value, with its positions, from one of the files."""
        for inner, _ in walk(data):
            self._at(source, (*old, *inner), (*new, *inner))
        return data

    def _at(self, source: Source, old: KeyPath, new: KeyPath) -> None:
        self._places.put(new, source.of_value(old), source.of_key(old) if isinstance(new[-1], str) else None)

    def _sequence(self, key: str, own: Mapping[str, Json], theirs: Mapping[str, Json]) -> Json:
        """Return the included steps with their changes, and the own steps after them."""
        if not isinstance(own.get(key, []), list):
            return self._taken(self._over, (key,), (key,), own[key])
        steps: list[Json] = []
        if key in theirs:
            self._at(self._under, (key,), (key,))
            if not isinstance(theirs[key], list):
                return self._taken(self._under, (key,), (key,), theirs[key])
            self._changed((key,), theirs[key], (key,), steps)
        else:
            self._at(self._over, (key,), (key,))
        self._added((key,), own.get(key), (key,), steps)
        return steps

    def _changed(self, old: KeyPath, included: Json, new: KeyPath, steps: list[Json]) -> None:
        for index, step in enumerate(listed(included)):
            name = mapping(step).get("id")
            at = (*old, index)
            if not isinstance(name, str) or not isinstance(self._change.get(name), dict):
                steps.append(self._step(at, step, (*new, len(steps)), {}))
                continue
            self._found.add(name)
            change, where = mapping(self._change[name]), ("change", name)
            self._added((*where, "before"), change.get("before"), new, steps)
            if change.get("remove") is True:
                self._remove(step, (*where, "remove"))
            else:
                steps.append(self._step(at, step, (*new, len(steps)), change))
            self._added((*where, "after"), change.get("after"), new, steps)

    def _added(self, old: KeyPath, added: Json, new: KeyPath, steps: list[Json]) -> None:
        for index, step in enumerate(listed(added)):
            steps.append(self._taken(self._over, (*old, index), (*new, len(steps)), step))

    def _remove(self, step: Json, where: KeyPath) -> None:
        for inner in _ids(step):
            self._removed[inner] = self._over.of_value(where)
            if inner in self._change and inner not in self._found:
                self._found.add(inner)
                group = mapping(step)["id"]
                self._say(
                    ("change", inner),
                    f"`{inner}` is inside `{group}`, which is removed here",
                    "drop one of the changes",
                )

    def _step(self, old: KeyPath, step: Json, new: KeyPath, change: Mapping[str, Json]) -> Json:
        if not isinstance(step, dict):
            return self._taken(self._under, old, new, step)
        self._at(self._under, old, new)
        name = str(step.get("id"))
        where, wanted = ("change", name), mapping(change.get("set"))
        unset = self._unset((*where, "unset"), change.get("unset"), step, name)
        made: dict[str, Json] = {}
        for key in dict.fromkeys((*step, *wanted)):
            if key in unset and key not in wanted:
                continue
            theirs = {} if key in unset else step
            if key in _INNER and isinstance(step.get(key), list) and key not in wanted:
                self._at(self._under, (*old, key), (*new, key))
                inner: list[Json] = []
                self._changed((*old, key), step[key], (*new, key), inner)
                made[key] = inner
            else:
                made[key] = self._laid_over((*new, key), wanted, theirs, (*where, "set", key), (*old, key))
        if wanted or unset:
            keys = tuple(dict.fromkeys((*wanted, *unset)))
            done = Change(self._over.of_key(where), keys)
            self._changes[name] = (*self._changes.get(name, ()), done)
        return made

    def _unset(self, where: KeyPath, unset: Json, step: Mapping[str, Json], name: str) -> list[str]:
        keys = [key if isinstance(key, str) else "" for key in listed(unset)]
        for index, key in enumerate(keys):
            if key and key not in step:
                self._say((*where, index), f"cannot unset `{key}`: `{name}` does not have it", did_you_mean(key, step))
        return [key for key in keys if key in step]

    def _unknown(self) -> None:
        known = dict.fromkeys(_ids(self._under.data))
        for name in self._change:
            if len(self.problems) >= limits.PIPELINE_PROBLEMS.most:
                return
            if name not in self._found and name not in known:
                message = f"there is no step `{name}` in {self._under.file}"
                if name in self._under.removed:
                    message = f"the step `{name}` is already removed, at {self._under.removed[name]}"
                self._say(("change", name), message, did_you_mean(name, known))

    def _say(self, path: KeyPath, message: str, hint: str) -> None:
        at = self._over.of_key(path) if isinstance(path[-1], str) else self._over.of_value(path)
        self.problems.append(Problem(at, message, hint, self._over.line(at.line)))


def _is_one_of_several_kinds(path: KeyPath) -> bool:
    """Say whether this is a secret, or a step's file: mixing the keys of two kinds would break it."""
    return path[:-1] == ("secrets",) or (path[0] in _LISTS and path[-2] == "files")


def _ids(data: Json) -> Iterator[str]:
    """Yield the ids of the steps of a pipeline or a step."""
    if isinstance(data, dict):
        if isinstance(data.get("id"), str):
            yield str(data["id"])
        for key in (*_LISTS, "parallel"):
            for step in listed(data.get(key)):
                yield from _ids(step)
