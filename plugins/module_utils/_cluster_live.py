# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted, compared with what is there: what the API would refuse, what would cost data, what follows.

Server-side apply repairs everything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _cluster_differences, _cluster_read, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._cluster import Cluster
from ansible_collections.clusterkit.storage.plugins.module_utils._input_checks import Tell
from ansible_collections.clusterkit.storage.plugins.module_utils._provisioner_inputs import (
    default_classes_of_others,
    fate,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PREVIOUS_POLICY, PROVISIONED_BY

Item = Mapping[str, Any]
_SHOWN = 20


@dataclass
class Consequences:
    """What has to be done besides sending the objects."""

    recreate: list[str] = field(default_factory=list)  # classes that go and come again
    hold_provisioners: list[str] = field(default_factory=list)  # their volumes are set to Retain before
    hold_classes: list[str] = field(default_factory=list)  # so are the volumes in them,
    hold_made_by: list[str] = field(default_factory=list)  # if one of these has made them: nobody else takes their data
    restore: list[str] = field(default_factory=list)  # provisioners whose volumes get their policy back afterwards
    take_default: list[str] = field(default_factory=list)  # classes that stop being the default
    annotated_default: list[str] = field(default_factory=list)  # classes of ours that must say whether they are

    def as_dict(self) -> dict[str, list[str]]:
        return asdict(self)


def compare(cluster: Cluster, problem: Tell, note: Tell) -> Consequences:
    found = Consequences()
    _compare_provisioners(cluster, found, problem, note)
    _compare_classes(cluster, found, problem, note)
    found.hold_made_by = _makers(cluster, found.hold_classes)
    _compare_volumes(cluster, problem, note)
    _compare_claims(cluster, problem, note)
    _find_doomed(cluster, problem)
    _find_held(cluster, found, note)
    return found


def removal(cluster: Cluster, _problem: Tell, _note: Tell) -> Consequences:
    """What has to be done before provisioners and classes go."""
    classes = [one["name"] for one in cluster.classes]
    return Consequences(
        hold_provisioners=[
            one["provisioner_name"] for _index, one in cluster.installed if one["method"] != "installed"
        ],
        hold_classes=classes,
        hold_made_by=_makers(cluster, classes),
    )


def _makers(cluster: Cluster, classes: Sequence[str]) -> list[str]:
    """The provisioners of these classes and of the volumes in them: a class that is made again may get another one."""
    found = {str(one["provisioner"]) for one in cluster.classes if one["name"] in classes}
    found |= {str(one.get("provisioner")) for one in cluster.live_classes if one["metadata"]["name"] in classes}
    found |= {provisioner_of(one) for one in cluster.live_volumes if one["spec"].get("storageClassName") in classes}
    return sorted(found - {""})


# Provisioners ----------------------------------------------------------------------------------------


def _compare_provisioners(cluster: Cluster, found: Consequences, problem: Tell, note: Tell) -> None:
    for index, one in cluster.installed:
        place = f"k8s_storage_provisioners[{index}]"
        if one["method"] == "installed":
            continue
        for live in cluster.controllers:
            same_object = (live["namespace"], live["name"]) == (one["namespace"], one["name"])
            if one["method"] == "manifests" and same_object and live["kind"] == "Deployment":
                if live["selector"] != {"app": one["name"]}:
                    problem(
                        f"{place}.name",
                        f"Deployment {one['namespace']}/{one['name']} is there with the selector "
                        f"{_said(live['selector'])}, here {_said({'app': one['name']})}; Kubernetes cannot change it: "
                        "remove that Deployment (its volumes stay), or take another name",
                    )
                _compare_controller(one, live, place, cluster, found, note)
            elif one["method"] == "helm" and live["release"] == one["release"] and _same_name(live, one):
                _compare_controller(one, live, place, cluster, found, note)
            elif _same_name(live, one):
                problem(
                    f"{place}.provisioner_name",
                    f"{live['kind']} {live['namespace']}/{live['name']} is a provisioner of the name "
                    f'"{live["provisioner"]}" already: two of one name take each other\'s claims and volumes; remove '
                    "it first (playbook teardown, its volumes stay), or say method: installed",
                )


def _same_name(live: Item, one: Item) -> bool:
    return bool(live["provisioner"] == one["provisioner_name"])


def _compare_controller(one: Item, live: Item, place: str, cluster: Cluster, found: Consequences, note: Tell) -> None:
    """An upgrade: whatever the new one does with volumes that are deleted meanwhile, it must not cost their data."""
    differences = [
        f"{key} {_said(live[name])} becomes {_said(wanted)}"
        for key, name, wanted in (
            ("provisioner_name", "provisioner", one["provisioner_name"]),
            ("image", "image", one["image"] if one["method"] == "manifests" else live["image"]),
            ("server", "server", one["server"] if one["engine"] == "subdir" else live["server"]),
            ("path", "path", one["path"] if one["engine"] == "subdir" else live["path"]),
            ("chart", "chart", _chart_label(one, live)),
        )
        if live[name] != wanted
    ]
    if not differences:
        return
    held = _volumes_of(cluster, {"provisioner": live["provisioner"]})
    found.hold_provisioners.append(live["provisioner"])
    note(
        place,
        f'"{one["name"]}" is upgraded: {", ".join(differences)}; its volumes with another policy than Retain keep it '
        f"meanwhile{_listed(held)}",
    )


def _chart_label(one: Item, live: Item) -> str:
    """What the chart will write on its objects (name-version), where that is known beforehand; else what is there."""
    name = str(one["chart"]).rpartition("/")[2]
    label = name[: -len(".tgz")] if name.endswith(".tgz") else f"{name}-{one['chart_version']}"
    known = one["method"] == "helm" and (name.endswith(".tgz") or one["chart_version"])
    same = re.sub(r"-v(?=\d)", "-", label) == re.sub(r"-v(?=\d)", "-", live["chart"])
    # A label in another form says nothing of the version.
    return (
        label if known and not same and live["chart"].rpartition("-")[0] == label.rpartition("-")[0] else live["chart"]
    )


# Classes ---------------------------------------------------------------------------------------------


def _compare_classes(cluster: Cluster, found: Consequences, problem: Tell, note: Tell) -> None:
    there = {one["metadata"]["name"]: one for one in cluster.live_classes}
    for index, one in enumerate(cluster.classes):
        live = there.get(one["name"])
        if live is None:
            continue
        place = f"k8s_storage_classes[{index}]"
        if "is-default-class" in " ".join(live["metadata"].get("annotations") or {}):
            found.annotated_default.append(one["name"])
        differences = _cluster_differences.of_class(one, live)
        if not differences:
            continue
        if one["allow_recreate"]:
            found.recreate.append(one["name"])
            found.hold_classes.append(one["name"])
            _note_recreation(one, live, place, differences, cluster, note)
            continue
        for key, old, new in differences:
            problem(
                f"{place}.{key}",
                f'StorageClass "{one["name"]}" has {_said(old)}, here {_said(new)}; Kubernetes cannot change it in a '
                "class: take another name, or say allow_recreate: true",
            )
    if cluster.allow_take_default and any(one["default"] for one in cluster.classes):
        found.take_default += default_classes_of_others(cluster)


def _note_recreation(
    one: Item, live: Item, place: str, differences: Sequence[tuple[str, Any, Any]], cluster: Cluster, note: Tell
) -> None:
    changes = ", ".join(f"{key} {_said(old)} becomes {_said(new)}" for key, old, new in differences)
    note(place, f'StorageClass "{one["name"]}" is deleted and made again: {changes}')
    before, after = fate(live.get("parameters") or {}), fate(one["parameters"])
    reads_class = "subdir" in (cluster.engine_of(one["provisioner"]), cluster.engine_of(str(live.get("provisioner"))))
    affected = _volumes_of(cluster, {"storage_class": one["name"]}, policies=("Delete",))
    if reads_class and before != after and affected:
        note(
            place,
            f"the provisioner reads the class when it deletes: the directories of these volumes, {before} until now "
            f"when their claim is deleted, are then {after}{_listed(affected)}",
        )


# Volumes and claims ----------------------------------------------------------------------------------


def _compare_volumes(cluster: Cluster, problem: Tell, note: Tell) -> None:
    there = {one["metadata"]["name"]: one for one in cluster.live_volumes}
    for index, one in enumerate(cluster.volumes):
        live = there.get(one["name"])
        if live is not None:
            place = f"k8s_storage_volumes[{index}]"
            _compare_volume(one, live, partial(_below, problem, place), partial(_below, note, place))


def _below(tell: Tell, place: str, key: str, message: str) -> None:
    tell(f"{place}.{key}", message)


def _compare_volume(one: Item, live: Item, problem: Tell, note: Tell) -> None:
    name, spec, phase = one["name"], live["spec"], (live.get("status") or {}).get("phase", "")
    for key, old, new in _cluster_differences.of_volume(one, live):
        problem(
            key,
            f'PersistentVolume "{name}" has {_said(old)}, here {_said(new)}; Kubernetes cannot change where a volume '
            "lies: take another name, or remove the object (its directory stays)",
        )
    held = _size(spec.get("capacity"))
    if phase == "Bound" and _known_size(one["capacity"]) and _quantity.parse(held) > _quantity.parse(one["capacity"]):
        problem(
            "capacity",
            f'PersistentVolume "{name}" has {held}, here {one["capacity"]}; a volume in use never shrinks: write '
            f"{held} here",
        )
    policy = spec.get("persistentVolumeReclaimPolicy") or "Retain"
    if one["reclaim_policy"] != policy and one["reclaim_policy"] != "Retain" and phase in ("Released", "Failed"):
        problem(
            "reclaim_policy",
            f'PersistentVolume "{name}" is {phase} with policy {policy}: {one["reclaim_policy"]} would take effect on '
            "its content now; release it first (playbook reclaim), or leave Retain",
        )
    reference, wanted = spec.get("claimRef") or {}, one["claim_ref"]
    if (
        reference
        and wanted
        and (reference.get("namespace"), reference.get("name"))
        != (
            wanted["namespace"],
            wanted["name"],
        )
    ):
        problem(
            "claim_ref",
            f'PersistentVolume "{name}" belongs to claim {reference.get("namespace")}/{reference.get("name")}, here '
            f"{wanted['namespace']}/{wanted['name']}; release it first (playbook reclaim)",
        )
    if phase in ("Released", "Failed"):
        note("name", f'PersistentVolume "{name}" is {phase}: no claim gets it before the playbook reclaim releases it')


def _compare_claims(cluster: Cluster, problem: Tell, note: Tell) -> None:
    there = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in cluster.live_claims}
    expands = {one["metadata"]["name"]: bool(one.get("allowVolumeExpansion")) for one in cluster.live_classes}
    expands |= {one["name"]: one["allow_volume_expansion"] for one in cluster.classes}
    for index, one in enumerate(cluster.claims):
        live = there.get((one["namespace"], one["name"]))
        if live is not None:
            place = f"k8s_storage_claims[{index}]"
            _compare_claim(one, live, expands, partial(_below, problem, place), partial(_below, note, place))


