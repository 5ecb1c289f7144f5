# SPDX-License-Identifier: GPL-3.0-or-later
"""Do something in a child below strace(1), which can end it at the entry of any system call."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

CALLS = "openat,write,ftruncate,fchmod,fchown,fsetxattr,fsync,rename,unlink,mkdir,flock,vfork,clone,clone3"
FAILED = 3


def run_traced(
    work: Callable[[], int | None],
    log: Path,
    *inject: str,
    prepare: Callable[[], object] | None = None,
    calls: str = CALLS,
) -> int:
    """Do the work below strace, what prepares it before; return the status that waitpid gives.

    The child ends with what the work returns, or with FAILED.
    """
    child = os.fork()
    if not child:
        try:
            if prepare:
                prepare()
            os.kill(os.getpid(), signal.SIGSTOP)  # until strace holds this process
            status = work() or 0
        except BaseException:
            os._exit(FAILED)
        os._exit(status)
    os.waitpid(child, os.WUNTRACED)
    argv = ["strace", "-p", str(child), "-o", str(log), "-e", f"trace={calls}", *inject]
    tracer = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    assert "attached" in attached, attached
    os.kill(child, signal.SIGCONT)
    _pid, status = os.waitpid(child, 0)
    tracer.communicate(timeout=30)
    return status


def steps(log: Path) -> list[tuple[str, int]]:
    """Return the system calls of a run: name, and which one of that name."""
    found: list[tuple[str, int]] = []
    for name in re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE):
        found.append((name, 1 + sum(name == other for other, _number in found)))
    return found


def kill_at(name: str, number: int) -> tuple[str, str]:
    return "-e", f"inject={name}:signal=KILL:when={number}"


def was_killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
