"""Hides files from a container that agents take for instructions: a stranger wrote them, and no reviewer may obey them.

An agent looks for such files in each folder of the workspace, and some agents run programs that they name. An empty
file or folder is mounted over each of them when the container starts. A container with a read-only workspace makes no
more of them. One that may write gets covers only over the names that its agent has no switch for.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from pccpipe import limits
from pccpipe.errors import ActionError
from pccpipe.values import cut

NAMES = (
    *("AGENTS.md", "AGENTS.override.md", "AGENT.md", ".agents", ".agent", ".agents.md", ".rules"),
    *(".codex", ".mcp.json"),
    *("CLAUDE.md", "CLAUDE.local.md", ".claude", ".claude.json"),
    *("GEMINI.md", ".gemini", ".env", "QWEN.md", ".qwen"),
    *("opencode.json", "opencode.jsonc", ".opencode", ".crush", "CRUSH.md", "crush.json", ".crush.json"),
    *(".cursor", ".cursorrules", ".windsurf", ".windsurfrules", ".clinerules", ".roo", ".roorules", ".roomodes"),
    *("copilot-instructions.md", "*.instructions.md", ".aider*", ".goosehints", ".junie", ".kiro", ".trae"),
    *(".continue", ".kilocode", ".amazonq", ".augment", ".augment-guidelines", ".factory", ".devin", ".pi"),
    *("CONTEXT.md", "WARP.md", ".claude-plugin", ".codex-plugin", ".cursor-plugin"),
    # Its configuration can name programs that `git status` runs, and agents run that when they begin.
    ".git",
)
"""Hidden in any folder and letter case, as files, folders or links. The agent that reads GEMINI.md reads `.env` too."""
PATHS = (
    *(f".github/{name}" for name in ("agents", "instructions", "prompts", "skills", "hooks")),
    ".vscode/mcp.json",
)
"""Hidden likewise, where the name alone is too common; also if their folder is a link."""
FILE, FOLDER = "file", "folder"
"""The names of the covers, in a folder on the engine's machine."""

# A link needs no cover if its target has one. The -n and the x keep a newline at the end of the target's path.
_SAY = """
for f; do
  if [ -L "$f" ]; then
    to=$(readlink -n -f -- "$f"; echo x); to=${to%x}; kind=gone
    if [ -d "$to" ]; then kind=folder; elif [ -e "$to" ]; then kind=file; fi
    printf "link\\0%s\\0%s\\0%s\\0" "$f" "$kind" "$to"
  elif [ -d "$f" ]; then printf "folder\\0%s\\0" "$f"
  else printf "file\\0%s\\0" "$f"; fi
done
"""


class Hidden(Struct, frozen=True, order=True):
    """A file or folder that a container does not see; its path is relative to the workspace."""

    path: str
    is_folder: bool

    @property
    def cover(self) -> str:
        """The name of its cover."""
        return FOLDER if self.is_folder else FILE


def script(
    workspace: str,
    cover: str,
    become: Sequence[str] = (),
    *,
    names: Sequence[str] = NAMES,
    paths: Sequence[str] = PATHS,
) -> str:
    """Return a script that makes the covers in the folder `cover`, and lists what to hide.

    Args:
        become: the words before a command that run it as the workspace's owner.
    """
    folders = sorted({path.partition("/")[0] for path in paths})
    tests = [
        *(["-name", _any_case(name)] for name in names),
        *(["-path", _any_case(f"*/{path}")] for path in paths),
        *(["-type", "l", "-name", _any_case(name)] for name in folders),
    ]
    patterns = shlex.join(_joined(tests))
    folder, file = shlex.quote(f"{cover}/{FOLDER}"), shlex.quote(f"{cover}/{FILE}")
    search = "\n".join(
        [
            f"cd {shlex.quote(workspace)} || exit",
            f"say={shlex.quote(_SAY)}",
            "{ printf 'root\\0%s\\0' \"$(pwd -P)\"",
            f'find . ! -name . \\( {patterns} \\) -prune -exec sh -c "$say" sh {{}} +',
            f"printf 'end\\0%s\\0' $?; }} | head -c {limits.HIDDEN_LISTING.most}",
        ]
    )
    return "\n".join(
        [
            f"export LC_ALL=C; mkdir -p {folder} && : >{file} && chmod 555 {folder} && chmod 444 {file} || exit",
            f"cd / && exec {shlex.join([*become, 'env', 'LC_ALL=C', 'sh', '-c', search])}" if become else search,
        ]
    )


