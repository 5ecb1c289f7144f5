# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks cleanup, undelete, purge and reclaim hand from one host to the next, and say at their end."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._paths import covers

_FINE = ("changed", "unchanged")
Result = Mapping[str, Any]


def lease_owner(_nothing: object = None) -> dict[str, Any]:
    """Who works: the process of ansible-playbook, of which the one that evaluates this is a child."""
    return {
        "controller": _text("/etc/machine-id") or platform.node() or "controller",
        "boot_id": _text("/proc/sys/kernel/random/boot_id") or "unknown",
        "pid": os.getppid(),
    }


def dead_pids(shares: Iterable[Mapping[str, Any]], owner: Mapping[str, Any]) -> list[int]:
    """Those of this controller that hold a lease and have ended. C(shares): as volume_dirs_info tells them."""
    found = set()
    for share in shares:
        holder = (share.get("lease") or {}).get("owner") or {}
        same = (holder.get("controller"), holder.get("boot_id")) == (owner["controller"], owner["boot_id"])
        if same and isinstance(holder.get("pid"), int) and not _lives(holder["pid"]):
            found.add(holder["pid"])
    return sorted(found)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def shares_of(servers: Iterable[Mapping[str, Any]], host: str) -> list[str]:
    """The roots of the shares that a host holds, by storage_servers."""
    return sorted(
        {
            str(share["server_path"]).rstrip("/") or "/"
            for one in servers
            if (one.get("host") or one["name"]) == host
            for share in one.get("shares") or []
        }
    )


def shares_in_use(inputs: Mapping[str, Any], host: str) -> list[str]:
    """The roots of the shares of a host in which volumes or provisioners of the inventory lie."""
    roots = shares_of(inputs["storage_servers"], host)
    found = set()
    for use in inputs["uses"]:
        fitting = [root for root in roots if use["host"] == host and covers(root, use["path"])]
        if fitting:
            found.add(max(fitting, key=len))
    return sorted(found)


def listings(hosts: Iterable[str], folder: str, name: str) -> list[dict[str, str]]:
    """The files that tasks/directories/list.yml fetched from the hosts, as storage_plan takes them."""
    return [{"host": host, "path": f"{folder}/{name}-{host}.jsonl"} for host in hosts]


def mounts(results: Mapping[str, Result]) -> str:
    """What each host mounts, as lines for storage_plan. C(results): what nfs_mounts_info returned, by host."""
    return "".join(
        json.dumps(
            {
                "name": host,
                "problem": "" if "mounts" in result else str(result.get("msg") or "no answer"),
                "sources": [one["source"] for one in result.get("mounts") or []],
            }
        )
        + "\n"
        for host, result in results.items()
    )


def done(plan: Mapping[str, Any], results: Mapping[str, Result], state: str) -> list[str]:
    """Names of volumes whose directory each host has brought to C(state).

    C(results): what volume_dirs returned, by host. Of what was unchanged it may be silent; of what was not done never.
    A host without a result, or whose run did not come to its steps, has done nothing.
    """
    return [
        step["item"]
        for step in plan["steps"]
        if step["module"] == "volume_dirs"
        and step["state"] == state
        and step.get("volume")
        and step["id"] in fine(results.get(step["host"]))
    ]


def fine(result: Result | None) -> list[str]:
    """Ids of the steps that a host was asked for and has done, or found done. C(result): as in C(done)."""
    if not result or "directories" not in result:
        return []
    told = {item["id"]: item["state"] for item in result["directories"]}
    return [number for number in result.get("asked") or () if told.get(number, "unchanged") in _FINE]


def to_do(plan: Mapping[str, Any], removed: Result, host: str, state: str, waits: bool = True) -> list[str]:
    """Ids of the steps on directories of a host that are to be done.

    With C(waits), what hangs on a volume of this plan is done as far as C(removed), what pv_cleanup returned, says that
    it is certain about its object; all else (orphans, archives, what an earlier run has left) is as planned.
    """
    volumes = {step["item"] for step in plan["steps"] if waits and step["module"] == "pv_cleanup"}
    own = [
        step["id"]
        for step in plan["steps"]
        if step["module"] == "volume_dirs"
        and step["host"] == host
        and step["state"] == state
        and not (step["item"] in volumes and step.get("volume"))
    ]
    told = ((removed.get("directories") or {}) if isinstance(removed.get("directories"), Mapping) else {}).get(state)
    return own + list((told or {}).get(host, []))


def problems(results: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """What failed where, in words. C(results): by host and state, what modules returned."""
    return [
        f"{host}, {state}: {one.get('msg') or 'failed'}"
        for host, found in results.items()
        for state, one in found.items()
        if one.get("failed") or one.get("unreachable")
    ]
