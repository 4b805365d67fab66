"""Where links of a tree lead: through folders and through other links, within the tree or out of it."""

from __future__ import annotations

from collections.abc import Mapping

from pccpipe import limits

OUT = None
"""Where a link leads that leaves the tree."""
FOLLOWED = 40
"""Links that the kernel follows for one path."""


class LinkResolver:
    """Follows the links of one tree, each once. What cannot be followed in bounded work counts as leading out.

    Args:
        links: what each link says, by its path.
    """

    def __init__(self, links: Mapping[str, str]) -> None:
        self._links = links
        self._ends: dict[str, str | None] = {}
        self._on_the_way: dict[str, None] = {}
        self._work = 0

    def leads_out(self, path: str) -> bool:
        """Say whether the link at `path` leads out of the tree, by itself or by a link on its way."""
        return self._end_of(path) is OUT

    def _end_of(self, path: str) -> str | None:
        """Give the path at which a link ends, or OUT. A name that is missing counts as a folder: it may still come."""
        if path in self._ends:
            return self._ends[path]
        if path in self._on_the_way:
            return path  # the kernel follows no circle
        if len(self._on_the_way) >= FOLLOWED:
            return OUT
        self._on_the_way[path] = None
        end = self._followed(path.rpartition("/")[0], self._links[path])
        del self._on_the_way[path]
        self._ends[path] = end
        return end

    def _followed(self, at: str, text: str) -> str | None:
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
