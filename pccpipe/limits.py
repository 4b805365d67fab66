"""Lists every limit on what a stranger's data may become: in memory, on disk, in a log, or as work.

A stranger is an agent, a repository, a VM and its engine, a model's API, or the author of a pipeline. Each limit has
its figure, its reason, and where a user changes it; docs/limits.md is made from this list. Exceeding one gives one
message and one code, and costs at most `MARGIN` of memory beyond the limit itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from pccpipe.outcome import Code

MARGIN = 64 << 20
"""Bytes of memory that reading too much may cost beyond the limit itself."""
PAUSE = 0.05
"""Seconds for which work on a stranger's data may hold the interpreter lock, at most."""


class Unit(StrEnum):
    """What a limit counts."""

    BYTES = "bytes"
    COUNT = "count"
    SECONDS = "seconds"


class Limit(Struct, frozen=True):
    """One limit. `most` is still allowed."""

    of: str
    """What it limits, as the beginning of a sentence: `a step's result`."""
    most: int
    unit: Unit
    why: str
    """The reason for the figure, in a sentence."""
    change: str = ""
    """Where a user changes it; empty if it is fixed."""
    code: Code = Code.LIMIT_EXCEEDED

    @property
    def figure(self) -> str:
        """The figure with its unit: `4 MiB`, `64`, `30 s`."""
        if self.unit is Unit.SECONDS:
            return f"{self.most} s"
        if self.unit is Unit.BYTES:
            for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
                if self.most >= size and self.most % size == 0:
                    return f"{self.most // size} {name}"
            return f"{self.most:,} bytes"
        return f"{self.most:,}"

    def exceeded(self, where: str = "") -> str:
        """The one sentence for data that exceeds it. `where` names the thing, in place of `of`."""
        fix = f"; fix: {self.change}" if self.change else ""
        return f"{where or self.of} exceeds the limit of {self.figure}{fix}"


# What an agent leaves, and any JSON that a stranger wrote.
RESULT = Limit(
    "a step's result",
    4 << 20,
    Unit.BYTES,
    "A result is a report; files travel as artifacts.",
    code=Code.RESULT_TOO_LARGE,
)
RESULT_ERRORS = Limit(
    "the errors listed of a result that does not match its schema",
    6,
    Unit.COUNT,
    "A person reads a few. Each has a copy of what is wrong, so thousands would take all memory.",
)
JSON_VALUES = Limit(
    "the number of values in JSON",
    100_000,
    Unit.COUNT,
    "Each takes up to 100 bytes of memory, whatever it takes in the file. Eight escapes in a text count as one value.",
)
JSON_DEPTH = Limit(
    "the nesting in JSON", 100, Unit.COUNT, "Each level is a call in every program that reads it; browsers give up too."
)
JSON_DIGITS = Limit(
    "the digits of a whole number in JSON", 100, Unit.COUNT, "The work on a number grows with the square of its length."
)
REQUEST_FOR_HELP = Limit(
    "an agent's request for a person's help", 64 << 10, Unit.BYTES, "A person reads it.", code=Code.RESULT_TOO_LARGE
)
REQUEST_ALIASES = Limit(
    "the aliases in an agent's request for help",
    0,
    Unit.COUNT,
    "A few hundred bytes of aliases of aliases take all memory of a machine.",
    code=Code.RESULT_TOO_LARGE,
)
REQUEST_DEPTH = Limit(
    "the nesting in an agent's request for help", 10, Unit.COUNT, "It has three levels.", code=Code.RESULT_TOO_LARGE
)
REQUEST_INPUTS = Limit(
    "the inputs that an agent's request for help asks for", 50, Unit.COUNT, "A person fills them in."
)

# Requests to a model's API, through the proxy.
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
LARGE_REQUESTS = Limit(
    "the requests of more than 128 KiB that a step may have on their way at once",
    2,
    Unit.COUNT,
    "Each takes a process while it is read, and its size in memory; further ones wait.",
)
ANSWER = Limit(
    "what is read of a model's answer, or of one event of it, to count its tokens",
    4 << 20,
    Unit.BYTES,
    "The longest answer has 0.5 MB. A larger one is passed on, and counted by its size.",
)

