# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole trees of directories removed, as `_tree` walks them, while strangers may still write into them."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import open_child
from ansible_collections.clusterkit.storage.plugins.module_utils._tree import Descent, Moved, why

# So many names are read, put in the order of their inodes and removed at once, as rm(1) does it.
_BATCH = 50000
_ROUNDS = 5
_THREADS = 4
_SHOWN = 20


@dataclass
class Removal:
    """What was removed, and what could not be."""

    files: int = 0
    directories: int = 0
    problems: list[str] = field(default_factory=list)  # the first ones
    failures: int = 0

    def add(self, part: Removal) -> None:
        self.files += part.files
        self.directories += part.directories
        self.failures += part.failures
        self.problems = (self.problems + part.problems)[:_SHOWN]

    def fail(self, text: str) -> None:
        self.failures += 1
        if len(self.problems) < _SHOWN:
            self.problems.append(text)


def remove_content(root: int, tick: Callable[[], None] = lambda: None) -> Removal:
    """Remove everything in a directory, not the directory itself. `tick` is called every now and then.

    What cannot be removed (immutable files, mount points, what somebody keeps writing) is reported; the rest goes.
    The directories at the top are emptied several at a time: a file system locks one directory at a time.
    """
    removal = Removal()
    with Descent(root) as descent:
        remover = _Remover(descent, removal, tick)
        remover.begin()
        _remove_side_by_side(remover, tick)
        remover.run()
    return removal


def _remove_side_by_side(remover: _Remover, tick: Callable[[], None]) -> None:
    """Remove the directories that wait at the top. What needs a second look is left to the remover."""
    top = remover.descent.top
    names: SimpleQueue[str] = SimpleQueue()
    for name in top.pending:
        names.put(name)
    left: list[str] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                name = names.get_nowait()
                part = Removal()
                emptied = _remove_one(remover.descent.descriptor, name, part, stop)
                with lock:
                    remover.removal.add(part)
                    if not emptied:
                        left.append(name)
                    top.failed |= bool(part.failures)
        except Empty:
            return
        except BaseException as error:
            errors.append(error)

    lock = threading.Lock()
    count = min(_THREADS, len(top.pending))
    if count < 2:
        return
    threads = [threading.Thread(target=work) for _number in range(count)]
    for thread in threads:
        thread.start()
    try:
        tick()
        for thread in threads:
            while thread.is_alive():
                thread.join(1)
                tick()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    top.pending = left


def _remove_one(root: int, name: str, removal: Removal, stop: threading.Event) -> bool:
    """Remove one directory; tell whether that is settled, if only by failures."""
    try:
        descriptor = open_child(root, name)
    except OSError:
        return False
    try:
        with Descent(descriptor) as descent:
            remover = _Remover(descent, removal, lambda: None, f"{name}/", stop)
            remover.begin()
            remover.run()
    finally:
        os.close(descriptor)
    if removal.failures:
        return True
    try:
        os.rmdir(name, dir_fd=root)
    except OSError:
        return False
    removal.directories += 1
    return True


class _Remover:
    def __init__(
        self,
        descent: Descent,
        removal: Removal,
        tick: Callable[[], None],
        above: str = "",
        stop: threading.Event | None = None,
    ) -> None:
        self.descent = descent
        self.removal = removal
        self.tick = tick
        self.above = above  # the way to the root of the descent, for messages
        self.stop = stop or threading.Event()

    def begin(self) -> None:
        """Remove the files at the top."""
        self._empty()

    def run(self) -> None:
        """Remove the directories that wait, and what comes up meanwhile."""
        try:
            while not self.stop.is_set() and self._step():
                pass
        except Moved as error:
            self.removal.fail(f"{self.above}{error.filename}: {error.strerror}; run again to remove the rest")

    def _step(self) -> bool:
        level = self.descent.top
        if level.pending:
            self._enter(level.pending.pop())
        elif len(self.descent.levels) > 1:
            self._leave()
        elif not level.failed and level.rounds < _ROUNDS and self._has_more():
            level.rounds += 1
            self._empty()
        else:
            return False
        return True

    def _fail(self, name: str, error: OSError) -> None:
        self.descent.top.failed = True
        self.removal.fail(f"{self.above}{self.descent.path(name) or '.'}: {why(error)}")

    def _has_more(self) -> bool:
        with os.scandir(self.descent.descriptor) as entries:
            return next(entries, None) is not None

    def _enter(self, name: str) -> None:
        try:
            self.descent.enter(name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                # Somebody put something else in its place: that goes, wherever it points to.
                self._unlink(name)
                return
            self._fail(name, error)
            return
        self._empty()

    def _leave(self) -> None:
        child = self.descent.leave()
        parent = self.descent.top
        if child.failed:
            parent.failed = True
            return
        try:
            os.rmdir(child.name, dir_fd=self.descent.descriptor)
            self.removal.directories += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and child.rounds < _ROUNDS:
                # Somebody has put something into it, or in its place, meanwhile.
                before = len(self.descent.levels)
                self._enter(child.name)
                if len(self.descent.levels) > before:
                    self.descent.top.rounds = child.rounds + 1
                return
            self._fail(child.name, error)

    def _empty(self) -> None:
        """Remove all but directories from the directory at hand, and note these."""
        level = self.descent.top
        try:
            with os.scandir(self.descent.descriptor) as entries:
                for batch in _batches(entries):
                    for _inode, name, is_directory in batch:
                        if is_directory:
                            level.pending.append(name)
                        else:
                            self._unlink(name)
                    self.tick()
        except OSError as error:
            self._fail("", error)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.descent.descriptor)
            self.removal.files += 1
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            self.descent.top.pending.append(name)
        except OSError as error:
            self._fail(name, error)


def _batches(entries: Iterator[os.DirEntry[str]]) -> Iterator[list[tuple[int, str, bool]]]:
    batch: list[tuple[int, str, bool]] = []
    for entry in entries:
        batch.append((entry.inode(), entry.name, entry.is_dir(follow_symlinks=False)))
        if len(batch) == _BATCH:
            batch.sort()
            yield batch
            batch = []
    # The order of inodes pays off in large directories only.
    if len(batch) > 1000:
        batch.sort()
    yield batch
