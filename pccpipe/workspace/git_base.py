"""Makes the git repository of `git: base`: one commit of what was sent, so that git shows an agent its own changes.

git on this machine makes it, from the archive alone: no configuration, hook or attribute of the user or the workspace
takes part. The objects are in one file, which is quick to send.
"""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pccpipe.cancel import Halt
from pccpipe.errors import ActionError
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.git import feed_git
from pccpipe.workspace.pack import Pack

HEAD = "HEAD"
"""The file without which git does not take a folder for a repository."""
_BRANCH = b"refs/heads/main"
_TEXTS = {
    HEAD: "ref: refs/heads/main\n",
    "config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = false\n",
    # The files are as they were sent: a .gitattributes of the workspace must not make them look changed.
    "info/attributes": "* -text -eol -ident -filter -working-tree-encoding\n",
}
_MESSAGE = b"the workspace as pccpipe uploaded it\n"
_DATE = b"946684800 +0000"
"""The start of the year 2000: the same files give the same commit."""
_IMPORT = ("fast-import", "--quiet", "--depth=0")


def make_base(sent: Pack, base: Pack, halt: Halt) -> None:
    """Store the repository of what was sent in `base`. Raises ActionError, Halted."""
    try:
        sent.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=sent.folder, prefix="git.") as made:
            git = Path(made)
            for name, text in _TEXTS.items():
                (git / name).parent.mkdir(exist_ok=True)
                (git / name).write_text(text)
            for name in ("objects", "refs"):
                (git / name).mkdir()
            feed_git(git, _IMPORT, _commit(sent), halt)
            feed_git(git, ("read-tree", "main"), (), halt)
            base.store(git, Excluded.only(()), halt, full=True)
    except OSError as error:
        raise ActionError(f"cannot make the git repository of the workspace: {error.strerror}") from error


def _commit(sent: Pack) -> Iterator[bytes]:
    """Yield the input of `git fast-import`."""
    yield b"commit %b\ncommitter pccpipe <pccpipe@localhost> %b\n" % (_BRANCH, _DATE)
    yield b"data %d\n%b\n" % (len(_MESSAGE), _MESSAGE)
    for path, entry in sent.entries.items():
        if stat.S_ISDIR(entry.mode):
            continue
        is_link = stat.S_ISLNK(entry.mode)
        link = entry.link.encode("utf-8", "surrogateescape")
        mode = b"120000" if is_link else b"100755" if entry.mode & stat.S_IXUSR else b"100644"
        name = path.encode("utf-8", "surrogateescape")
        name = name.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        yield b'M %b inline "%b"\ndata %d\n' % (mode, name, len(link) if is_link else entry.size)
        if is_link:
            yield link
        else:
            yield from sent.content(path)
        yield b"\n"
