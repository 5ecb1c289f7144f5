# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make volumes and claims again after a restore, bound to each other and to nobody else.

Until both say so the policy is Retain: whatever goes wrong before, deleting a claim does not take the data with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _workload_scale
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import CLASSES
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_set import VOLUMES
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import BOUND_BY_CONTROLLER

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

STEP: dict[str, Any] = {
    "id": {"type": "str"},
    "item": {"type": "str"},
    "claim": {
        "type": "dict",
        "required": True,
        "options": {
            "namespace": {"type": "str", "default": ""},
            "name": {"type": "str", "default": ""},
            "volume": {"type": "str", "required": True},
        },
    },
    "objects": {"type": "dict", "default": {}},
    "policy": {"type": "str", "choices": ["Retain", "Delete", "Recycle"], "default": "Retain"},
    "precondition": {
        "type": "dict",
        "default": {},
        "options": {"uid": {"type": "str"}, "claim_uid": {"type": "str"}, "generation": {"type": "str"}},
    },
}
RETAIN = "Retain"
_POLL_SECONDS = 0.5

Item = dict[str, Any]


class _RefusedError(Exception):
    """Why a step is not done, in words for a person."""


def _read(api: Api, path: str) -> Item | None:
    try:
        return api.get(path)
    except ApiError as error:
        if error.gone:
            return None
        raise


def _claim_path(step: Mapping[str, Any]) -> str:
    return path_of("persistentvolumeclaims", step["claim"]["name"], step["claim"]["namespace"])


def _outcome(step: Mapping[str, Any], state: str, reason: str = "") -> Item:
    return {"id": step.get("id"), "item": step.get("item") or step["claim"]["volume"], "state": state, "reason": reason}


# --- before the data is touched ----------------------------------------------------------------------------


