# SPDX-License-Identifier: GPL-3.0-or-later
"""Shares, their directories and the volumes in them, as the modules list them, for tests of what is decided."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _listing
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet, Record
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_of
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PROVISIONED_BY, Volume

CLUSTER = "6f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11"
OTHER_CLUSTER = "00000000-8a9e-4b55-9a0e-2f1f7f1a9c11"
HOST, SHARE = "nfs1", "/srv/k8s"
LISTED, ASKED = "2026-03-01T12:00:00Z", "2026-03-01T12:00:10Z"
SERVERS = [
    {
        "name": "tank",
        "host": HOST,
        "addresses": ["192.0.2.10"],
        "shares": [{"server_path": SHARE, "client_path": "/nfs/k8s"}],
    }
]
DAY = 86400.0


def volume(name: str, path: str | None = None, **more: Any) -> Volume:
    """A Released volume, for ten days, whose directory is below the share and has its name."""
    made = Volume.of(
        {
            "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "7"},
            "spec": {
                "nfs": {"server": "192.0.2.10", "path": f"/nfs/k8s/{path or name}"},
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": "shop", "name": f"claim-{name}", "uid": f"claim-uid-{name}"},
            },
            "status": {"phase": "Released", "lastPhaseTransitionTime": "2026-02-19T12:00:00Z"},
        }
    )
    made.finalizers = ("kubernetes.io/pv-protection",)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def dynamic(name: str, path: str | None = None, **more: Any) -> Volume:
    made = volume(name, path, **more)
    made.annotations = {PROVISIONED_BY: "fuseim.pri/ifs"}
    made.provisioner, made.storage_class = "fuseim.pri/ifs", "managed"
    return made


def listing(
    *volumes: Volume,
    cluster: str = CLUSTER,
    complete: bool = True,
    at: str = ASKED,
    uses: list[dict[str, Any]] | None = None,
    protected: Iterable[str] = (),
    claims: Mapping[tuple[str, str], str] | None = None,
) -> _listing.Listing:
    found = _listing.Listing(list(volumes), cluster, complete, at, len(volumes))
    found.facts = Facts(frozenset(protected), dict(claims or {}))
    found.uses = [] if uses is None else uses
    return found


def directory(path: str, *, share: str = SHARE, age: float = 10 * DAY, **more: Any) -> Record:
    """One that was made before C(age) seconds; the same path has the same inode."""
    full = path if path.startswith("/") else f"{share}/{path}"
    time = seconds_of(LISTED) - age
    about = {"kind": "Directory", "share": share, "path": full, "device": 64768, "mount_point": False}
    times = {"mtime": time, "ctime": time, "birthtime": time}
    owner = {"uid": 0, "gid": 0, "owner": "root", "group": "root", "mode": "0777"}
    return {**about, "inode": zlib.crc32(full.encode()) + 1, **times, **owner, **more}


def directories(
    *paths: str | Record,
    share: str = SHARE,
    clusters: Iterable[str] = (CLUSTER,),
    parents: Iterable[str] = (),
    problems: Iterable[str] = (),
    at: str = LISTED,
    others: int = 0,
    other_paths: Iterable[str] = (),
    host: str = HOST,
) -> DirectorySet:
    """What volume_dirs_info tells of one share. C(others): number of files that are not named."""
    root = directory(share, share=share)
    named = [f"{share}/{one}" for one in other_paths]
    about: Record = {"path": share, "base": share, "key": ".", "clusters": list(clusters), "lease": None}
    about |= {"others": others or len(named), "other_paths": named, "other_paths_complete": not others}
    found = DirectorySet(host, at, not list(problems), list(problems), [{**about, **_identity(root)}])
    found.parents = frozenset(f"{share}/{one}" for one in parents)
    found.directories = [one if isinstance(one, dict) else directory(one, share=share) for one in paths]
    return found


def _identity(record: Record) -> Record:
    return {"device": record["device"], "inode": record["inode"]}


def intent(one: Volume, *, share: str = SHARE, restored: bool = False, **more: Any) -> Record:
    path = f"{share}/{one.name}"
    return {
        "kind": "Intent",
        "share": share,
        "restored": restored,
        "at": LISTED,
        "by": "me",
        "cluster_uid": CLUSTER,
        "plan": "p",
        "reason": "",
        "scope": "directory",
        "volume": {"name": one.name, "uid": one.uid},
        "directory": path,
        "objects": objects(one),
        **_identity(directory(path, share=share)),
        **more,
    }


def quarantined(
    one: Volume | None, name: str = "", *, share: str = SHARE, age: float = 20 * DAY, **more: Any
) -> Record:
    """What lies in quarantine for C(age) seconds."""
    path = f"{share}/{one.name if one else name}"
    at = _listing.timestamp(seconds_of(LISTED) - age)
    told = {
        "kind": "Quarantined",
        "share": share,
        "entry": f"{at}-{one.name if one else name}",
        "state": "quarantined",
        "at": at,
        "quarantined_at": at,
        "by": "me",
        "cluster_uid": CLUSTER,
        "plan": "p",
        "reason": "",
        "scope": "directory",
        "volume": {"name": one.name, "uid": one.uid} if one else None,
        "directory": path,
        "objects": objects(one) if one else None,
    }
    return {**told, **_identity(directory(path, share=share)), **more}


def objects(one: Volume) -> dict[str, Any]:
    claim = dict(zip(("namespace", "name", "uid"), one.claim, strict=True)) if one.claim else None
    spec = {
        "nfs": {"server": one.server, "path": one.path},
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": one.policy,
        "storageClassName": one.storage_class,
        "claimRef": claim and {**claim, "kind": "PersistentVolumeClaim", "resourceVersion": "5"},
    }
    metadata = {"name": one.name, "uid": one.uid, "annotations": dict(one.annotations)}
    return {"volume": {"kind": "PersistentVolume", "metadata": metadata, "spec": spec}, "claim": None, "class": None}


def write_directories(found: DirectorySet, path: Path) -> str:
    """As a file that volume_dirs_info wrote."""
    records = [*found.directories, *found.intents, *found.quarantined]
    header = {
        "schema": 1,
        "kind": "DirectorySet",
        "shares": found.shares,
        "parents": sorted(found.parents),
        "listed_at": found.listed_at,
        "complete": found.complete,
        "problems": found.problems,
        "open_state": None,
        "records": len(records),
    }
    path.write_text("".join(f"{json.dumps(one)}\n" for one in [header, *records]))
    return str(path)


def write_listing(found: _listing.Listing, path: Path) -> str:
    path.write_text("".join(f"{line}\n" for line in _listing.lines(found)))
    return str(path)
