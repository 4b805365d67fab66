"""Limits on what an agent, or another command of a step, leaves: results, requests, logs."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit
from pccpipe.outcome import Code

RESULT = Limit(
    "a step's result",
    4 << 20,
    Unit.BYTES,
    "A result is a report; files travel as artifacts.",
    code=Code.RESULT_TOO_LARGE,
)
RESULT_ERRORS = Limit(
    "the listed errors of a result that does not match its schema",
    6,
    Unit.COUNT,
    "A person reads a few. Each has a copy of the wrong value, so thousands would take all memory.",
)
EXPORTED_BYTES = Limit("a step's file $PCC_ENV", 64 << 10, Unit.BYTES, "An event has all its variables.")
EXPORTED = Limit("the number of variables in $PCC_ENV", 100, Unit.COUNT, "Each is set for every later command.")
EXPORTED_NAME = Limit("the length of a name in $PCC_ENV", 100, Unit.COUNT, "People choose shorter ones.")
JSON_VALUES = Limit(
    "the number of values in JSON",
    100_000,
    Unit.COUNT,
    "Each takes up to 100 bytes of memory, however small it is in the file. Eight escapes count as one value.",
)
JSON_DEPTH = Limit(
    "the nesting in JSON", 100, Unit.COUNT, "Each level is a call in every program that reads it; browsers give up too."
)
JSON_DIGITS = Limit(
    "the digits of a whole number in JSON", 100, Unit.COUNT, "The work on a number grows with the square of its length."
)
INPUT_REQUEST = Limit(
    "an agent's request for input", 64 << 10, Unit.BYTES, "A person reads it.", code=Code.RESULT_TOO_LARGE
)
REQUEST_ALIASES = Limit(
    "the aliases in an agent's request for input",
    0,
    Unit.COUNT,
    "A few hundred bytes of aliases of aliases take all memory of a machine.",
    code=Code.RESULT_TOO_LARGE,
)
REQUEST_DEPTH = Limit(
    "the nesting in an agent's request for input", 10, Unit.COUNT, "It has three levels.", code=Code.RESULT_TOO_LARGE
)
REQUEST_INPUTS = Limit("the inputs in an agent's request for input", 50, Unit.COUNT, "A person fills them in.")
REQUEST = Limit(
    "a request to the model's API",
    64 << 20,
    Unit.BYTES,
    "A conversation with pictures in it has some MB; providers take 50 MB.",
)
REQUEST_VALUES = Limit(
    "the number of values in a request to the model's API",
    1_000_000,
    Unit.COUNT,
    "A long conversation has 50,000. Eight escapes in a text count as one value.",
)
REQUEST_NESTING = Limit(
    "the nesting in a request to the model's API", 100, Unit.COUNT, "A tool's schema has some ten levels."
)
SCRIPTED_PROMPTS = Limit(
    "the prompts that `pccpipe test` keeps of a case",
    16 << 20,
    Unit.COUNT,
    "Characters; an agent may send any number of prompts, and `expect:` searches these.",
)
LARGE_REQUESTS = Limit(
    "the requests of more than 128 KiB that a step may have on their way at once",
    2,
    Unit.COUNT,
    "Each takes a process while it is read, and its size in memory; further ones wait.",
)
REQUEST_HERE = Limit(
    "a request to the model's API that is read in pccpipe's own process",
    128 << 10,
    Unit.BYTES,
    "A larger one is read in a process of its own, so that others need not wait.",
)
APART_SECONDS = Limit(
    "the processor time for one piece of a stranger's data",
    10,
    Unit.SECONDS,
    "A request of 64 MiB takes 2; more is a regular expression that finds no end.",
)
APART_MEMORY = Limit(
    "the memory for one piece of a stranger's data", 1 << 30, Unit.BYTES, "A request of 64 MiB takes 300 MB."
)
LOG = Limit(
    "a command's log",
    100 << 20,
    Unit.BYTES,
    "The beginning and the end are kept, the middle is counted; a person reads no more.",
    change="`log_limit` of the step, or of `defaults`",
)
SERVICE_LOG = Limit(
    "a service's log",
    10 << 20,
    Unit.BYTES,
    "A database says little; its beginning and end say why it did not start.",
    change="`log_limit` of the service",
)
UNREAD_OUTPUT = Limit(
    "the output of a local command that no pccpipe has read, a stream",
    64 << 20,
    Unit.BYTES,
    "The command then waits until `resume` reads on: it outlives pccpipe, and must not fill the disk.",
)
READY_OUTPUT = Limit(
    "the output of a `ready:` check that is kept",
    4 << 10,
    Unit.BYTES,
    "The message of a check that never succeeded shows its end.",
)
RUN_LOGS = Limit(
    "all logs of a run",
    2 << 30,
    Unit.BYTES,
    "A matrix of hundreds of floods must not fill the disk: beyond that, a command's log has 1 MiB.",
    change="`log_quota` of the project file",
)
TRANSCRIPTS = Limit(
    "the transcripts of an agent's session",
    32 << 20,
    Unit.BYTES,
    "A day has some MB; each turn sends them into a container. Beyond it, the session starts cold.",
)
TRANSCRIPT_FILES = Limit(
    "the files of an agent's session", 1000, Unit.COUNT, "Agents write one a conversation, and one for each helper."
)
TRANSCRIPT_NAME = Limit("the path of a file of an agent's session", 500, Unit.BYTES, "It has a date and an id.")
TRANSCRIPT_HEADS = Limit(
    "the names of the files of an agent's session, in their archive",
    4 << 20,
    Unit.BYTES,
    "Each file has at most 4 KiB of them.",
)
SESSION_ID = Limit("the id of an agent's session", 128, Unit.COUNT, "It is a UUID, or a word of 30 characters.")
REPAIR_TEXT = Limit(
    "the part of a refused result that its agent is shown again",
    64 << 10,
    Unit.BYTES,
    "A result has some KB; the agent's session has the rest.",
)
STEP_OUTPUT = Limit(
    "the end of a log that `steps.ID.output` gives",
    16 * 1024,
    Unit.BYTES,
    "Enough for the failure of a test, little enough for a prompt.",
)
MATRIX_LEGS = Limit(
    "the number of a matrix's legs",
    256,
    Unit.COUNT,
    "Of one whose values come from a result or an input; GitHub takes as many. Each is a command.",
)
MATRIX_TEXT = Limit(
    "the text of a matrix's legs",
    100_000,
    Unit.COUNT,
    "Characters of names and values that come from a result or an input; the record keeps them.",
)
MATRIX_WORK = Limit(
    "the work on a matrix: its combinations times all names in it",
    1_000_000,
    Unit.COUNT,
    "Each combination has all names, and is compared with all entries of `exclude` and `include`.",
)
MODEL_EVENTS = Limit(
    "the events of one step that each count a call of a model",
    1000,
    Unit.COUNT,
    "Each counts all calls before it as well; from then on one a second is enough.",
)
VIEW_QUEUE = Limit(
    "the output that waits for a slow reader of a run's view",
    16 << 20,
    Unit.BYTES,
    "The step continues; the view leaves out the oldest output, a line counts it, and the log has it.",
)
WARNINGS = Limit("the warnings of one step", 200, Unit.COUNT, "One more counts the rest; a person reads a few.")
ESCAPE = Limit(
    "an escape, a colour code, a terminal's title or other noise between the characters of a secret",
    700,
    Unit.BYTES,
    "This much of a stream is held back until more comes; a title of 512 bytes fits.",
)
TERMINAL_SEQUENCE = Limit(
    "a terminal's control sequence between the characters of a secret, from its bracket on",
    70,
    Unit.BYTES,
    "A colour code has at most 20.",
)
ESCAPES_KNOWN = Limit(
    "the escapes whose meaning is remembered",
    4096,
    Unit.COUNT,
    "Text has few kinds of them; random bytes have any.",
)
AGENT_LINE = Limit(
    "a line in which an agent's program reports its work",
    8 << 20,
    Unit.BYTES,
    "It may have a result of 4 MiB twice; a longer line stays in the log and is not read.",
)
AGENT_TEXT = Limit(
    "a message, a command or an error of an agent in views and records",
    2000,
    Unit.COUNT,
    "Characters; a person reads the beginning, and the log has the rest.",
)
AGENT_COMMANDS = Limit(
    "the commands of an agent that run at once", 1000, Unit.COUNT, "A program runs a few; the end of more is not shown."
)
AGENT_FILES = Limit(
    "the edited files that an attempt's report names", 200, Unit.COUNT, "More are counted; the diff has all of them."
)
AGENT_ACTIVITY = Limit(
    "the actions of an attempt's agent that are shown and kept",
    8 << 20,
    Unit.BYTES,
    "A day's work has some MB; more is only counted, and the log has it.",
)
AGENT_ITEMS = Limit(
    "the items of a list in one line of an agent's program that are read",
    1000,
    Unit.COUNT,
    "A line has a few: a message, some uses of tools.",
)
AGENT_FIGURE = Limit(
    "a number of tokens, of lines or of dollars that an agent's program reports",
    10**12,
    Unit.COUNT,
    "A larger one is nonsense and does not count.",
)
