"""Hides from a container what agents take for instructions: a stranger wrote it, and a reviewer must not obey it.

An agent looks for such files by itself, in each folder of the workspace, and some run what they name. A mount of an
empty file or folder lies over each that is there when the container starts. The workspace is read-only, so no more
come from inside.
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
    # Its configuration names programs that `git status` runs, which agents call when they begin.
    ".git",
)
"""In any folder and in any letter case, as files, folders or links. GEMINI.md's reader also takes `.env` for settings.
"""
PATHS = (
    *(f".github/{name}" for name in ("agents", "instructions", "prompts", "skills", "hooks")),
    ".vscode/mcp.json",
)
"""The same, where the name alone is too common. A link in the place of the folder before it counts as well."""
FILE, FOLDER = "file", "folder"
"""What lies over them, in a folder on the engine's machine."""

# A link's own name needs no hiding if what it leads to is hidden; -n and the x keep a newline at the end of that.
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
    """Something in the workspace that a container does not see; the path is relative to the workspace."""

    path: str
    is_folder: bool

    @property
    def cover(self) -> str:
        """Give what lies over it."""
        return FOLDER if self.is_folder else FILE


def script(workspace: str, cover: str, become: Sequence[str] = ()) -> str:
    """Give the script that makes the covers in the folder `cover`, and lists what is to be hidden.

    Args:
        become: the words before a command that run it as the account that the workspace belongs to.
    """
    folders = sorted({path.partition("/")[0] for path in PATHS})
    tests = [
        *(["-name", _any_case(name)] for name in NAMES),
        *(["-path", _any_case(f"*/{path}")] for path in PATHS),
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


def parse(said: bytes, words: str) -> tuple[Hidden, ...]:
    """Give what the script listed, sorted; nothing below a hidden folder.

    Raises ActionError if not all can be hidden: the workspace's doing, so no reason for another place.

    Args:
        words: the script's stderr.
    """
    fields = iter(said.split(b"\0")[:-1])
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
        why = cut(words.strip().rpartition("\n")[2], 300) or "the list did not come to its end"
        raise ActionError(f"cannot find all files of the workspace that agents take for instructions: {why}", _FEWER)
    return tuple(sorted(_outermost({*found, *_behind(links, root, found)})))


def _behind(links: Iterable[tuple[bytes, bytes, bytes]], root: bytes, found: set[Hidden]) -> Iterator[Hidden]:
    """Give what links lead to and no name gave away: hidden as well, if it is a file of the workspace."""
    for link, kind, to in links:
        inside = to.startswith(root + b"/")
        target = Hidden(_text(b"." + to[len(root) :]), kind == b"folder") if inside else None
        if target in found or (target and _is_below(target.path, found)):
            continue
        if target is None or kind != b"file":
            leads = "to a folder" if kind == b"folder" and inside else "to no file of the workspace"
            raise ActionError(
                f"{_shown(link)} is a link {leads}, and agents take what has its name for instructions",
                "make it a file, or remove it",
            )
        yield target


def _outermost(found: set[Hidden]) -> Iterator[Hidden]:
    return (each for each in found if not _is_below(each.path, found))


def _is_below(path: str, found: set[Hidden]) -> bool:
    parts = path.split("/")
    return any(Hidden("/".join(parts[:count]), True) in found for count in range(1, len(parts)))


def _text(path: bytes) -> str:
    """The path without its `./`. Raises ActionError if the engine cannot be given it."""
    if len(path) > limits.HIDDEN_PATH.most:
        most = limits.HIDDEN_PATH.most
        words = f"{_shown(path[:200])}... cannot be hidden: its path has {len(path)} bytes, over the limit of {most}"
        raise ActionError(words, "remove it; agents take it for instructions")
    try:
        return path.decode().removeprefix("./")
    except UnicodeDecodeError:
        words = f"{_shown(path)} cannot be hidden: its path is no UTF-8"
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
