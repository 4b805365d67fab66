"""Resolves the links of a tree, through folders and other links, to say whether one leads out of it."""

from __future__ import annotations

from collections.abc import Mapping

from pccpipe import limits

OUT = None
"""The end of a link that leaves the tree."""
FOLLOWED = 40
"""Links that the kernel follows for one path."""


class LinkResolver:
    """Follows the links of one tree, each once. A link that takes too much work counts as leading out.

    Args:
        links: the text of each link, by its path.
    """

    def __init__(self, links: Mapping[str, str]) -> None:
        self._links = links
        self._ends: dict[str, str | None] = {}
        self._resolving: dict[str, None] = {}
        self._work = 0

    def leads_out(self, path: str) -> bool:
        """Say whether the link at `path` leads out of the tree, directly or through another link."""
        return self._end_of(path) is OUT

    def _end_of(self, path: str) -> str | None:
        """Return the path at which a link ends, or OUT. A missing name counts as a folder: a step may make it later."""
        if path in self._ends:
            return self._ends[path]
        if path in self._resolving:
            return path  # the kernel follows no cycle
        if len(self._resolving) >= FOLLOWED:
            return OUT
        self._resolving[path] = None
        end = self._follow(path.rpartition("/")[0], self._links[path])
        del self._resolving[path]
        self._ends[path] = end
        return end

    def _follow(self, at: str, text: str) -> str | None:
        if text.startswith("/"):
            return OUT
        for part in text.split("/"):
            self._work += len(at) + 1
            if self._work > limits.LINK_WORK.most:
                return OUT
            if part in {"", "."}:
                continue
            if part == "..":
                if not at:
                    return OUT
                at = at.rpartition("/")[0]
                continue
            at = f"{at}/{part}" if at else part
            if at in self._links:
                end = self._end_of(at)
                if end is OUT:
                    return OUT
                at = end
        return at
