# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole trees of directories that strangers may change meanwhile: search them, and measure them.

Links are never followed and mount points never crossed. Neither the depth of a tree nor the number of its files costs
descriptors or memory without limit.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OPEN_DIRECTORY,
    Identity,
    identity,
    open_child,
)

# So many directories of the way down stay open; below them only the one at hand, and the way back is "..".
_OPEN_LEVELS = 48


class Moved(OSError):  # noqa: N818 - reads as what happened
    """A directory was moved away while somebody was in it."""


@dataclass
class _Level:
    name: str
    descriptor: int | None
    identity: Identity
    pending: list[str] = field(default_factory=list)  # directories still to be entered
    failed: bool = False
    rounds: int = 0


class Descent:
    """The way from the root of a tree to the directory at hand."""

    def __init__(self, root: int) -> None:
        self.levels = [_Level("", os.dup(root), identity(os.fstat(root)))]

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *_error: object) -> None:
        for level in self.levels:
            if level.descriptor is not None:
                os.close(level.descriptor)

    @property
    def top(self) -> _Level:
        return self.levels[-1]

    @property
    def descriptor(self) -> int:
        descriptor = self.levels[-1].descriptor
        if descriptor is None:
            raise AssertionError("the last level is always open")
        return descriptor

    def enter(self, name: str) -> _Level:
        """Raises OSError: EXDEV for a mount point, ENOTDIR or ELOOP for what is no directory any more."""
        descriptor = open_child(self.descriptor, name)
        if len(self.levels) > _OPEN_LEVELS:
            os.close(self.descriptor)
            self.levels[-1].descriptor = None
        self.levels.append(_Level(name, descriptor, identity(os.fstat(descriptor))))
        return self.top

    def leave(self) -> _Level:
        """Go back up; raises Moved when the directory above is not the one that we came from."""
        parent = self.levels[-2]
        if parent.descriptor is None:
            above = os.open("..", OPEN_DIRECTORY, dir_fd=self.descriptor)
            if identity(os.fstat(above)) != parent.identity:
                os.close(above)
                raise Moved(errno.ESTALE, "was moved meanwhile", self.path())
            parent.descriptor = above
        child = self.levels.pop()
        if child.descriptor is not None:
            os.close(child.descriptor)
        return child

    def path(self, name: str = "") -> str:
        names = [level.name for level in self.levels[1:]] + ([name] if name else [])
        return "/".join(names)


Visit = Callable[["os.DirEntry[str]"], bool]  # tells whether to go on


def walk(root: int, visit: Visit) -> list[str]:
    """Show every entry of a tree to `visit`, until it says False. Return what could not be entered, and why.

    Raises Moved.
    """
    problems: list[str] = []
    with Descent(root) as descent:
        if not _read(descent, visit):
            return problems
        while True:
            if descent.top.pending:
                name = descent.top.pending.pop()
                try:
                    descent.enter(name)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    problems.append(f"{descent.path(name)}: {why(error)}")
                    continue
                if not _read(descent, visit):
                    return problems
            elif len(descent.levels) == 1:
                return problems
            else:
                descent.leave()


def _read(descent: Descent, visit: Visit) -> bool:
    with os.scandir(descent.descriptor) as entries:
        for entry in entries:
            if not visit(entry):
                return False
            if entry.is_dir(follow_symlinks=False):
                descent.top.pending.append(entry.name)
    return True


def find_inode(root: int, inodes: Collection[int]) -> int | None:
    """Return the first of these inodes that is in the tree, its root included."""
    if os.fstat(root).st_ino in inodes:
        return os.fstat(root).st_ino
    found: list[int] = []

    def visit(entry: os.DirEntry[str]) -> bool:
        if entry.inode() in inodes:
            found.append(entry.inode())
        return not found

    walk(root, visit)
    return found[0] if found else None


# --- measure -----------------------------------------------------------------------------------------------


@dataclass
class Size:
    """What a tree takes. `complete` is False when time was up, or when a part could not be read."""

    bytes: int = 0  # that the file system has allocated, hard links once, as du(1) counts
    files: int = 0  # of any kind but directories
    directories: int = 0
    complete: bool = True


def measure(root: int, deadline: float) -> Size:
    """Measure a tree until `deadline`, a time of the monotonic clock."""
    size = Size(bytes=os.fstat(root).st_blocks * 512)
    linked: set[int] = set()
    seen = 0

    def visit(entry: os.DirEntry[str]) -> bool:
        nonlocal seen
        seen += 1
        if seen % 1000 == 1 and time.monotonic() > deadline:
            size.complete = False
            return False
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return True
        if entry.is_dir(follow_symlinks=False):
            size.directories += 1
        else:
            size.files += 1
            if found.st_nlink > 1:
                if found.st_ino in linked:
                    return True
                linked.add(found.st_ino)
        size.bytes += found.st_blocks * 512
        return True

    try:
        if walk(root, visit):
            size.complete = False
    except OSError:
        size.complete = False
    return size


def why(error: OSError) -> str:
    """What keeps a directory from being entered, or anything from being removed."""
    if error.errno == errno.EXDEV:
        return "is a mount point, which is never crossed"
    if error.errno == errno.EPERM:
        return "cannot be removed; it, or the directory that it is in, may be immutable or append-only (lsattr)"
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return "somebody keeps writing into it"
    if error.errno == errno.EBUSY:
        return "is in use as a mount point"
    return error.strerror or str(error)