def _compare_claim(one: Item, live: Item, expands: Mapping[str, bool], problem: Tell, note: Tell) -> None:
    name = f"{one['namespace']}/{one['name']}"
    for key, old, new in _cluster_differences.of_claim(one, live):
        problem(
            key,
            f"PersistentVolumeClaim {name} has {_said(old)}, here {_said(new)}; Kubernetes cannot change it in a "
            "claim: take another name, or delete the claim (with policy Retain its data stays)",
        )
    spec, phase = live["spec"], (live.get("status") or {}).get("phase", "")
    if not _known_size(one["request"]):
        return
    asked = _size((spec.get("resources") or {}).get("requests"))
    old_size, new_size = _quantity.parse(asked), _quantity.parse(one["request"])
    if new_size < old_size:
        problem(
            "request", f"PersistentVolumeClaim {name} asks for {asked}, here {one['request']}; a claim never shrinks"
        )
    elif new_size > old_size and not (phase == "Bound" and expands.get(spec.get("storageClassName") or "")):
        why = "its class does not allow expansion" if phase == "Bound" else f"it is {phase or 'Pending'}, not Bound"
        problem(
            "request",
            f"PersistentVolumeClaim {name} asks for {asked}, here {one['request']}; it cannot grow since {why} "
            "(playbook expand says more)",
        )
    elif new_size > old_size:
        note(
            "request",
            f"PersistentVolumeClaim {name} grows from {asked} to {one['request']}; for volumes without a "
            "resizer the playbook expand brings volume and status along",
        )


