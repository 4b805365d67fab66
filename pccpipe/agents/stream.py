"""Read what an agent does from the lines that its program writes to stdout.

The lines are untrusted: a line that is too long, no JSON, of an unknown kind or with absurd values changes nothing.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct, field

from pccpipe import limits
from pccpipe.agents.final_json import final_json
from pccpipe.agents.rules import EventRule, ResultRule, RuleIndex, at, items
from pccpipe.errors import LimitExceeded
from pccpipe.json_reader import NotJson, read_json
from pccpipe.outcome import ActionKind
from pccpipe.values import Json

_SHORT = 64 << 10
_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_SHELL = re.compile(r"(?:/\S*/)?(?:ba|da|z)?sh -l?c ")


class Action(Struct, frozen=True):
    """One thing that an agent did."""

    kind: ActionKind
    text: str = ""
    """The message, the command, the file or the error."""
    id: str = ""
    """The program's id of a command."""
    exit_code: int | None = None
    failed: bool = False
    added: int | None = None
    """Lines that an edit added, if the program says so; `removed` likewise."""
    removed: int | None = None


class Usage(Struct, frozen=True):
    """An agent's own figures of its use of the model; None where it says nothing."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None


class Edited(Struct):
    """The edits of one file."""

    added: int = 0
    removed: int = 0


class Counts(Struct):
    """The counts of an attempt's actions."""

    commands: int = 0
    failed_commands: int = 0
    messages: int = 0
    retries: int = 0
    files: dict[str, Edited] = field(default_factory=dict)
    """The first edited files, by name."""
    more_files: int = 0
    """Edits of files beyond those."""
    unread: int = 0
    """Lines that could not be read."""


