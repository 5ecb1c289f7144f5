# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put what was restored in its place, and what was there into quarantine, so that a crash leaves the one or the other.

The kernel exchanges two names in one step (RENAME_EXCHANGE of rename(2)), so that a
volume, or a file of it, is never missing. A directory that is exported or a mount point has to stay: there each name
in it is exchanged, and a run that was killed between two of them is finished by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OWN,
    NotBeneath,
    exchange,
    look,
    open_below,
    rename_to_free_name,
    sync,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import DATA, MANIFEST, Entry, entry_name
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import SCHEMA, FolderError, write_new
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Folder, names_in, timestamp
from ansible_collections.clusterkit.storage.plugins.module_utils._restore_stage import (
    CONTENT,
    PATHS,
    PLACING,
    WHOLE,
    Stage,
    Target,
)

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
    entry = folder.make_entry(entry_name(now, target.volume, target.directory, live.st_ino))
    with entry:
        write_new(entry.descriptor, MANIFEST, {
            "schema": SCHEMA,
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
        _keep_times(parent, name, state["times"])
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
            if look(target, name) is not None:
                if exchange(source, name, target, name):
                    _keep_times(target, name, (staged.st_atime_ns, staged.st_mtime_ns))
                else:
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


def _keep_times(parent: int, name: str, times: Sequence[int]) -> None:
    """XFS gives a directory that is exchanged a new time (xfs_cross_rename of the kernel)."""
    os.utime(name, ns=(times[0], times[1]), dir_fd=parent, follow_symlinks=False)


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
