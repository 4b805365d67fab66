"""Hold the rules of an agent file that say how to read a line of the agent's output.

A rule names places in the line's JSON: `item.command`. A place with `[]` is one of each item of a list, as in
`message.content[].type`: such a rule is tried for each item. The first rule that matches a line, or an item, wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import Struct

from pccpipe import limits
from pccpipe.outcome import ActionKind
from pccpipe.values import Json

ITEM = "[]"
_KEYS = ("match", "as", "exit_after")


class JsonPlace(Struct, frozen=True):
    """A place in a line's JSON. `within` leads to a list and `inner` into each item, or `within` is None."""

    within: tuple[str, ...] | None
    inner: tuple[str, ...]

    @staticmethod
    def of(text: str) -> JsonPlace:
        before, found, after = text.partition(ITEM)
        if not found:
            return JsonPlace(None, tuple(text.split(".")))
        return JsonPlace(tuple(before.split(".")), tuple(part for part in after.split(".") if part))

    def value(self, line: Json, item: Json) -> Json:
        """Return the value there; None if there is none."""
        return at(line if self.within is None else item, self.inner)


class EventRule(Struct, frozen=True):
    """A rule for a line of an agent's output."""

    kind: ActionKind
    match: tuple[tuple[JsonPlace, tuple[Json, ...]], ...]
    """Each place must have one of its values; the value `*` is any but null, and `word*` is a text that begins so."""
    fields: Mapping[str, tuple[JsonPlace, ...]]
    """The places of each field; of several numbers, the sum counts."""
    within: tuple[str, ...] | None = None
    """The list whose items it reads; None: it reads the whole line."""
    exit_after: str = ""
    """The words before the exit code, if `exit` is a text."""

    def matches(self, line: Json, item: Json) -> bool:
        return all(_is_one_of(place.value(line, item), values) for place, values in self.match)

    def first(self, field: str, line: Json, item: Json) -> Json:
        """Return the first value that one of the field's places has."""
        found = (place.value(line, item) for place in self.fields.get(field, ()))
        return next((value for value in found if value is not None), None)

    def all(self, field: str, line: Json, item: Json) -> list[Json]:
        """Return the values that the field's places have."""
        found = (place.value(line, item) for place in self.fields.get(field, ()))
        return [value for value in found if value is not None]


class RuleIndex:
    """The rules for a line, or for an item, in their order. It finds them by the place that all of them look at."""

    def __init__(self, rules: Sequence[EventRule]) -> None:
        self._rules = rules
        places = [{place for place, values in rule.match if _are_words(values)} for rule in rules]
        shared = set.intersection(*places) if places else set()
        self._place = min(shared, key=lambda place: place.inner) if shared else None
        self._by_word: dict[Json, list[EventRule]] = {}
        for rule in rules if self._place else ():
            for word in dict.fromkeys(word for place, values in rule.match if place == self._place for word in values):
                self._by_word.setdefault(cast(str, word), []).append(rule)

    def find(self, line: Json, item: Json) -> EventRule | None:
        """Return the first rule that matches."""
        rules = self._rules
        if self._place:
            word = self._place.value(line, item)
            rules = self._by_word.get(word, ()) if isinstance(word, str) else ()
        return next((rule for rule in rules if rule.matches(line, item)), None)


class ResultRule(Struct, frozen=True):
    """The line that has an agent's result, and the result's place in it."""

    match: EventRule
    at: JsonPlace


def read_rules(rules: Sequence[Mapping[str, Json]]) -> tuple[EventRule, ...]:
    """Return the rules of `events:`, which match the schema. Raises ValueError for a rule with two lists."""
    return tuple(_rule(number, rule) for number, rule in enumerate(rules, 1))


def read_result(event: Mapping[str, Json], at: str) -> ResultRule:
    """Return the rule of `result: {event: ..., at: ...}`."""
    return ResultRule(_rule(1, {"match": cast(Json, event), "as": "result"}), JsonPlace.of(at))


def _rule(number: int, rule: Mapping[str, Json]) -> EventRule:
    match = tuple(
        (JsonPlace.of(place), tuple(wanted) if isinstance(wanted, list) else (wanted,))
        for place, wanted in cast(dict[str, Json], rule["match"]).items()
    )
    fields = {
        name: tuple(JsonPlace.of(str(place)) for place in (places if isinstance(places, list) else [places]))
        for name, places in rule.items()
        if name not in _KEYS
    }
    used = [place for place, _ in match] + [place for places in fields.values() for place in places]
    lists = {place.within for place in used if place.within is not None}
    if len(lists) > 1:
        names = ", ".join(sorted(f"{'.'.join(each)}{ITEM}" for each in lists))
        raise ValueError(f"rule {number} of `events:` reads two lists: {names}; make a rule for each")
    return EventRule(
        ActionKind(str(rule["as"])), match, fields, next(iter(lists), None), str(rule.get("exit_after", ""))
    )


def at(value: Json, names: Sequence[str]) -> Json:
    """Return the value at a place; None if there is none."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def items(line: Json, names: Sequence[str]) -> list[Json]:
    """Return the first items of the list at a place."""
    found = at(line, names)
    return found[: limits.AGENT_ITEMS.most] if isinstance(found, list) else []


def _is_one_of(value: Json, wanted: Sequence[Json]) -> bool:
    return any(_fits(value, each) for each in wanted)


def _are_words(values: Sequence[Json]) -> bool:
    return all(isinstance(value, str) and not value.endswith("*") for value in values)


def _fits(value: Json, wanted: Json) -> bool:
    if isinstance(wanted, str) and wanted.endswith("*"):
        return value is not None if wanted == "*" else isinstance(value, str) and value.startswith(wanted[:-1])
    # True is 1 for Python.
    return type(value) is type(wanted) and value == wanted
