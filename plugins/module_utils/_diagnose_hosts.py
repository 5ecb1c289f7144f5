# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook diagnose heard from hosts, as arguments of storage_diagnose; and its answer in lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _addresses
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    entries,
    get,
    mapping,
    number,
    text,
    texts,
)


def inputs(servers: Mapping[str, Any], nodes: Mapping[str, Any]) -> dict[str, Any]:
    """C(exports), C(directories) and C(mounts), and C(unheard): by host, why it said nothing."""
    found: dict[str, Any] = {"exports": [], "directories": [], "mounts": [], "unheard": {}}
    for name, said in (*servers.items(), *nodes.items()):
        if _error(said):
            found["unheard"][name] = _error(said)
    for name, said in servers.items():
        if not isinstance(get(said, "exports", "exports"), list):
            continue
        host = {"host": name, "addresses": _names(name, said)}
        answer = mapping(said, "exports")
        found["exports"].append({**host, **_exports(answer)})
        if isinstance(get(said, "found", "files"), list):
            found["directories"].append({**host, "directories": _directories(said)})
    for name, said in nodes.items():
        if isinstance(get(said, "mounts", "mounts"), list):
            answer = mapping(said, "mounts")
            live = {"mounts": entries(answer, "mounts"), "servers": entries(answer, "servers")}
            found["mounts"].append({"host": name, "addresses": _names(name, said), **live})
    return found


def _names(name: str, said: Any) -> list[str]:
    facts = {key[8:]: value for key, value in mapping(said, "facts").items() if key.startswith("ansible_")}
    return _addresses.of_host(name, text(said, "address"), facts)


def _error(said: Any) -> str:
    if not mapping(said):
        return "it was not asked"
    message = get(said, "error")
    return " ".join(message.split()) if isinstance(message, str) else ""


def _exports(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the server could not tell."""
    unknown = mapping(answer, "unavailable")
    found: dict[str, Any] = {}
    if "exports" not in unknown:
        found["exports"] = entries(answer, "exports")
    if isinstance(answer.get("versions"), list):
        found["versions"] = texts(answer, "versions")
    if number(answer, "threads") is not None:
        found["threads"] = number(answer, "threads")
    return found


def _directories(said: Any) -> list[dict[str, Any]]:
    """Of each path that was looked for, whether it is there, and whose it is."""
    there = {get(one, "path"): one for one in entries(said, "found", "files")}
    return [
        {"path": path, "exists": True, **{key: there[path].get(key) for key in ("uid", "gid", "mode")}}
        if path in there
        else {"path": path, "exists": False}
        for path in texts(said, "paths")
    ]


def lines(answer: Any, unheard: Mapping[str, Any]) -> list[str]:
    """The sentences, and below them what could not be learned."""
    told = []
    for one in entries(answer, "findings"):
        check = get(one, "check")
        probable = f" (probable; check {check})" if isinstance(check, str) and check else ""
        told.append(f"{get(one, 'sentence')}{probable}")
    told = told or ["Nothing is stuck."]
    for one in entries(answer, "unavailable"):
        told.append(f"Not known: {get(one, 'costs')}; this needs {get(one, 'verb')} on {get(one, 'resource')}.")
    told += [f"Not asked: {host}: {why}" for host, why in sorted(unheard.items())]
    return told