# Work that is done in a process of its own.
APART_SECONDS = Limit(
    "the processor time for one piece of a stranger's data",
    10,
    Unit.SECONDS,
    "A request of 64 MiB takes 2; more is a regular expression that finds no end.",
)
APART_MEMORY = Limit(
    "the memory for one piece of a stranger's data", 1 << 30, Unit.BYTES, "A request of 64 MiB takes 300 MB."
)

# Logs and events.
LOG = Limit(
    "a command's log",
    100 << 20,
    Unit.BYTES,
    "The beginning and the end are kept, the middle is counted; a person reads no more.",
    change="`log_limit` of the step, or of `defaults`",
)
RUN_LOGS = Limit(
    "all logs of a run",
    2 << 30,
    Unit.BYTES,
    "A matrix of hundreds of floods must not fill the disk: beyond that, a command's log has 1 MiB.",
    change="`log_quota` of the project file",
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
    "The step goes on; the oldest output is left out of the view, a line counts it, and the log has it.",
)
WARNINGS = Limit("the warnings of one step", 200, Unit.COUNT, "The rest is counted in one more; a person reads a few.")

# What a model's API, or another server that the proxy asks, answers.
ANSWER_HEAD = Limit(
    "the head of an answer, or what it has between two pieces of its body,",
    64 << 10,
    Unit.BYTES,
    "Interim answers, sizes of chunks and trailers count too; those of an API have about 4 KiB.",
)

# The way out of a container.
CLIENT_HELLO = Limit(
    "the first message of TLS in a tunnel of `egress:`", 16 << 10, Unit.BYTES, "Browsers send about 2 KiB."
)
UNKNOWN_CONNECTIONS = Limit(
    "the proxy's connections that have shown no token yet",
    64,
    Unit.COUNT,
    "Each is a thread. A further one gets the place of the one that has waited longest.",
)
STEP_CONNECTIONS = Limit(
    "the connections of one step to the proxy",
    64,
    Unit.COUNT,
    "Each is a thread. They are counted for each step, so that none takes another's.",
)

# A file of a pipeline, of the project's settings, or of a schema.
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
    "A person fixes these first. Each is compared with all names that may be meant.",
)
NEAR_NAMES = Limit(
    "the names among which the one is looked for that may be meant", 1000, Unit.COUNT, "A comparison takes 20 us."
)
FILE_INPUT = Limit("a file for a command", 64 << 20, Unit.BYTES, "Larger ones travel in the workspace or an image.")
TEMPLATE = Limit("a template, or a schema", 1 << 20, Unit.BYTES, "A person wrote it.")
CONTAINERS = Limit("the containers of a pipeline", 200, Unit.COUNT, "Each may extend all others.")
INCLUDED = Limit("the number of files that include one another", 8, Unit.COUNT, "Nobody follows a longer chain.")
YAML_KEYS = Limit("the keys of one mapping in YAML", 10_000, Unit.COUNT, "They are looked at together, in one step.")
YAML_TAG = Limit("the length of a tag in YAML", 1000, Unit.COUNT, "A prefix of it, given once, becomes part of each.")
YAML_DIGITS = Limit(
    "the digits of a whole number in a file of YAML", 3000, Unit.COUNT, "A longer one is a text: Python prints no such."
)
YAML_DIRECTIVES = Limit(
    "the number of %TAG directives in a file of YAML", 100, Unit.COUNT, "Each is compared with all before it."
)

# What a repository and the author of a pipeline write.
EXPRESSION_MADE = Limit(
    "what an operator in an expression makes (characters, or values with all that is in them)",
    1_000_000,
    Unit.COUNT,
    "A value is no way to fill the memory.",
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
    "Each operation counts the values that it reads, and a sixteenth of the characters; this takes a few seconds.",
    "give a part of it a step of its own",
)
EXPRESSION = Limit(
    "an expression",
    10_000,
    Unit.COUNT,
    "Characters: the longest one in use has 300. It is parsed, and compiled to Python.",
)
PLAN_WORK = Limit(
    "the work of all expressions of a plan, or of those that `validate` can evaluate",
    20_000_000,
    Unit.COUNT,
    "It takes about half a minute, whatever the number of a matrix's legs.",
)
STEPS = Limit(
    "the number of a pipeline's steps with each matrix written out",
    10_000,
    Unit.COUNT,
    "Ten names of a matrix with ten values each are ten thousand million steps.",
)
IGNORE_FILES = Limit(
    "the .gitignore files of a workspace", 4 << 20, Unit.BYTES, "The largest ones in use have some 100 KiB together."
)
IGNORE_PATTERNS = Limit(
    "the number of patterns of the .gitignore files, or of `exclude`",
    20_000,
    Unit.COUNT,
    "Each is tried on each path, and takes up to 2 KiB of memory.",
)
IGNORE_PATTERN = Limit(
    "the length of a pattern of a .gitignore, or of `exclude`",
    1000,
    Unit.COUNT,
    "The work on a path grows with it; no name has over 255 bytes.",
)
IGNORE_WORK = Limit(
    "the work on a workspace's .gitignore files (patterns tried on files)",
    100_000_000,
    Unit.COUNT,
    "It takes about a minute.",
    "fewer patterns, or fewer files that `exclude` of the upload lets in",
)

