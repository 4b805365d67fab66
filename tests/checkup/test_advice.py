"""Commands that a user pastes: they open nothing for good, and a stranger's name is one word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import pccpipe
from pccpipe.data_files import data_path
from pccpipe.detached.as_account import OUT_OF_REACH, prepare
from pccpipe.errors import Unavailable
from pccpipe.machine.base import Done
from pccpipe.machine.local import LocalMachine

PACKAGE = Path(pccpipe.__file__).parent


@pytest.mark.parametrize("suffix", ["py", "sh", "md", "yaml"])
def test_no_login_is_advised_to_become_root_for_good(suffix: str) -> None:
    everything = re.compile(r"=\s*\((ALL|root)(:ALL)?\)\s*NOPASSWD")
    for folder in (PACKAGE, PACKAGE.parent / "docs", data_path("pipelines")):
        for file in folder.rglob(f"*.{suffix}"):
            assert not everything.search(file.read_text()), file


class OutOfReach(LocalMachine):
    """Answer like a machine whose account cannot reach pccpipe's folder."""

    def run(self, command: str, timeout: float | None = None) -> Done:
        return Done(OUT_OF_REACH, b"", b"")


@pytest.mark.parametrize("root", ["/srv/my project", "/srv/$(reboot)", "/srv/a;reboot", "/srv/'a", "/srv/`a`\nb"])
def test_a_folder_in_advice_is_one_word(root: str) -> None:
    with pytest.raises(Unavailable) as caught:
        prepare(OutOfReach(), "pccrun", root, "a-run")
    command = caught.value.hint.removeprefix("on the VM: ").removesuffix(", and each folder above it")
    assert shlex.split(command) == ["chmod", "o+x", root]
