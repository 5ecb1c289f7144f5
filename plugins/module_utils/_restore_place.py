# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put what was restored in its place, and what was there into quarantine, so that a crash leaves the one or the other.

What is restored lies in `<base>/.clusterkit/restore/<name>/data`, on the file system of the volume; restore.json
beside it says how far it is. The kernel exchanges two names in one step (RENAME_EXCHANGE of rename(2)), so that a
volume, or a file of it, is never missing. A directory that is exported or a mount point has to stay: there each name
in it is exchanged, and a run that was killed between two of them is finished by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import stat
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _own_folder, _tree
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OWN,
    NotBeneath,
    kernel,
    look,
    open_below,
    rename_to_free_name,
    sync,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import (
    DATA,
    MANIFEST,
    Entry,
    Folder,
    FolderError,
    Share,
    names_in,
    slug,
    timestamp,
    write_json,
    write_new,
)

STAGES, STATE, LOCK = "restore", "restore.json", "lock"
RESTORING, PLACING = "restoring", "placing"
WHOLE, CONTENT, PATHS = "directory", "content", "paths"
_EXCHANGE = 2
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
            if state["kind"] == "Restore" and state["schema"] == _own_folder.SCHEMA:
                return dict(state)
            what = f"has schema {state['schema']!r}"
        except (ValueError, KeyError, TypeError) as error:
            what = f"cannot be read ({error})"
        raise BackupError(f"{STATE} of {self.name} {what}; expected schema {_own_folder.SCHEMA}")

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
            removal = _tree.remove_content(descriptor)
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


# --- placing -----------------------------------------------------------------------------------------------


def place(target: Target, stage: Stage, record: Mapping[str, Any]) -> str:
    """Put the restored data in its place; return the name of the quarantined folder, "" when nothing was there.

    `record` is the state of the stage so far. Raises BackupError, OSError, NotBeneath; then either nothing has
    changed, or the next run goes on from here.
    """
    folder = target.folder
    data = stage.data()
    if data is None:
        raise AssertionError("it has just been verified")
    live = _look_at(target)
    if live is not None and not stat.S_ISDIR(live.st_mode):
        raise BackupError(f"{target.directory} is no directory")
    if target.scope == PATHS:
        _check_ways(target, record["paths"])
    entry_name = ""
    if live is not None:
        entry_name = _make_entry(target, live, record)
    try:
        stage.write({
            **record, "state": PLACING, "entry": entry_name, "inode": data.st_ino,
            "names": _names(target, stage, record),
            "times": [data.st_atime_ns, data.st_mtime_ns],
        })  # fmt: skip
    except BaseException:
        _forget(folder, entry_name)
        raise
    finish(target, stage)
    return entry_name


def finish(target: Target, stage: Stage) -> bool:
    """Bring a placement to its end; tell whether the data is in its place. Raises OSError, NotBeneath, BackupError."""
    state = stage.read()
    if state is None:
        raise AssertionError("written before")
    done = _finish_whole(target, stage, state) if target.scope == WHOLE else _finish_names(target, stage, state)
    if done:
        stage.remove()
    return done


def _check_ways(target: Target, paths: Sequence[str]) -> None:
    """Raises NotBeneath when something else than a directory is on the way to a path, before anything is changed."""
    live = open_below(target.folder.base, target.parts)
    try:
        for path in paths:
            above = path.split("/")[:-1]
            for depth in range(1, len(above) + 1):
                try:
                    os.close(open_below(live, above[:depth]))
                except FileNotFoundError:
                    break
                except NotADirectoryError as error:
                    raise NotBeneath(f"{'/'.join(above[:depth])} is no directory") from error
    finally:
        os.close(live)


def give_up(target: Target, stage: Stage) -> None:
    """Put what could not be placed into quarantine, beside what was: an older version may be among it."""
    state = stage.read()
    if state is None or target.scope == WHOLE:
        return
    with _open_entry(target, state) as entry:
        data = open_below(entry.descriptor, [DATA])
        try:
            rename_to_free_name(stage.descriptor, DATA, data, f"{OWN}-not-placed-{int(time.time())}")
            sync(data)
        finally:
            os.close(data)
    stage.remove()