PATCH = Limit(
    "a patch, or its list of files", 256 << 20, Unit.BYTES, "Nobody reads or applies a larger one. It goes to a file."
)
DIFF_MEMORY = Limit(
    "the memory of git that makes a patch",
    2 << 30,
    Unit.BYTES,
    "It takes 70 bytes for each line of a file: one of 500 MB of empty lines would take 30 GB.",
    "`exclude` of the upload",
)

# A VM, its sshd and its engine.
SSH_WINDOW = Limit(
    "what a server sends on a channel before it is read",
    2 << 20,
    Unit.BYTES,
    "The window that it is given; a server that ignores it is cut off.",
)
SSH_PACKET = Limit("a packet of SSH", 512 << 10, Unit.BYTES, "OpenSSH takes no more than 256 KiB.")
SSH_LINE = Limit(
    "a line that a server sends before its SSH protocol version", 8 << 10, Unit.BYTES, "OpenSSH takes no more."
)
SSH_EXTENSIONS = Limit("the extensions that an SSH server names", 100, Unit.COUNT, "OpenSSH names five.")
ENGINE_ANSWER = Limit(
    "an answer of the engine",
    16 << 20,
    Unit.BYTES,
    "A list of 1,000 containers has 3 MB. Streams are not bound by it.",
)
ENGINE_VALUES = Limit(
    "the number of values in an answer of the engine", 300_000, Unit.COUNT, "A list of 1,000 containers has 100,000."
)
ENGINE_STREAM = Limit("the output of an image's build", 256 << 20, Unit.BYTES, "The step's log keeps less of it.")
ENGINE_LINE = Limit("a line of the output of an image's build", 1 << 20, Unit.BYTES, "Each is a few words in JSON.")
ENGINE_ERROR = Limit("an error of the engine", 64 << 10, Unit.BYTES, "A person reads it.")
TREE_ENTRIES = Limit(
    "the files and folders that a machine lists in a workspace",
    1_000_000,
    Unit.COUNT,
    "A machine may go on listing without an end.",
    "`exclude` of the upload or of `download`, or fewer files there",
)

MACHINE_ANSWER = Limit(
    "what a machine says to a script of pccpipe's own",
    8 << 20,
    Unit.BYTES,
    "A result is the largest, of 4 MiB; files of a workspace do not come so.",
)
MACHINE_WORDS = Limit(
    "what is kept of a machine's words on why something failed", 16 << 10, Unit.BYTES, "A person reads a few lines."
)
LEFT_BY_RUNS = Limit(
    "the fields of a machine's list of what runs left there",
    250_000,
    Unit.COUNT,
    "15,000 folders have 75,000; gc/look.sh reports no more folders at a time.",
    "clean up there by hand what is no run's",
)
TREE_NAMES = Limit(
    "the names of a workspace's files that come home or are to go on the machine (in memory)",
    64 << 20,
    Unit.BYTES,
    "200,000 files have some 30 MiB.",
    "`exclude` of the upload or of `download`, or fewer files there",
)
LINK_WORK = Limit(
    "the work of following links of a workspace through each other (characters of paths)",
    500_000_000,
    Unit.COUNT,
    "It takes a few seconds; 200,000 links of ten folders have 200,000,000.",
    "fewer links, or none of the workspace's own that leads out of it",
)

