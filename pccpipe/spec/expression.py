"""`${{ }}`: checked when the pipeline is read, evaluated in the step's turn, quoted as shell words in `run:`.

The language is a sandboxed Jinja2 in which undefined names are errors. The delimiters clash with neither the shell
nor the templates of Docker and Go. Blocks (`<% if %>`) and comments (`<# #>`) work only in template files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from pccpipe.errors import ExpressionError
from pccpipe.spec.position import Position


class Expression(Struct, frozen=True):
    """One expression, with or without its delimiters; its value keeps its type."""

    source: str
    position: Position

    def evaluate(self, scope: Mapping[str, object]) -> object:
        """Return its value. Raises ExpressionError."""
        # Imported here and below: a command that evaluates nothing does not load Jinja2 (43 ms).
        from pccpipe.spec import jinja

        with _located(self.position, self.source):
            return jinja.evaluate(self.source, scope)


class Template(Struct, frozen=True):
    """Text with `${{ }}` in it."""

    source: str
    position: Position
    blocks: bool = False
    """True for template files: `<% %>` is a block and `<# #>` a comment."""

    @property
    def is_plain(self) -> bool:
        """Say whether the text has nothing to evaluate."""
        return "${{" not in self.source and not (self.blocks and ("<%" in self.source or "<#" in self.source))

    def render(self, scope: Mapping[str, object]) -> str:
        """Return the text with its values: lists and mappings as JSON, null as "". Raises ExpressionError."""
        if self.is_plain:
            return self.source
        from pccpipe.spec import jinja

        with _located(self.position, self.source):
            return jinja.render(self.source, scope, blocks=self.blocks)

    def render_for_shell(self, scope: Mapping[str, object]) -> str:
        """Return the text with each value quoted as one shell word, except those of `| raw` and `| args`."""
        if self.is_plain:
            return self.source
        from pccpipe.spec import jinja

        with _located(self.position, self.source):
            return jinja.render_for_shell(self.source, scope)


_NOT_FOR_THIS_VALUE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""The errors of operators and of Jinja2's filters for a value that they cannot use."""


@contextmanager
def _located(position: Position, source: str) -> Iterator[None]:
    from jinja2 import TemplateError

    from pccpipe.spec.work import WorkExceeded

    try:
        yield
    except WorkExceeded as error:
        raise ExpressionError(position, source, str(error.message), error.limit) from None
    except TemplateError as error:
        raise ExpressionError(position, source, str(error.message)) from None
    except NameError:
        # Jinja2 writes an infinite number into its Python as `inf`.
        raise ExpressionError(position, source, "a number in it is too large") from None
    except _NOT_FOR_THIS_VALUE as error:
        raise ExpressionError(position, source, str(error) or type(error).__name__) from None
