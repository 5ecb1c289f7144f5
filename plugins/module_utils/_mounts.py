# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live mount table, from /proc/self/mountinfo.

Reading it touches no mount: what hangs on a dead server are stat, statvfs, listdir and realpath of a path,
never this. Whoever decides about mounts decides from here.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils._mount_options import split

MOUNTINFO = "/proc/self/mountinfo"
NFS_TYPES = frozenset({"nfs", "nfs4"})
# File systems whose server, user-space daemon or automounter may not answer: their paths are not touched.
_MAY_HANG = re.compile(r"nfs4?|cifs|smb3|smbfs|ncpfs|ceph|glusterfs|lustre|gpfs|beegfs|afs|coda|9p|fuse.*|autofs")
_MAX_SYMLINKS = 40


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo, its escapes undone."""

    mount_id: int
    parent_id: int
    device: str  # major:minor of the superblock; NFS mounts with the same one share it
    root: str
    path: str
    options: tuple[str, ...]  # of this mount
    optional: tuple[str, ...]  # shared:N, master:N, ...
    fstype: str
    source: str
    super_options: tuple[str, ...]  # of the superblock

    @property
    def is_nfs(self) -> bool:
        return self.fstype in NFS_TYPES

    @property
    def may_hang(self) -> bool:
        """A file system whose paths may only be touched in a child process with a deadline."""
        return _MAY_HANG.fullmatch(self.fstype) is not None

    @property
    def server_address(self) -> str | None:
        """The address of the NFS server, as the kernel uses it."""
        for option in self.super_options:
            if option.startswith("addr="):
                return option[len("addr=") :]
        return None

    @property
    def server(self) -> tuple[str, int] | None:
        """Address and port of the NFS server."""
        address = self.server_address
        ports = [option[len("port=") :] for option in self.super_options if option.startswith("port=")]
        return (address, int(ports[0]) if ports else 2049) if self.is_nfs and address else None

    @property
    def connection(self) -> tuple[str | None, str | None]:
        """Address and version: NFS mounts with the same ones share their connections to the server."""
        versions = [option for option in self.super_options if option.startswith("vers=")]
        return self.server_address, versions[0] if versions else None


@dataclass(frozen=True)
class Place:
    """What a path leads to."""

    stack: tuple[Mount, ...]  # the mounts exactly at the path, the lowest first
    inside: Mount | None  # the mount that the path itself, or its mount point, lies in

    @property
    def top(self) -> Mount | None:
        return self.stack[-1] if self.stack else None


class MountTable:
    """The mounts of one moment."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self.mounts = list(mounts)
        self._by_id = {mount.mount_id: mount for mount in self.mounts}
        # Nothing else tells which of two mounts at one path hides the other: it is the parent of the other.
        self._children: dict[tuple[int | None, str], Mount] = {}
        for mount in self.mounts:
            own_root = mount.parent_id not in self._by_id or mount.parent_id == mount.mount_id
            self._children[(None if own_root else mount.parent_id, mount.path)] = mount

    def find(self, path: str) -> Place:
        """Return where a path leads, as a path lookup of the kernel would go, without touching it.

        `path` is absolute, normal, and has no symlink in it (see `resolve`). Mounts that are hidden below
        another one are not found: nobody reaches them.
        """
        current: Mount | None = None
        inside: Mount | None = None
        stack: list[Mount] = []
        for part in _prefixes(path):
            while True:
                child = self._children.get((current.mount_id if current else None, part))
                if child is None or child in stack:
                    break
                if part == path:
                    inside = inside if stack else current
                    stack.append(child)
                current = child
        return Place(tuple(stack), inside if stack else current)

    def below(self, mount: Mount) -> list[Mount]:
        """Return the mounts that sit on this one: as long as they do, it cannot be unmounted."""
        return [other for other in self.mounts if other.parent_id == mount.mount_id and other is not mount]

    def sits_on(self, mount: Mount, other: Mount) -> bool:
        """Tell whether a mount sits on another one, directly or with mounts between them."""
        seen: set[int] = set()
        while mount.parent_id in self._by_id and mount.parent_id not in seen:
            seen.add(mount.parent_id)
            mount = self._by_id[mount.parent_id]
            if mount == other:
                return True
        return False

    def sharing_superblock(self, mount: Mount) -> list[Mount]:
        """Return the other mounts of the same superblock; they share most options, and `umount -f`."""
        return [other for other in self.mounts if other.device == mount.device and other.mount_id != mount.mount_id]

    def sharing_server(self, mount: Mount) -> list[Mount]:
        """Return the other NFS mounts from the same server with the same version: they share its connections."""
        return [
            other
            for other in self.mounts
            if other.is_nfs and other.mount_id != mount.mount_id and other.connection == mount.connection
        ]

    def resolve(self, path: str, read_link: Callable[[str], str | None] | None = None) -> str:
        """Return a path without symlinks, as mountinfo shows it, and touch nothing that may hang.

        What lies below a mount that may hang is taken literally. Raises OSError (ELOOP) for symlinks in a circle.
        """
        read_link = read_link or _read_link
        done, rest, followed = "/", [part for part in path.split("/") if part], 0
        while rest:
            part = rest.pop(0)
            if part in (".", ".."):
                done = posixpath.dirname(done) if part == ".." else done
                continue
            candidate = posixpath.join(done, part)
            place = self.find(candidate)
            if place.stack:
                # A mount point is a directory, no symlink: no need to look, and looking may hang.
                done = candidate
                continue
            if place.inside is not None and place.inside.may_hang:
                return posixpath.normpath(posixpath.join(candidate, *rest))
            target = read_link(candidate)
            if target is None:
                done = candidate
                continue
            followed += 1
            if followed > _MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            rest = [each for each in target.split("/") if each] + rest
            done = "/" if target.startswith("/") else done
        return done


