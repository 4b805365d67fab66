"""Checks the meaning of single values: expressions, texts with `${{ }}`, scripts, and the files that they name.

Jinja2 is imported only where a value needs it: a pipeline without expressions does not load it (20 ms).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from pccpipe import limits
from pccpipe.errors import ExpressionError, LimitExceeded
from pccpipe.shells import dialect_of, program_of
from pccpipe.spec import foreign_text, habits
from pccpipe.spec.env import path_problem
from pccpipe.spec.expression import Template
from pccpipe.spec.names import Declared, Visible, find, is_cut_by_minus, place_of, reference_problems
from pccpipe.spec.paths import beside, is_file, is_folder, read_text
from pccpipe.spec.position import KeyPath, Position
from pccpipe.spec.problem import Problem, did_you_mean
from pccpipe.spec.schema import schema_file_problems
from pccpipe.spec.shell_text import misplaced_value
from pccpipe.spec.source import Source
from pccpipe.spec.structure import BUILT_IN_RESULTS
from pccpipe.values import Json

if TYPE_CHECKING:
    from pccpipe.spec.jinja import Analysis


_VALUE = re.compile(r"\$\{\{")
_QUOTED = 'pccpipe quotes each value as one word: move the ${{ }} out, or put it into `env:` and write "$NAME"'


class TooManyProblems(Exception):
    """The problems reach the limit, or further checks would cost too much work."""


class ValueChecker(Struct, frozen=True):
    """Checks values of one file, and adds to `problems`."""

    source: Source
    folder: Path
    declared: Declared
    older: bool = False
    """True to accept what earlier versions accepted, although it does not do what it seems to do."""
    problems: list[Problem] = field(default_factory=list)

    def say(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Add a problem at the value of a path, or at its key."""
        self._say_at(self.source.of_key(path) if at_key else self.source.of_value(path), message, hint)

    def texts(self, path: KeyPath, values: Json, visible: Visible) -> None:
        """Check a mapping of texts, such as `env:`."""
        for name, value in values.items() if isinstance(values, dict) else ():
            self.text((*path, name), value, visible)
            words = path_problem(value) if name == "PATH" else habits.of_variable(name, value)
            if words and not self.older:
                self.say((*path, name), *words)

    def text(self, path: KeyPath, value: Json, visible: Visible) -> bool:
        """Check a text with `${{ }}`; return True if its syntax is right."""
        if isinstance(value, str) and not self.older:
            self._kept_as_text(self.source.of_value(path), self.source.lines_of(self.source.of_value(path)), value)
        if not isinstance(value, str) or "${{" not in value:
            return True
        from pccpipe.spec import jinja

        analysis = jinja.analyse(value)
        if analysis.has_constants:
            for text, is_value in jinja.segments(value):
                if is_value and jinja.analyse(text, is_expression=True).has_constants:
                    self._constant(path, Template(text, self.source.of_value(path)))
        return self._analysed(path, "${{ }}", analysis, visible)

    def script(self, path: KeyPath, value: Json, shell: str, visible: Visible) -> None:
        """Check a `run:`: quotes must protect each value at its place."""
        if not self.text(path, value, visible) or not isinstance(value, str) or "${{" not in value:
            return
        from pccpipe.spec import jinja

        pieces = jinja.analyse(value).pieces
        start = self.source.of_value(path)
        if not (dialect := dialect_of(shell)):
            at = find(_VALUE, self.source.lines_of(start), start, 0)
            message = f"a ${{{{ }}}} in a script for `{program_of(shell)}`: pccpipe quotes values for sh and bash only"
            self._say_at(at, message, "put it into `env:`, and read the variable in the script")
        elif misplaced := misplaced_value(pieces, dialect):
            before = sum(1 for piece in pieces[: misplaced.piece] if not piece)
            at = find(_VALUE, self.source.lines_of(start), start, before)
            self._say_at(at, f"unsafe place for a ${{{{ }}}}: {misplaced.why}", _QUOTED)

    def foreign_variables(self, path: KeyPath, script: Json) -> None:
        """Find variables that only the machines of other tools set."""
        if self.older or not isinstance(script, str):
            return
        start = self.source.of_value(path)
        lines = self.source.lines_of(start)
        files = (self.source.lines, *self.source.included.values())
        for name in foreign_text.foreign_variables(script, files):
            at = find(re.compile(rf"\$\{{?{name}\b"), lines, start)
            self._say_at(at, f"nothing sets `${name}` here", foreign_text.of_variable(name))

    def expression(self, path: KeyPath, value: Json, visible: Visible) -> None:
        """Check an expression, with or without its delimiters."""
        if isinstance(value, str):
            from pccpipe.spec import jinja

            what = f"expression `{jinja.bare(value)}`"
            analysis = jinja.analyse(value, is_expression=True)
            if analysis.has_constants:
                self._constant(path, Template(f"${{{{ {jinja.bare(value)} }}}}", self.source.of_value(path)))
            self._analysed(path, what, analysis, visible)

    def _constant(self, path: KeyPath, text: Template) -> None:
        """Evaluate an expression that reads no name: it exceeds a limit now, or never."""
        try:
            text.render({})
        except ExpressionError as error:
            if error.limit:
                self.say(path, f"in `{error.shown}`: {error.message}")
                raise TooManyProblems from None  # each takes seconds

    def expression_or_plain(self, path: KeyPath, value: Json, visible: Visible) -> None:
        """Check a value that may be an expression: `timeout: ${{ inputs.limit }}`."""
        if isinstance(value, str) and "${{" in value:
            self.expression(path, value, visible)

    def file(self, path: KeyPath, value: Json, visible: Visible) -> None:
        """Check the path of a file; a path with `${{ }}` is looked up in the step's turn."""
        self.text(path, value, visible)
        plain = isinstance(value, str) and "${{" not in value
        if plain and (found := self._beside(path, str(value))) and not is_file(found):
            self.say(path, f"there is no file {found}")

    def build_context(self, path: KeyPath, value: Json) -> None:
        """Check the path of a folder."""
        if isinstance(value, str) and (found := self._beside(path, value)) and not is_folder(found):
            self.say(path, f"there is no folder {found}")

    def schema(self, path: KeyPath, name: Json) -> None:
        """Check the name or path of a result's schema, and the file."""
        if not isinstance(name, str):
            return
        if name not in BUILT_IN_RESULTS and (file := self._beside(path, name)):
            try:
                self.problems.extend(schema_file_problems(file))
            except OSError as error:
                message = f"cannot read the schema `{name}`: {error.strerror}"
                if isinstance(error, FileNotFoundError):
                    message = f"there is no schema `{name}`"
                hint = did_you_mean(name, BUILT_IN_RESULTS)
                if not hint.endswith("?"):
                    hint += "; or name a JSON Schema file beside the pipeline"
                self.say(path, message, hint)

    def template_file(self, path: KeyPath, name: Json, visible: Visible) -> None:
        """Check a template file; its problems have positions in that file."""
        if not isinstance(name, str) or not (file := self._beside(path, name)):
            return
        try:
            text = read_text(file, limits.TEMPLATE)
        except FileNotFoundError:
            self.say(path, f"there is no file {file}")
        except OSError as error:
            self.say(path, f"cannot read the template {file}: {error.strerror}")
        except LimitExceeded as error:
            self.say(path, error.message)
        except UnicodeDecodeError:
            self.say(path, f"the template {file} is not UTF-8 text")
        else:
            from pccpipe.spec import jinja

            analysis = jinja.analyse(text, blocks=True)
            start, lines = Position(str(file), 1, 1), text.split("\n")
            self._analysed_at(start, lines, "template", analysis, visible)
            if not self.older:
                self._kept_as_text(start, lines, text, blocks=True)

    def _beside(self, path: KeyPath, name: str) -> Path | None:
        try:
            return beside(self.folder, name)
        except ValueError as error:
            self.say(path, f"the path {error}")
            return None

    def _analysed(self, path: KeyPath, what: str, analysis: Analysis, visible: Visible) -> bool:
        start = self.source.of_value(path)
        return self._analysed_at(start, self.source.lines_of(start), what, analysis, visible)

    def _analysed_at(
        self, start: Position, lines: Sequence[str], what: str, analysis: Analysis, visible: Visible
    ) -> bool:
        if analysis.wrong:
            at = _line_of(analysis.wrong.line, lines, start)
            self._say_at(at, f"invalid {what}: {analysis.wrong.message}", analysis.wrong.hint, lines)
        cut = any(is_cut_by_minus(chain, self.declared) for chain in analysis.references)
        for chain in analysis.references:
            if cut and chain[0] != "steps":
                continue  # the rest of a name that a `-` cut
            for message, hint in reference_problems(chain, visible, self.declared):
                self._say_at(place_of(chain, lines, start), message, hint, lines)
        for chain, values in analysis.comparisons if not self.older else ():
            known = self.declared.statuses, visible.texts, self.declared.backgrounds
            words = habits.of_comparison(chain, values, *known)
            words = words or foreign_text.of_result(chain, values, self.declared.without_result)
            if words:
                self._say_at(place_of(chain, lines, start), *words, lines)
        return analysis.wrong is None

    def _kept_as_text(self, start: Position, lines: Sequence[str], text: str, *, blocks: bool = False) -> None:
        """Find delimiters of other tools, which would stay in the text."""
        if not ("{{" in text or "{%" in text or "<%" in text):
            return
        from pccpipe.spec import jinja

        for message, hint, written in foreign_text.of_text(jinja.text_outside(text, blocks=blocks), blocks=blocks):
            self._say_at(find(re.compile(re.escape(written)), lines, start), message, hint, lines)

    def _say_at(self, position: Position, message: str, hint: str, lines: Sequence[str] | None = None) -> None:
        lines = self.source.lines_of(position) if lines is None else lines
        line = lines[position.line - 1] if position.line <= len(lines) else ""
        self.problems.append(Problem(position, message, hint, line))
        if len(self.problems) >= limits.PIPELINE_PROBLEMS.most:
            raise TooManyProblems


def _line_of(number: int, lines: Sequence[str], start: Position) -> Position:
    """Return the position of a line of the text that begins at `start`."""
    first = lines[start.line - 1][start.column - 1 :] if start.line <= len(lines) else ""
    line = start.line + number - (0 if first.startswith("|") else 1)
    if line == start.line or line > len(lines):
        return start
    return Position(start.file, line, len(lines[line - 1]) - len(lines[line - 1].lstrip()) + 1)
