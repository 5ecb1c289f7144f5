# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes hold a mount, found without touching the mount.

Reading a link below /proc shows a path that the kernel knows already; it asks no server. /proc/PID/cmdline and
/proc/PID/maps are left alone: reading them waits for a process that waits in a page fault.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import is_within

_SHOWN = 10


def processes_in(path: str, proc: Path = Path("/proc")) -> list[str]:
    """Return the processes of this mount namespace that have a directory or file open below `path`, for a message."""
    ours = _link(proc / "self" / "ns" / "mnt")
    found = [
        f"process {process.name} ({_command(process)})"
        for process in sorted(_processes(proc), key=lambda each: int(each.name))
        if _link(process / "ns" / "mnt") == ours and any(is_within(each, path) for each in _used_by(process))
    ]
    return found[:_SHOWN] + ([f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])


def _processes(proc: Path) -> Iterator[Path]:
    return (each for each in proc.iterdir() if each.name.isdigit())


def _used_by(process: Path) -> Iterator[str]:
    for name in ("cwd", "root", "exe"):
        yield _link(process / name)
    # A process may end, or close a file, while we look.
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            yield _link(descriptor)


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
