"""The names of signals are those of Linux, on which the command ran."""

from __future__ import annotations

import signal

import pytest

from pccpipe.detached.ended import signal_name


@pytest.mark.parametrize("number", [one for one in signal.Signals if one < signal.SIGRTMIN], ids=lambda one: one.name)
def test_every_signal_of_linux_has_its_name(number: signal.Signals) -> None:
    assert signal_name(128 + number) == number.name.removeprefix("SIG")


@pytest.mark.parametrize("code", [0, 1, 127, 128, 160, 192, 255, -1])
def test_other_exit_codes_mean_no_signal(code: int) -> None:
    assert signal_name(code) is None
