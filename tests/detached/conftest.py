"""Shares fixtures with the tests of the targets."""

from tests.targets.shells import shell as shell
