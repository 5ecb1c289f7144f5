# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provisioners, classes, volumes and claims: do they fit each other and what the cluster has already?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _cluster_live,
    _input_checks,
    _provisioner_inputs,
    _quantity,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._cluster import Cluster
from ansible_collections.clusterkit.storage.plugins.module_utils._input_checks import Tell
from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean


@dataclass(frozen=True)
class Volume:
    """A volume as a claim sees it, ours or a live one."""

    name: str
    storage_class: str
    capacity: Fraction
    access_modes: frozenset[str]
    labels: Mapping[str, str]
    reserved_for: tuple[str, str] | None


def check(cluster: Cluster, problem: Tell, note: Tell) -> _cluster_live.Consequences:
    _provisioner_inputs.check(cluster, problem, note)
    _check_volumes(cluster, problem, note)
    _check_claims(cluster, problem, note)
    return _cluster_live.compare(cluster, problem, note)


def _check_volumes(cluster: Cluster, problem: Tell, note: Tell) -> None:
    place = partial("k8s_storage_volumes[{}].{}".format)
    _input_checks.unique("k8s_storage_volumes", "name", enumerate(cluster.volumes), problem)
    for index, one in enumerate(cluster.volumes):
        _input_checks.check_name(one["name"], _input_checks.SUBDOMAIN, 253, partial(problem, place(index, "name")))
        _input_checks.check_size(one["capacity"], partial(problem, place(index, "capacity")))
        _check_source(one, partial(_at, problem, place, index))
        _input_checks.check_mount_options(one["mount_options"], place(index, "mount_options"), problem, note)
        for key in ("labels", "annotations"):
            _input_checks.check_strings(one[key], place(index, key), problem)
        if one["reclaim_policy"] == "Recycle":
            note(
                place(index, "reclaim_policy"),
                f'Recycle wipes the directory of "{one["name"]}" when its claim is deleted; Kubernetes calls it '
                "deprecated and needs an image for it",
            )
        if one["reclaim_policy"] == "Delete":
            note(
                place(index, "reclaim_policy"),
                f'"{one["name"]}" becomes Failed when its claim is deleted: no provisioner made it',
            )


def _check_source(one: dict[str, Any], problem: Tell) -> None:
    csi = one["csi"]
    for key in ("server", "path"):
        if one[key] and csi:
            problem(key, f'volume "{one["name"]}" has csi, whose attributes say where it lies; leave {key} out')
        elif not one[key] and not csi:
            problem(key, f'is missing in "{one["name"]}"')
    if csi:
        for key, value in csi["attributes"].items():
            if not isinstance(value, str):
                problem(f"csi.attributes.{key}", f"{value!r} is not a string; use quotes")
        return
    if one["path"]:
        _input_checks.check_directory(one["path"], partial(problem, "path"))
    if one["server"]:
        _input_checks.check_server(one["server"], partial(problem, "server"))


def _check_claims(cluster: Cluster, problem: Tell, note: Tell) -> None:
    place = partial("k8s_storage_claims[{}].{}".format)
    named = [(index, {"name": f"{one['namespace']}/{one['name']}"}) for index, one in enumerate(cluster.claims)]
    _input_checks.unique("k8s_storage_claims", "name", named, problem)
    volumes = _all_volumes(cluster)
    for index, one in enumerate(cluster.claims):
        _input_checks.check_name(one["name"], _input_checks.SUBDOMAIN, 253, partial(problem, place(index, "name")))
        _input_checks.check_name(one["namespace"], _input_checks.LABEL, 63, partial(problem, place(index, "namespace")))
        for key in ("labels", "annotations"):
            _input_checks.check_strings(one[key], place(index, key), problem)
        if one["selector"]:
            _input_checks.check_strings(one["selector"]["match_labels"], place(index, "selector.match_labels"), problem)
        if _input_checks.check_size(one["request"], partial(problem, place(index, "request"))):
            _check_claim(one, cluster, volumes, partial(_at, problem, place, index), partial(_at, note, place, index))


def _at(tell: Tell, place: Callable[..., str], index: int, key: str, message: str) -> None:
    tell(place(index, key), message)