# Data ------------------------------------------------------------------------------------------------


def _find_doomed(cluster: Cluster, problem: Tell) -> None:
    """Released volumes with policy Delete are destroyed by their provisioner as soon as it runs."""
    for index, one in cluster.installed:
        name = one["provisioner_name"]
        # The lock of one that was removed a moment ago is fresh still: that alone does not show that it runs.
        there = any(live["provisioner"] == name for live in cluster.controllers)
        if one["method"] == "installed" or (there and cluster.provisioner_states.get(name) == "running"):
            continue
        doomed = [each for each in cluster.live_volumes if _cluster_read.doom_of(each) == name]
        if doomed and not cluster.allow_delete_released:
            problem(
                f"k8s_storage_provisioners[{index}].provisioner_name",
                f'a provisioner "{name}" would destroy the data of these Released volumes with policy Delete as soon '
                f"as it runs{_listed(_names(doomed))}; set Retain first (playbook reclaim with reclaim_policy=Retain), "
                "or say k8s_storage_allow_delete_released: true",
            )


def _find_held(cluster: Cluster, found: Consequences, note: Tell) -> None:
    """Volumes that an upgrade or teardown has set to Retain, of which the provisioner is wanted."""
    ours = {one["provisioner_name"] for _index, one in cluster.installed}
    for name in sorted(ours):
        held = [
            one
            for one in cluster.live_volumes
            if PREVIOUS_POLICY in one["metadata"]["annotations"] and provisioner_of(one) == name
        ]
        waiting = [one for one in held if one["status"]["phase"] in ("Bound", "Available")]
        kept = [one for one in held if one["status"]["phase"] in ("Released", "Failed")]
        held_now = name in found.hold_provisioners or name in found.hold_made_by
        if waiting or held_now:
            found.restore.append(name)
        if kept:
            note(
                "k8s_storage_provisioners",
                f"these volumes were released while an upgrade or teardown held them, and keep Retain"
                f"{_listed(_names(kept))}",
            )


def _volumes_of(
    cluster: Cluster, wanted: Mapping[str, str], policies: Sequence[str] = ("Delete", "Recycle")
) -> list[str]:
    return _names(
        one
        for one in cluster.live_volumes
        if one["spec"].get("persistentVolumeReclaimPolicy") in policies
        and ("provisioner" not in wanted or provisioner_of(one) == wanted["provisioner"])
        and ("storage_class" not in wanted or one["spec"].get("storageClassName") == wanted["storage_class"])
    )


def provisioner_of(volume: Item) -> str:
    csi = volume["spec"].get("csi") or {}
    return str(volume["metadata"]["annotations"].get(PROVISIONED_BY) or csi.get("driver", ""))


def _names(volumes: Any) -> list[str]:
    return sorted(one["metadata"]["name"] for one in volumes)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f": {', '.join(names[:_SHOWN])}{more}"


def _said(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, sort_keys=True)


def _size(sizes: Mapping[str, str] | None) -> str:
    return str((sizes or {}).get("storage", "0"))


def _known_size(text: str) -> bool:
    try:
        return bool(_quantity.parse(text))
    except ValueError:
        return False
