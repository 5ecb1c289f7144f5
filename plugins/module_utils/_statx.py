# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""statx(2), which Python does not offer: what a directory is, when it was born, and whether it is a mount point."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import kernel

# struct statx of linux/stat.h as far as it is used: mask, links, uid, gid, mode, inode, blocks, attributes_mask,
# birth, change and modification time, device, mount.
_STATX = struct.Struct("=I4xQIIIH2xQQQQ16xqI4xqI4xqI4x8xII")
_STATX_SIZE = 256
_MASK = 0x7FF | 0x800  # STATX_BASIC_STATS, STATX_BTIME
_AT_FLAGS = 0x100 | 0x800  # AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT
_MOUNT_ROOT = 0x2000  # STATX_ATTR_MOUNT_ROOT, Linux 5.8


class Facts(NamedTuple):
    """What statx(2) tells of a directory."""

    device: int
    inode: int
    uid: int
    gid: int
    mode: int
    mtime: float
    ctime: float
    birthtime: float | None
    mount_point: bool


class Statx:
    """statx(2) with one buffer: a call costs little more than os.stat, and knows the time of birth."""

    def __init__(self) -> None:
        self._call = getattr(kernel().libc, "statx", None)
        self._buffer = ctypes.create_string_buffer(_STATX_SIZE)
        self._reference = ctypes.byref(self._buffer)

    def facts(self, directory: int, name: str) -> Facts:
        """Raises OSError."""
        if self._call is None:
            return _plain_facts(directory, name)
        if self._call(directory, os.fsencode(name), _AT_FLAGS, _MASK, self._reference) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        (
            mask, attributes, _links, uid, gid, mode, inode, _size, _blocks, attributes_mask,
            born, born_ns, changed, changed_ns, modified, modified_ns, major, minor,
        ) = _STATX.unpack_from(self._buffer)  # fmt: skip
        return Facts(
            os.makedev(major, minor),
            inode,
            uid,
            gid,
            mode,
            modified + modified_ns / 1e9,
            changed + changed_ns / 1e9,
            born + born_ns / 1e9 if mask & 0x800 else None,
            bool(attributes & attributes_mask & _MOUNT_ROOT),
        )


def _plain_facts(directory: int, name: str) -> Facts:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return Facts(
        found.st_dev,
        found.st_ino,
        found.st_uid,
        found.st_gid,
        found.st_mode,
        found.st_mtime,
        found.st_ctime,
        None,
        found.st_dev != os.fstat(directory).st_dev,
    )