class AgentReader:
    """Read an agent's output, in pieces. Its memory is bounded, whatever the output is.

    Args:
        rules: `events:` of the agent file.
        result: where the agent's result is; None: in its last message.
        usage_adds_up: the program's figures count the whole conversation, so the last ones count.
        folder: the workspace as the agent sees it; names of files in it become relative.
    """

    def __init__(
        self,
        rules: Sequence[EventRule],
        result: ResultRule | None = None,
        *,
        usage_adds_up: bool = False,
        folder: str = "",
    ) -> None:
        # By the list whose items the rules read; None for the line itself.
        self._rules = {
            within: RuleIndex([rule for rule in rules if rule.within == within])
            for within in dict.fromkeys([None, *(rule.within for rule in rules)])
        }
        self._result_rule = result
        self._adds_up = usage_adds_up
        self._folder = f"{folder.rstrip('/')}/" if folder else ""
        self._line = bytearray()
        self._is_cut = False
        self._open: dict[str, str] = {}
        self._changed: dict[int, tuple[int, int]] = {}
        """The lines that a line's diffs change: many items may have one large diff."""
        self._parts: list[str] = []
        self._parts_size = 0
        self._structured: bytes | None = None
        self._message = ""
        self.session_id = ""
        self.usage = Usage()
        self.error = ""
        """The error that the program reported last; empty once a turn ended well after it."""
        self.counts = Counts()

    @property
    def last_message(self) -> str:
        return "".join(self._parts) or self._message

    def result(self) -> bytes | None:
        """Return the agent's result as JSON, from its place or else from the last message; None: it left none."""
        return self._structured or final_json(self.last_message)

    def feed(self, data: bytes) -> Iterator[Action]:
        """Yield the actions in the lines that this piece completes."""
        first, newline, rest = data.partition(b"\n")
        self._take(first)
        if not newline:
            return
        yield from self._end_line()
        *lines, last = rest.split(b"\n")
        for line in lines:
            # Quick for a flood of empty lines.
            if line:
                self._take(line)
                yield from self._end_line()
        self._take(last)

    def skip(self) -> None:
        """Drop the line that has a gap."""
        self._line.clear()
        self._is_cut = True

    def finish(self) -> Iterator[Action]:
        """Yield the actions of the last line, also without its newline."""
        if self._line:
            yield from self._end_line()
        yield from self._end_message()

    def _take(self, piece: bytes) -> None:
        if len(self._line) + len(piece) > limits.AGENT_LINE.most:
            self.skip()
        elif not self._is_cut:
            self._line += piece

    def _end_line(self) -> Iterator[Action]:
        line, is_cut = bytes(self._line).strip(), self._is_cut
        self._line.clear()
        self._is_cut = False
        if is_cut:
            self.counts.unread += 1
        elif line[:1] == b"{":
            try:
                value = _read_line(line)
            except (NotJson, LimitExceeded):
                self.counts.unread += 1
                return
            yield from self._read(value)
        elif line:
            yield Action(ActionKind.OUTPUT, _text(line[: 4 * limits.AGENT_TEXT.most].decode("utf-8", "replace")))

    def _read(self, line: Json) -> Iterator[Action]:
        self._changed.clear()
        result = self._result_rule
        if result and result.match.matches(line, None) and (value := result.at.value(line, None)) is not None:
            try:
                self._structured = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
            except RecursionError:
                # It takes more of the stack to write it than to read it.
                self.counts.unread += 1
                return
        for within, rules in self._rules.items():
            for item in [None] if within is None else items(line, within):
                if rule := rules.find(line, item):
                    yield from self._apply(rule, line, item)

    def _apply(self, rule: EventRule, line: Json, item: Json) -> Iterator[Action]:
        text = rule.first("text", line, item)
        is_piece = rule.kind is ActionKind.MESSAGE and rule.first("piece", line, item) is True
        if not is_piece:
            yield from self._end_message()
        self._note_session(rule.first("id", line, item) if rule.kind is ActionKind.SESSION else None)
        self._note_usage(rule, line, item)
        match rule.kind:
            case ActionKind.MESSAGE:
                if is_piece:
                    self._add_part(text)
                elif isinstance(text, str) and text.strip():
                    yield self._said(text)
            case ActionKind.COMMAND:
                yield from self._began(rule, line, item)
            case ActionKind.COMMAND_END:
                yield from self._ended(rule, line, item)
            case ActionKind.EDIT:
                yield from self._edited(rule, line, item)
            case ActionKind.RETRY:
                self.counts.retries += 1
                yield Action(ActionKind.RETRY, _text(text))
            case ActionKind.ERROR:
                yield from self._failed(text)
            case ActionKind.RESULT:
                if _is_true(rule.first("failed", line, item)):
                    yield from self._failed(text)
                else:
                    self.error = ""
                    self._message = text if isinstance(text, str) and text.strip() else self._message
            case ActionKind.USAGE:
                self.error = ""
            case ActionKind.SESSION | ActionKind.OUTPUT:
                pass

    def _note_session(self, value: Json) -> None:
        # The first one counts: the program writes it before any command of the agent runs.
        if not self.session_id and isinstance(value, str) and _SESSION_ID.fullmatch(value):
            self.session_id = value

    def _note_usage(self, rule: EventRule, line: Json, item: Json) -> None:
        most = limits.AGENT_FIGURE.most

        def tokens(name: str, before: int | None) -> int | None:
            found = [
                one for one in rule.all(name, line, item) if type(one) is int and 0 <= one <= limits.AGENT_FIGURE.most
            ]
            return sum(found) + (0 if self._adds_up else before or 0) if found else before

        old, cost = self.usage, rule.first("usd", line, item)
        usd = old.usd
        if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost <= most:
            usd = float(cost) + (0 if self._adds_up else old.usd or 0)
        self.usage = Usage(
            tokens("input_tokens", old.input_tokens),
            tokens("cached_input_tokens", old.cached_input_tokens),
            tokens("output_tokens", old.output_tokens),
            usd,
        )

    def _add_part(self, text: Json) -> None:
        if isinstance(text, str) and self._parts_size + len(text) <= limits.AGENT_LINE.most:
            self._parts.append(text)
            self._parts_size += len(text) + 50

    def _end_message(self) -> Iterator[Action]:
        if self._parts:
            whole = "".join(self._parts)
            self._parts, self._parts_size = [], 0
            if whole.strip():
                yield self._said(whole)

    def _said(self, text: str) -> Action:
        self.counts.messages += 1
        self._message = text
        return Action(ActionKind.MESSAGE, _text(text))

    def _failed(self, text: Json) -> Iterator[Action]:
        error = _api_message(_text(text)) or "the agent's program reports an error"
        if error != self.error:
            # Programs report an error of the API, then that their turn ended with it.
            self.error = error
            yield Action(ActionKind.ERROR, error, failed=True)

    def _began(self, rule: EventRule, line: Json, item: Json) -> Iterator[Action]:
        command, id_ = _command(rule.first("command", line, item)), _id(rule.first("id", line, item))
        if not command or (id_ and id_ in self._open):
            return
        self.counts.commands += 1
        if len(self._open) < limits.AGENT_COMMANDS.most:
            self._open[id_] = command
        yield Action(ActionKind.COMMAND, command, id_)

    def _ended(self, rule: EventRule, line: Json, item: Json) -> Iterator[Action]:
        id_ = _id(rule.first("id", line, item))
        command = self._open.pop(id_, "")
        if not command:
            # The program reports a command only when it is over; else it is the end of another tool's use.
            command = _command(rule.first("command", line, item))
            self.counts.commands += bool(command)
        if command:
            exit_code = _exit_code(rule.first("exit", line, item), rule.exit_after)
            failed = _is_true(rule.first("failed", line, item)) or bool(exit_code)
            self.counts.failed_commands += failed
            yield Action(ActionKind.COMMAND_END, command, id_, exit_code, failed)

    def _edited(self, rule: EventRule, line: Json, item: Json) -> Iterator[Action]:
        name = rule.first("file", line, item)
        if not isinstance(name, str) or not name or _is_true(rule.first("failed", line, item)):
            return
        added, removed = _lines(rule.first("added", line, item)), _lines(rule.first("removed", line, item))
        diff = rule.first("diff", line, item)
        if diff is not None:
            added, removed = self._changed.get(id(diff)) or self._changed.setdefault(id(diff), _diff_lines(diff))
        shown = _text(name.removeprefix(self._folder) or name)
        file = self.counts.files.get(shown)
        if file is None and len(self.counts.files) < limits.AGENT_FILES.most:
            file = self.counts.files[shown] = Edited()
        if file is None:
            self.counts.more_files += 1
        else:
            file.added += added or 0
            file.removed += removed or 0
        yield Action(ActionKind.EDIT, shown, added=added, removed=removed)


