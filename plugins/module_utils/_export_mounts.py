# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports and the file systems they lie on. Pure.

A disk that is not mounted is an empty directory, a mount point inside an export is one for clients, and a file
system without a number of its own needs fsid: all three show only once clients are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.clusterkit.storage.plugins.module_utils import _export_list, _export_options, _fstab
from ansible_collections.clusterkit.storage.plugins.module_utils._export_list import Client, Export
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect
from ansible_collections.clusterkit.storage.plugins.module_utils._exports import Entry
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable, is_within

# File systems without a device, whose exports the kernel can tell apart by fsid= only (exports(5), fsid).
_WITHOUT_NUMBER = re.compile(r"overlay|tmpfs|ramfs|nfs4?|ceph|virtiofs|fuse(\..*)?")
# What the system mounts here is not for clients, also when "/" is exported.
_SYSTEM_TREES = ("/dev", "/proc", "/run", "/sys")

DROP_IN = """\
# Managed by clusterkit.storage.nfs_exports: changes made here will be overwritten.
# Wants, not Requires: a disk that is missing must not keep the other exports from being served.
[Unit]
"""


@dataclass(frozen=True)
class Mounts:
    """The file systems of a server: the mounted ones, and the mount points of fstab that are to be mounted at boot."""

    table: MountTable
    at_boot: Sequence[str] = ()
    # Mount points whose directory has another device than its parent: only these pass for mounted with
    # mountd (is_mountpoint in nfs-utils); a bind mount of the same file system does not.
    own_device: frozenset[str] = field(default_factory=frozenset)

    def under(self, path: str) -> Mount | None:
        """Return the mount that a path without links lies on."""
        place = self.table.find(path)
        return place.top or place.inside

    def missing(self, path: str) -> str | None:
        """Return the mount point of fstab that a path should lie on and that is not mounted."""
        mount = self.under(path)
        here = mount.path if mount is not None else "/"
        expected = [point for point in self.at_boot if is_within(path, point) and len(point) > len(here)]
        return max(expected, key=len, default=None)

    def guard(self, path: str) -> str | None:
        """Return the mount point without which an export of this path must not be served."""
        mount = self.under(path)
        return mount.path if mount is not None and mount.path in self.own_device else None


def at_boot(fstab: str) -> list[str]:
    """Return the mount points that are to be mounted at boot, from the content of fstab."""
    return [
        line.entry.path
        for line in _fstab.parse(fstab)
        if line.entry is not None and line.entry.path.startswith("/") and "noauto" not in line.entry.options
    ]


def guarded(exports: Sequence[Export], real: Mapping[str, str], mounts: Mounts, dialect: Dialect) -> list[Export]:
    """Return the exports with mountpoint=, where they lie on a file system of their own and do not say so."""

    def guard(client: Client, point: str) -> Client:
        option = f"mountpoint={point}"
        if client.meaning.mountpoint is not None or _export_list.option_problems([option], dialect):
            return client  # exports(5) cannot hold a blank or a comma there
        options = (*client.options, option)
        return replace(client, options=options, meaning=_export_options.read_options(",".join(options), dialect)[0])

    done = []
    for export in exports:
        point = mounts.guard(real.get(export.path, export.path))
        done.append(
            replace(export, clients=tuple(guard(client, point) for client in export.clients)) if point else export
        )
    return done


def problems(
    exports: Sequence[Export], others: Iterable[Entry], past: Iterable[Entry], real: Mapping[str, str], mounts: Mounts
) -> list[str]:
    """Return what is wrong with the file systems below exports: absent, without a number, hidden from clients."""
    found = []
    before = {entry.path: entry.meaning.mountpoint for entry in past if entry.meaning.mountpoint}
    exported = {real.get(export.path, export.path) for export in exports} | {
        real.get(entry.path, entry.path) for entry in others
    }
    for export in exports:
        path = real.get(export.path, export.path)
        missing = mounts.missing(path)
        point = before.get(export.path)
        if missing is not None:
            found.append(
                f"{export.label}.path: {export.path} lies on {missing}, which /etc/fstab has and which is not mounted; "
                "mount it first, or clients get the empty directory below it"
            )
        elif point and mounts.guard(path) is None and any(c.meaning.mountpoint is None for c in export.clients):
            found.append(
                f"{export.label}.path: {export.path} was exported from the file system at {point}, and nothing is "
                f"mounted there now; mount it first, or withdraw the export in one run and list it again in the next"
            )
        found += _number_problems(export, mounts.under(path))
        found += _hidden_problems(export, path, exported, mounts)
    return found


def _number_problems(export: Export, mount: Mount | None) -> list[str]:
    if mount is None or not _WITHOUT_NUMBER.fullmatch(mount.fstype):
        return []
    return [
        f"{client.label}.options: {export.path} lies on {mount.fstype}, which cannot be exported without fsid=; give "
        "it a number that no other export has, such as fsid=1"
        for client in export.clients
        if client.meaning.fsid is None and client.meaning.uuid is None and client.meaning.reexport == "none"
    ]


def _hidden_problems(export: Export, path: str, exported: set[str], mounts: Mounts) -> list[str]:
    """Return mount points below an export whose files clients would not see."""
    if all("crossmnt" in client.meaning.flags for client in export.clients):
        return []
    found = []
    reported: list[str] = []
    for point in sorted({mount.path for mount in mounts.table.mounts}):
        if point == path or not is_within(point, path) or any(is_within(point, tree) for tree in _SYSTEM_TREES):
            continue
        nearest = max((other for other in exported if is_within(point, other)), key=len)
        if nearest != path or any(is_within(point, other) for other in reported):
            continue
        reported.append(point)
        found.append(
            f"{export.label}.path: {point} is a mount point below {export.path}: clients would see an empty directory "
            "there; export it too, or give crossmnt to every client of this export"
        )
    return found


def mount_points(paths: Iterable[str], mounts: Mounts) -> list[str]:
    """Return the mount points, but "/", that exported paths lie on."""
    found = {mount.path for mount in map(mounts.under, paths) if mount is not None}
    return sorted(found - {"/"})


def quotas(mount: Mount) -> list[str]:
    """Return which quotas a mounted file system keeps: user, group, project (mount(8), XFS and ext4 options)."""
    words = {option.partition("=")[0] for option in mount.super_options}
    if "noquota" in words:
        return []
    return [kind for kind, names in _QUOTA_OPTIONS.items() if words & names]


_QUOTA_OPTIONS = {
    "user": {"usrquota", "uquota", "quota", "uqnoenforce", "usrjquota"},
    "group": {"grpquota", "gquota", "gqnoenforce", "grpjquota"},
    "project": {"prjquota", "pquota", "pqnoenforce"},
}


def unit_name(point: str) -> str:
    r"""Return the name of a mount point's unit, as `systemd-escape --path` does: /srv/my data is srv-my\x20data."""
    plain = point.strip("/")
    if not plain:
        return "-.mount"
    escaped = "".join(
        "-"
        if character == "/"
        else character
        if re.fullmatch(r"[A-Za-z0-9:_.]", character) and (character != "." or index)
        else "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        for index, character in enumerate(plain)
    )
    return f"{escaped}.mount"


def drop_in(points: Sequence[str]) -> str | None:
    """Return what orders nfs-server after its mounts, None when there is none."""
    if not points:
        return None
    units = " ".join(unit_name(point) for point in points)
    return f"{DROP_IN}Wants={units}\nAfter={units}\n"
