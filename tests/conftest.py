"""Fixtures for all tests, and signals as a terminal leaves them, however the tests are started."""

from __future__ import annotations

import signal

pytest_plugins = ["tests.testbed.fixtures", "tests.e2e.fixtures", "tests.disk"]

# `nohup` and a shell's background jobs ignore some; the processes that tests start would ignore them too.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