def _read_line(line: bytes) -> Json:
    """Return the value of a line of JSON. A short one is read at once, and holds the interpreter lock for a moment."""
    if len(line) > _SHORT:
        return read_json(line, "a line")
    try:
        value: Json = msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None
    return value


def _text(value: Json) -> str:
    """Return a text for a view, cut; empty for anything else."""
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= limits.AGENT_TEXT.most else f"{text[: limits.AGENT_TEXT.most]}..."


def _api_message(text: str) -> str:
    """Return the message in an error of a model's API, `{"error": {"message": ...}}`; else the text itself."""
    try:
        value = read_json(text.encode("utf-8", "replace"), "an error") if text.startswith("{") else None
    except (NotJson, LimitExceeded):
        return text
    return _text(at(value, ("error", "message"))) or text


def _id(value: Json) -> str:
    return value if isinstance(value, str) and len(value) <= 200 else ""


def _command(value: Json) -> str:
    """Return a command without the shell around it: `/bin/bash -lc 'npm test'` is `npm test`."""
    text = _text(value)
    if (shell := _SHELL.match(text)) and len(text) < limits.AGENT_TEXT.most:
        try:
            words = shlex.split(text[shell.end() :])
        except ValueError:
            words = []
        if len(words) == 1:
            return _text(words[0])
    return text


def _is_true(value: Json) -> bool:
    """Say whether a flag is set; a text of failure counts, such as `error`."""
    return value is True or (isinstance(value, str) and value.lower() in {"error", "failed", "declined"})


def _exit_code(value: Json, after: str) -> int | None:
    if isinstance(value, str) and after:
        found = re.search(rf"{re.escape(after)}\s*(-?\d{{1,9}})\b", value[: limits.AGENT_TEXT.most])
        return int(found[1]) if found else None
    return value if type(value) is int and abs(value) < 2**31 else None


def _lines(value: Json) -> int | None:
    """Return a number of lines: the number itself, or that of a text."""
    if isinstance(value, str):
        return value.count("\n") + (not value.endswith("\n")) if value else 0
    return value if type(value) is int and 0 <= value <= limits.AGENT_FIGURE.most else None


def _diff_lines(diff: Json) -> tuple[int, int]:
    """Count the lines that a diff adds and removes: a text, or hunks with `lines`."""
    lines: list[Json] = list(diff.split("\n")) if isinstance(diff, str) else []
    for hunk in diff if isinstance(diff, list) else []:
        inner = hunk.get("lines") if isinstance(hunk, dict) else None
        lines += inner if isinstance(inner, list) else []
    texts = [line for line in lines if isinstance(line, str) and not line.startswith(("+++ ", "--- "))]
    return sum(line.startswith("+") for line in texts), sum(line.startswith("-") for line in texts)