def _check_claim(claim: dict[str, Any], cluster: Cluster, volumes: Sequence[Volume], problem: Tell, note: Tell) -> None:
    storage_class = claim["storage_class"]
    dynamic = cluster.class_names
    if storage_class is None:
        defaults = [one["name"] for one in cluster.classes if one["default"]] or cluster.live_defaults
        storage_class = defaults[0] if defaults else ""
    static = {one.storage_class for one in volumes}
    if storage_class not in dynamic and storage_class not in static:
        problem("storage_class", _unknown_class(claim, storage_class, dynamic | (static - {""})))
        return
    _check_fit(claim, storage_class, volumes, storage_class in dynamic, problem, note)


def _unknown_class(claim: dict[str, Any], storage_class: str, known: set[str]) -> str:
    if storage_class:
        return (
            f'claim "{claim["name"]}" asks for class "{storage_class}", which is neither a StorageClass nor the class '
            f"of a volume, here or in the cluster{did_you_mean(storage_class, known)}"
        )
    if claim["storage_class"] is None:
        return (
            f'claim "{claim["name"]}" names no class, the cluster has no default class, and no volume is without class'
        )
    return f'claim "{claim["name"]}" asks for a volume without class, and there is none'


def _check_fit(
    claim: dict[str, Any], storage_class: str, volumes: Sequence[Volume], dynamic: bool, problem: Tell, note: Tell
) -> None:
    """Refuse a claim that no volume can satisfy; what a provisioner will make is not known yet."""
    candidates, chosen_by = _candidates(claim, storage_class, volumes)
    if not candidates:
        if chosen_by != "storage_class" and not dynamic:
            note(chosen_by, f'claim "{claim["name"]}" waits: no volume of class "{storage_class}" is meant by it')
        return
    if dynamic and chosen_by in ("storage_class", "request"):
        return
    wanted = _quantity.parse(claim["request"])
    modes = frozenset(claim["access_modes"])
    if any(one.capacity >= wanted and modes <= one.access_modes for one in candidates):
        return
    largest = max(candidates, key=lambda one: one.capacity)
    if largest.capacity < wanted:
        problem(
            "request",
            f'claim "{claim["name"]}" asks for {claim["request"]}, but volume "{largest.name}" '
            f"has only {_input_checks.in_words(largest.capacity)}",
        )
    else:
        problem(
            "access_modes",
            f'claim "{claim["name"]}" asks for {", ".join(sorted(modes))}, but volume "{largest.name}" '
            f"offers {', '.join(sorted(largest.access_modes))}",
        )


def _candidates(claim: dict[str, Any], storage_class: str, volumes: Sequence[Volume]) -> tuple[list[Volume], str]:
    """The volumes that the claim may get, and the key that chose them."""
    own = (claim["namespace"], claim["name"])
    reserved = [one for one in volumes if one.reserved_for == own]
    if claim["volume_name"]:
        return [one for one in volumes if one.name == claim["volume_name"]], "volume_name"
    if reserved:
        return reserved, "request"
    same_class = [one for one in volumes if one.storage_class == storage_class and not one.reserved_for]
    if claim["selector"]:
        labels = claim["selector"]["match_labels"].items()
        return [
            one for one in same_class if all(one.labels.get(key) == str(value) for key, value in labels)
        ], "selector"
    return same_class, "storage_class"


def _all_volumes(cluster: Cluster) -> list[Volume]:
    """Ours as they will be, and those of the cluster that are not ours."""
    ours = {one["name"]: one for one in cluster.volumes}
    volumes = [_our_volume(one) for one in ours.values() if _input_checks.is_size(one["capacity"])]
    return volumes + [_live_volume(one) for one in cluster.live_volumes if one["metadata"]["name"] not in ours]


def _our_volume(one: dict[str, Any]) -> Volume:
    reference = one["claim_ref"]
    return Volume(
        name=one["name"],
        storage_class=one["storage_class"] or "",
        capacity=_quantity.parse(one["capacity"]),
        access_modes=frozenset(one["access_modes"]),
        labels={key: str(value) for key, value in one["labels"].items()},
        reserved_for=(reference["namespace"], reference["name"]) if reference else None,
    )


def _live_volume(one: dict[str, Any]) -> Volume:
    spec = one["spec"]
    reference = spec.get("claimRef") or {}
    return Volume(
        name=one["metadata"]["name"],
        storage_class=spec.get("storageClassName") or "",
        capacity=_quantity.parse((spec.get("capacity") or {}).get("storage", "0")),
        access_modes=frozenset(spec.get("accessModes") or []),
        labels=one["metadata"].get("labels") or {},
        reserved_for=(reference.get("namespace", ""), reference.get("name", "")) if reference else None,
    )