# What comes home of a workspace, and what goes up.
FETCHED_FILES = Limit(
    "the files, folders and links of a workspace that come home",
    200_000,
    Unit.COUNT,
    "Each is looked at and made by itself; large repositories have 100,000.",
    "`exclude` of the upload, or remove them in the step that makes them",
)
FETCHED_BYTES = Limit(
    "the files of a workspace that come home, together",
    8 << 30,
    Unit.BYTES,
    "They go to this disk. A sparse file counts whole.",
    "`exclude` of the upload, or remove them in the step that makes them",
)
FETCHED_FILE = Limit(
    "a file of a workspace that comes home",
    2 << 30,
    Unit.BYTES,
    "It goes to this disk. A sparse file counts whole.",
    "`exclude` of the upload, or remove it in the step that makes it",
)
TREE_DEPTH = Limit(
    "the folders inside of each other in a workspace that comes home",
    100,
    Unit.COUNT,
    "A walk through it may open one file for each.",
)
TREE_PATH = Limit(
    "a path in a workspace that comes home, or the text of a link",
    2000,
    Unit.BYTES,
    "The kernel takes 4,096, with the path of the workspace itself.",
)
TREE_NAME = Limit("a name in a workspace that comes home", 255, Unit.BYTES, "File systems take no longer one.")
REFUSED_NAMED = Limit(
    "the refused or masked files that a message names", 50, Unit.COUNT, "The others are counted; a person reads a few."
)
LISTED_FILE = Limit(
    "what a machine says of one file",
    4 * 4096,
    Unit.BYTES,
    "A path and the text of a link at their longest, and some numbers.",
)
FILE_TIME = Limit("the time of a file, since 1970", 10**12, Unit.SECONDS, "No file system has a later one.")
TRANSFER_END = Limit(
    "what a machine may send behind the files that it was asked for",
    1 << 20,
    Unit.BYTES,
    "tar fills up its last block.",
)
SEARCHED = Limit(
    "the beginning of a file in which secrets are looked for before it goes up",
    4 << 20,
    Unit.BYTES,
    "It is kept in memory while it is searched.",
)
UPLOADS_REFUSED = Limit(
    "the files that a message names as what may not go up",
    10,
    Unit.COUNT,
    "The others are counted; a person reads a few.",
)

# What a command gets of a patch, or of an earlier log.
PATCH_SHOWN = Limit(
    "the part of a patch that `brief` gives",
    200_000,
    Unit.BYTES,
    "A model reads as much well; the workspace has the rest.",
)
PATCH_FILES = Limit(
    "the files of a patch that `brief` lists", 1000, Unit.COUNT, "A model reads as many well; the others are counted."
)
PATCH_NAME = Limit("a name in the list of the files of a patch", 200, Unit.COUNT, "Characters; a longer one is cut.")
STEP_OUTPUT = Limit(
    "the end of a log that `steps.ID.output` gives",
    16 * 1024,
    Unit.BYTES,
    "Enough for the failure of a test, little enough for a prompt.",
)

# What the author of a pipeline writes.
EXPRESSION_DEPTH = Limit(
    "the nesting in an expression",
    60,
    Unit.COUNT,
    "It becomes Python, whose compiler takes at most 200 parentheses in each other.",
)
ROUND_DIGITS = Limit(
    "the digits to which an expression rounds",
    20,
    Unit.COUNT,
    "The work on a number grows with the square of its length.",
)
RESULT_NAME = Limit(
    "a name in the path of a result", 200, Unit.BYTES, "Some are added while it is written, and file systems take 255."
)
RESULT_PATH = Limit(
    "the path of a result", 1000, Unit.COUNT, "Characters; the kernel takes 4,096 bytes, with the path of the record."
)

