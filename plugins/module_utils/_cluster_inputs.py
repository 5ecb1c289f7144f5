# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provisioners, classes, volumes and claims: do they fit each other and what the cluster has already?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_options, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean

Tell = Callable[[str, str], None]  # takes the place and the message

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_LAST_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass
class Cluster:
    """What is wanted, with defaults filled in, and what the live cluster said."""

    provisioners: list[dict[str, Any]] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    live_classes: list[dict[str, Any]] = field(default_factory=list)
    live_volumes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Volume:
    """A volume as a claim sees it, ours or a live one."""

    name: str
    storage_class: str
    capacity: Fraction
    access_modes: frozenset[str]
    labels: Mapping[str, str]
    reserved_for: tuple[str, str] | None


def check(cluster: Cluster, problem: Tell, note: Tell) -> None:
    _check_provisioners(cluster, problem)
    _check_classes(cluster, problem, note)
    _check_volumes(cluster, problem, note)
    _check_claims(cluster, problem, note)


def rewritten(image: str, registry: str) -> str:
    """The image in another registry; only what stands before the first slash is a registry, and not always."""
    if not registry:
        return image
    first, slash, rest = image.partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return f"{registry.rstrip('/')}/{rest if has_registry else image}"


def _check_provisioners(cluster: Cluster, problem: Tell) -> None:
    place = partial("k8s_storage_provisioners[{}].{}".format)
    installed = [(index, one) for index, one in enumerate(cluster.provisioners) if one["engine"] != "none"]
    _unique("k8s_storage_provisioners", "name", installed, problem)
    _unique("k8s_storage_provisioners", "provisioner_name", installed, problem)
    for index, one in enumerate(cluster.provisioners):
        _check_name(one["name"], _LABEL, 63, partial(problem, place(index, "name")))
        _check_name(one["namespace"], _LABEL, 63, partial(problem, place(index, "namespace")))
        _check_provisioner_name(one["provisioner_name"], partial(problem, place(index, "provisioner_name")))
        _check_directory(one["path"], partial(problem, place(index, "path")))
        if one["path"] == "/":
            problem(place(index, "path"), "the root of the server cannot hold volumes; name a directory of their own")
        _check_server(one["server"], partial(problem, place(index, "server")))
        if "nfs-client-provisioner" in one["image"].rpartition("/")[2]:
            problem(
                place(index, "image"),
                f'"{one["image"]}" needs selfLink, which Kubernetes dropped in 1.20; '
                "take nfs-subdir-external-provisioner v4.0.2",
            )
        _check_strings(one["node_selector"], place(index, "node_selector"), problem)
        if one["replicas"] < 1:
            problem(place(index, "replicas"), f"{one['replicas']} is no number of pods; at least 1 is needed")


def _check_classes(cluster: Cluster, problem: Tell, note: Tell) -> None:
    place = partial("k8s_storage_classes[{}].{}".format)
    _unique("k8s_storage_classes", "name", enumerate(cluster.classes), problem)
    ours = {one["provisioner_name"] for one in cluster.provisioners if one["engine"] != "none"}
    for index, one in enumerate(cluster.classes):
        _check_name(one["name"], _SUBDOMAIN, 253, partial(problem, place(index, "name")))
        _check_provisioner_name(one["provisioner"], partial(problem, place(index, "provisioner")))
        for key in ("parameters", "labels", "annotations"):
            _check_strings(one[key], place(index, key), problem)
        _check_mount_options(one["mount_options"], place(index, "mount_options"), problem, note)
        if one["provisioner"] not in ours:
            note(
                place(index, "provisioner"),
                f'no provisioner of k8s_storage_provisioners is called "{one["provisioner"]}"; claims of class '
                f'"{one["name"]}" wait until somebody installs one{did_you_mean(one["provisioner"], ours)}',
            )
    _check_default_class(cluster, problem)


def _check_default_class(cluster: Cluster, problem: Tell) -> None:
    defaults = [(index, one["name"]) for index, one in enumerate(cluster.classes) if one["default"]]
    for index, name in defaults[1:]:
        problem(
            f"k8s_storage_classes[{index}].default",
            f'"{name}" and "{defaults[0][1]}" cannot both be the default class',
        )
    ours = {one["name"] for one in cluster.classes}
    others = [name for name in _live_defaults(cluster) if name not in ours]
    for index, name in defaults[:1]:
        if others:
            problem(
                f"k8s_storage_classes[{index}].default",
                f'"{others[0]}" is the default class of the cluster; take the annotation {_DEFAULT_CLASS} from it '
                f'first, or leave "{name}" without default',
            )


def _check_volumes(cluster: Cluster, problem: Tell, note: Tell) -> None:
    place = partial("k8s_storage_volumes[{}].{}".format)
    _unique("k8s_storage_volumes", "name", enumerate(cluster.volumes), problem)
    for index, one in enumerate(cluster.volumes):
        _check_name(one["name"], _SUBDOMAIN, 253, partial(problem, place(index, "name")))
        _check_size(one["capacity"], partial(problem, place(index, "capacity")))
        _check_directory(one["path"], partial(problem, place(index, "path")))
        _check_server(one["server"], partial(problem, place(index, "server")))
        _check_mount_options(one["mount_options"], place(index, "mount_options"), problem, note)
        for key in ("labels", "annotations"):
            _check_strings(one[key], place(index, key), problem)
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


