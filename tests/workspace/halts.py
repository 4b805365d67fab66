"""Halts for transfers."""

from __future__ import annotations

from pccpipe.cancel import Cancel, Halt


class NeverHalted(Halt):
    """The halt of work that is to come to its end."""

    def __init__(self) -> None:
        super().__init__(Cancel())
