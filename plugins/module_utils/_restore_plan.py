# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which generation is restored into which directory, and which objects have to be there afterwards.

A claim that gets its own backup back keeps volume and directory; what is missing of class, volume and claim is made
as it was recorded. A new claim gets a volume of its own, plain NFS with policy Retain, beside the old directory or
wherever it is wanted.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _plan
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_plan import place_problem
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import Place, ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PROVISIONED_BY, Volume
from ansible_collections.clusterkit.storage.plugins.module_utils._workloads import Users

RECORDED, RETAIN = "recorded", "Retain"
WANTED: dict[str, Any] = {
    "namespace": {"type": "str", "required": True},
    "claim": {"type": "str"},
    "name": {"type": "str"},
    "generation": {"type": "str", "default": _backup.LATEST},
    "paths": {"type": "list", "elements": "str", "default": []},
    "to_namespace": {"type": "str"},
    "to_claim": {"type": "str"},
    "to_name": {"type": "str"},
    "to_server": {"type": "str"},
    "to_path": {"type": "str"},
}
ARGUMENTS: dict[str, Any] = {
    "backups": {"type": "path", "required": True},
    "volumes": {"type": "list", "elements": "dict", "default": [], "options": WANTED},
    "claims": {"type": "list", "elements": "str", "default": []},
    "namespaces": {"type": "list", "elements": "str", "default": []},
    "storage_servers": {"type": "list", "elements": "dict", "default": []},
    "scale": {"type": "bool", "default": False},
    "policy": {"type": "str", "choices": [RECORDED, RETAIN], "default": RECORDED},
}

Item = dict[str, Any]


class _RefusedError(Exception):
    """Why something is not restored, in words for a person."""