# What a machine's programs say to pccpipe.
MACHINE_NUMBER = Limit(
    "a number that a machine says",
    10**15,
    Unit.COUNT,
    "No time, size or count of a machine reaches it, and every date and float can be made of it.",
)
MACHINE_FACT = Limit(
    "a path or a name that a machine says of itself", 4096, Unit.COUNT, "Characters; the kernel takes no longer path."
)
LANE_OUTPUT = Limit(
    "the output that one lane of a machine keeps for its commands",
    64 << 20,
    Unit.BYTES,
    "A lane that had more takes no further command, and what it keeps is removed.",
)
TRAILER = Limit("the line behind the output of a command", 64, Unit.BYTES, "It has about ten.")
LEASE_ANSWER = Limit(
    "what a machine says of its lease", 4096, Unit.BYTES, "A word, two times, the id of a run, and who holds it."
)
LEASE_HOLDER = Limit(
    "the name of who holds a lease",
    100,
    Unit.COUNT,
    "Characters; it is in the text of a link, of which XFS takes 1,024 bytes.",
)
PROVISIONED = Limit(
    "what `provision` wrote down on a machine",
    256 << 10,
    Unit.BYTES,
    "It has the images and tools of a machine, in some KiB.",
)
PROCESSES_LISTED = Limit("the unknown processes of a machine that are listed", 20, Unit.COUNT, "A person reads a few.")
STARTUP_WORDS = Limit(
    "what is kept of what the start-up files of a login print", 2000, Unit.BYTES, "A person reads a few lines."
)
SSH_NAMES = Limit(
    "what is quoted of the algorithms that an SSH server offers",
    400,
    Unit.COUNT,
    "Characters; a person reads a few names.",
)
SSH_ANSWERS = Limit(
    "the answers of an SSH server to a login that nobody has asked for yet",
    16,
    Unit.COUNT,
    "A server that sends more is cut off.",
)

# What an engine says, and what a container has.
ENGINE_HEAD = Limit("the head of an answer of the engine", 64 << 10, Unit.BYTES, "It has some hundred bytes.")
ENGINE_CHUNK_LINE = Limit(
    "the line in front of a piece of an answer of the engine", 1024, Unit.BYTES, "It has a number."
)
WAIT_ANSWER = Limit("what the engine says of the end of a container", 64 << 10, Unit.BYTES, "It has about 20 bytes.")
CONTAINER_WORDS = Limit(
    "what is kept of the words of a container that did not begin", 4000, Unit.BYTES, "A person reads a few lines."
)
FLOOD_LINES = Limit(
    "the last lines that the engine is asked for of a flood that cannot be read in time",
    20_000,
    Unit.COUNT,
    "The engine reads its log from the end, line by line.",
)
FLOOD_END = Limit(
    "the end of a flood that is wanted, if the reader does not say how much",
    1 << 20,
    Unit.BYTES,
    "A person reads no more.",
)
HIDDEN_FILES = Limit(
    "the files with instructions for agents that are hidden in a container",
    500,
    Unit.COUNT,
    "Each is a mount, which takes the engine about a millisecond.",
    "remove them from the workspace, or `exclude` of the upload",
)
HIDDEN_PATH = Limit(
    "the path of a file that is hidden in a container",
    3500,
    Unit.BYTES,
    "The kernel takes 4,096, with the folder of the engine.",
    "a shorter path",
)
HIDDEN_LISTING = Limit(
    "the list of a workspace's files with instructions for agents",
    4 << 20,
    Unit.BYTES,
    "500 paths at their longest have 1.75 MB.",
)
SELFCHECK_MADE = Limit(
    "the containers, or images, at which the selfcheck looks",
    300,
    Unit.COUNT,
    "It asks for each; what is not looked at is said.",
)

# What else the proxy reads.
REQUEST_HEAD = Limit("the head of a request to the proxy", 64 << 10, Unit.BYTES, "It has some KiB.")
REQUEST_HERE = Limit(
    "a request to the model's API that is read in pccpipe's own process",
    128 << 10,
    Unit.BYTES,
    "A larger one is read in a process of its own, so that no other waits for it.",
)
CALL_TOKENS = Limit(
    "the tokens of one call, as a model's API counts them",
    10**12,
    Unit.COUNT,
    "No model takes as many; a larger count is none.",
)
REDIRECT = Limit(
    "what is quoted of the address to which an API sends a request on",
    200,
    Unit.COUNT,
    "Characters; a person reads it.",
)

