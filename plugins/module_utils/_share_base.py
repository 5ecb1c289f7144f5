# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shares, and where the folder `.clusterkit` is that is responsible for each: if possible out of reach of clients."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.clusterkit.storage.plugins.module_utils import _exports, _files, _mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import OWN, open_root, parts_below
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import MountTable


@dataclass(frozen=True)
class Share:
    """A directory in which volumes lie, and the folder that is responsible for it."""

    path: str
    base: str  # where the folder is: the share itself, or the mount point of its file system

    @property
    def parts(self) -> tuple[str, ...]:
        """The way from the base to the share."""
        return parts_below(self.base, self.path)

    @property
    def key(self) -> str:
        """The share in files that live for years: the file system may be mounted elsewhere by then."""
        return "/".join(self.parts) or "."


def exported_paths(table: str) -> list[str] | None:
    """Return what is exported, None when nobody knows: then every mount point counts as exported."""
    text = _files.read_text(table)
    if text is None:
        return None
    return [entry.path for entry in _exports.parse(text).effective]


def find_share(path: str, mounts: MountTable, exported: Sequence[str] | None) -> Share:
    """Return a share with its base: the mount point of its file system if no export covers it, else the share's root.

    A folder that is there already stays the one; what a client has put into the share does not count as one.
    Raises NotBeneath or OSError for a path that is no plain directory.
    """
    os.close(open_root(path))
    place = mounts.find(path)
    mount = place.top or place.inside
    top = mount.path if mount is not None else path
    if _is_ours(f"{path.rstrip('/')}/{OWN}"):
        return Share(path, path)
    hidden = exported is not None and not any(_mounts.is_within(top, each) for each in exported)
    return Share(path, top if hidden or os.path.lexists(f"{top.rstrip('/')}/{OWN}") else path)


def _is_ours(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
