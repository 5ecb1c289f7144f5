# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copying programs that may run for hours: their output is read while they run, secrets reach them by descriptors.

A lock that is handed to one keeps others off for as long as it runs, also when this process is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError

_CHUNK = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python knows since 3.10
_GATHER_SECONDS = 0.02
_TICK_SECONDS = 1.0
_ERRORS_KEPT = 1 << 20
_LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it complained about."""

    status: int
    errors: str

    def words(self) -> str:
        """The last complaints in one line."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return "; ".join(lines[-5:]) or f"exit status {self.status}"


def follow(
    argv: Sequence[str],
    *,
    text: Callable[[bytes], None],
    tick: Callable[[int], None] = lambda _pid: None,
    cwd: int | None = None,
    env: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
) -> Ended:
    """Run a program in an open directory; its output goes to `text` as it comes, and `tick` is called each second.

    Each text is one or more whole lines with their ends; after the last line an end may be missing.

    `descriptors` stay open in it: locks that it holds on to also when this process is killed, and secrets.
    Raises OSError when it cannot be started.
    """
    with tempfile.TemporaryFile() as errors:
        # AnsibleModule.run_command keeps all output to the end.
        child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=None if cwd is None else f"/proc/{os.getpid()}/fd/{cwd}",
            start_new_session=True,
            pass_fds=tuple(descriptors),
            env={**os.environ, **(env or {}), "LC_ALL": "C", "TZ": "UTC"},
        )
        try:
            for each in _texts(child, tick):
                text(each)
            status = child.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        finally:
            if child.stdout is not None:
                child.stdout.close()
        errors.seek(0, os.SEEK_END)
        errors.seek(max(errors.tell() - _ERRORS_KEPT, 0))
        return Ended(status, errors.read().decode("utf-8", "surrogateescape"))


def _texts(child: subprocess.Popen[bytes], tick: Callable[[int], None]) -> Iterator[bytes]:
    if child.stdout is None:
        raise AssertionError("it was asked for")
    descriptor = child.stdout.fileno()
    with contextlib.suppress(OSError):  # with less room (the kernel's limit for users) it goes on, and more slowly
        fcntl.fcntl(descriptor, _SET_PIPE_SIZE, _CHUNK)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    rest, ticked = b"", time.monotonic()
    while True:
        ready = poll.poll(_TICK_SECONDS * 1000)
        now = time.monotonic()
        if now - ticked >= _TICK_SECONDS:
            ticked = now
            tick(child.pid)
        if not ready:
            continue
        # rsync flushes each line, and a reader that wakes up for each slows it down.
        time.sleep(_GATHER_SECONDS)
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            break
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = b""
        rest += chunk[end:]
    if rest:
        yield rest


def bytes_read(pid: int) -> int | None:
    """Return how many bytes a process has read so far, None when the kernel does not tell (proc_pid_io(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/io").read_text(encoding="ascii").split()[1])
    return None


@contextlib.contextmanager
def secret(content: str) -> Iterator[tuple[int, str]]:
    """Give a text a descriptor and a path that only the processes that inherit the descriptor can open."""
    descriptor = os.memfd_create("secret", 0)
    try:
        os.write(descriptor, content.encode("utf-8", "surrogateescape"))
        yield descriptor, f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def gentle(nice: int, ionice: str) -> list[str]:
    """The words before a command that let everything else go first (nice(1), ionice(1))."""
    words = ["nice", "-n", str(nice)] if nice else []
    if ionice == "best-effort":
        words += ["ionice", "-c", "2", "-n", "7"]
    elif ionice == "idle":
        words += ["ionice", "-c", "3"]
    return words


def wait_for_lock(descriptor: int, words: str, seconds: float = _LOCK_SECONDS) -> None:
    """Raises BackupError when somebody else holds it for too long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise BackupError(f"{words}; wait for its end") from error
            time.sleep(0.1)