def _names(target: Target, stage: Stage, record: Mapping[str, Any]) -> dict[str, int]:
    """What will be exchanged, with the inodes by which a later run knows what it was."""
    if target.scope == WHOLE:
        return {}
    data = open_below(stage.descriptor, [DATA])
    try:
        paths = list(record["paths"]) or list(names_in(data))
        found = {}
        for path in paths:
            *above, name = path.split("/")
            parent = open_below(data, above)
            try:
                there = look(parent, name)
            finally:
                os.close(parent)
            if there is None:
                raise BackupError(f"{path!r} was not restored")
            found[path] = there.st_ino
        return found
    finally:
        os.close(data)


def _look_at(target: Target) -> os.stat_result | None:
    if target.scope != WHOLE:
        descriptor = open_below(target.folder.base, target.parts)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
    parent = open_below(target.folder.base, target.parts[:-1])
    try:
        return look(parent, target.parts[-1])
    finally:
        os.close(parent)


def _make_entry(target: Target, live: os.stat_result, record: Mapping[str, Any]) -> str:
    """Make the folder in quarantine, with its manifest, before anything is moved."""
    folder = target.folder
    now = folder.places.now()
    entry = folder.make_entry(_own_folder.entry_name(now, target.volume, target.directory, live.st_ino))
    with entry:
        write_new(entry.descriptor, MANIFEST, {
            "schema": _own_folder.SCHEMA,
            "kind": "Manifest",
            "at": timestamp(now),
            "by": None,
            "owner": None,
            "cluster_uid": None,
            "plan": None,
            "step": None,
            "reason": f"replaced by generation {record['generation']} of {record['volume']}",
            "share": target.share.key,
            "below": target.directory[len(target.share.path):].strip("/"),
            "directory": target.directory,
            "scope": target.scope,
            "device": live.st_dev,
            "inode": live.st_ino,
            "volume": target.volume,
            "objects": None,
            "quarantined_at": timestamp(now),
            "controller_time": None,
            "uid": live.st_uid,
            "gid": live.st_gid,
            "mode": f"{stat.S_IMODE(live.st_mode):04o}",
            "entry": entry.name,
        })  # fmt: skip
        if target.scope != WHOLE:
            os.mkdir(DATA, 0o700, dir_fd=entry.descriptor)
        sync(entry.descriptor)
    sync(folder.trash)
    return entry.name


def _forget(folder: Folder, name: str) -> None:
    """Remove an entry that holds nothing."""
    with contextlib.suppress(OSError, FolderError, NotBeneath):
        entry = folder.open_entry(name) if name else None
        if entry is not None:
            with entry:
                if entry.data() is not None:
                    os.rmdir(DATA, dir_fd=entry.descriptor)
                folder.remove_entry(entry)


def _open_entry(target: Target, state: Mapping[str, Any]) -> Entry:
    entry = target.folder.open_entry(state["entry"])
    if entry is None:
        raise BackupError(f"{state['entry']} is not in quarantine any more")
    return entry


def _finish_whole(target: Target, stage: Stage, state: Mapping[str, Any]) -> bool:
    parent = open_below(target.folder.base, target.parts[:-1])
    try:
        name = target.parts[-1]
        live, data = look(parent, name), stage.data()
        if live is not None and live.st_ino != state["inode"] and data is not None and data.st_ino == state["inode"]:
            if not state["entry"]:
                raise BackupError(f"{target.directory} has been made by somebody else meanwhile")
            if not exchange(stage.descriptor, DATA, parent, name):
                # A file system without exchange: the volume is missing between the two calls, and no longer.
                with _open_entry(target, state) as entry:
                    rename_to_free_name(parent, name, entry.descriptor, DATA)
                live = None
        if live is None and data is not None and data.st_ino == state["inode"]:
            rename_to_free_name(stage.descriptor, DATA, parent, name)
        live, data = look(parent, name), stage.data()
        if live is None or live.st_ino != state["inode"]:
            return False
        if data is not None:
            with _open_entry(target, state) as entry:
                rename_to_free_name(stage.descriptor, DATA, entry.descriptor, DATA)
                sync(entry.descriptor)
        sync(parent)
        sync(stage.descriptor)
        return True
    finally:
        os.close(parent)


