# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories on which NFS is mounted: made, looked at and removed, none of them on a server that may be dead."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_commands
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine, group_id, user_id
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_result import Result
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_servers import Servers


class MountPoints:
    """Those of one host."""

    def __init__(self, machine: Machine, servers: Servers) -> None:
        self._machine = machine
        self._servers = servers

    def is_empty(self, table: MountTable, path: str) -> bool:
        """Whether it is a directory that can be looked into, with nothing in it."""
        return may_touch(table, path) and self._machine.is_directory(path) and not self._machine.has_entries(path)

    def ensure(self, result: Result, table: MountTable) -> bool:
        """Make it if it is not there; False if that is not possible."""
        planned = result.planned
        item = planned.wanted
        place = table.find(planned.path)
        if place.stack:
            # Whatever is mounted there, the mount point exists.
            return True
        uid, gid = user_id(item.owner), group_id(item.group)
        if not may_touch(table, planned.path):
            command = _mount_commands.make_directory(planned.path, item.mode, uid, gid)
            finished = self._servers.command(result, command, place.inside.server_address if place.inside else None)
            if finished is not None and not finished.succeeded:
                result.failure = f"the mount point cannot be made: {finished.complaint()}"
            elif finished is not None and "made" in finished.stdout:
                result.actions.append("make the mount point")
            return result.failure is None
        if not self._machine.is_directory(planned.path):
            self._machine.make_directory(planned.path, item.mode, uid, gid)
            result.actions.append("make the mount point")
        elif self._machine.has_entries(planned.path):
            result.note("the directory was not empty; what is in it is hidden while the mount is there")
        return True

    def remove(self, results: Sequence[Result]) -> None:
        """Remove those that are not wanted any more and are not in use."""
        table = self._machine.read_table()
        for result in results:
            path = result.planned.path
            if not result.planned.wanted.remove_mount_point or result.failure is not None or table.find(path).stack:
                continue
            if not has_local_mount_point(table, path):
                result.note("the mount point stays: it lies on a server, where others see it, too")
            elif self._machine.is_directory(path):
                try:
                    self._machine.remove_directory(path)
                except OSError as error:
                    result.note(f"the mount point stays: {error.strerror or error}")
                else:
                    result.actions.append("remove the mount point")


def has_local_mount_point(table: MountTable, path: str) -> bool:
    """Whether the directory itself lies on no server."""
    inside = table.find(path).inside
    return inside is None or not inside.may_hang


def may_touch(table: MountTable, path: str) -> bool:
    """Whether a look at it cannot hang: neither it, nor what it lies on, is on a server."""
    return not table.find(path).stack and has_local_mount_point(table, path)
