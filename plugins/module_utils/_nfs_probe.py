# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try whether this host can mount an export and write to it, and leave nothing behind.

Each try runs in a mount namespace of its own: what is mounted there nobody else sees, and it goes away with
the process, however that ends.
"""

from __future__ import annotations

import errno
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_commands, _mount_options, _mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_commands import OWN_NAMESPACE, SEARCH_PATH
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished, run

PARALLEL = 8
# In the try's own namespace the export is mounted over one of these; the host itself keeps seeing the directory.
_PLACES = ("/mnt", "/media", "/srv", "/opt", "/home", "/var/lib")
# Nothing is shared with mounts that others use. With `soft` and one repetition a server that is gone is given up after
# about twice `timeo` (nfs(5): tenths of a second; measured: 14 s for 6.7 s), which is set to a sixth of the deadline:
# the kernel gives up, and says why, well before the try is killed.
_PROBE_OPTIONS = ("soft", "retrans=1", "retry=0", "nosharecache")
_TIMEO_OF_DEADLINE = 10 / 6
_REPLACED = frozenset({"recovery", "softreval", "timeo", "retrans", "retry", "sharecache"})

# Runs in the try's namespace: file name (empty: only list the directory), then the mount command. Imports nothing that
# Python has not loaded already: on slow machines each import costs a second. The file loses its name right after it
# was made: whenever this process ends, killed or not, closing the file removes it from the server.
_CHILD = """
import os, sys


def say(key, value):
    sys.stdout.write(key + " " + str(value) + "\\n")
    sys.stdout.flush()


def write(path, content):
    say("doing", "creating a file")
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    say("doing", "removing a file")
    os.unlink(path)
    say("doing", "writing a file")
    os.write(descriptor, content)
    os.fsync(descriptor)
    say("doing", "reading a file")
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if os.read(descriptor, len(content) + 1) != content:
        raise OSError(0, "what was read is not what was written")
    say("doing", "closing a file")
    os.close(descriptor)


name, command = sys.argv[1], sys.argv[2:]
say("doing", "mounting")
status = os.spawnvp(os.P_WAIT, command[0], command)
if status:
    sys.exit(abs(status))
try:
    if name:
        write(os.path.join(command[-1], name), name.encode())
    else:
        say("doing", "listing the directory")
        with os.scandir(command[-1]) as entries:
            next(entries, None)
except OSError as error:
    say("errno", error.errno)
    say("error", error.strerror)
    sys.exit(1)
