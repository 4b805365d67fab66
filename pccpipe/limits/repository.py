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
    "the beginning of a file that is searched for secrets before an upload",
    4 << 20,
    Unit.BYTES,
    "It is kept in memory while it is searched.",
)
UPLOADS_REFUSED = Limit(
    "the refused files of an upload that a message names",
    10,
    Unit.COUNT,
    "The others are counted; a person reads a few.",
)
FETCHED_FILES = Limit(
    "the files, folders and links that a download takes",
    200_000,
    Unit.COUNT,
    "Each is checked and made by itself; large repositories have 100,000.",
    "`exclude` of the upload, or remove them in the step that makes them",
)
FETCHED_BYTES = Limit(
    "the bytes of all files that a download takes",
    8 << 30,
    Unit.BYTES,
    "They go to this disk. A sparse file counts whole.",
    "`exclude` of the upload, or remove them in the step that makes them",
)
FETCHED_FILE = Limit(
    "a file that a download takes",
    2 << 30,
    Unit.BYTES,
    "It goes to this disk. A sparse file counts whole.",
    "`exclude` of the upload, or remove it in the step that makes it",
)
DOWNLOAD_PATHS = Limit(
    "the paths and patterns of a download", 1000, Unit.COUNT, "A person wrote them; each pattern is tried on each file."
)
DOWNLOAD_WORK = Limit(
    "the work on the patterns of a download (patterns tried on files)",
    20_000_000,
    Unit.COUNT,
    "It takes about half a minute.",
    "fewer patterns, or patterns that begin with the name of a folder",
)
TREE_DEPTH = Limit(
    "the nesting of folders that a download takes",
    100,
    Unit.COUNT,
    "A walk through it may open one file for each.",
)
TREE_PATH = Limit(
    "a path that a download takes, or the text of a link",
    2000,
    Unit.BYTES,
    "The kernel takes 4,096, with the path of the workspace itself.",
)
TREE_NAME = Limit("a name that a download takes", 255, Unit.BYTES, "File systems allow no longer one.")
TREE_NAMES = Limit(
    "the names of a workspace's files in a download or a removal (in memory)",
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
    "fewer links, and none that leads out of the workspace",
)
REFUSED_NAMED = Limit(
    "the refused or masked files that a message names", 50, Unit.COUNT, "The others are counted; a person reads a few."
)
PATCH = Limit(
    "a patch, or its list of files",
    256 << 20,
    Unit.BYTES,
    "No person reads or applies a larger one. It is written to a file.",
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
    "A model reads this much well; the workspace has the rest.",
)
PATCH_FILES = Limit(
    "the files of a patch that `brief` lists", 1000, Unit.COUNT, "A model reads this many well; the others are counted."
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
