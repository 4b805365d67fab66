"""Decides which names and links a tree from an untrusted place may have."""

from __future__ import annotations

from pccpipe import limits
from pccpipe.workspace.names import is_git


def name_refusal(path: str) -> str:
    """Return why no file may have this relative path; empty if one may."""
    data = path.encode("utf-8", "surrogateescape")
    parts = data.split(b"/")
    if not all(part not in {b"", b".", b".."} for part in parts) or b"\0" in data:
        return "not a name inside the folder"
    if any(is_git(part) for part in parts):
        return "git would obey what is in it"
    if len(data) > limits.TREE_PATH.most or any(len(part) > limits.TREE_NAME.most for part in parts):
        return f"a name of over {limits.TREE_NAME.most} bytes, or a path of over {limits.TREE_PATH.most}"
    if len(parts) > limits.TREE_DEPTH.most:
        return f"over {limits.TREE_DEPTH.most} folders deep"
    return ""


def link_refusal(path: str, text: str) -> str:
    """Return why a symbolic link at this path may not have this text; empty if it may.

    A link that may have it never leads out of the tree, whatever other links there are, now or later. `..` may only
    come first: after a name it would start from wherever that name leads, which may be another link.
    """
    parts = [part for part in text.split("/") if part not in {"", "."}]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    link = f"a link to {shown(text)}"
    if not text or text.startswith("/") or up > path.count("/"):
        return f"{link}, out of the tree"
    if ".." in parts[up:]:
        return f"{link}: `..` may only be at its beginning"
    data = text.encode("utf-8", "surrogateescape")
    if (
        len(data) > limits.TREE_PATH.most
        or any(len(part) > limits.TREE_NAME.most for part in data.split(b"/"))
        or b"\0" in data
    ):
        return f"{link}, a name that is too long"
    return ""


def shown(name: str) -> str:
    """Return a name for a message: on one line, and without sequences that a terminal would obey."""
    text = repr(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    return text if len(text) <= 200 else f"{text[:100]}...{text[-80:]}"
