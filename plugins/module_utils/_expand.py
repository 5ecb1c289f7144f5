# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a claim and its volume grow, so that their objects agree whenever somebody stops: pure decisions.

NFS knows no size: a volume with C(spec.nfs) grows by being told so, volume first, then what the claim has
(C(status.capacity)), then what it asks for. At each point the volume is the largest, and nothing waits for a resizer
that does not exist. For C(spec.csi) the claim asks, and the driver's resizer does the rest.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _addresses, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

SELECTION: dict[str, Any] = {
    "namespaces": {"type": "list", "elements": "str"},
    "names": {"type": "list", "elements": "str"},
    "labels": {"type": "dict"},
    "storage_classes": {"type": "list", "elements": "str"},
}
CLAIM: dict[str, Any] = {
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "size": {"type": "str"},
}
ARGUMENTS: dict[str, Any] = {
    "claims": {"type": "list", "elements": "dict", "options": CLAIM},
    "selection": {"type": "dict", "options": SELECTION},
    "size": {"type": "str"},
    "allow_delete_policy": {"type": "bool", "default": False},
}
_MIB = 2**20


@dataclass(frozen=True)
class Size:
    """A new size: absolute, or by how much more."""

    text: str

    def __post_init__(self) -> None:
        """Raises ValueError with the forms that are possible."""
        self.target(0)

    def target(self, now: int) -> str:
        """As the API server spells it. Percent are rounded up to whole MiB."""
        text = self.text.strip()
        if re.fullmatch(r"\+[0-9]{1,6}(\.[0-9]{1,6})?%", text):
            grown = now * (1 + Fraction(text[1:-1]) / 100)
            return _quantity.canonical(f"{math.ceil(grown / _MIB)}Mi")
        value = _quantity.parse(text)
        if text.startswith("+") and value > 0:
            return _quantity.canonical(_plain(now + value))
        if value <= 0:
            raise ValueError(f'"{text}" is no size; write for example 20Gi, +5Gi or +20%')
        return _quantity.canonical(text)


def _plain(value: Fraction) -> str:
    whole = math.ceil(value)
    return f"{whole // 1024}Ki" if whole % 1024 == 0 and whole else str(whole)


@dataclass(frozen=True)
class Change:
    """One patch: of the volume, of the claim's status or of the claim itself."""

    kind: str  # volume, status or request
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Growth:
    """What is to be done for one claim, in order. Nothing to do, no refusal: it has the size."""

    claim: Mapping[str, Any]
    volume: Volume | None
    target: str
    changes: tuple[Change, ...] = ()
    refusal: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        return name_of(self.claim)

    @property
    def is_csi(self) -> bool:
        return bool(self.volume and self.volume.driver == "csi")

    @property
    def waits(self) -> bool:
        """Whether the resizer of the driver has to act, or is at it."""
        return (
            self.is_csi
            and not self.refusal
            and _quantity.to_bytes(self.claim["capacity"]) < _quantity.to_bytes(self.target)
        )

    @property
    def known_volume(self) -> Volume:
        """Raises ValueError without one; a claim that has none is refused, and has no changes."""
        if self.volume is None:
            raise ValueError(f"{self.name} has no volume")
        return self.volume

    @property
    def precondition(self) -> dict[str, str]:
        return {
            "uid": self.claim["uid"],
            "resource_version": self.claim["resource_version"],
            "volume": self.known_volume.name,
            "volume_uid": self.known_volume.uid,
            "volume_resource_version": self.known_volume.resource_version,
        }


def name_of(claim: Mapping[str, Any]) -> str:
    return f"{claim['namespace']}/{claim['name']}"


def decide(
    claim: Mapping[str, Any],
    volume: Volume | None,
    classes: Mapping[str, Mapping[str, Any]],
    target: str,
    *,
    allow_delete_policy: bool = False,
) -> Growth:
    """C(target) is absolute. It never shrinks anything and never changes a policy."""
    refusal = _refusal(claim, volume, target, allow_delete_policy)
    if refusal or volume is None:
        return Growth(claim, volume, target, refusal=refusal)
    size = _quantity.to_bytes(target)
    asked, has = _quantity.to_bytes(claim["request"]), _quantity.to_bytes(claim["capacity"])
    known = classes.get(claim["storage_class"]) or {}
    expands = bool(known.get("allow_volume_expansion"))
    request = Change("request", {"spec": {"resources": {"requests": {"storage": target}}}})
    if volume.driver == "csi":
        if asked >= size:
            return Growth(claim, volume, target)
        if not expands:
            why = "does not allow expansion" if known else "does not exist"
            return Growth(claim, volume, target, refusal=f'its StorageClass "{claim["storage_class"]}" {why}')
        return Growth(claim, volume, target, (request,), note="the resizer of the driver does the rest")
    changes = []
    if volume.capacity < size:
        changes.append(Change("volume", {"spec": {"capacity": {"storage": target}}}))
    if has < size:
        changes.append(Change("status", {"status": {"capacity": {"storage": target}}}))
    note = ""
    if asked < size and expands:
        changes.append(request)
    elif asked < size:
        note = f"the request of the claim stays {claim['request']}: no StorageClass of it allows expansion"
    return Growth(claim, volume, target, tuple(changes), note=note)


