# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the code for exports finds on a host: its files, file systems and names, and what its kernel and tools know."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_mounts,
    _export_options,
    _files,
    _fstab,
    _mounts,
    _process,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._export_mounts import Mounts

SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
INSECURE_BIT = 0x0002  # NFSEXP_INSECURE_PORT


@dataclass(frozen=True)
class Places:
    """Where a server keeps its exports."""

    exports: str = "/etc/exports"
    folder: str = "/etc/exports.d"
    table: str = "/var/lib/nfs/etab"
    features: str = "/proc/fs/nfsd/export_features"
    lock: str = "/run/clusterkit.storage.exports.lock"
    mountinfo: str = _mounts.MOUNTINFO
    fstab: str = _fstab.FSTAB
    units: str = "/etc/systemd/system"
    path: str = SYSTEM_PATH  # where exportfs, rpc.mountd and systemctl are looked for


def exports_files(places: Places) -> dict[str, str]:
    """Return the content of all files that exportfs reads."""
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = sorted(os.listdir(places.folder))  # noqa: PTH208 - names are wanted, not paths
    paths = [places.exports]
    paths += [f"{places.folder}/{name}" for name in names if name.endswith(".exports") and name[0] != "."]
    texts = {}
    for path in paths:
        if Path(path).is_file():
            text = _files.read_text(path)
            if text is not None:
                texts[path] = text
    return texts


def flavor_flags(places: Places) -> frozenset[str]:
    """Return which flags the kernel keeps for each security flavor."""
    features = _files.read_text(places.features)
    if features is not None:
        with contextlib.suppress(IndexError, ValueError):
            if not int(features.split()[1], 16) & INSECURE_BIT:
                return _export_options.FLAVOR_FLAGS_OLD
    return _export_options.FLAVOR_FLAGS


def nfs_utils_version(path: str, timeout: float) -> tuple[int, ...] | None:
    """Return the version of nfs-utils, None when it is not installed or does not say."""
    mountd = shutil.which("rpc.mountd", path=path)
    if mountd is None:
        return None
    finished = _process.run([mountd, "-v"], timeout=timeout)
    match = re.search(r"version (\d+(?:\.\d+)*)", finished.stdout + finished.stderr)
    return tuple(int(part) for part in match.group(1).split(".")) if match else None


def resolve(names: Sequence[str], timeout: float) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the addresses of names, and why others have none, within `timeout` seconds.

    Canonical names are among the names returned: exportfs writes these into its table.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, str, list[str], str]] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)

    def work() -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                found = socket.getaddrinfo(name, None, 0, 0, socket.IPPROTO_UDP, socket.AI_CANONNAME)
                answers.put((name, found[0][3], sorted({str(entry[4][0]) for entry in found}), ""))
            except (OSError, UnicodeError) as error:
                answers.put((name, "", [], getattr(error, "strerror", None) or str(error)))

    # getaddrinfo knows no deadline: threads that nobody waits for at the end.
    for _number in range(min(16, len(names))):
        threading.Thread(target=work, daemon=True).start()
    deadline = time.monotonic() + timeout
    addresses: dict[str, list[str]] = {}
    failed = dict.fromkeys(names, f"no answer within {timeout:g} seconds")
    for _name in names:
        try:
            name, canonical, found, problem = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if problem:
            failed[name] = problem
        else:
            addresses[name] = found
            addresses.setdefault(canonical.lower() or name, found)
            del failed[name]
    return addresses, failed


def mounts_of(places: Places, paths: Iterable[str]) -> Mounts:
    """Look at the mounts and, of those that these paths lie on, whether they have a device of their own."""
    table = _mounts.MountTable(_mounts.parse(_files.read_text(places.mountinfo) or ""))
    mounts = Mounts(table, _export_mounts.at_boot(_files.read_text(places.fstab) or ""))
    own = set()
    for point in _export_mounts.mount_points(paths, mounts):
        mount = mounts.under(point)
        with contextlib.suppress(OSError):
            # A network file system has its own device, and looking at it may take for ever.
            if (mount is not None and mount.may_hang) or _device(point) != _device(str(Path(point).parent)):
                own.add(point)
    return replace(mounts, own_device=frozenset(own))


def file_systems(mounts: Mounts, paths: Iterable[str]) -> list[dict[str, Any]]:
    """Return the file systems below paths, each once. Size and free space only where asking for them cannot hang."""
    found = {}
    for mount in map(mounts.under, paths):
        if mount is None or mount.path in found:
            continue
        facts: dict[str, Any] = {"mount_point": mount.path, "type": mount.fstype, "source": mount.source}
        facts.update(quotas=_export_mounts.quotas(mount), size=None, available=None)
        if not mount.may_hang:
            with contextlib.suppress(OSError):
                room = os.statvfs(mount.path)
                facts.update(size=room.f_blocks * room.f_frsize, available=room.f_bavail * room.f_frsize)
        found[mount.path] = facts
    return [found[path] for path in sorted(found)]


def _device(path: str) -> int:
    return os.lstat(path).st_dev
