# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every NFS mount of a host with its health and the pod it belongs to, in bounded time, dead servers included."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _nfs_server
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_checks import NOT_BEGUN, Check, MountChecks
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable, split_source
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_server import Answer

Server = tuple[str, int]
# Where kubelet mounts volumes of pods, below its root (pkg/kubelet/kubelet_getters.go, pkg/volume/csi/csi_util.go,
# pkg/volume/util/subpath of kubernetes/kubernetes).
_POD_PATHS = (
    ("nfs", re.compile(r"pods/([^/]+)/volumes/kubernetes\.io~nfs/([^/]+)")),
    ("csi", re.compile(r"pods/([^/]+)/volumes/kubernetes\.io~csi/([^/]+)/mount")),
    ("subpath", re.compile(r"pods/([^/]+)/volume-subpaths/([^/]+)/[^/]+/[^/]+")),
)
# What a soft mount returns when it has given up: it is as little of an answer as none.
_GAVE_UP = frozenset({errno.EIO, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ECONNREFUSED})


def look(
    timeout: float,
    kubelet_root: str,
    *,
    read_table: Callable[[], MountTable] = _mounts.read,
    checks: MountChecks | None = None,
    ask: Callable[..., Answer] = _nfs_server.ask,
) -> dict[str, Any]:
    """Return `mounts`, `servers` and `automounts` of this host, within `timeout` seconds plus one.

    Raises OSError when the mount table cannot be read or no check can be started.
    """
    began = time.monotonic()
    deadline = began + timeout
    table = read_table()
    nfs = [mount for mount in table.mounts if mount.is_nfs]
    servers = sorted({mount.server for mount in nfs if mount.server is not None})
    checks = checks or MountChecks()
    # Half of the time is left to the servers: of a mount that is not tried they alone tell.
    checks.start([mount for mount in nfs if not _is_covered(table, mount)], began + timeout / 2)
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        asked = [pool.submit(ask, *server, timeout=max(0.001, deadline - time.monotonic())) for server in servers]
        found = checks.wait(deadline)
    answers = {server: answer.result() for server, answer in zip(servers, asked)}
    return describe(table, read_table(), found, answers, kubelet_root, timeout)


def describe(
    table: MountTable,
    now: MountTable,
    checks: Mapping[int, Check],
    answers: Mapping[Server, Answer],
    kubelet_root: str,
    timeout: float,
) -> dict[str, Any]:
    """Return the result from what was seen. What is mounted no longer (`now`) is left out."""
    still_there = {(mount.mount_id, mount.device) for mount in now.mounts}
    root = table.resolve(kubelet_root).rstrip("/")
    mounts = []
    for mount in table.mounts:
        if not mount.is_nfs or (mount.mount_id, mount.device) not in still_there:
            continue
        answer = answers.get(mount.server) if mount.server is not None else None
        check = checks.get(mount.mount_id)
        health, detail = health_of(check, answer, timeout)
        if check is None:
            detail = f"covered by {_cover(table, mount)}, so only its server was asked{detail and ': '}{detail}"
        mounts.append(
            {
                **_described(table, mount, root),
                "health": health,
                "latency": check.latency if check is not None else None,
                "detail": detail,
            }
        )
    return {
        "mounts": mounts,
        "servers": [
            {"address": address, "port": port, **vars(answer)} for (address, port), answer in sorted(answers.items())
        ],
        "automounts": [_trigger(table, mount) for mount in table.mounts if _is_trigger(mount)],
    }


def health_of(check: Check | None, answer: Answer | None, timeout: float) -> tuple[str, str]:
    """Return the health of a mount and the reason in words, from its check and from its server's answer."""
    if check is not None and check.error == 0:
        return "ok", ""
    if check is not None and check.error == errno.ESTALE:
        return "stale", "Stale file handle: the export was withdrawn, or its directory was removed and made again"
    if check is not None and check.error is not None and check.error not in _GAVE_UP:
        # The mount, or whoever forbids it, has answered.
        return "ok", os.strerror(check.error)
    silent = answer is not None and not answer.answers
    if check is None:
        return ("unreachable", _silence(answer)) if silent else ("ok", "")
    if check.error is not None:
        found = os.strerror(check.error)
    elif not check.begun:
        found = NOT_BEGUN
    elif check.earlier:
        found = "an earlier check of this mount has not come back, so none was started"
    else:
        found = f"no answer within {timeout:g} s"
    if silent:
        return "unreachable", f"{found}; its server does not answer either: {_silence(answer)}"
    if not check.begun:
        return "ok", found + ("" if answer is None else "; its server answers")
    return "hung", found + ("" if answer is None else ", though its server answers")


def _silence(answer: Answer | None) -> str:
    return answer.detail if answer is not None else ""


def _described(table: MountTable, mount: Mount, kubelet_root: str) -> dict[str, Any]:
    server, export = split_source(mount.source) or (None, None)
    versions = [option[len("vers=") :] for option in mount.super_options if option.startswith("vers=")]
    return {
        "path": mount.path,
        "source": mount.source,
        "server": server,
        "export": export,
        "address": mount.server_address,
        "version": versions[0] if versions else None,
        "fstype": mount.fstype,
        "mount_id": mount.mount_id,
        "parent_id": mount.parent_id,
        "major_minor": mount.device,
        "options": list(mount.options),
        "super_options": list(mount.super_options),
        "shares_superblock_with": sorted({other.path for other in table.sharing_superblock(mount)} - {mount.path}),
        "stacked": _is_covered(table, mount),
        "pod": pod_of(mount.path, kubelet_root),
    }


def pod_of(path: str, kubelet_root: str) -> dict[str, str] | None:
    """Return uid and volume of the pod that kubelet has made a mount for; None if it is no such mount."""
    if not path.startswith(kubelet_root + "/"):
        return None
    for kind, pattern in _POD_PATHS:
        found = pattern.fullmatch(path[len(kubelet_root) + 1 :])
        if found:
            return {"uid": found.group(1), "volume": found.group(2), "kind": kind}
    return None


def _is_covered(table: MountTable, mount: Mount) -> bool:
    return table.find(mount.path).top != mount


def _cover(table: MountTable, mount: Mount) -> str:
    """Return what hides a mount: the one on top of its path, or the one that holds the path now."""
    place = table.find(mount.path)
    above = place.top or place.inside
    return f"{above.source} ({above.fstype}) at {above.path}" if above is not None else "another mount"


def _is_trigger(mount: Mount) -> bool:
    # systemd keeps one for /proc/sys/fs/binfmt_misc, which is never NFS.
    return mount.fstype == "autofs" and not mount.path.startswith("/proc/")


def _trigger(table: MountTable, mount: Mount) -> dict[str, Any]:
    numbers = [option[len("timeout=") :] for option in mount.super_options if option.startswith("timeout=")]
    over = [other for other in table.below(mount) if other.is_nfs]
    return {
        "path": mount.path,
        "source": mount.source,
        "mount_id": mount.mount_id,
        "parent_id": mount.parent_id,
        "kind": next((kind for kind in ("direct", "indirect", "offset") if kind in mount.super_options), None),
        "idle_timeout": int(numbers[0]) if numbers and numbers[0].isdigit() else None,
        "mounted": [other.source for other in over],
    }
