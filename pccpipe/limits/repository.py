"""Limits on a repository, and on a workspace with what was made in it."""

from __future__ import annotations

from pccpipe.limits.limit import Limit, Unit

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
REFUSED_NAMED = Limit(
    "the refused or masked files that a message names", 50, Unit.COUNT, "The others are counted; a person reads a few."
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