def _finish_names(target: Target, stage: Stage, state: Mapping[str, Any]) -> bool:
    with contextlib.ExitStack() as stack:
        live = open_below(target.folder.base, target.parts)
        stack.callback(os.close, live)
        entry = stack.enter_context(_open_entry(target, state))
        old = open_below(entry.descriptor, [DATA])
        stack.callback(os.close, old)
        new = open_below(stage.descriptor, [DATA])
        stack.callback(os.close, new)
        for path, inode in state["names"].items():
            _exchange_path(live, new, old, path, inode)
        if target.scope == CONTENT:
            for name in list(names_in(live)):
                if name not in state["names"] and name not in target.keep:
                    with contextlib.suppress(FileNotFoundError):
                        rename_to_free_name(live, name, old, name)
            _copy_attributes(new, live)
            os.utime(live, ns=tuple(state["times"]))  # before it was emptied
        for descriptor in (live, old, new):
            sync(descriptor)
    return True


def _exchange_path(live: int, new: int, old: int, path: str, inode: int) -> None:
    *above, name = path.split("/")
    with contextlib.ExitStack() as stack:
        source = open_below(new, above)
        stack.callback(os.close, source)
        target = _open_or_make(live, new, above)
        stack.callback(os.close, target)
        staged = look(source, name)
        if staged is not None and staged.st_ino == inode:
            if look(target, name) is not None and not exchange(source, name, target, name):
                away = _open_or_make(old, live, above)
                stack.callback(os.close, away)
                rename_to_free_name(target, name, away, name)
            if look(source, name) is not None and look(target, name) is None:
                rename_to_free_name(source, name, target, name)
            staged = look(source, name)
        if staged is not None:
            away = _open_or_make(old, new, above)
            stack.callback(os.close, away)
            rename_to_free_name(source, name, away, name)
            sync(away)
        sync(target)


def _open_or_make(root: int, like: int, parts: Sequence[str]) -> int:
    """Open a directory below another one; what is missing of it is made with the attributes that it has elsewhere."""
    for number, name in enumerate(parts):
        parent = open_below(root, parts[:number])
        try:
            if look(parent, name) is None:
                os.mkdir(name, 0o700, dir_fd=parent)
                made = open_below(parent, [name])
                try:
                    model = open_below(like, parts[: number + 1])
                    try:
                        _copy_attributes(model, made)
                    finally:
                        os.close(model)
                finally:
                    os.close(made)
        finally:
            os.close(parent)
    return open_below(root, parts)


def _copy_attributes(source: int, target: int) -> None:
    """Owner, extended attributes (ACLs among them), mode and times of a directory."""
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    wanted = {name: os.getxattr(source, name) for name in _attribute_names(source)}
    for name in _attribute_names(target):
        if name not in wanted:
            os.removexattr(target, name)
    for name, value in wanted.items():
        os.setxattr(target, name, value)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _attribute_names(descriptor: int) -> list[str]:
    try:
        # The label of SELinux belongs to the place.
        return [name for name in os.listxattr(descriptor) if name != "security.selinux"]
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise


def exchange(source: int, name: str, target: int, other: str) -> bool:
    """Exchange two names in one step; False where the file system or the C library cannot."""
    if not kernel().noreplace:
        return False
    status = kernel().libc.renameat2(
        ctypes.c_int(source),
        ctypes.c_char_p(os.fsencode(name)),
        ctypes.c_int(target),
        ctypes.c_char_p(os.fsencode(other)),
        ctypes.c_uint(_EXCHANGE),
    )
    if status == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), name)


def kept_names(scope: str, *, mount_point: bool) -> tuple[str, ...]:
    """Names in a directory that are not the volume's."""
    if scope == WHOLE:
        return ()
    return (OWN, "lost+found") if mount_point else (OWN,)


def new_state(target: Target, volume: str, generation: str, paths: Sequence[str]) -> dict[str, Any]:
    return {
        "schema": _own_folder.SCHEMA,
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