def read() -> MountTable:
    """Return this process's mount table."""
    return MountTable(parse(Path(MOUNTINFO).read_bytes().decode("utf-8", "surrogateescape")))


def parse(text: str) -> list[Mount]:
    """Parse the content of mountinfo; raises ValueError with the line that it cannot understand."""
    return [_parse_line(line) for line in text.split("\n") if line]


def _parse_line(line: str) -> Mount:
    # Single blanks separate: a source may be empty.
    fields = line.split(" ")
    try:
        end = fields.index("-", 6)
        fstype, source, super_options = fields[end + 1 : end + 4]
        return Mount(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=fields[2],
            root=unescape(fields[3]),
            path=unescape(fields[4]),
            options=tuple(unescape(option) for option in split(fields[5])),
            optional=tuple(fields[6:end]),
            fstype=unescape(fstype),
            source=unescape(source),
            super_options=tuple(unescape(option) for option in split(super_options)),
        )
    except (ValueError, IndexError):
        raise ValueError(f"{MOUNTINFO}: cannot understand {line!r}") from None


def unescape(text: str) -> str:
    r"""Undo the octal escapes of the kernel and of fstab (`\040` is a blank)."""
    if "\\" not in text:
        return text
    raw = text.encode("utf-8", "surrogateescape")
    raw = re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found.group(1), 8)]), raw)
    return raw.decode("utf-8", "surrogateescape")


def _prefixes(path: str) -> list[str]:
    """Return "/", "/a", "/a/b" for "/a/b"."""
    parts = [part for part in path.split("/") if part]
    return ["/"] + ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]


def is_within(path: str, folder: str) -> bool:
    """Tell whether `path` is `folder` or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _read_link(path: str) -> str | None:
    try:
        return str(Path(path).readlink())
    except OSError:
        # Not a symlink, or not there at all.
        return None


def split_source(source: str) -> tuple[str, str] | None:
    """Split an NFS source into host and exported path; None when it is none ("host:/path", "[fe80::1]:/path")."""
    if source.startswith("["):
        host, bracket, path = source[1:].partition("]")
        if not bracket or not path.startswith(":"):
            return None
        path = path[1:]
    else:
        host, _colon, path = source.partition(":")
    if not host or not path.startswith("/"):
        return None
    return host, path


def export_path(path: str) -> str:
    """Return an exported path in its normal form: no doubled and no trailing slash."""
    return re.sub("/+", "/", path).rstrip("/") or "/"
