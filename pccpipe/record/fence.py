"""Keeps git and a run's folders apart: they often lie inside of the user's own repository.

Git searches upwards for a repository, so a step's `git reset --hard` in the run's copy would hit the user's. A `.git`
that git takes for a repository of a newer format ends that search with an error. `git clean -fdx` skips such a folder.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pccpipe.errors import UsageError
from pccpipe.layout import ENDED_RUNS, EVENTS, SPENT, STATES, SYSTEM, system_folder

IGNORE = ".gitignore"
EVERYTHING = "*\n"
GIT = ".git"
NAME = "folders-of-a-pccpipe-run-are-no-repository"
"""Git shows this name in its error."""
NOWHERE = f"gitdir: {NAME}\n"
HEAD = "ref: refs/heads/none\n"
CONFIG = f"[core]\n\trepositoryformatversion = 1\n[extensions]\n\t{NAME} = true\n"
SCRIPT = f"""\
pcc_fence() {{ # FOLDER
  [ -d "$1" ] && [ ! -e "$1/{GIT}" ] && [ ! -L "$1/{GIT}" ] || return 0
  (umask 022 && cd "$1" && mkdir {GIT} {GIT}/objects {GIT}/refs && printf %s '{CONFIG}' >{GIT}/config &&
    printf %s '{HEAD}' >{GIT}/HEAD) 2>/dev/null
}}
"""
"""The same as a function of a POSIX shell, for another machine."""


def fence_run(record: Path) -> None:
    """Keep git out of a run's record, and out of the files of local commands.

    Git also ignores folders that only pccpipe uses. Raises UsageError if the record cannot be written.
    """
    runs_dir = record.parent
    system = system_folder(runs_dir)
    try:
        ours = system if runs_dir.parent == system else runs_dir
        if ours == system or (not (ours / IGNORE).exists() and _has_runs_alone(ours, record.name)):
            _write(ours / IGNORE, EVERYTHING)
        is_ignored = ours == system or _is_ignored(ours)
        if is_ignored:
            # For a step that searches upwards. A file: around a folder, git would show its surroundings.
            _write(ours / GIT, NOWHERE)
        _fence(record, is_ignored=is_ignored)
    except OSError as error:
        raise UsageError(f"cannot write into the run's folder {record}: {error.strerror}") from error
    # The command that needs the folder reports a failure.
    with contextlib.suppress(OSError):
        (system / STATES).mkdir(parents=True, exist_ok=True)
        _write(system / IGNORE, EVERYTHING)
        _fence(system / STATES, is_ignored=True)


def _is_ignored(folder: Path) -> bool:
    try:
        return (folder / IGNORE).read_text(encoding="utf-8", errors="replace") == EVERYTHING
    except OSError:
        return False


def _has_runs_alone(runs_dir: Path, new: str) -> bool:
    """Say whether a folder has only records of runs and the new one, so that git may ignore all of it."""
    with os.scandir(runs_dir) as entries:
        return all(
            entry.name in {SYSTEM, ENDED_RUNS, SPENT, new}
            or (entry.is_dir(follow_symlinks=False) and _is_record(Path(entry.path)))
            for entry in entries
        )


def _is_record(folder: Path) -> bool:
    # The folder of a run that just begins is empty.
    return (folder / EVENTS).exists() or (folder / GIT).exists() or not any(folder.iterdir())


def refuse_links(workspace: Path, *folders: Path) -> None:
    """Raise UsageError if one of the folders leads out of the workspace through a link in it.

    Otherwise the authors of the workspace's files would choose the folder of the record.
    """
    around = os.path.realpath(workspace)
    for path in dict.fromkeys(step for folder in folders for step in (folder, *folder.parents)):
        if path.is_symlink() and Path(os.path.realpath(path.parent)).is_relative_to(around):
            raise UsageError(
                f"{path} is a symbolic link to {path.readlink()}: a record must not be behind a link in the workspace",
                "remove it, or name a folder outside of the workspace with --runs-dir",
            )


def _fence(folder: Path, *, is_ignored: bool) -> None:
    git = folder / GIT
    if os.path.lexists(git):
        return
    if not is_ignored:
        # A file that leads nowhere ends the search as well. It keeps `git add .` of the user's working, which would
        # take the folder for a submodule, but commands that need no repository, as `git apply`, fail in the copy.
        _write(git, NOWHERE)
        return
    git.mkdir()
    _write(git / "config", CONFIG)
    (git / "objects").mkdir()
    (git / "refs").mkdir()
    # Last: only with it git takes the folder for a repository.
    _write(git / "HEAD", HEAD)


def _write(path: Path, text: str) -> None:
    """Write a new file; an existing one, or a link, stays as it is."""
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
