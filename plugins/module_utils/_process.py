# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A child process with a deadline that is kept even when the child cannot be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from ansible_collections.clusterkit.storage.plugins.module_utils._caller import CallerGoneError

# How long a killed child may take to go away. One that waits for a dead NFS server is in state D:
# it goes when the server answers, and nobody here waits for that.
GRACE_SECONDS = 1.0
# How often a child's end is waited for anew when somebody may call it off.
_CALL_OFF_SECONDS = 0.2


@dataclass(frozen=True)
class Finished:
    """What is known of a child process once nobody waits for it any more."""

    argv: list[str]
    returncode: int | None  # None: the deadline came first
    stdout: str
    stderr: str
    timed_out: bool

    @property
    def succeeded(self) -> bool:
        return self.returncode == 0

    def complaint(self) -> str:
        """Return what went wrong in one line, for a message; empty after success."""
        if self.succeeded:
            return ""
        command = " ".join(self.argv)
        words = " ".join((self.stderr.strip() or self.stdout.strip()).split())
        if self.timed_out:
            return f"{command}: no end within the time limit" + (f": {words}" if words else "")
        return f"{command}: exit status {self.returncode}" + (f": {words}" if words else "")


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    called_off: Callable[[], bool] | None = None,
) -> Finished:
    """Run `argv` without a shell and return within `timeout` seconds plus GRACE_SECONDS.

    `env` is added to this process's environment, `stdin` is what it can read. Raises OSError when the program
    cannot be started (FileNotFoundError: it is not installed), and CallerGoneError, with the child killed, as soon
    as `called_off` says so.
    """
    # Files, not pipes: a grandchild that lives on holds a pipe open, and reading it to its end never returns.
    with tempfile.TemporaryFile() as stdin_file, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        if stdin is not None:
            stdin_file.write(stdin.encode("utf-8", "surrogateescape"))
            stdin_file.seek(0)
        # AnsibleModule.run_command has neither a deadline nor a session of its own for the child.
        child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            stdin=subprocess.DEVNULL if stdin is None else stdin_file,
            stdout=stdout,
            stderr=stderr,
            close_fds=True,
            start_new_session=True,
            env={**os.environ, **(env or {}), "LC_ALL": "C"},
        )
        timed_out = False
        try:
            _wait(child, timeout, called_off)
        except subprocess.TimeoutExpired:
            timed_out = True
            _kill_group(child)
        except BaseException:
            _kill_group(child)
            raise
        return Finished(
            argv=list(argv),
            returncode=None if timed_out else child.returncode,
            stdout=_content(stdout),
            stderr=_content(stderr),
            timed_out=timed_out,
        )


def _wait(child: subprocess.Popen[bytes], timeout: float, called_off: Callable[[], bool] | None) -> None:
    if called_off is None:
        child.wait(timeout=timeout)
        return
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            child.wait(timeout=max(0, min(left, _CALL_OFF_SECONDS)))
            return
        except subprocess.TimeoutExpired:
            if called_off():
                raise CallerGoneError from None
            if left <= 0:
                raise


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=GRACE_SECONDS)


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "surrogateescape")
