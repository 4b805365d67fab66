"""A script: it chooses the reply for each request of a run, and remembers what was asked."""

from __future__ import annotations

import collections
import hashlib
import re
import threading
from collections.abc import Mapping
from urllib.parse import unquote

from msgspec import Struct

from pccpipe import limits
from pccpipe.record.step_path import rounds_left_out, split
from pccpipe.scripted.dialect import Asked
from pccpipe.scripted.reply import ALWAYS, ErrorAnswer, Reply, Say
from pccpipe.values import cut

_END = Reply(Say("Done."))
"""The answer after the last one of a turn."""
_MODEL = 80
"""Characters of a model's name in a message."""
_UNSCRIPTED = 10
"""The most prompts without a turn that a case lists."""
_ROUND = re.compile(r"\[([0-9]+)\]")


class ScriptTurn(Struct, frozen=True):
    """The answers to one prompt. A selector that is None takes any."""

    replies: tuple[Reply, ...]
    round: int | None = None
    attempt: int | None = None
    prompt: int | None = None
    model: str | None = None

    def is_for(self, round_: int | None, attempt: int, prompt: int, model: str) -> bool:
        """Say whether it answers this prompt."""
        given = ((self.round, round_), (self.attempt, attempt), (self.prompt, prompt), (self.model, model))
        return all(wanted is None or wanted == actual for wanted, actual in given)


class Script:
    """The scripted model of one run. Safe from many threads.

    Attributes:
        calls: the calls of the model, by the step's path.
        prompts: the prompts, by the step's path, up to a limit of all together.
        unscripted: prompts without a turn, in words.
    """

    def __init__(self, turns: Mapping[str, tuple[ScriptTurn, ...]]) -> None:
        self._turns = turns
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], list[bytes]] = {}
        self.calls: collections.Counter[str] = collections.Counter()
        self.prompts: dict[str, list[str]] = {}
        self.unscripted: list[str] = []
        self._kept = 0

    def choose(self, url_path: str, asked: Asked) -> Reply:
        """Return the reply for a request; `url_path` begins with the step and the attempt."""
        _, step, attempt, *_ = [*url_path.split("/"), "", ""]
        path = unquote(step)
        if not asked.has_tools:
            # An agent asks for a title, or a summary, beside its work.
            return Reply(Say("ok"))
        with self._lock:
            prompts = self._seen.setdefault((path, attempt), [])
            digest = hashlib.sha256(asked.prompt.encode(errors="replace")).digest()
            if digest not in prompts:
                prompts.append(digest)
                self._remember(path, asked.prompt)
            self.calls[path] += 1
            number = prompts.index(digest) + 1
            turn = self._turn(path, int(attempt) if attempt.isdecimal() else 1, number, asked.model)
            if turn is None:
                return self._refuse(path, attempt, number, asked.model)
        return turn.replies[asked.done] if asked.done < len(turn.replies) else _END

    def _remember(self, path: str, prompt: str) -> None:
        self._kept += len(prompt)
        if self._kept <= limits.SCRIPTED_PROMPTS.most:
            self.prompts.setdefault(path, []).append(prompt)

    def _turn(self, path: str, attempt: int, prompt: int, model: str) -> ScriptTurn | None:
        rounds = [int(found[1]) for part in split(path) if (found := _ROUND.fullmatch(part))]
        turns = next((self._turns[name] for name in names_of(path) if name in self._turns), ())
        return next(
            (turn for turn in turns if turn.is_for(rounds[-1] if rounds else None, attempt, prompt, model)), None
        )

    def _refuse(self, path: str, attempt: str, prompt: int, model: str) -> Reply:
        words = f"{path}: the script has no turn for attempt {attempt}, prompt {prompt}, model {cut(model, _MODEL)}"
        if words not in self.unscripted and len(self.unscripted) < _UNSCRIPTED:
            self.unscripted.append(words)
        # A 400 ends each agent at once, without another try.
        return Reply(Say(""), faults=(ErrorAnswer(400, ALWAYS, words),))


def names_of(path: str) -> tuple[str, ...]:
    """Return the names of a step in a test file, the most exact first: its path, that without rounds, its id."""
    return path, rounds_left_out(path), id_of(path)


def id_of(path: str) -> str:
    """Return the id of the step with that path, without rounds and legs of a matrix."""
    return next((part for part in reversed(split(path)) if not part.startswith("[")), path)
