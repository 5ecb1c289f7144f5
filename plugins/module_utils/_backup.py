# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of volumes as data: what is asked for, what a generation is, which ones have had their time."""

from __future__ import annotations

import calendar
import copy
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._directories import path_problem

SCHEMA = 1
LATEST = "latest"
UNCLAIMED = "_unclaimed"  # in place of the namespace of a volume without a claim: no namespace has such a name
SAMPLED = 500  # files of a sample: each is an argument of a command
KEEP = ("last", "daily", "weekly", "monthly", "yearly")

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)  # RFC 1123 label
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")  # RFC 1123 subdomain
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z(?:\.[0-9]+)?")
_CREDENTIALS = re.compile(r"(://)[^/@\s]+@")

# What the API server fills in, and what would tie a new object to the old cluster.
_SERVER_FIELDS = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "managedFields", "selfLink", "ownerReferences", "finalizers",
)  # fmt: skip
_SERVER_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
)


class BackupError(Exception):
    """Why a backup, a restore or a verification cannot be done, in words for a person."""


@dataclass(frozen=True)
class Volume:
    """A volume of which a generation is made."""

    name: str
    namespace: str
    claim: str
    server_dir: str
    objects: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """Where its generations are kept, and what tells them from those of others."""
        return key_of(self.namespace, self.name)


def key_of(namespace: str, name: str) -> str:
    return f"{namespace or UNCLAIMED}/{name}"


@dataclass(frozen=True)
class Generation:
    """One backup of one volume."""

    engine: str
    generation: str  # rsync: the name of its folder; restic: the id of the snapshot
    namespace: str
    name: str
    claim: str
    time: float
    complete: bool
    damaged: bool = False
    counts: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        return key_of(self.namespace, self.name)

    @property
    def good(self) -> bool:
        return self.complete and not self.damaged

    def data(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "generation": self.generation,
            "namespace": self.namespace,
            "name": self.name,
            "claim": self.claim,
            "time": rfc3339(self.time),
            "complete": self.complete,
            "damaged": self.damaged,
            "files": self.counts.get("files"),
            "bytes": self.counts.get("bytes"),
        }


# --- what is asked for -------------------------------------------------------------------------------------


