# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host whose NFS mounts are brought to what is wanted: everything that is read from it and done to it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _files,
    _fstab,
    _holders,
    _mounts,
    _nfs_server,
    _nfsmount_conf,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._caller import Caller, CallerGoneError
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_checks import Check, MountChecks
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_commands import SEARCH_PATH
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_input import Wanted
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished, run

_VERSION_SECONDS = 10.0


class Machine:
    """What the module does to the host it runs on; tests put a simulated one in its place.

    Whatever changes something raises CallerGoneError, and changes nothing, once nobody waits for the result.
    """

    def __init__(self, caller: Caller | None = None) -> None:
        self._caller = caller

    def read_table(self) -> MountTable:
        return _mounts.read()

    def read_fstab(self) -> str:
        return _files.read_text(_fstab.FSTAB) or ""

    def write_fstab(self, content: str) -> None:
        self._need_caller()
        _files.replace_file(_fstab.FSTAB, content)

    def read_nfsmount_conf(self) -> dict[str, str]:
        return _nfsmount_conf.read_files()

    def write_nfsmount_conf(self, path: str, content: str | None) -> None:
        self._need_caller()
        if content is None:
            _files.remove_file(path)
            return
        Path(path).parent.mkdir(mode=0o755, exist_ok=True)
        _files.replace_file(path, content)

    def nfs_utils_version(self) -> tuple[int, ...] | None:
        """Return the version of nfs-utils, None where it is not installed."""
        if not self.can_mount_nfs():
            return None
        said = self.run(["mount.nfs", "-V"], _VERSION_SECONDS)
        found = re.search(r"nfs-utils (\d+(?:\.\d+)*)", said.stdout + said.stderr)
        return tuple(int(part) for part in found.group(1).split(".")) if found else None

    def run(self, argv: Sequence[str], timeout: float) -> Finished:
        self._need_caller()
        called_off = None if self._caller is None else self._is_called_off
        return run(argv, timeout=timeout, env={"PATH": SEARCH_PATH}, called_off=called_off)

    def can_mount_nfs(self) -> bool:
        return shutil.which("mount.nfs", path=SEARCH_PATH) is not None

    def has_systemd(self) -> bool:
        return Path("/run/systemd/system").is_dir()

    def is_directory(self, path: str) -> bool:
        return Path(path).is_dir()

    def has_entries(self, path: str) -> bool:
        with os.scandir(path) as entries:
            return next(entries, None) is not None

    def make_directory(self, path: str, mode: int, uid: int, gid: int) -> None:
        self._need_caller()
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            Path(path).mkdir(mode=0o700)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "the mount point is there, but is no directory", path) from None
        os.chown(path, uid, gid)
        Path(path).chmod(mode)

    def remove_directory(self, path: str) -> None:
        """Remove a directory; raises OSError if something is in it."""
        self._need_caller()
        Path(path).rmdir()

    def server_answers(self, address: str, port: int, timeout: float) -> bool:
        return _nfs_server.answers(address, port, timeout=timeout)

    def check(self, mounts: Sequence[Mount], timeout: float) -> dict[int, Check]:
        """Return by mount id whether the mounts answer; only for mounts whose server does."""
        checks, deadline = MountChecks(), time.monotonic() + timeout
        checks.start(mounts, deadline)
        return checks.wait(deadline)

    def holders(self, path: str) -> list[str]:
        return _holders.processes_in(path)

    def _is_called_off(self) -> bool:
        return self._caller is not None and self._caller.is_gone

    def _need_caller(self) -> None:
        if self._is_called_off():
            raise CallerGoneError


def problems_of_host(machine: Machine, items: Sequence[Wanted]) -> list[str]:
    """Return what makes the whole input impossible on this host: a missing program, unknown users and groups."""
    found = []
    if any(item.state == "mounted" for item in items) and not machine.can_mount_nfs():
        found.append("mount.nfs is not installed here; it comes with nfs-common (Debian) or nfs-utils")
    for index, item in enumerate(items):
        for name, lookup in (("owner", user_id), ("group", group_id)):
            value = getattr(item, name)
            try:
                lookup(value)
            except KeyError:
                found.append(f'mounts[{index}].{name}: there is no {name} "{value}" here')
        if item.automount and item.state == "mounted" and not machine.has_systemd():
            found.append(f"mounts[{index}].automount: systemd does not run here")
    return found


def user_id(name: str | None) -> int:
    if name is None:
        return 0
    return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid


def group_id(name: str | None) -> int:
    if name is None:
        return 0
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