def check(api: Api, steps: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Tell of each step whether things are as they were when it was planned, and nobody mounts the claim."""
    claims = [step["claim"] for step in steps if step["claim"]["name"]]
    unused = _workload_scale.wait_until_unused(api, claims, 0) if claims else []
    mounting = {(one["namespace"], one["name"]): one["pods"] for one in unused}

    def one(step: Mapping[str, Any]) -> Item:
        claim, wanted = step["claim"], step["precondition"]
        pods = mounting.get((claim["namespace"], claim["name"]))
        # In a trial nobody was stopped.
        if pods and not api.dry_run:
            return _outcome(step, "refused", f"is mounted by {', '.join(pods[:3])}")
        try:
            volume = _read(api, path_of("persistentvolumes", claim["volume"]))
            claimed = _read(api, _claim_path(step)) if claim["name"] else None
        except ApiError as error:
            return _outcome(step, "failed", str(error))
        for what, found, uid in (
            (f"volume {claim['volume']}", volume, wanted.get("uid")),
            (f"claim {claim['namespace']}/{claim['name']}", claimed, wanted.get("claim_uid")),
        ):
            if (found or {}).get("metadata", {}).get("uid") != uid:
                now = "was made" if not uid else "is gone" if found is None else "was deleted and made again"
                return _outcome(step, "stale", f"{what} {now} since the plan was made; make a new plan")
        return _outcome(step, "ready")

    return api.each(one, steps)


# --- afterwards --------------------------------------------------------------------------------------------


def bind(api: Api, steps: Sequence[Mapping[str, Any]], seconds: float) -> list[Item]:
    """Make what is missing, wait until volume and claim are bound to each other, then give the volume its policy."""
    deadline = time.monotonic() + seconds
    # Several volumes have the same class and namespace.
    made = _make_shared(api, steps)

    def one(step: Mapping[str, Any]) -> Item:
        try:
            changed = _make(api, step, made)
            if step["claim"]["name"] and not api.dry_run:
                _wait(api, step, deadline)
            changed = _set_policy(api, step) or changed
        except (_RefusedError, ApiError) as error:
            return _outcome(step, "failed", str(error))
        return _outcome(step, "bound" if changed else "unchanged")

    return api.each(one, steps)


def _make_shared(api: Api, steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Make namespaces and classes; tell of those that were missing what kept them from being made, or nothing."""
    wanted: dict[str, tuple[str, str, Mapping[str, Any]]] = {}
    for step in steps:
        namespace, storage_class = step["claim"]["namespace"], step["objects"].get("storage_class")
        if namespace:
            body: Mapping[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            wanted[f"namespace {namespace}"] = (path_of("namespaces"), path_of("namespaces", namespace), body)
        if storage_class:
            name = storage_class["metadata"]["name"]
            wanted[f"class {name}"] = (
                CLASSES,
                path_of("storageclasses", name, group="storage.k8s.io/v1"),
                storage_class,
            )
    found = {}
    for what, (collection, path, body) in wanted.items():
        try:
            if _read(api, path) is None:
                found[what] = ""
                _create(api, collection, body)
        except ApiError as error:
            found[what] = f"{what} cannot be made: {error}"
    return found


def _create(api: Api, collection: str, body: Mapping[str, Any]) -> None:
    try:
        api.create(collection, body)
    except ApiError as error:
        # Somebody else was quicker, or it was us and the answer got lost: what is there is looked at afterwards.
        if not error.conflict:
            raise


def _make(api: Api, step: Mapping[str, Any], shared: Mapping[str, str]) -> bool:
    """Make volume and claim, or reserve for its claim a volume that was released; tell whether anything changed."""
    claim, objects = step["claim"], step["objects"]
    problems = [problem for what, problem in shared.items() if problem and what.split()[-1] in _names(step)]
    if problems:
        raise _RefusedError(problems[0])
    claimed = _read(api, _claim_path(step)) if claim["name"] else None
    path = path_of("persistentvolumes", claim["volume"])
    volume, changed = _read(api, path), False
    if volume is None:
        body = objects.get("volume")
        if body is None:
            raise _RefusedError(f"volume {claim['volume']} is gone")
        _create(api, VOLUMES, _reserved(body, claimed))
        volume, changed = (None if api.dry_run else api.get(path)), True
    if volume is not None:
        changed = _reserve(api, step, volume, claimed) or changed
    if claim["name"] and claimed is None:
        body = objects.get("claim")
        if body is None:
            raise _RefusedError(f"claim {claim['namespace']}/{claim['name']} is gone")
        # A dry run in a namespace that is not there would fail.
        if not (api.dry_run and f"namespace {claim['namespace']}" in shared):
            _create(api, path_of("persistentvolumeclaims", namespace=claim["namespace"]), body)
        changed = True
    return changed


def _names(step: Mapping[str, Any]) -> set[str]:
    storage_class = step["objects"].get("storage_class") or {"metadata": {"name": ""}}
    return {step["claim"]["namespace"], storage_class["metadata"]["name"]}


def _reserved(body: Mapping[str, Any], claimed: Item | None) -> Item:
    """The volume with policy Retain; for a claim that is there already, which has lost its volume, by its uid."""
    spec = {**body["spec"], "persistentVolumeReclaimPolicy": RETAIN}
    if claimed is not None:
        spec["claimRef"] = {**spec["claimRef"], "uid": claimed["metadata"]["uid"]}
    return {"apiVersion": "v1", "kind": "PersistentVolume", **body, "spec": spec}


def _reserve(api: Api, step: Mapping[str, Any], volume: Item, claimed: Item | None) -> bool:
    """A volume whose claim is gone, or not its own, is for the claim of that name, whichever uid it gets."""
    claim, metadata = step["claim"], volume["metadata"]
    reference = volume["spec"].get("claimRef") or {}
    whose = (reference.get("namespace"), reference.get("name"))
    if reference and whose != (claim["namespace"], claim["name"]):
        raise _RefusedError(f"volume {claim['volume']} belongs to {'/'.join(map(str, whose))} now")
    wanted = claimed["metadata"]["uid"] if claimed else None
    # A claim that has lost its volume is bound again only to one that names its uid.
    if not claim["name"] or (reference and reference.get("uid") == wanted):
        return False
    api.patch(
        path_of("persistentvolumes", claim["volume"]),
        {
            "metadata": {
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
                "annotations": {BOUND_BY_CONTROLLER: None},
            },
            "spec": {
                "persistentVolumeReclaimPolicy": RETAIN,
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": claim["namespace"],
                    "name": claim["name"],
                    "uid": wanted,
                    "resourceVersion": None,
                },
            },
        },
    )
    return True


def _wait(api: Api, step: Mapping[str, Any], deadline: float) -> None:
    claim = step["claim"]
    while True:
        volume, claimed = _read(api, path_of("persistentvolumes", claim["volume"])), _read(api, _claim_path(step))
        phases = [((one or {}).get("status") or {}).get("phase") or "gone" for one in (volume, claimed)]
        if volume and claimed and phases == ["Bound", "Bound"]:
            reference = volume["spec"].get("claimRef") or {}
            if claimed["spec"].get("volumeName") != claim["volume"]:
                raise _RefusedError(f"the claim is bound to {claimed['spec'].get('volumeName')}")
            if reference.get("uid") == claimed["metadata"]["uid"]:
                return
        if time.monotonic() >= deadline:
            raise _RefusedError(f"not bound in time: volume {phases[0]}, claim {phases[1]}; the policy stays {RETAIN}")
        time.sleep(_POLL_SECONDS)


def _set_policy(api: Api, step: Mapping[str, Any]) -> bool:
    path = path_of("persistentvolumes", step["claim"]["volume"])
    volume = _read(api, path)
    if volume is None or volume["spec"].get("persistentVolumeReclaimPolicy") == step["policy"]:
        return False
    metadata = {name: volume["metadata"][name] for name in ("uid", "resourceVersion")}
    api.patch(path, {"metadata": metadata, "spec": {"persistentVolumeReclaimPolicy": step["policy"]}})
    return True
