"""Limits on what a VM, its sshd and its engine send."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit

SSH_WINDOW = Limit(
    "the unread data of a server on a channel",
    2 << 20,
    Unit.BYTES,
    "The window that it is given; a server that ignores it is cut off.",
)
SSH_PACKET = Limit("a packet of SSH", 512 << 10, Unit.BYTES, "OpenSSH takes no more than 256 KiB.")
SSH_LINE = Limit(
    "a line that a server sends before its SSH protocol version", 8 << 10, Unit.BYTES, "OpenSSH takes no more."
)
SSH_EXTENSIONS = Limit("the extensions that an SSH server names", 100, Unit.COUNT, "OpenSSH names five.")
SSH_NAMES = Limit(
    "the quoted part of the algorithms that an SSH server offers",
    400,
    Unit.COUNT,
    "Characters; a person reads a few names.",
)
SSH_ANSWERS = Limit(
    "the unasked answers of an SSH server to a login",
    16,
    Unit.COUNT,
    "A server that sends more is cut off.",
)
STARTUP_WORDS = Limit(
    "the kept part of the output of a login's start-up files", 2000, Unit.BYTES, "A person reads a few lines."
)
MACHINE_ANSWER = Limit(
    "the answer of a machine to one of pccpipe's scripts",
    40 << 20,
    Unit.BYTES,
    "An agent's session is the largest, with 36 MiB; files of a workspace come in another way.",
)
MACHINE_WORDS = Limit(
    "the kept part of a machine's words about a failure", 16 << 10, Unit.BYTES, "A person reads a few lines."
)
MACHINE_NUMBER = Limit(
    "a number from a machine",
    10**15,
    Unit.COUNT,
    "No time, size or count of a machine reaches it, and it fits every date and float.",
)
MACHINE_FACT = Limit(
    "a path or a name of a machine, by its own account",
    4096,
    Unit.COUNT,
    "Characters; the kernel takes no longer path.",
)
TRAILER = Limit("the line behind the output of a command", 64, Unit.BYTES, "It has about ten.")
LANE_OUTPUT = Limit(
    "the output that one lane of a machine keeps for its commands",
    64 << 20,
    Unit.BYTES,
    "A lane that had more takes no further command, and what it keeps is removed.",
)
LEASE_ANSWER = Limit(
    "the answer of a machine about its lease", 4096, Unit.BYTES, "A word, two times, the id of a run, and who holds it."
)
LEASE_HOLDER = Limit(
    "the name of the holder of a lease",
    100,
    Unit.COUNT,
    "Characters; it is in the text of a link, of which XFS takes 1,024 bytes.",
)
PROVISIONED = Limit(
    "the record of `provision` on a machine",
    256 << 10,
    Unit.BYTES,
    "It has the images and tools of a machine, in some KiB.",
)
PROCESSES_LISTED = Limit("the unknown processes of a machine that are listed", 20, Unit.COUNT, "A person reads a few.")
LEFT_BY_RUNS = Limit(
    "the fields of a machine's list of what runs left there",
    250_000,
    Unit.COUNT,
    "15,000 folders have 75,000; gc/look.sh reports no more folders at a time.",
    "remove what does not belong to runs there by hand",
)
TREE_ENTRIES = Limit(
    "the files and folders that a machine lists in a workspace",
    1_000_000,
    Unit.COUNT,
    "A machine may list without an end.",
    "`exclude` of the upload or of `download`, or fewer files there",
)
LISTED_FILE = Limit(
    "the description of one file by a machine",
    4 * 4096,
    Unit.BYTES,
    "A path and the text of a link at their longest, and some numbers.",
)
FILE_TIME = Limit("the time of a file, since 1970", 10**12, Unit.SECONDS, "No file system has a later one.")
TRANSFER_END = Limit(
    "the data of a machine after the files that were asked for",
    1 << 20,
    Unit.BYTES,
    "tar fills up its last block.",
)
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
ENGINE_HEAD = Limit("the head of an answer of the engine", 64 << 10, Unit.BYTES, "It has some hundred bytes.")
ENGINE_CHUNK_LINE = Limit(
    "the line in front of a piece of an answer of the engine", 1024, Unit.BYTES, "It has a number."
)
WAIT_ANSWER = Limit(
    "the answer of the engine about the end of a container", 64 << 10, Unit.BYTES, "It has about 20 bytes."
)
CONTAINER_WORDS = Limit(
    "the kept part of the words of a container that did not begin", 4000, Unit.BYTES, "A person reads a few lines."
)
FLOOD_LINES = Limit(
    "the last lines that the engine is asked for of a flood that cannot be read in time",
    20_000,
    Unit.COUNT,
    "The engine reads its log from the end, line by line.",
)
FLOOD_END = Limit(
    "the kept end of a flood, if the reader sets no other size",
    1 << 20,
    Unit.BYTES,
    "A person reads no more.",
)
HIDDEN_LISTING = Limit(
    "the list of a workspace's files with instructions for agents",
    4 << 20,
    Unit.BYTES,
    "500 paths at their longest have 1.75 MB.",
)
SELFCHECK_MADE = Limit(
    "the containers, or images, that the selfcheck searches",
    300,
    Unit.COUNT,
    "It asks for each; the report names the others.",
)
CUTS = Limit(
    "the cuts in a message that are searched for a piece of a secret",
    1000,
    Unit.COUNT,
    "Each takes 0.1 ms; a message names 50 files.",
)
CUT_END = Limit(
    "the text behind a cut that is searched for the end of a secret",
    100,
    Unit.BYTES,
    "It shows 80 characters of a long name.",
)
