# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy from snapshots of the file systems that directories of volumes lie on, where the server can make them.

One is made for each file system, before the first copy, and removed after the last. Its name tells it from others, and
a lock on a file of that name is held as long as the run lives: what a killed run has left is removed by the next one
that works on the same file system.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError, Volume
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import NotBeneath, mount_id, open_root
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount
from ansible_collections.clusterkit.storage.plugins.module_utils._snapshot_btrfs import Btrfs, mount_root, subvolume
from ansible_collections.clusterkit.storage.plugins.module_utils._snapshot_lvm import Lvm, Volumes

NONE, AUTO = "none", "auto"
KINDS = (NONE, AUTO, "lvm", "btrfs")
PREFIX = "clusterkit-backup-"
PLACES = "/run/clusterkit.storage/snapshots"

Origin = Union[Btrfs, Lvm]


@contextlib.contextmanager
def opened(directory: str) -> Iterator[int]:
    """Open a directory without following links. Raises BackupError."""
    try:
        descriptor = open_root(directory)
    except NotBeneath as error:
        raise BackupError(str(error)) from error
    except OSError as error:
        raise BackupError(f"{error.filename or directory}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Source:
    """What a volume is copied from. C(reason): why it is no snapshot although one was wanted."""

    descriptor: int
    snapshot: str = NONE
    reason: str = ""


@dataclass
class Taken:
    """A snapshot, or why it could not be made."""

    origin: Origin
    name: str
    lock: int | None
    problem: str = ""


@dataclass
class Snapshots:
    """Those of one run, by the device numbers of what they were made of."""

    kind: str = NONE
    size: str = ""
    places: Path = field(default_factory=lambda: Path(PLACES))
    taken: dict[int, Taken] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)  # why there is none
    problems: list[str] = field(default_factory=list)  # what could not be removed

    @contextlib.contextmanager
    def of(self, volumes: Sequence[Volume], *, dry: bool) -> Iterator[None]:
        """Make those that the volumes need, if they are wanted, and remove them in any case."""
        try:
            if self.kind != NONE:
                lvm = Volumes()
                for volume in volumes:
                    # What is wrong with a directory is said when it is copied.
                    with contextlib.suppress(BackupError), opened(volume.server_dir) as directory:
                        self._consider(volume, directory, lvm, dry=dry)
            yield
        finally:
            for each in self.taken.values():
                self._remove(each.origin, each.name, each.lock)
                each.origin.close()

    @contextlib.contextmanager
    def source(self, volume: Volume) -> Iterator[Source]:
        """What a volume is copied from. Raises BackupError."""
        with opened(volume.server_dir) as live:
            found = os.fstat(live)
            taken = self.taken.get(found.st_dev)
            if taken is None:
                late = "" if self.kind == NONE else "it was not there when the snapshots were made"
                reason = self.reasons.get(found.st_dev, late)
                if reason and self.kind != AUTO:
                    raise BackupError(f"no snapshot ({self.kind}) can be made: {reason}")
                yield Source(live, NONE, reason)
                return
            if taken.problem:
                raise BackupError(taken.problem)
            with _told(f"snapshot {taken.name}"):
                descriptor = taken.origin.open(taken.name, _inside(_mount_of(live), volume.server_dir))
            try:
                if os.fstat(descriptor).st_ino != found.st_ino:
                    raise BackupError(f"snapshot {taken.name} has another directory in place of {volume.server_dir}")
                yield Source(descriptor, taken.origin.kind)
            finally:
                os.close(descriptor)

    def _consider(self, volume: Volume, directory: int, lvm: Volumes, *, dry: bool) -> None:
        device = os.fstat(directory).st_dev
        if device in self.taken or device in self.reasons:
            return
        self.reasons[device] = ""
        try:
            with _told(volume.server_dir):
                found = self._origin(volume, directory, lvm)
        except BackupError as error:
            self.reasons[device] = str(error)
            return
        if self.kind not in (AUTO, found.kind):
            self.reasons[device] = f"it lies on {found.kind}"
        elif not dry:
            self.taken[device] = self._take(found)
            return
        found.close()

    def _origin(self, volume: Volume, directory: int, lvm: Volumes) -> Origin:
        """What a snapshot is made of. Raises BackupError when there can be none."""
        mount = _mount_of(directory)
        if mount.fstype == "btrfs":
            above, root = subvolume(directory)
            path = "/".join(volume.server_dir.split("/")[: -above or None]) or "/"
            return Btrfs(path, _inside(mount, path), root, mount_root(root))
        return lvm.origin(mount, self.size, self.places)

    def _take(self, origin: Origin) -> Taken:
        name, lock = "", None
        try:
            with _told(origin.what):
                for left in origin.left():
                    # A run that lives holds the lock.
                    if left.startswith(PREFIX):
                        self._remove(origin, left, self._lock(left))
                name = f"{PREFIX}{secrets.token_hex(6)}"
                lock = self._lock(name)
                origin.make(name)
        except BackupError as error:
            return Taken(origin, name, lock, str(error))
        return Taken(origin, name, lock)

    def _lock(self, name: str) -> int | None:
        """An open file that is locked, None when somebody else has it."""
        self.places.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.places / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _remove(self, origin: Origin, name: str, lock: int | None) -> None:
        """What stays is named, and removed by the next run."""
        if lock is None:
            return
        try:
            if name in origin.left():
                origin.remove(name)
            (self.places / f"{name}.lock").unlink()
        except (BackupError, NotBeneath) as error:
            self.problems.append(f"removal of snapshot {name} of {origin.what}: {error}")
        except OSError as error:
            self.problems.append(f"removal of snapshot {name} of {origin.what}: {_words(error)}")
        finally:
            os.close(lock)


def _mount_of(directory: int) -> Mount:
    """The mount that a directory was opened on. Raises BackupError."""
    number = mount_id(directory)
    for one in _mounts.read().mounts:
        if one.mount_id == number:
            return one
    raise BackupError("its mount is not in the table of mounts")


def _inside(mount: Mount, path: str) -> str:
    """A path as it is from the root of its file system: of that, a mount may show a part."""
    below = path if mount.path == "/" else path[len(mount.path) :]
    return f"{mount.root.rstrip('/')}/{below.strip('/')}".rstrip("/")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except NotBeneath as error:
        raise BackupError(f"{what}: {error}") from error
    except OSError as error:
        raise BackupError(f"{what}: {_words(error)}") from error


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