# Masking.
ESCAPE = Limit(
    "an escape, a colour code, a terminal's title or other noise between the characters of a secret",
    700,
    Unit.BYTES,
    "So much of a stream is held back until more comes; a title of 512 bytes fits.",
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
CUTS = Limit(
    "the places in a message that are looked at for a piece of a secret, as a text was cut there",
    1000,
    Unit.COUNT,
    "Each takes 0.1 ms; a message names 50 files.",
)
CUT_END = Limit(
    "the text behind such a place in which the end of a secret is looked for",
    100,
    Unit.BYTES,
    "Of a long name, 80 characters are shown there.",
)


class Sender(StrEnum):
    """Who sends the data that a limit bounds."""

    AUTHOR = "The author of a pipeline"
    AGENT = "An agent, or another command of a step"
    REPOSITORY = "A repository, and a workspace with what was made in it"
    MACHINE = "A VM, its sshd and its engine"
    API = "A model's API, or another server that the proxy asks"
    NETWORK = "Whatever connects to the proxy"


SENT_BY: Mapping[Sender, tuple[Limit, ...]] = {
    Sender.AUTHOR: (
        PIPELINE,
        PIPELINE_VALUES,
        PIPELINE_TEXT,
        PIPELINE_DEPTH,
        PIPELINE_PROBLEMS,
        NEAR_NAMES,
        YAML_KEYS,
        YAML_TAG,
        YAML_DIGITS,
        YAML_DIRECTIVES,
        INCLUDED,
        CONTAINERS,
        STEPS,
        TEMPLATE,
        FILE_INPUT,
        EXPRESSION,
        EXPRESSION_DEPTH,
        EXPRESSION_MADE,
        EXPRESSION_BITS,
        EXPRESSION_TEXT,
        EXPRESSION_WORK,
        ROUND_DIGITS,
        PLAN_WORK,
        RESULT_NAME,
        RESULT_PATH,
    ),
    Sender.AGENT: (
        RESULT,
        RESULT_ERRORS,
        JSON_VALUES,
        JSON_DEPTH,
        JSON_DIGITS,
        REQUEST_FOR_HELP,
        REQUEST_ALIASES,
        REQUEST_DEPTH,
        REQUEST_INPUTS,
        REQUEST,
        REQUEST_VALUES,
        REQUEST_NESTING,
        LARGE_REQUESTS,
        REQUEST_HERE,
        APART_SECONDS,
        APART_MEMORY,
        LOG,
        RUN_LOGS,
        STEP_OUTPUT,
        MODEL_EVENTS,
        VIEW_QUEUE,
        WARNINGS,
        ESCAPE,
        TERMINAL_SEQUENCE,
        ESCAPES_KNOWN,
    ),
    Sender.REPOSITORY: (
        IGNORE_FILES,
        IGNORE_PATTERNS,
        IGNORE_PATTERN,
        IGNORE_WORK,
        SEARCHED,
        UPLOADS_REFUSED,
        FETCHED_FILES,
        FETCHED_BYTES,
        FETCHED_FILE,
        TREE_DEPTH,
        TREE_PATH,
        TREE_NAME,
        TREE_NAMES,
        LINK_WORK,
        REFUSED_NAMED,
        PATCH,
        DIFF_MEMORY,
        PATCH_SHOWN,
        PATCH_FILES,
        PATCH_NAME,
        HIDDEN_FILES,
        HIDDEN_PATH,
    ),
    Sender.MACHINE: (
        SSH_WINDOW,
        SSH_PACKET,
        SSH_LINE,
        SSH_EXTENSIONS,
        SSH_NAMES,
        SSH_ANSWERS,
        STARTUP_WORDS,
        MACHINE_ANSWER,
        MACHINE_WORDS,
        MACHINE_NUMBER,
        MACHINE_FACT,
        TRAILER,
        LANE_OUTPUT,
        LEASE_ANSWER,
        LEASE_HOLDER,
        PROVISIONED,
        PROCESSES_LISTED,
        LEFT_BY_RUNS,
        TREE_ENTRIES,
        LISTED_FILE,
        FILE_TIME,
        TRANSFER_END,
        ENGINE_ANSWER,
        ENGINE_VALUES,
        ENGINE_STREAM,
        ENGINE_LINE,
        ENGINE_ERROR,
        ENGINE_HEAD,
        ENGINE_CHUNK_LINE,
        WAIT_ANSWER,
        CONTAINER_WORDS,
        FLOOD_LINES,
        FLOOD_END,
        HIDDEN_LISTING,
        SELFCHECK_MADE,
        CUTS,
        CUT_END,
    ),
    Sender.API: (
        ANSWER,
        ANSWER_HEAD,
        CALL_TOKENS,
        REDIRECT,
    ),
    Sender.NETWORK: (
        REQUEST_HEAD,
        CLIENT_HELLO,
        UNKNOWN_CONNECTIONS,
        STEP_CONNECTIONS,
    ),
}
ALL: tuple[Limit, ...] = tuple(limit for group in SENT_BY.values() for limit in group)
