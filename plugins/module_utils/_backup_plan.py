# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which volumes are backed up, on which host, with which objects, and who is stopped meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume
from ansible_collections.clusterkit.storage.plugins.module_utils._workloads import Users

ARGUMENTS: dict[str, Any] = {
    "storage_servers": {"type": "list", "elements": "dict", "default": []},
    "claims": {"type": "list", "elements": "str", "default": []},
    "claim_labels": {"type": "dict", "default": {}},
    "scale": {"type": "bool", "default": False},
    "commands": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "claim": {"type": "str", "required": True},
            "container": {"type": "str"},
            "before": {"type": "list", "elements": "str", "default": []},
            "after": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
        },
    },
}

Item = dict[str, Any]


def plan(listing: Listing, given: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Raises ValueError when nothing says which volumes are meant, or commands make no sense."""
    del host  # each step has its own
    claims, labels = given["claims"], given["claim_labels"]
    if listing.complete and not claims and not labels:
        raise ValueError(
            "the listing is of all volumes, and no selection never means all; give pv_info a selection, or names: "
            '["*"] if all are meant'
        )
    problems = command_problems(given["commands"])
    if problems:
        raise ValueError("; ".join(problems))
    users = Users(listing.pods, listing.workloads)
    objects = Objects(listing.objects)
    steps, refusals, found = [], [], set()
    for volume in listing.volumes:
        claim = objects.claim_of(volume)
        if claims and not any(fnmatchcase(volume.claim_name, pattern) for pattern in claims):
            continue
        if labels and not _has(claim, labels):
            continue
        found.add(volume.claim_name)
        made = _decide(volume, objects, users, given)
        if isinstance(made, str):
            refusals.append({"item": _item(volume), "reason": made})
        else:
            steps.append(made)
    refusals += [
        {"item": one, "reason": "is bound to no volume of the selection"}
        for one in claims
        if not any(fnmatchcase(name, one) for name in found)
    ]
    return _plan.make(
        "backup",
        cluster_uid=listing.cluster_uid,
        listed_at=listing.listed_at,
        request={name: given[name] for name in ("claims", "claim_labels", "scale", "commands")},
        steps=steps,
        refusals=refusals,
        unchanged=0,
    )


def command_problems(commands: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for number, one in enumerate(commands):
        if "/" not in one["claim"]:
            found.append(f"commands[{number}].claim: {one['claim']!r} is not of the form namespace/name")
        if not one["before"] and not one["after"]:
            found.append(f"commands[{number}]: says neither before nor after; expected a command, as a list of words")
        if one["timeout"] < 1:
            found.append(f"commands[{number}].timeout: {one['timeout']} is less than 1")
    return found


class Objects:
    """The objects of the listing, whole."""

    def __init__(self, objects: Sequence[Mapping[str, Any]]) -> None:
        self._found = {
            (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one for one in objects
        }

    def claim_of(self, volume: Volume) -> Mapping[str, Any] | None:
        """None also when the claim of that name has another volume by now."""
        if not volume.claim:
            return None
        found = self._found.get(("PersistentVolumeClaim", *volume.claim[:2]))
        return found if found and found["spec"].get("volumeName") == volume.name else None

    def of(self, volume: Volume) -> dict[str, Any]:
        found = {
            "claim": self.claim_of(volume),
            "volume": self._found.get(("PersistentVolume", "", volume.name)),
            "storage_class": self._found.get(("StorageClass", "", volume.storage_class)),
        }
        return {name: one for name, one in found.items() if one}


def _has(claim: Mapping[str, Any] | None, labels: Mapping[str, Any]) -> bool:
    there = ((claim or {}).get("metadata") or {}).get("labels") or {}
    return all(there.get(name) == str(value) for name, value in labels.items())


def _item(volume: Volume) -> str:
    return f"{volume.claim_name} ({volume.name})" if volume.claim else volume.name


def place_problem(volume: Volume) -> str:
    if not volume.server:
        return "is no NFS volume"
    return f"lies on {volume.server}:{volume.path}, which no share of storage_servers covers"


def _decide(volume: Volume, objects: Objects, users: Users, given: Mapping[str, Any]) -> Item | str:
    """The step, or why there is none."""
    place = ServerMap(given["storage_servers"]).find(volume.server, volume.path)
    if place is None:
        return place_problem(volume)
    namespace, claim = volume.claim[:2] if volume.claim else ("", "")
    workloads: list[dict[str, Any]] = []
    if given["scale"]:
        workloads, problem = users.to_stop(namespace, claim)
        if problem:
            return problem
    pods = users.pods(namespace, claim)
    # Who is stopped runs no command; all others that mount it have led to a refusal.
    command = None if given["scale"] else _command(volume, users, given["commands"])
    if isinstance(command, str):
        return command
    stopped = [f"{one['kind']} {one['name']}" for one in workloads]
    what = f"{', '.join(stopped)} stopped meanwhile" if stopped else "as it is, in use" if pods else "nobody uses it"
    if command:
        when = " and ".join(name for name in ("before", "after") if command[name])
        what = f"commands {when} in pod {command['pod']}, container {command['container']}"
    return {
        "item": _item(volume),
        "host": place.host,
        "precondition": {"uid": volume.uid, "resource_version": volume.resource_version},
        "before": f"{place.host}:{place.directory}",
        "after": "a new generation",
        "reason": what,
        "volume": {
            "name": volume.name,
            "namespace": namespace,
            "claim": claim,
            "server_dir": place.directory,
            "objects": objects.of(volume),
        },
        "workloads": workloads,
        "commands": [command] if command else [],
    }


def _command(volume: Volume, users: Users, commands: Sequence[Mapping[str, Any]]) -> Item | str | None:
    """What is run for a volume, and where; why that is not possible; None where nothing is wanted or nobody writes."""
    wanted = next((one for one in commands if volume.claim and fnmatchcase(volume.claim_name, one["claim"])), None)
    namespace, claim = volume.claim[:2] if volume.claim else ("", "")
    pod = users.writer(namespace, claim) if wanted else None
    if wanted is None or pod is None:
        return None
    container = wanted["container"] or pod["writers"][claim][0]
    if container not in pod["containers"]:
        return f"pod {namespace}/{pod['name']} has no container {container!r} in which to run a command"
    return {
        "namespace": namespace,
        "pod": pod["name"],
        "uid": pod["uid"],
        "container": container,
        **{name: wanted[name] for name in ("before", "after", "timeout")},
    }
