# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder in which a volume is restored, beside its directory, and how far that has come.

What is restored lies in `<base>/.clusterkit/restore/<name>/data`, on the file system of the volume; restore.json
beside it says how far it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _tree_removal
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import OWN, look, open_below, sync
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import DATA
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import SCHEMA, slug, write_json
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Folder, names_in, timestamp
from ansible_collections.clusterkit.storage.plugins.module_utils._share_base import Share

STAGES, STATE, LOCK = "restore", "restore.json", "lock"
RESTORING, PLACING = "restoring", "placing"
WHOLE, CONTENT, PATHS = "directory", "content", "paths"
# FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR of linux/fs.h, as in _beneath.
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_ATTRIBUTES = struct.Struct("IIIII8x")


@dataclass(frozen=True)
class Target:
    """Where something is restored to."""

    folder: Folder
    share: Share
    directory: str
    parts: tuple[str, ...]  # the way from the base to the directory
    scope: str
    keep: tuple[str, ...]  # names in the directory that are not the volume's
    volume: Mapping[str, str] | None  # name and uid of the PersistentVolume that lies there

    @property
    def stage_name(self) -> str:
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return f"{slug(self.directory.rpartition('/')[2])[:60]}-{digest}"


class Stage:
    """The folder in which one volume is restored."""

    def __init__(self, name: str, above: int, descriptor: int) -> None:
        self.name = name
        self._above = above
        self.descriptor = descriptor

    def read(self) -> dict[str, Any] | None:
        """Return how far an earlier run came, None for a new stage. Raises BackupError."""
        try:
            descriptor = os.open(STATE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        try:
            with os.fdopen(descriptor, "rb") as stream:
                state = json.loads(stream.read())
            if state["kind"] == "Restore" and state["schema"] == SCHEMA:
                return dict(state)
            what = f"has schema {state['schema']!r}"
        except (ValueError, KeyError, TypeError) as error:
            what = f"cannot be read ({error})"
        raise BackupError(f"{STATE} of {self.name} {what}; expected schema {SCHEMA}")

    def write(self, content: Mapping[str, Any]) -> None:
        write_json(self.descriptor, STATE, content)

    def data(self) -> os.stat_result | None:
        return look(self.descriptor, DATA)

    def empty(self) -> None:
        """Remove what was restored. Raises OSError, BackupError."""
        if self.data() is None:
            return
        descriptor = open_below(self.descriptor, [DATA])
        try:
            removal = _tree_removal.remove_content(descriptor)
        finally:
            os.close(descriptor)
        if removal.failures:
            raise BackupError(f"what an earlier run left behind cannot be removed: {'; '.join(removal.problems[:3])}")
        os.rmdir(DATA, dir_fd=self.descriptor)

    def remove(self) -> None:
        self.empty()
        for name in names_in(self.descriptor):
            if name != LOCK:
                os.unlink(name, dir_fd=self.descriptor)
        # The lock goes last: whoever waits for it finds the folder gone, and makes a new one.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(LOCK, dir_fd=self.descriptor)
        os.rmdir(self.name, dir_fd=self._above)


@contextlib.contextmanager
def stages(folder: Folder, *, create: bool) -> Any:
    """The open folder of all stages; -1 when there is none."""
    if create and look(folder.own, STAGES) is None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(STAGES, 0o700, dir_fd=folder.own)
        sync(folder.own)
    if folder.own < 0 or look(folder.own, STAGES) is None:
        yield -1
        return
    descriptor = open_below(folder.own, [STAGES])
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_stage(above: int, name: str, wait: Callable[[int], None], *, create: bool) -> Any:
    """Open the stage of that name and keep others off; yields it and the descriptor of its lock. Raises BackupError."""
    while True:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)
        descriptor = open_below(above, [name])
        lock = -1
        try:
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
            wait(lock)
            there = look(above, name)
            if there is not None and there.st_ino == os.fstat(descriptor).st_ino and os.fstat(lock).st_nlink:
                yield Stage(name, above, descriptor), lock
                return
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(descriptor)


def take_over_project(directory: int, data: int) -> None:
    """Give the restored data the project (of a project quota) of its directory: else nothing can be renamed into it."""
    buffer = bytearray(_ATTRIBUTES.size)
    with contextlib.suppress(OSError):  # a file system without projects
        fcntl.ioctl(directory, _GET_ATTRIBUTES, buffer)
        flags, extent, _extents, project, cow = _ATTRIBUTES.unpack(buffer)
        if project:
            fcntl.ioctl(data, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags, extent, 0, project, cow))


def kept_names(scope: str, *, mount_point: bool) -> tuple[str, ...]:
    """Names in a directory that are not the volume's."""
    if scope == WHOLE:
        return ()
    return (OWN, "lost+found") if mount_point else (OWN,)


def new_state(target: Target, volume: str, generation: str, paths: Sequence[str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "Restore",
        "state": RESTORING,
        "started_at": timestamp(time.time()),
        "directory": target.directory,
        "scope": target.scope,
        "volume": volume,
        "target": dict(target.volume) if target.volume else None,
        "generation": generation,
        "paths": list(paths),
    }