def _refusal(claim: Mapping[str, Any], volume: Volume | None, target: str, allow_delete_policy: bool) -> str:
    if claim["deleting"]:
        return f"is being deleted since {claim['deleting']}"
    if claim["phase"] != "Bound" or not claim["volume"]:
        return f"is {claim['phase']}: only a bound claim can grow"
    if volume is None:
        return f"its volume {claim['volume']} does not exist"
    if volume.deleting:
        return f"its volume {volume.name} is being deleted since {volume.deleting}"
    if not volume.claim or volume.claim[2] != claim["uid"] or volume.phase != "Bound":
        return f"its volume {volume.name} is {volume.phase} and bound to {volume.claim_name or 'nothing'}"
    if volume.driver == "other":
        return f"its volume {volume.name} is neither an NFS nor a CSI volume"
    size = _quantity.to_bytes(target)
    for what, found in (
        ("its capacity", claim["capacity"]),
        ("its request", claim["request"]),
        ("the capacity of its volume", str(volume.capacity)),
    ):
        if _quantity.to_bytes(found) > size:
            return f"would shrink: {what} is {found}, more than {target}; a volume never shrinks"
    if volume.policy != "Retain" and not allow_delete_policy:
        return (
            f"its volume {volume.name} has policy {volume.policy}: set Retain first, or say allow_delete_policy: true; "
            "the policy stays as it is"
        )
    return ""


def choose(
    claims: Iterable[Mapping[str, Any]],
    *,
    named: Sequence[Mapping[str, Any]] | None,
    selection: Mapping[str, Any] | None,
    size: str | None,
) -> tuple[list[tuple[Mapping[str, Any], Size]], list[str]]:
    """The claims that are meant with their sizes, sorted, and the names of those that are not there.

    Raises ValueError when the request makes no sense.
    """
    by_name = {name_of(one): one for one in claims}
    if named is not None:
        if not named:
            raise ValueError("claims is empty: no claim means none, never all")
        sizes: dict[str, Size] = {}
        for number, one in enumerate(named):
            text = one.get("size") or size
            if not text:
                raise ValueError(f"claims[{number}]: no size; give it here or for all")
            if name_of(one) in sizes:
                raise ValueError(f"claims[{number}]: {name_of(one)} is listed twice")
            sizes[name_of(one)] = _size(text, f"claims[{number}].size")
        found = [(by_name[name], sizes[name]) for name in sorted(sizes) if name in by_name]
        return found, sorted(set(sizes) - set(by_name))
    given = {key: value for key, value in (selection or {}).items() if value is not None}
    unknown = sorted(set(given) - set(SELECTION))
    if unknown:
        raise ValueError(f'selection: "{unknown[0]}" is not a criterion; known are {", ".join(sorted(SELECTION))}')
    if not given or not all(given.values()):
        raise ValueError('selection is empty, which never means all; to mean all claims, say names: ["*"]')
    if not size:
        raise ValueError("no size is given")
    wanted = _size(size, "size")
    return [(by_name[name], wanted) for name in sorted(by_name) if _fits(by_name[name], given)], []


def _size(text: str, place: str) -> Size:
    try:
        return Size(text)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _fits(claim: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    for key, value in (("namespaces", claim["namespace"]), ("names", claim["name"])):
        if key in given and not any(value == one or fnmatchcase(value, one) for one in given[key]):
            return False
    if "storage_classes" in given and claim["storage_class"] not in given["storage_classes"]:
        return False
    return all(claim["labels"].get(key) == str(value) for key, value in (given.get("labels") or {}).items())


# What follows on the servers -----------------------------------------------------------------------------


def quotas(growths: Iterable[Growth]) -> list[dict[str, Any]]:
    """The limits that nfs_quotas has to set: those of NFS volumes whose claims have, or get, the size."""
    return [
        {
            "server": one.volume.server,
            "path": one.volume.path,
            "share": one.volume.share,
            "server_dir": one.volume.server_dir,
            "limit": _quantity.to_bytes(one.target),
            "claim": one.name,
        }
        for one in growths
        if one.volume and one.volume.path and not one.refusal
    ]


def shares(
    volumes: Iterable[Volume], growths: Iterable[Growth], servers: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """How much each share promises, before and after, and by how much that is more than it has.

    A volume that no entry of storage_servers covers counts for the directory above its own. The size of a share is the
    C(size) of its entry; where it is not given, C(overcommitted) is null.
    """
    sizes = {
        (one["name"], share["server_path"]): _quantity.to_bytes(share["size"])
        for one in servers
        for share in one.get("shares") or []
        if share.get("size")
    }
    known = {one["name"]: [one["name"], *(one.get("addresses") or [])] for one in servers}
    grown = {one.volume.name: _quantity.to_bytes(one.target) for one in growths if one.volume and not one.refusal}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for volume in volumes:
        if not volume.server or not volume.path:
            continue
        directory = volume.share or posixpath.dirname(volume.path)
        entry = found.setdefault(
            (volume.server, directory),
            {"server": volume.server, "path": directory, "promised_before": 0, "promised": 0},
        )
        entry["promised_before"] += volume.capacity
        entry["promised"] += max(volume.capacity, grown.get(volume.name, 0))
    for (server, directory), entry in found.items():
        # Two servers may have shares of the same path.
        owners = _addresses.owners(server, known)
        size = sizes.get((owners[0], directory)) if len(owners) == 1 else None
        entry["size"] = size
        entry["overcommitted"] = None if size is None else max(0, entry["promised"] - size)
    return [found[key] for key in sorted(found)]
