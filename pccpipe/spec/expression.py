"""`${{ }}`: compiled when the pipeline is read, evaluated when a step's turn comes, quoted as shell words in `run:`.

The language is Jinja2's, sandboxed, with undefined names as errors. The delimiters clash with neither shell nor
Docker's and Go's templates. Blocks (`<% if %>`) and comments (`<# #>`) work in template files only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from pccpipe.errors import ExpressionError
from pccpipe.spec.position import Position


class Expression(Struct, frozen=True):
    """One expression, with or without its delimiters; what it gives keeps its type."""

    source: str
    position: Position

    def evaluate(self, scope: Mapping[str, object]) -> object:
        """Its value. Raises ExpressionError."""
        # Imported here, as below: a command that evaluates nothing need not pay for Jinja2 (43 ms).
        from pccpipe.spec import jinja

        with _located(self.position, self.source):
            return jinja.evaluate(self.source, scope)


class Template(Struct, frozen=True):
    """Text with `${{ }}` in it."""

    source: str
    position: Position
    blocks: bool = False
    """Whether `<% %>` and `<# #>` mean something: in template files."""

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to evaluate."""
        return "${{" not in self.source and not (self.blocks and ("<%" in self.source or "<#" in self.source))

    def render(self, scope: Mapping[str, object]) -> str:
        """The text with each value as it is: lists and mappings as JSON, nothing as "". Raises ExpressionError."""
        if self.is_plain:
            return self.source
        from pccpipe.spec import jinja

        with _located(self.position, self.source):
            return jinja.render(self.source, scope, blocks=self.blocks)

    def render_for_shell(self, scope: Mapping[str, object]) -> str:
        """The text with each value quoted as one word of a shell, but for those of `| raw` and `| args`."""
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
"""What operators and Jinja2's filters raise when they can do nothing with a value."""


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