def identity_problems(label: str, item: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the names that say whose backup it is; they become parts of paths."""
    problems = []
    name, namespace = item.get("name") or "", item.get("namespace") or ""
    if not _NAME.fullmatch(name) or len(name) > 253:
        problems.append(f"{label}.name: {name!r} is not the name of a PersistentVolume")
    if namespace and not _NAMESPACE.fullmatch(namespace):
        problems.append(f"{label}.namespace: {namespace!r} is not the name of a namespace")
    return problems


def identities_problems(items: Sequence[Mapping[str, Any]]) -> list[str]:
    return [one for number, item in enumerate(items) for one in identity_problems(f"volumes[{number}]", item)]


def directory_problems(label: str, directory: str) -> list[str]:
    problem = path_problem(directory)
    return [f"{label}.server_dir: {problem}"] if problem else []


def read_volumes(items: Sequence[Mapping[str, Any]]) -> tuple[list[Volume], list[str]]:
    """Return the volumes and everything that is wrong with the list, each problem with its place."""
    volumes, problems = [], []
    listed: dict[str, str] = {}
    for number, item in enumerate(items):
        label = f"volumes[{number}]"
        found = identity_problems(label, item) + directory_problems(label, item.get("server_dir") or "")
        volume = Volume(
            name=item.get("name") or "",
            namespace=item.get("namespace") or "",
            claim=item.get("claim") or "",
            server_dir=(item.get("server_dir") or "").rstrip("/"),
            objects=item.get("objects") or {},
        )
        if volume.key in listed:
            found.append(f"{label}: {volume.key} is listed already ({listed[volume.key]})")
        listed.setdefault(volume.key, label)
        problems += found
        volumes.append(volume)
    return volumes, problems


def overlap_problems(volumes: Iterable[Volume], repository: str) -> list[str]:
    """A copy that lies in what is copied grows without end, and a client of the volume can reach it."""
    return [
        f"repository: {repository} and {volume.server_dir}, the directory of {volume.key}, lie in one another"
        for volume in volumes
        if _within(repository, volume.server_dir) or _within(volume.server_dir, repository)
    ]


def _within(inner: str, outer: str) -> bool:
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def relative_problem(path: str) -> str | None:
    """Return what is wrong with a path inside a volume."""
    if not path or path.startswith("/"):
        return f"{path!r} is not relative to the root of the volume"
    if "\0" in path:
        return f"{path!r} has a zero byte in it"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return f'{path!r} is not in its plain form, without ".", ".." and empty parts'
    return None


def paths_problems(label: str, paths: Sequence[str]) -> list[str]:
    problems = []
    for number, path in enumerate(paths):
        problem = relative_problem(path)
        if problem:
            problems.append(f"{label}.paths[{number}]: {problem}")
    for path in sorted(set(paths)):
        outer = next((other for other in paths if other != path and _within(path, other)), None)
        if outer is not None:
            problems.append(f"{label}.paths: {path!r} lies in {outer!r}, which is listed too")
    if len(set(paths)) < len(paths):
        problems.append(f"{label}.paths: the same path is listed twice")
    return problems


# --- generations -------------------------------------------------------------------------------------------


def stamp(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds_of_stamp(text: str) -> float | None:
    """Return the time that the name of a generation says, None for another name."""
    if not _STAMP.fullmatch(text):
        return None
    try:
        whole, _separator, part = text.partition("Z.")
        # Two generations of one second: the second one is later by a little.
        return calendar.timegm(time.strptime(whole.rstrip("Z"), "%Y%m%dT%H%M%S")) + int(part or 0) / 1000
    except ValueError:
        return None


def select(generations: Iterable[Generation], key: str, wanted: str) -> Generation:
    """Return the generation of a volume that is meant. Raises BackupError when there is none, or more than one."""
    of_volume = sorted((one for one in generations if one.key == key), key=lambda one: one.time)
    if not of_volume:
        raise BackupError(f"{key}: there is no backup of it")
    if wanted == LATEST:
        good = [one for one in of_volume if one.good]
        if not good:
            raise BackupError(
                f"{key}: none of its {len(of_volume)} generations is complete and undamaged; name one of them: "
                + ", ".join(one.generation for one in of_volume[-5:])
            )
        return good[-1]
    exact = [one for one in of_volume if one.generation == wanted]
    found = exact or [one for one in of_volume if len(wanted) >= 4 and one.generation.startswith(wanted)]
    if len(found) != 1:
        what = "no generation" if not found else f"{len(found)} generations begin with"
        raise BackupError(
            f"{key}: {what} {wanted!r}; the last ones are " + ", ".join(one.generation for one in of_volume[-5:])
        )
    return found[0]


def keep_problems(keep: Mapping[str, Any] | None) -> list[str]:
    if keep is None:
        return []
    given = {name: value for name, value in keep.items() if value is not None}
    problems = [f"retention.{name}: {value} is less than 0" for name, value in given.items() if value < 0]
    if not any(value > 0 for value in given.values()):
        problems.append(f"retention: says of nothing that it is kept; give one of {', '.join(KEEP)} a number")
    return problems


_BUCKETS: dict[str, Callable[[time.struct_time], Any]] = {
    "daily": lambda t: (t.tm_year, t.tm_yday),
    "weekly": lambda t: time.strftime("%G-%V", t),
    "monthly": lambda t: (t.tm_year, t.tm_mon),
    "yearly": lambda t: t.tm_year,
}


def expired(generations: Sequence[Generation], keep: Mapping[str, Any]) -> list[Generation]:
    """Return the generations of one volume that no rule keeps, oldest first.

    As restic-forget(1) does it: the last one of each of so many days, weeks, months, years (UTC) that have one. The
    newest good generation is always kept; as long as there is none, all are. One that is not good counts for
    nothing, and is kept only while it is newer than the newest good one.
    """
    newest_first = sorted(generations, key=lambda one: (one.time, one.generation), reverse=True)
    good = [one for one in newest_first if one.good]
    if not good:
        return []
    kept = {one.generation for one in newest_first if one.time > good[0].time} | {good[0].generation}
    kept |= {one.generation for one in good[: keep.get("last") or 0]}
    for rule, bucket in _BUCKETS.items():
        seen: set[Any] = set()
        for one in good:
            if len(seen) == (keep.get(rule) or 0):
                break
            found = bucket(time.gmtime(one.time))
            if found not in seen:
                seen.add(found)
                kept.add(one.generation)
    return [one for one in reversed(newest_first) if one.generation not in kept]


def sampled(paths: Iterable[str], share: float, seed: int) -> list[str]:
    """Return so many percent of the paths, at least one and at most SAMPLED, others for another seed."""
    chosen = list(paths)
    wanted = min(max(math.ceil(len(chosen) * share / 100), 1), SAMPLED, len(chosen))
    return sorted(random.Random(seed).sample(chosen, wanted))  # noqa: S311 - not for secrets


# --- objects -----------------------------------------------------------------------------------------------


def cleaned(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as it can be created on a cluster that has never seen it."""
    result = copy.deepcopy(dict(item))
    result.pop("status", None)
    metadata = result.get("metadata") or {}
    for name in _SERVER_FIELDS:
        metadata.pop(name, None)
    annotations = metadata.get("annotations") or {}
    for name in _SERVER_ANNOTATIONS:
        annotations.pop(name, None)
    if not annotations:
        metadata.pop("annotations", None)
    reference = (result.get("spec") or {}).get("claimRef")
    if reference:
        # Reserved for the claim of that name, whichever uid it gets.
        for name in ("uid", "resourceVersion"):
            reference.pop(name, None)
    return result


def object_files(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the files that are kept beside the data: one that can be applied, and the originals."""
    ordered = [objects[kind] for kind in ("storage_class", "volume", "claim") if objects.get(kind)]
    return {
        "objects.json": {"apiVersion": "v1", "kind": "List", "items": [cleaned(one) for one in ordered]},
        "objects-original.json": {"apiVersion": "v1", "kind": "List", "items": ordered},
    }


def without_credentials(text: str) -> str:
    """Hide user and password in addresses such as those of rest-server."""
    return _CREDENTIALS.sub(r"\1***@", text)


# --- progress ----------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a copy is; the totals are 0 as long as nobody knows them."""

    started: float
    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0

    def line(self, key: str, now: float) -> str:
        passed = max(now - self.started, 0.001)
        rate = self.bytes / passed
        words = [f"{rfc3339(time.time())} {key}: {self.files}{_of(self.total_files)} files"]
        words.append(f"{size(self.bytes)}{_of(self.total_bytes, size)}")
        words.append(f"{size(rate)}/s")
        if self.total_bytes and rate:
            words.append(f"about {duration(max(self.total_bytes - self.bytes, 0) / rate)} left")
        return ", ".join(words)


def _of(total: float, show: Callable[[float], str] = lambda number: f"{number:.0f}") -> str:
    return f" of {show(total)}" if total else ""


def size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
