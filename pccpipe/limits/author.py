"""Limits on what the author of a pipeline writes: its files, expressions and templates."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit

PIPELINE = Limit(
    "a pipeline's text with all that it includes, or another file of YAML", 1 << 20, Unit.BYTES, "A person wrote it."
)
PIPELINE_VALUES = Limit(
    "the number of values in a file of YAML, its aliases written out",
    100_000,
    Unit.COUNT,
    "279 bytes of aliases can be a million values. Each takes up to 500 bytes of memory, with its place.",
)
PIPELINE_TEXT = Limit(
    "the text in a file of YAML, its aliases written out",
    16 << 20,
    Unit.BYTES,
    "All of it is searched for expressions.",
)
PIPELINE_DEPTH = Limit("the nesting in a file of YAML", 64, Unit.COUNT, "Each level is a call; a pipeline has ten.")
PIPELINE_PROBLEMS = Limit(
    "the problems listed of a file of YAML",
    100,
    Unit.COUNT,
    "A person fixes these first. Each is compared with all known names.",
)
NEAR_NAMES = Limit("the names that are compared with a mistyped one", 1000, Unit.COUNT, "A comparison takes 20 us.")
YAML_KEYS = Limit("the keys of one mapping in YAML", 10_000, Unit.COUNT, "They are checked together, in one step.")
YAML_TAG = Limit("the length of a tag in YAML", 1000, Unit.COUNT, "A prefix of it, given once, becomes part of each.")
YAML_DIGITS = Limit(
    "the digits of a whole number in a file of YAML",
    3000,
    Unit.COUNT,
    "A longer one is a text: Python does not print it.",
)
YAML_DIRECTIVES = Limit(
    "the number of %TAG directives in a file of YAML", 100, Unit.COUNT, "Each is compared with all before it."
)
INCLUDED = Limit(
    "the number of files that include one another", 8, Unit.COUNT, "A person cannot follow a longer chain."
)
CONTAINERS = Limit("the containers of a pipeline", 200, Unit.COUNT, "Each may extend all others.")
STEPS = Limit(
    "the number of a pipeline's steps with each matrix written out",
    10_000,
    Unit.COUNT,
    "Ten names of a matrix with ten values each are ten thousand million steps.",
)
BACKGROUND = Limit(
    "the background commands of a run at one place, at a time",
    4,
    Unit.COUNT,
    "On the VM; 16 locally. Each keeps one of the sessions that sshd allows, and steps need some, too.",
)
TEMPLATE = Limit("a template, or a schema", 1 << 20, Unit.BYTES, "A person wrote it.")
FILE_INPUT = Limit("a file for a command", 64 << 20, Unit.BYTES, "Larger ones travel in the workspace or an image.")
EXPRESSION = Limit(
    "an expression",
    10_000,
    Unit.COUNT,
    "Characters: the longest one in use has 300. It is parsed, and compiled to Python.",
)
EXPRESSION_DEPTH = Limit(
    "the nesting in an expression",
    60,
    Unit.COUNT,
    "It becomes Python, whose compiler takes at most 200 parentheses in each other.",
)
EXPRESSION_MADE = Limit(
    "the value that an operator in an expression makes (characters, or values with all their parts)",
    1_000_000,
    Unit.COUNT,
    "A value must not fill the memory.",
)
EXPRESSION_BITS = Limit(
    "the bits of a whole number that an expression makes",
    2048,
    Unit.COUNT,
    "The work on a number grows with the square of its length.",
)
EXPRESSION_TEXT = Limit(
    "the text that a template makes", 16_000_000, Unit.COUNT, "Characters; it is a file for a command, or a script."
)
EXPRESSION_WORK = Limit(
    "the work of an expression or a template",
    4_000_000,
    Unit.COUNT,
    "Each operation counts the values that it reads, and a sixteenth of the characters. It takes a few seconds.",
    "give a part of it a step of its own",
)
ROUND_DIGITS = Limit(
    "the digits to which an expression rounds",
    20,
    Unit.COUNT,
    "The work on a number grows with the square of its length.",
)
PLAN_WORK = Limit(
    "the work of all expressions of a plan, or of those that `validate` can evaluate",
    20_000_000,
    Unit.COUNT,
    "It takes about half a minute, for any number of a matrix's legs.",
)
RESULT_NAME = Limit(
    "a name in the path of a result", 200, Unit.BYTES, "Some are added while it is written, and file systems take 255."
)
RESULT_PATH = Limit(
    "the path of a result", 1000, Unit.COUNT, "Characters; the kernel takes 4,096 bytes, with the path of the record."
)