say("doing", "done")
"""

_HINTS = {
    errno.EROFS: "the export is read-only",
    errno.EACCES: (
        "root of this host may not: either the server maps it to an unprivileged user (root_squash) that may not "
        "write to this directory, or the directory's mode forbids it"
    ),
    errno.EPERM: "the server forbids it",
    errno.ENOSPC: "the file system of the server is full",
    errno.EDQUOT: "a quota is used up",
    errno.ESTALE: "the directory was removed or made anew on the server while it was exported",
    errno.ETIMEDOUT: "the server does not answer any more",
    errno.EIO: "the server does not answer any more, or its disk fails",
}


@dataclass(frozen=True)
class Target:
    """One export to try."""

    server: str
    path: str
    options: tuple[str, ...] = ()
    read_only: bool = False

    @property
    def source(self) -> str:
        return f"[{self.server}]:{self.path}" if ":" in self.server else f"{self.server}:{self.path}"


def read_input(targets: Sequence[Mapping[str, Any]]) -> tuple[list[Target], list[str]]:
    """Return the targets and everything that is wrong with them, each problem with its place."""
    result, problems = [], []
    for index, raw in enumerate(targets):
        target = Target(
            server=raw.get("server") or "",
            path=raw.get("path") or "",
            options=tuple(_mount_options.parse(raw.get("options"))),
            read_only=bool(raw.get("read_only")),
        )
        result.append(target)
        found = []
        if not target.server or target.server.startswith("-") or any(c.isspace() for c in target.server):
            found.append(f'server: "{target.server}" is not a host name or address')
        if not target.path.startswith("/") or ".." in target.path.split("/") or "\0" in target.path:
            found.append(f'path: "{target.path}" is not an absolute path without ".."')
        found += [f"options: {problem}" for problem in _mount_options.problems(target.options)]
        problems += [f"targets[{index}].{problem}" for problem in found]
    return result, problems


def mount_options(target: Target, timeout: float) -> list[str]:
    """Return the target's options, changed so that a dead server is given up within `timeout` (seconds) and no live
    mount is shared.
    """
    options = [
        option
        for option in _mount_options.for_a_mount_now(target.options)
        if not set(_mount_options.what_they_mean([option])) & _REPLACED
    ]
    timeo = f"timeo={max(1, round(timeout * _TIMEO_OF_DEADLINE))}"
    return [*options, *_PROBE_OPTIONS, timeo, *(["ro"] if target.read_only else [])]


def place_to_mount(table: MountTable) -> str:
    """Return a local directory of this host to mount over; raises FileNotFoundError when there is none."""
    for place in _PLACES:
        found = table.find(place)
        touchable = not any(mount.may_hang for mount in (*found.stack, found.inside) if mount is not None)
        if touchable and not Path(place).is_symlink() and Path(place).is_dir():
            return place
    raise FileNotFoundError(f"none of {', '.join(_PLACES)} is a local directory")


def probe_all(targets: Sequence[Target], timeout: float) -> list[dict[str, Any]]:
    """Try all targets side by side; returns one result each, in their order."""
    if not targets:
        return []
    place = place_to_mount(_mounts.read())
    with ThreadPoolExecutor(max_workers=min(PARALLEL, len(targets))) as pool:
        return list(pool.map(lambda target: probe(target, place, timeout), targets))


def probe(target: Target, place: str, timeout: float) -> dict[str, Any]:
    """Try one target."""
    argv = ["mount", "-t", "nfs", "-o", ",".join(mount_options(target, timeout)), target.source, place]
    started = time.monotonic()
    finished = run(child_command(argv, read_only=target.read_only), timeout=timeout, env={"PATH": SEARCH_PATH})
    problem = _problem(finished, target, timeout)
    return {
        "server": target.server,
        "path": target.path,
        "options": list(target.options),
        "read_only": target.read_only,
        "ok": problem is None,
        "msg": problem or "",
        "seconds": round(time.monotonic() - started, 3),
    }


def child_command(mount: Sequence[str], *, read_only: bool) -> list[str]:
    """Return the command that mounts in a namespace of its own and tries a file there."""
    name = "" if read_only else f".clusterkit-probe-{uuid.uuid4()}"
    return [*OWN_NAMESPACE, sys.executable or "python3", "-I", "-S", "-c", _CHILD, name, *mount]


def _problem(finished: Finished, target: Target, timeout: float) -> str | None:
    said = dict(line.split(" ", 1) for line in finished.stdout.splitlines() if " " in line)
    doing = said.get("doing", "")
    if finished.succeeded and doing == "done":
        return None
    if finished.timed_out and doing in ("", "mounting"):
        return f"{target.source}: no answer from the server within {timeout:g} s"
    if finished.timed_out:
        return (
            f"{target.source}: mounted, but {doing} got no answer within {timeout:g} s; "
            "a server that has just been started makes clients wait (grace period, up to 90 s)"
        )
    if "error" in said:
        hint = _HINTS.get(int(said["errno"]))
        return f"{target.source}: {doing} failed: {said['error']}" + (f" ({hint})" if hint else "")
    if doing == "mounting":
        return f"{target.source}: {_mount_commands.failure(finished, target.source, target.options)}"
    words = " ".join(finished.stderr.split()) or f"the try ended with exit status {finished.returncode}"
    return f"{target.source}: {words}"
