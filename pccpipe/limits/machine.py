"""Limits on what a VM, its sshd and its engine send."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit

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
STARTUP_WORDS = Limit(
    "what is kept of what the start-up files of a login print", 2000, Unit.BYTES, "A person reads a few lines."
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
MACHINE_NUMBER = Limit(
    "a number that a machine says",
    10**15,
    Unit.COUNT,
    "No time, size or count of a machine reaches it, and every date and float can be made of it.",
)
MACHINE_FACT = Limit(
    "a path or a name that a machine says of itself", 4096, Unit.COUNT, "Characters; the kernel takes no longer path."
)
TRAILER = Limit("the line behind the output of a command", 64, Unit.BYTES, "It has about ten.")
LANE_OUTPUT = Limit(
    "the output that one lane of a machine keeps for its commands",
    64 << 20,
    Unit.BYTES,
    "A lane that had more takes no further command, and what it keeps is removed.",
)
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
LEFT_BY_RUNS = Limit(
    "the fields of a machine's list of what runs left there",
    250_000,
    Unit.COUNT,
    "15,000 folders have 75,000; gc/look.sh reports no more folders at a time.",
    "clean up there by hand what is no run's",
)
TREE_ENTRIES = Limit(
    "the files and folders that a machine lists in a workspace",
    1_000_000,
    Unit.COUNT,
    "A machine may go on listing without an end.",
    "`exclude` of the upload or of `download`, or fewer files there",
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