def _check_claims(cluster: Cluster, problem: Tell, note: Tell) -> None:
    place = partial("k8s_storage_claims[{}].{}".format)
    named = [(index, {"name": f"{one['namespace']}/{one['name']}"}) for index, one in enumerate(cluster.claims)]
    _unique("k8s_storage_claims", "name", named, problem)
    volumes = _all_volumes(cluster)
    for index, one in enumerate(cluster.claims):
        _check_name(one["name"], _SUBDOMAIN, 253, partial(problem, place(index, "name")))
        _check_name(one["namespace"], _LABEL, 63, partial(problem, place(index, "namespace")))
        for key in ("labels", "annotations"):
            _check_strings(one[key], place(index, key), problem)
        if one["selector"]:
            _check_strings(one["selector"]["match_labels"], place(index, "selector.match_labels"), problem)
        if _check_size(one["request"], partial(problem, place(index, "request"))):
            _check_claim(one, cluster, volumes, partial(_at, problem, place, index), partial(_at, note, place, index))


def _at(tell: Tell, place: Callable[..., str], index: int, key: str, message: str) -> None:
    tell(place(index, key), message)


def _check_claim(claim: dict[str, Any], cluster: Cluster, volumes: Sequence[Volume], problem: Tell, note: Tell) -> None:
    storage_class = claim["storage_class"]
    dynamic = _class_names(cluster)
    if storage_class is None:
        defaults = [one["name"] for one in cluster.classes if one["default"]] or _live_defaults(cluster)
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
            f"has only {_size(largest.capacity)}",
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
    volumes = [_our_volume(one) for one in ours.values() if _is_size(one["capacity"])]
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


def _class_names(cluster: Cluster) -> set[str]:
    return {one["name"] for one in cluster.classes} | {one["metadata"]["name"] for one in cluster.live_classes}


def _live_defaults(cluster: Cluster) -> list[str]:
    return [
        one["metadata"]["name"]
        for one in cluster.live_classes
        if (one["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
    ]


def _unique(variable: str, key: str, items: Iterable[tuple[int, Mapping[str, Any]]], problem: Tell) -> None:
    first: dict[str, int] = {}
    for index, one in items:
        before = first.setdefault(one[key], index)
        if before != index:
            problem(f"{variable}[{index}].{key}", f'"{one[key]}" is already taken by {variable}[{before}]')


def _check_name(name: str, form: re.Pattern[str], length: int, tell: Callable[[str], None]) -> None:
    if not form.fullmatch(name) or len(name) > length:
        tell(f'"{name}" is not a name that Kubernetes takes: small letters, digits and "-", at most {length}')


def _check_provisioner_name(name: str, tell: Callable[[str], None]) -> None:
    prefix, slash, last = name.rpartition("/")
    if (slash and not _SUBDOMAIN.fullmatch(prefix)) or not _LAST_PART.fullmatch(last) or len(last) > 63:
        tell(f'"{name}" is not a provisioner name; write for example example.org/nfs')


def _check_strings(values: Mapping[str, Any], place: str, problem: Tell) -> None:
    for key, value in values.items():
        if not isinstance(value, str):
            problem(f"{place}.{key}", f"{value!r} is not a string; Kubernetes takes only strings here: use quotes")


def _check_size(text: str, tell: Callable[[str], None]) -> bool:
    try:
        size = _quantity.parse(text)
    except ValueError as wrong:
        tell(str(wrong))
        return False
    if size <= 0:
        tell(f'"{text}" must be more than nothing')
    return size > 0


def _is_size(text: str) -> bool:
    try:
        return _quantity.parse(text) > 0
    except ValueError:
        return False


def _size(value: Fraction) -> str:
    # Read back in Gi or the like where that is exact, else in bytes.
    for power, suffix in ((40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")):
        if (value / 2**power).denominator in (1, 2, 5, 10) and value >= 2**power:
            return f"{float(value / 2**power):g}{suffix}"
    return f"{float(value):.0f} bytes"


def _check_directory(path: str, tell: Callable[[str], None]) -> None:
    if not path.startswith("/"):
        tell(f'"{path}" is not absolute; it must start with "/"')
    elif any(part in ("", ".", "..") for part in path[1:].split("/")) and path != "/":
        tell(f'"{path}" must not end in "/" or contain "//", "." or ".."')
    elif any(ord(character) < 32 for character in path):
        tell(f"{path!r} contains a control character")


def _check_server(server: str, tell: Callable[[str], None]) -> None:
    if not server or any(character.isspace() or character == "/" for character in server):
        tell(f'"{server}" is not the name or address of a server')


def _check_mount_options(options: Sequence[str], place: str, problem: Tell, note: Tell) -> None:
    for sentence in _mount_options.problems(_mount_options.parse(options)):
        problem(place, sentence)
    for sentence in _mount_options.notes(_mount_options.parse(options)):
        note(place, sentence)


def directories_in_use(cluster: Cluster) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Each directory on a server that something of ours lies in: its place, the item, its mount options."""
    for index, one in enumerate(cluster.provisioners):
        options = [
            option
            for storage_class in cluster.classes
            if storage_class["provisioner"] == one["provisioner_name"]
            for option in _mount_options.parse(storage_class["mount_options"])
        ]
        yield f"k8s_storage_provisioners[{index}]", one, options
    for index, one in enumerate(cluster.volumes):
        yield f"k8s_storage_volumes[{index}]", one, _mount_options.parse(one["mount_options"])