def parse(listed: bytes, words: str) -> tuple[Hidden, ...]:
    """Return what the script listed, sorted, without what is below a hidden folder.

    Raises ActionError if something cannot be hidden, which would be the same at another place.

    Args:
        words: the script's stderr.
    """
    fields = iter(listed.split(b"\0")[:-1])
    found: set[Hidden] = set()
    links: list[tuple[bytes, bytes, bytes]] = []
    root, status = b"", b""
    for kind in fields:
        match kind:
            case b"root":
                root = next(fields, b"")
            case b"end":
                status = next(fields, b"")
            case b"link":
                links.append((next(fields, b""), next(fields, b""), next(fields, b"")))
            case _:
                found.add(Hidden(_text(next(fields, b"")), kind == b"folder"))
        if len(found) + len(links) > limits.HIDDEN_FILES.most:
            raise ActionError(
                f"the workspace has over {limits.HIDDEN_FILES.most} files that agents take for instructions", _LESS
            )
    if status != b"0":
        why = cut(words.strip().rpartition("\n")[2], 300) or "the list is incomplete"
        raise ActionError(f"cannot find all files of the workspace that agents take for instructions: {why}", _FEWER)
    return tuple(sorted(_outermost({*found, *_behind(links, root, found)})))


def _behind(links: Iterable[tuple[bytes, bytes, bytes]], root: bytes, found: set[Hidden]) -> Iterator[Hidden]:
    """Return the files of the workspace that links lead to, and that no name shows. Raises ActionError for others."""
    for link, kind, to in links:
        inside = to.startswith(root + b"/")
        target = Hidden(_text(b"." + to[len(root) :]), kind == b"folder") if inside else None
        if target in found or (target and _is_below(target.path, found)):
            continue
        if target is None or kind != b"file":
            leads = "to a folder" if kind == b"folder" and inside else "to no file of the workspace"
            raise ActionError(
                f"{_shown(link)} is a link {leads}, and agents take a file of its name for instructions",
                "make it a file, or remove it",
            )
        yield target


def _outermost(found: set[Hidden]) -> Iterator[Hidden]:
    return (each for each in found if not _is_below(each.path, found))


def _is_below(path: str, found: set[Hidden]) -> bool:
    names = path.split("/")
    return any(Hidden("/".join(names[:count]), True) in found for count in range(1, len(names)))


def _text(path: bytes) -> str:
    """Return a path without its `./`. Raises ActionError for a path that the engine cannot mount."""
    if len(path) > limits.HIDDEN_PATH.most:
        most = limits.HIDDEN_PATH.most
        words = f"{_shown(path[:200])}... cannot be hidden: its path has {len(path)} bytes, over the limit of {most}"
        raise ActionError(words, "remove it; agents take it for instructions")
    try:
        return path.decode().removeprefix("./")
    except UnicodeDecodeError:
        words = f"{_shown(path)} cannot be hidden: its path is not UTF-8"
        raise ActionError(words, "rename its folder; agents take it for instructions") from None


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace").removeprefix("./"))


def _any_case(name: str) -> str:
    return "".join(f"[{each.lower()}{each.upper()}]" if each.isalpha() else each for each in name)


def _joined(tests: Iterable[Sequence[str]]) -> list[str]:
    words: list[str] = []
    for test in tests:
        words += ["-o", *test] if words else test
    return words


_LESS = "remove what no reviewer needs, or leave it out with `exclude:` of the upload"
_FEWER = "a step may have made a folder that nobody can read: remove it"
