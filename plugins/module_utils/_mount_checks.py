# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See whether mounts answer, in bounded time: one child process a mount asks the file system for its size.

Only a child may touch a mount whose server may be gone. It is killed at the deadline, but one that waits in the
kernel may ignore that (state D) until the server is back. As long as it lives it holds a lock on its mount, so that
no later run puts a second one beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import selectors
import signal
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount

# In a file system that a boot empties: of the processes of an earlier boot none lives.
LOCK_FILE = "/run/clusterkit-mount-checks.lock"
# How long killed children may take to go away. Nobody waits longer for one in state D.
_GRACE = 0.2
# How often a mount is looked at whose earlier check has not come back.
_RETRY = 0.1
# What a child says before it asks, and the words for one that did not.
_BEGUN = b"."
NOT_BEGUN = "the check did not begin in time, as on a busy host"


@dataclass(frozen=True)
class Check:
    """What became of the check of one mount."""

    error: int | None = None  # what statvfs(3) returned: 0 or an errno; None: it has not come back
    latency: float | None = None  # seconds until it came back
    earlier: bool = False  # the check of an earlier run has not come back, and none was started now
    begun: bool = True  # False: the host is so busy that the child has not come to ask


@dataclass
class _Child:
    mount: Mount
    pid: int
    pipe: int  # where its answer comes from
    answer: bytes = b""


@dataclass
class MountChecks:
    """The checks of several mounts, started together."""

    lock_file: str = LOCK_FILE
    _children: list[_Child] = field(default_factory=list)
    _blocked: list[Mount] = field(default_factory=list)  # an earlier check has not come back
    _late: list[Mount] = field(default_factory=list)  # there was no time to start a check

    def start(self, mounts: Iterable[Mount], deadline: float) -> None:
        """Start one child a mount until `deadline` (of time.monotonic()), before this process starts any thread.

        Raises OSError.
        """
        # What is opened from now on takes the lowest numbers that are free.
        highest = max(int(opened.name) for opened in Path("/proc/self/fd").iterdir())
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for mount in mounts:
                if time.monotonic() < deadline:
                    self._start(mount, nothing, highest)
                else:
                    self._late.append(mount)
        finally:
            os.close(nothing)

    def wait(self, deadline: float) -> dict[int, Check]:
        """Return the checks by mount id, at `deadline` (of time.monotonic()) plus _GRACE at the latest."""
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.pipe, selectors.EVENT_READ, child)
            while selector.get_map() or self._blocked:
                left = max(0, deadline - time.monotonic())
                ready = selector.select(min(left, _RETRY) if self._blocked else left)
                for key, _events in ready:
                    part = os.read(key.fd, 100)
                    key.data.answer += part
                    if not part:
                        selector.unregister(key.fd)
                if left:
                    for child in self._start_blocked():
                        selector.register(child.pipe, selectors.EVENT_READ, child)
                elif not ready:  # answers that were there in time count, also if nobody came to read them
                    break
        found = {child.mount.mount_id: _read(child.answer) for child in self._children}
        found.update({mount.mount_id: Check(earlier=True) for mount in self._blocked})
        found.update({mount.mount_id: Check(begun=False) for mount in self._late})
        self._end()
        return found

    def _start_blocked(self) -> list[_Child]:
        """Start the checks that an earlier one has made room for."""
        count = len(self._children)
        waiting, self._blocked = self._blocked, []
        self.start(waiting, math.inf)
        return self._children[count:]

    def _start(self, mount: Mount, nothing: int, highest: int) -> None:
        # A lock of the open file, not of the process: the child has it from its birth to its end.
        lock = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(lock, mount.mount_id):
                self._blocked.append(mount)
                return
            reading, writing = os.pipe()
            try:
                pid = os.fork()
            except OSError:
                os.close(reading)
                os.close(writing)
                raise
            if not pid:
                _be_the_child(mount.path, lock, writing, nothing, max(highest, lock, writing))
            os.close(writing)
            self._children.append(_Child(mount, pid, reading))
        finally:
            os.close(lock)

    def _end(self) -> None:
        left = {child.pid for child in self._children}
        for child in self._children:
            os.close(child.pipe)
            if child.answer in (b"", _BEGUN):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        self._children = []
        deadline = time.monotonic() + _GRACE
        while left:
            left = {pid for pid in left if not _has_ended(pid)}
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)


def _lock(descriptor: int, mount_id: int) -> bool:
    """Lock the byte of a mount; False if somebody has it.

    The kernel gives no mount id away again while a process still waits inside of that mount.
    """
    # struct flock: type, whence, start, length, pid
    wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, mount_id, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _be_the_child(path: str, lock: int, pipe: int, nothing: int, highest: int) -> None:
    """Ask the file system, say what it answered, and end. Each page that is written to here is copied first."""
    try:
        os.setsid()
        # A child that cannot be killed must not hold open what somebody reads to its end, such as our output.
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        low, high = sorted((lock, pipe))
        os.closerange(3, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, highest + 1)
        os.chdir("/")
        os.write(pipe, _BEGUN)
        started, error = time.monotonic(), 0
        try:
            os.statvfs(path)
        except OSError as problem:
            error = problem.errno or 0
        os.write(pipe, f"{error} {time.monotonic() - started:.6f}\n".encode())
    finally:
        os._exit(0)


def _read(answer: bytes) -> Check:
    error, _blank, seconds = answer[len(_BEGUN) :].decode("ascii").strip().partition(" ")
    return Check(int(error), float(seconds)) if seconds else Check(begun=bool(answer))


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
