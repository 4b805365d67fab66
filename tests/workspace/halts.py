"""Halts for transfers."""

from __future__ import annotations

from pccpipe.cancel import Cancel, Halt


class NeverHalted(Halt):
    """A halt of work that nobody interrupts."""

    def __init__(self) -> None:
        super().__init__(Cancel())
