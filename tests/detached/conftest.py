"""What the tests of detached commands have in common with those of the targets."""

from tests.targets.shells import shell as shell
