# SPDX-License-Identifier: GPL-3.0-or-later
"""Long-running processes of a lab: started in their own session, ended only if still the same process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lab.settings import LabError


def start_time(pid: int) -> str | None:
    """Start time in clock ticks since boot (proc_pid_stat(5), field 22); None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


class Process:
    """A process known by a file that holds its pid and start time: a pid used again is never taken for it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._file = folder / f"{name}.process"

    @property
    def pid(self) -> int | None:
        try:
            known = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        pid: int = known["pid"]
        return pid if start_time(pid) == known["start_time"] else None

    def start(self, argv: Sequence[str | Path]) -> None:
        if self.pid:
            raise LabError(f"{self.name} runs already as process {self.pid}")
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.log.parent,
            )
        self._file.write_text(json.dumps({"pid": child.pid, "start_time": start_time(child.pid)}))

    def stop(self, patience: float = 15.0) -> None:
        """Ask it to end; after `patience` seconds, kill it. A machine's disks are thrown away or saved before."""
        for sign, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
            pid = self.pid
            if pid is None:
                break
            os.kill(pid, sign)
            deadline = time.monotonic() + wait
            while self.pid and time.monotonic() < deadline:
                _reap(pid)
                time.sleep(0.05)
        if self.pid:
            raise LabError(f"{self.name} (process {self.pid}) does not end")
        self._file.unlink(missing_ok=True)

    def said(self, lines: int = 8) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _reap(pid: int) -> None:
    """Collect the child if it is ours; one started by an earlier command belongs to init."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
