# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of btrfs: of the subvolume that holds a directory, in `.clusterkit/snapshots` at the mount point.

By open descriptors and not by the command btrfs(8), since clients may exchange directories for links meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OPEN_DIRECTORY,
    OWN,
    identity,
    mount_id,
    open_below,
    open_child,
)

FOLDER = "snapshots"
_ROOT_INODE = 256  # of every subvolume
# BTRFS_IOC_SNAP_CREATE_V2 and BTRFS_IOC_SNAP_DESTROY of linux/btrfs.h.
_CREATE, _CREATE_ARGUMENTS = 0x50009417, struct.Struct("=qQQ32x4040s")
_DESTROY, _DESTROY_ARGUMENTS = 0x5000940F, struct.Struct("=q4088s")
_READ_ONLY = 2


def subvolume(directory: int) -> tuple[int, int]:
    """How far above an open directory the root of its subvolume is, and that root, open. Raises BackupError."""
    found, number, above = os.fstat(directory), mount_id(directory), 0
    current = os.dup(directory)
    while os.fstat(current).st_ino != _ROOT_INODE:
        try:
            following = os.open("..", OPEN_DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current, above = following, above + 1
        if os.fstat(current).st_dev != found.st_dev or mount_id(current) != number:
            os.close(current)
            raise BackupError("the root of its subvolume is not mounted above it")
    return above, current


def mount_root(directory: int) -> int:
    """The root of the mount that a directory was opened on, open."""
    number, current = mount_id(directory), os.dup(directory)
    while True:
        above = os.open("..", OPEN_DIRECTORY, dir_fd=current)
        if mount_id(above) != number or identity(os.fstat(above)) == identity(os.fstat(current)):
            os.close(above)
            return current
        os.close(current)
        current = above


@dataclass(frozen=True)
class Btrfs:
    """A subvolume: its path on this host and in the file system, its open root, and that of the mount."""

    path: str
    inside: str
    root: int
    base: int
    kind = "btrfs"

    @property
    def what(self) -> str:
        return f"subvolume {self.path}"

    def close(self) -> None:
        os.close(self.root)
        os.close(self.base)

    def left(self) -> list[str]:
        """Names of the snapshots that are there."""
        try:
            with self._folder(make=False) as folder, os.scandir(folder) as entries:
                return sorted(one.name for one in entries)
        except FileNotFoundError:
            return []

    def make(self, name: str) -> None:
        with self._folder(make=True) as folder:
            # Of the data that is in memory as well: the kernel writes it out first.
            buffer = bytearray(_CREATE_ARGUMENTS.pack(self.root, 0, _READ_ONLY, os.fsencode(name)))
            fcntl.ioctl(folder, _CREATE, buffer)

    def open(self, name: str, inside: str) -> int:
        """A directory in a snapshot, by its path in the file system."""
        parts = [part for part in inside[len(self.inside) :].split("/") if part]
        with self._folder(make=False) as folder:
            snapshot = os.open(name, OPEN_DIRECTORY, dir_fd=folder)
        try:
            return open_below(snapshot, parts)
        finally:
            os.close(snapshot)

    def remove(self, name: str) -> None:
        with self._folder(make=False) as folder:
            fcntl.ioctl(folder, _DESTROY, bytearray(_DESTROY_ARGUMENTS.pack(0, os.fsencode(name))))
        # The mount point may be a volume, in which nothing is left of what is not needed any more.
        with contextlib.suppress(OSError), self._as_it_was():
            own = open_child(self.base, OWN)
            try:
                os.rmdir(FOLDER, dir_fd=own)
            finally:
                os.close(own)
            os.rmdir(OWN, dir_fd=self.base)

    @contextlib.contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """The times of the mount point are recorded with the volume that it may be."""
        before = os.fstat(self.base)
        try:
            yield
        finally:
            if os.fstat(self.base).st_mtime_ns != before.st_mtime_ns:
                os.utime(self.base, ns=(before.st_atime_ns, before.st_mtime_ns))

    @contextlib.contextmanager
    def _folder(self, *, make: bool) -> Iterator[int]:
        """The folder for snapshots, which nobody but root can look into."""
        with contextlib.ExitStack() as stack:
            current = self.base
            for name in (OWN, FOLDER):
                if make:
                    with contextlib.suppress(FileExistsError), self._as_it_was():
                        os.mkdir(name, 0o700, dir_fd=current)
                current = open_child(current, name)
                stack.callback(os.close, current)
                found = os.fstat(current)
                if found.st_uid or found.st_mode & 0o077:
                    raise BackupError(f"{name} at the mount point is not of root alone (mode 0700)")
            yield current