def plan(listing: Listing, given: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Raises ValueError when the input makes no sense, or nothing says what is meant."""
    del host  # each step has its own
    backups = load_backups(given["backups"])
    if not given["volumes"] and not given["claims"] and not given["namespaces"]:
        raise ValueError(
            "restore: neither volumes nor claims nor namespaces say what is meant; no selection never means all"
        )
    problems = [
        problem
        for number, one in enumerate(given["volumes"])
        for problem in _backup.paths_problems(f"volumes[{number}]", one.get("paths") or [])
    ] + [f"claims: {one!r} is not of the form namespace/name" for one in given["claims"] if one.count("/") != 1]
    if problems:
        raise ValueError("; ".join(problems))
    wanted, refusals = list(given["volumes"]), []
    wanted += [dict(zip(("namespace", "claim"), one.split("/"))) for one in given["claims"]]
    for namespace in given["namespaces"]:
        found = backups.claims(namespace)
        wanted += [{"namespace": namespace, "claim": claim} for claim in found]
        if not found:
            refusals.append({"item": namespace, "reason": f"there is no backup of it{backups.silent()}"})
    cluster = _Cluster(listing, given)
    steps: list[Item] = []
    for one in wanted:
        label = f"{one['namespace']}/{one.get('claim') or one.get('name') or ''}"
        try:
            step = cluster.step(one, backups)
            twin = next((other for other in steps if _same_place(other, step)), None)
            if twin:
                raise _RefusedError(f"would be restored to the same place as {twin['item']}")
            steps.append(step)
        except _RefusedError as error:
            refusals.append({"item": label, "reason": str(error)})
    return _plan.make(
        "restore",
        cluster_uid=listing.cluster_uid,
        listed_at=listing.listed_at,
        request={name: given[name] for name in ("volumes", "claims", "namespaces", "scale", "policy")},
        steps=steps,
        refusals=refusals,
        unchanged=0,
    )


def _same_place(one: Item, other: Item) -> bool:
    places = [(step["host"], f"{step['volume']['server_dir']}/") for step in (one, other)]
    lies_in = places[0][1].startswith(places[1][1]) or places[1][1].startswith(places[0][1])
    return bool(one["claim"] == other["claim"] or (places[0][0] == places[1][0] and lies_in))


# --- what there is of backups ------------------------------------------------------------------------------


class Backups:
    """What the hosts told of their repositories."""

    def __init__(self, hosts: Sequence[Mapping[str, Any]]) -> None:
        self.hosts = {one["host"]: list(one.get("generations") or []) for one in hosts}
        self._problems = {one["host"]: one["problem"] for one in hosts if one.get("problem")}

    def silent(self) -> str:
        """Whose repositories are not known, for a message."""
        return "".join(f"; {host} cannot tell: {problem}" for host, problem in sorted(self._problems.items()))

    def claims(self, namespace: str) -> list[str]:
        every = [one for found in self.hosts.values() for one in found]
        return sorted({one["claim"] for one in every if one["namespace"] == namespace and one["claim"]})

    def find(self, wanted: Mapping[str, Any], host: str | None = None) -> Item:
        """The generation that is meant, with its objects; on this host, or on whichever has it."""
        hosts = self.hosts if host is None else {host: self.hosts.get(host, [])}
        fitting = [
            one
            for found in hosts.values()
            for one in found
            if one["namespace"] == wanted["namespace"]
            and (not wanted.get("claim") or one["claim"] == wanted["claim"])
            and (not wanted.get("name") or one["name"] == wanted["name"])
        ]
        where = f" in the repository of {host}" if host else ""
        if not fitting:
            raise _RefusedError(f"there is no backup of it{where}{self.silent()}")
        generation = wanted.get("generation") or _backup.LATEST
        if generation == _backup.LATEST:
            meant = [one for one in fitting if one["latest"]]
        else:
            meant = [one for one in fitting if one["generation"].startswith(generation)]
        if not meant:
            last = ", ".join(one["generation"] for one in sorted(fitting, key=lambda one: str(one["time"]))[-3:])
            raise _RefusedError(f"there is no good generation {generation!r}{where}; the last ones are {last}")
        # A claim that was made anew has had several volumes: the newest is meant.
        newest: Item = max(meant, key=lambda one: str(one["time"]))
        if generation != _backup.LATEST and len({one["generation"] for one in meant}) > 1:
            raise _RefusedError(f"several generations begin with {generation!r}; write more of it")
        return newest


def load_backups(path: str) -> Backups:
    """Read what the hosts told; raises ValueError when this is no such file."""
    try:
        return Backups(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"backups: {path} does not hold what the hosts told of their repositories: {error}") from error


# --- what there is of the cluster --------------------------------------------------------------------------


class _Cluster:
    def __init__(self, listing: Listing, given: Mapping[str, Any]) -> None:
        if not listing.complete:
            raise ValueError("the listing is not of all volumes; make it without a selection, with plan_for: restore")
        self._given = given
        self._servers = given["storage_servers"]
        self._map = ServerMap(self._servers)
        self._volumes = {one.name: one for one in listing.volumes}
        self._claims = {(one["namespace"], one["name"]): one for one in listing.claims}
        self._classes = listing.classes
        self._users = Users(listing.pods, listing.workloads)

    def step(self, wanted: Mapping[str, Any], backups: Backups) -> Item:
        """Raises _RefusedError."""
        generation = backups.find(wanted)
        recorded = _recorded(generation)
        old = Volume.of(recorded["volume"])
        namespace = wanted.get("to_namespace") or generation["namespace"]
        claim = wanted.get("to_claim") or generation["claim"]
        elsewhere = any(wanted.get(name) for name in ("to_server", "to_path", "to_name"))
        is_new = elsewhere or (namespace, claim) != (generation["namespace"], generation["claim"])
        if is_new and not claim:
            raise _RefusedError("it had no claim; say to_namespace and to_claim")
        target = self._new_volume(wanted, recorded, namespace, claim) if is_new else recorded["volume"]
        there = self._volumes.get(target["metadata"]["name"])
        volume = Volume.of(target) if there is None else there
        self._check_volume(volume, there, namespace, claim, is_new=is_new)
        claimed = self._check_claim(namespace, claim, volume.name) if claim else None
        place = self._map.find(volume.server, volume.path)
        if place is None:
            raise _RefusedError(place_problem(volume))
        self._check_place(volume, place)
        # The host of the directory is the one that restores: its repository must have it.
        generation = backups.find({**wanted, "generation": generation["generation"]}, place.host)
        workloads = self._workloads(namespace, claim)
        policy = RETAIN if is_new or self._given["policy"] == RETAIN else old.policy
        objects = self._objects(recorded, target, namespace, claim, there=there, claimed=claimed)
        return {
            "item": f"{namespace}/{claim}" if claim else volume.name,
            "host": place.host,
            "precondition": {
                "generation": generation["generation"],
                **({"uid": there.uid} if there else {}),
                **({"claim_uid": claimed["uid"]} if claimed else {}),
            },
            "before": f"{place.host}:{place.directory}, " + (there.phase if there else "no volume"),
            "after": f"generation {generation['generation'][:16]} of {generation['time']}",
            "reason": _reason(generation, objects, workloads, wanted.get("paths") or []),
            "volume": {
                "name": generation["name"],
                "namespace": generation["namespace"],
                "generation": generation["generation"],
                "server_dir": place.directory,
                "share": place.share,
                "paths": list(wanted.get("paths") or []),
                "target_name": volume.name,
                **({"uid": there.uid} if there else {}),
            },
            "claim": {"namespace": namespace, "name": claim, "volume": volume.name},
            "objects": objects,
            "policy": policy,
            "workloads": workloads,
        }

    def _new_volume(self, wanted: Mapping[str, Any], recorded: Mapping[str, Any], namespace: str, claim: str) -> Item:
        old = Volume.of(recorded["volume"])
        if not old.server or not old.path:
            raise _RefusedError(place_problem(old))
        name = wanted.get("to_name") or f"restored-{namespace}-{claim}"
        server = old.server
        if wanted.get("to_server"):
            entry = next((one for one in self._servers if one["name"] == wanted["to_server"]), None)
            if entry is None:
                raise _RefusedError(f"to_server: {wanted['to_server']} is no entry of storage_servers")
            server = (entry.get("addresses") or [entry["name"]])[0]
        made: Item = copy.deepcopy(dict(recorded["volume"]))
        metadata, spec = made["metadata"], made["spec"]
        metadata["name"] = name
        # It was made by nobody's provisioner, and no driver knows it.
        annotations = {
            key: value
            for key, value in (metadata.get("annotations") or {}).items()
            if key != PROVISIONED_BY and not key.startswith("volume.kubernetes.io/provisioner-deletion-")
        }
        metadata["annotations"] = annotations
        spec.pop("csi", None)
        spec["nfs"] = {"server": server, "path": wanted.get("to_path") or f"{old.path.rpartition('/')[0]}/{name}"}
        spec["persistentVolumeReclaimPolicy"] = RETAIN
        return made

    def _check_volume(self, volume: Volume, there: Volume | None, namespace: str, claim: str, *, is_new: bool) -> None:
        if there is None:
            return
        if is_new:
            raise _RefusedError(f"volume {volume.name} exists already; say to_name for another name")
        if there.deleting:
            raise _RefusedError(f"volume {volume.name} is being deleted")
        if there.claim and there.claim[:2] != (namespace, claim):
            raise _RefusedError(
                f"volume {volume.name} belongs to {there.claim_name} now; say to_claim to restore into a new one"
            )

    def _check_claim(self, namespace: str, claim: str, volume: str) -> Item | None:
        found: Item | None = self._claims.get((namespace, claim))
        if found is None:
            return None
        if found["deleting"]:
            raise _RefusedError(f"claim {namespace}/{claim} is being deleted")
        if found["volume"] and found["volume"] != volume:
            raise _RefusedError(
                f"claim {namespace}/{claim} has volume {found['volume']} and not {volume}; say to_claim to restore "
                "into a new one, or delete it"
            )
        return found

    def _check_place(self, volume: Volume, place: Place) -> None:
        """Nobody else's directory may be replaced, nor one that other volumes lie in."""
        for other in self._volumes.values():
            if other.name == volume.name:
                continue
            found = self._map.find(other.server, other.path)
            if found is None or found.host != place.host:
                continue
            here, there = f"{place.directory}/", f"{found.directory}/"
            if here.startswith(there) or there.startswith(here):
                raise _RefusedError(f"{place.host}:{place.directory} is, holds or lies in that of volume {other.name}")

    def _workloads(self, namespace: str, claim: str) -> list[Item]:
        if self._given["scale"]:
            workloads, problem = self._users.to_stop(namespace, claim)
            if problem:
                raise _RefusedError(problem)
            return workloads
        pods = self._users.pods(namespace, claim)
        if pods:
            shown = ", ".join(pods[:3]) + (" and others" if len(pods) > 3 else "")
            raise _RefusedError(f"{shown} mounts it; stop it, or let this run do it (scale)")
        return []

    def _objects(
        self,
        recorded: Mapping[str, Any],
        volume: Item,
        namespace: str,
        claim: str,
        *,
        there: Volume | None,
        claimed: Item | None,
    ) -> dict[str, Any]:
        """What is missing, ready to be made."""
        found: dict[str, Any] = {}
        if there is None:
            made = copy.deepcopy(volume)
            made["spec"]["persistentVolumeReclaimPolicy"] = RETAIN
            made["spec"].pop("claimRef", None)
            if claim:
                made["spec"]["claimRef"] = {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": namespace,
                    "name": claim,
                }
            found["volume"] = made
        if claim and claimed is None:
            old = recorded.get("claim")
            if old is None:
                raise _RefusedError(f"claim {namespace}/{claim} is neither there nor in the backup")
            made = copy.deepcopy(dict(old))
            made["metadata"].update(namespace=namespace, name=claim)
            made["spec"]["volumeName"] = volume["metadata"]["name"]
            # It is bound by name; a source, which is gone by now, would keep it Pending.
            for name in ("selector", "dataSource", "dataSourceRef"):
                made["spec"].pop(name, None)
            found["claim"] = made
        storage_class = recorded.get("storage_class")
        if found and storage_class and storage_class["metadata"]["name"] not in self._classes:
            found["storage_class"] = storage_class
        return found


def _recorded(generation: Mapping[str, Any]) -> dict[str, Any]:
    items = (generation.get("objects") or {}).get("items") or []
    kinds = {"PersistentVolume": "volume", "PersistentVolumeClaim": "claim", "StorageClass": "storage_class"}
    found = {kinds[one["kind"]]: one for one in items if one.get("kind") in kinds}
    if "volume" not in found:
        raise _RefusedError(f"generation {generation['generation']} holds no objects; restore it with volume_restore")
    return found


def _reason(
    generation: Mapping[str, Any], objects: Mapping[str, Any], workloads: Sequence[Item], paths: Sequence[str]
) -> str:
    words = [f"only {', '.join(paths)}"] if paths else []
    if objects:
        words.append(f"makes {', '.join(sorted(name.replace('storage_class', 'class') for name in objects))}")
    if workloads:
        words.append("stops " + ", ".join(f"{one['kind']} {one['name']}" for one in workloads))
    if not (generation.get("complete") and not generation.get("damaged")):
        words.append("the generation is incomplete or damaged")
    return "; ".join(words) or "what is there goes into quarantine"
