"""Makes text harmless, and writes what all views write in the same way."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from pccpipe.outcome import IsolationMode, Outcome, Place
from pccpipe.words import memory, money, size

if TYPE_CHECKING:  # `validate` uses this module, and must not load the modules of runs
    from pccpipe.record.agent_events import ModelUsed
    from pccpipe.record.model_totals import ModelTotals
    from pccpipe.target import Isolation
    from pccpipe.values import Json

LONGEST_LINE = 2000
"""Characters of an output line that a view shows; the log has the rest."""
_KEPT = 4 * LONGEST_LINE
"""Characters kept of a line without an end: a progress bar may be long."""

# Colours (SGR), which are dropped. Everything else that a terminal obeys becomes an escape.
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
# Characters that show nothing, though Python calls them printable: fillers, joiners, and variation selectors.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef"
_EMOJI = "\u00a9\u00ae\u203c\u2049\u2100-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
# Beside a picture these stay: the choice between text and picture, and the joiner of pictures.
_CHOICE = rf"(?<![{_EMOJI}])[\ufe0e\ufe0f](?!\u20e3)"
_JOINER = rf"\u200d(?:(?<![{_EMOJI}\ufe0f]\u200d)|(?![{_EMOJI}]))"
# C0 and C1 controls; format characters and blank characters that reorder or hide text (tags, soft hyphen,
# bidirectional controls, line separators, zero width, annotations); half characters.
_OBEYED = re.compile(
    f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    f"\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff{_BLANK}]"
    f"|{_CHOICE}|{_JOINER}"
)
_BLANKS = re.compile(f"[{_BLANK}\ufe0e\ufe0f]")
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\n"


def harmless(text: str) -> str:
    """Make text of an agent or a target harmless: no terminal obeys it, and nothing in it is hidden.

    Colours are dropped. Other controls and invisible characters become escapes, such as `\\x1b`. Tabs, newlines,
    scripts written from right to left, and the joiners within an emoji stay.
    """
    if _OBEYED.search(text) is None:
        return text
    return _OBEYED.sub(_escaped, _COLOUR.sub("", text))


def harmless_line(text: str) -> str:
    """Make one line harmless and short, with tabs as spaces. Text after a `\\r` replaces nothing."""
    shown = harmless(text.rstrip("\r\n")).replace("\n", "\\n").expandtabs(8)
    return shown if len(shown) <= LONGEST_LINE else f"{shown[:LONGEST_LINE]} ... ({len(shown)} characters)"


def words_of(stranger: str) -> list[str]:
    """Return the words of an engine or a VM as harmless lines. None begins as a line does that names a command."""
    lines = [harmless_line(line) for line in stranger.splitlines()]
    return [f"| {line}" if line.lstrip().startswith(("fix:", "next:")) else line for line in lines]


def output_line(text: str) -> str:
    """Make a line of a command's output harmless and short; of a progress bar (`\\r`), keep its last state.

    Text after the only `\\r` that is shorter than the text before it did not overwrite all of that: both are shown.
    """
    return harmless_line(_overwritten(text.rstrip("\r\n")))


def _overwritten(line: str) -> str:
    before, _, last = line.rpartition("\r")
    return line if "\r" not in before and len(last) < len(before) else last


def harmless_lines(text: str) -> str:
    """Make many lines of output harmless, each with its newline; quick for lines that already are, as most are."""
    if _is_printable(text) and not _has_longer_line(text, LONGEST_LINE):
        return text
    return "".join(f"{output_line(line)}\n" for line in text[:-1].split("\n"))


def _is_printable(text: str) -> bool:
    """Say whether a terminal would obey nothing but newlines: the quickest test."""
    if text.isascii():
        return not text.encode().translate(None, _PRINTABLE)
    return text.replace("\n", " ").isprintable() and _BLANKS.search(text) is None


def _has_longer_line(text: str, most: int) -> bool:
    start = 0
    while len(text) - start > most:
        start = text.rfind("\n", start, start + most + 1) + 1
        if not start:
            return True
    return False


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return f"\\U{code:08x}"


class Lines:
    """Make lines of pieces of output.

    `finish` returns a line without an end. Of a very long line, the rest is counted and not kept; of a progress bar
    (`\\r`), the last state is kept.
    """

    def __init__(self) -> None:
        self._rest = ""
        self._dropped = 0

    @property
    def rest(self) -> str:
        """The line that is not finished yet."""
        return self._rest

    def feed(self, text: str) -> str:
        """Return the lines that this piece completes, each with its newline."""
        if not self._dropped:
            text, self._rest = self._rest + text, ""
        end = text.rfind("\n") + 1
        whole = text[:end]
        if self._dropped or _has_longer_line(whole, _KEPT):
            whole = "".join([self._whole(line) for line in whole[:-1].split("\n")]) if whole else ""
        self._take(text[end:])
        return whole

    def finish(self) -> str:
        """Return the rest as a last line."""
        return self._end() if self._rest else ""

    def _whole(self, line: str) -> str:
        self._take(line)
        return self._end()

    def _take(self, piece: str) -> None:
        self._rest += piece
        if len(self._rest) <= _KEPT:
            return
        before, bar, last = self._rest.rstrip("\r").rpartition("\r")
        if bar:
            # With a `\r` before and after it, the rest remains a progress bar.
            self._rest, self._dropped = f"\r{last}{self._rest[len(before) + len(bar) + len(last) :]}", 0
        self._dropped += max(0, len(self._rest) - _KEPT)
        self._rest = self._rest[:_KEPT]

    def _end(self) -> str:
        line, dropped = self._rest, self._dropped
        self._rest, self._dropped = "", 0
        return f"{line[: LONGEST_LINE - 50]} ... ({len(line) + dropped} characters)\n" if dropped else f"{line}\n"


def clock(moment: float) -> str:
    """Write the time of day, in the local zone."""
    return datetime.fromtimestamp(moment).astimezone().strftime("%H:%M:%S")


def date(moment: float | None) -> str:
    """Write day and time, in the local zone."""
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else "?"


def where(had: Isolation) -> str:
    """Say in a few words where a command runs."""
    match had.place:
        case Place.LOCAL:
            return "local"
        case Place.VM:
            return f"vm {had.host}"
        case Place.CONTAINER:
            at = "" if had.host == "localhost" else f" on {had.host}"
            return f"container {had.image}{at}"


def user(had: Isolation) -> str:
    """Name the user of a command: the name, if it is known, with the numbers."""
    return f"{had.login} ({had.user})" if had.login and had.login != had.user else had.user


def isolation(had: Isolation) -> str:
    """Say in one line what isolation a command really had."""
    parts = [where(had), f"user {user(had)}"]
    if had.container:
        parts.append(f"name {had.container}")
    if had.image_digest:
        other = f" (provision left {had.image_provisioned[:19]})" if had.image_provisioned else ""
        parts.append(f"image {had.image_digest[:19]}{other}")
    if had.network:
        parts.append(f"network {had.network}")
    if had.place is Place.CONTAINER:
        limits = {"memory": memory(had.memory) if had.memory else "", "cpus": had.cpus, "pids": had.pids}
        parts += [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value or 'unlimited'}"
            for name, value in limits.items()
        ]
    if had.workspace:
        parts.append(f"workspace {had.workspace}{' (read-only)' if had.read_only_workspace else ''}")
    return ", ".join(harmless_line(part) for part in parts)


def project_text(project: str | None, path: str | None, mode: IsolationMode, *, local: bool) -> str:
    """Name the project, and its isolation mode."""
    # Only a record of version 0.1 lacks the project file of a VM.
    file = path or ("no project file" if mode is IsolationMode.LOCAL else "")
    return f"project {project}{f' ({file})' if file else ''}, isolation {mode.value}{' by --local' if local else ''}"


def left_out(dropped: int) -> str:
    """Say how many bytes the logs leave out; empty if none."""
    return f" ({dropped:,} bytes left out by log_limit)" if dropped else ""


def model_text(used: ModelUsed) -> str:
    """Say how much a step used of a model."""
    parts = [f"{used.calls} calls", f"{used.input_tokens} tokens in ({used.cached_input_tokens} cached)"]
    parts.append(f"{used.output_tokens} out")
    if used.estimated_tokens:
        parts.append(f"{used.estimated_tokens} by size")
    if used.max_tokens is not None:
        parts.append(f"of at most {used.max_tokens}")
    if used.usd:
        parts.append(f"about {money(used.usd)}")
    if used.budget_tokens is not None:
        parts.append(f"{used.budget_used} of the budget of {used.budget_tokens}")
    if used.budget_usd is not None:
        parts.append(f"about {money(used.budget_used_usd)} of the budget of {money(used.budget_usd)}")
    if used.refused:
        parts.append("then refused (budget_exceeded)")
    return f"model: {', '.join(parts)}"


def totals_text(totals: ModelTotals) -> str:
    """Say how much a run used of models, for the end of a run and for `show`."""
    budget = f" of {totals.budget_tokens:,}" if totals.budget_tokens is not None else ""
    text = f"{totals.calls:,} calls, {totals.tokens:,}{budget} tokens"
    if totals.usd:
        budget = f" of {money(totals.budget_usd)}" if totals.budget_usd is not None else ""
        text += f", about {money(totals.usd)}{budget}"
    return f"model: {text}"


def facts_text(action: str, given: Mapping[str, Json]) -> str:
    """Say in a few words what a built-in action did."""
    known = dict(given)
    parts: list[str] = []
    files, count = known.pop("files", None), known.pop("bytes", None)
    known.pop("seconds", None)
    if files is not None:
        parts.append(f"{files} file{'' if files == 1 else 's'}")
    if isinstance(count, int):
        parts.append(size(count))
    if "insertions" in known:
        parts.append(f"+{known.pop('insertions')} -{known.pop('deletions', 0)} lines")
    if "method" in known:
        parts.append(f"by {known.pop('method')}")
    if action == "build":
        parts.append(f"image {known.pop('image', '')} {'built' if known.pop('built', True) else 'was there'}")
    if action == "diff":
        parts.append(f"in {known.pop('path', '')}")
    for name, value in known.items():
        shown = "; ".join(str(item) for item in value) if isinstance(value, list) else str(value)
        if value or value == 0:
            parts.append(f"{name}: {shown}")
    return harmless_line(", ".join(parts))


OUTCOME_WORDS = {outcome: outcome.value.replace("_", " ") for outcome in Outcome}


def cells(text: str) -> int:
    """Return the number of columns that a terminal needs for the text."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def shorten(text: str, columns: int) -> str:
    """Cut the text to a number of columns, with `…` where it was cut."""
    if cells(text) <= columns:
        return text
    used, kept = 0, []
    for character in text:
        used += _width(character)
        if used > columns - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if columns > 0 else ""


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def repair_text(message: str) -> str:
    """Say why an agent was asked again."""
    return f"{message.partition(chr(10))[0]}; asked again"
