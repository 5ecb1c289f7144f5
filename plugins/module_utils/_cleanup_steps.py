# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a clean-up, one volume and one directory after the other, and why others get none: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_csi
from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Classified, Found
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import Place
from ansible_collections.clusterkit.storage.plugins.module_utils._times import days, duration, seconds_of, seconds_since
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

MISSING = "missing"  # the method of a step on a volume without a directory
# Those that Kubernetes and the sidecar of CSI drivers take away by themselves once the policy is Retain.
KNOWN_FINALIZERS = frozenset({"kubernetes.io/pv-protection", "external-provisioner.volume.kubernetes.io/finalizer"})


@dataclass
class Decisions:
    """Steps, and what was not planned and why. C(changes): how many volumes and directories are concerned."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[dict[str, str]] = field(default_factory=list)
    notes: list[dict[str, str]] = field(default_factory=list)
    changes: int = 0
    bytes: int = 0


def words_of(size: int) -> str:
    """Bytes for a person."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


class Planner:
    def __init__(
        self,
        sets: Sequence[DirectorySet],
        listing: Listing,
        given: Mapping[str, Any],
        classified: Classified,
        sizes: Mapping[tuple[str, str], Mapping[str, Any]],
    ) -> None:
        self._sets = sets
        self._listing = listing
        self._given = given
        self._classified = classified
        self._sizes = sizes
        facts = listing.facts or Facts()
        self._facts = facts
        self._protected = facts.protected | frozenset(given["protected_namespaces"])
        self._now = seconds_of(listing.listed_at)
        self._released_for = duration(given["released_for"])
        self._made = Decisions()

    def run(self) -> Decisions:
        self._judge_intents()
        for found in self._classified.directories:
            if found.kind in ("released", "failed") and found.volume is not None and self._is_meant(found.volume):
                self._judge_volume(found, found.volume)
            elif found.kind in ("orphan", "archived"):
                self._judge_other(found)
        for volume, place in self._classified.missing:
            self._judge_missing(volume, place)
        for volume in self._classified.unplaced:
            self._note(volume.name, f"{volume.server}:{volume.path} is in no share of storage_servers; nothing is done")
        for volume, place in self._classified.unlisted:
            self._note(volume.name, f"{place.directory} was not looked at: it came after the listing; run it again")
        return self._made

    def _note(self, item: str, reason: str) -> None:
        self._made.notes.append({"item": item, "reason": reason})

    def _refuse(self, item: str, reason: str) -> None:
        self._made.refusals.append({"item": item, "reason": reason})

    # Volumes ------------------------------------------------------------------------------------------

    def _is_meant(self, volume: Volume) -> bool:
        given, namespace = self._given, volume.claim[0] if volume.claim else ""
        if _like(namespace, given["exclude_namespaces"]) or _like(
            volume.storage_class, given["exclude_storage_classes"]
        ):
            return False
        for value, patterns in (
            (volume.name, given["names"]),
            (namespace, given["namespaces"]),
            (volume.storage_class, given["storage_classes"]),
        ):
            if patterns and not _like(value, patterns):
                return False
        age = seconds_since(volume.released_at, self._now)
        if age is None:
            self._refuse(volume.name, f"is {volume.phase}, and nobody knows since when")
            return False
        return age >= self._released_for

    def _judge_volume(self, found: Found, volume: Volume) -> None:
        problem = self._why_not(volume)
        if not problem and found.record.get("mount_point"):
            problem = f"{found.path} is a mount point"
        if not problem and self._given["method"] == "provisioner":
            problem = self._why_not_by_provisioner(found, volume)
        if problem:
            self._refuse(volume.name, problem)
            return
        step = self._volume_step(volume, Place(found.host, found.share, found.path), self._given["method"])
        why = step["reason"]
        if self._given["method"] == "provisioner":
            after = f"removed by {volume.provisioner}, with {found.path}"
            self._made.steps.append({**step, **self._size(found), "after": after})
            return
        scope = "content" if found.is_root else "directory"
        self._made.steps += [
            self._directory_step(found, volume.name, why, scope=scope, volume={"name": volume.name, "uid": volume.uid}),
            {**step, "after": "removed, its objects are kept"},
        ]

    def _volume_step(self, volume: Volume, place: Place, method: str) -> dict[str, Any]:
        self._made.changes += 1
        claim = f", {volume.claim_name}" if volume.claim else ""
        return {
            "item": volume.name,
            "module": "pv_cleanup",
            "state": "absent",
            "method": method,
            "server_host": place.host,
            "directory": place.directory,
            "share": place.share,
            "precondition": {"uid": volume.uid, "resource_version": volume.resource_version},
            "before": f"{volume.phase} since {volume.released_at}, {volume.policy}{claim}",
            "reason": f"{volume.phase} for {days(seconds_since(volume.released_at, self._now) or 0)}",
        }

    def _judge_missing(self, volume: Volume, place: Place) -> None:
        gone = f"{place.directory} on {place.host} is not there"
        given_back = volume.phase in ("Released", "Failed") and not volume.deleting
        if not (self._given["missing"] and given_back and self._is_meant(volume)):
            self._note(volume.name, f"is missing: {gone}; nothing is done")
            return
        problem = self._classified.doubts[volume.uid] or self._why_not(volume)
        if problem:
            self._refuse(volume.name, f"is missing, but stays: {problem}")
            return
        step = self._volume_step(volume, place, MISSING)
        why = f"missing: {gone}; {step['reason']}"
        self._made.steps.append({**step, "after": "removed, there is no directory", "reason": why})

    def _why_not(self, volume: Volume) -> str:
        claim = volume.claim
        if claim and claim[0] in self._protected:
            return f'belongs to the protected namespace "{claim[0]}"'
        if {volume.name, f"{volume.server}:{volume.path}"} & self._facts.recycled:
            return "a recycler pod is emptying it"
        living = self._facts.claims.get(claim[:2]) if claim else None
        if claim and living and living == claim[2]:
            return f"its claim {volume.claim_name} still exists"
        if living:
            return (
                f"its claim {volume.claim_name} exists again, with another uid: whose data this is must be decided by "
                "a person; delete or rename one of the two"
            )
        if volume.policy == "Recycle":
            return "its policy is Recycle: the controller may be emptying it; set policy Retain first (reclaim)"
        if volume.policy == "Delete" and volume.provisioner and volume.provisioner_state != "stopped":
            return (
                f"its policy is Delete and its provisioner {volume.provisioner} is {volume.provisioner_state}: it may "
                "be deleting the data at this moment; set policy Retain first (reclaim)"
            )
        strange = sorted(set(volume.finalizers) - KNOWN_FINALIZERS)
        if strange:
            return f"has the finalizer {strange[0]}, which is not ours to wait for"
        return ""

    def _why_not_by_provisioner(self, found: Found, volume: Volume) -> str:
        """Why its provisioner would not take exactly the directory of this volume."""
        known = self._listing.classes.get(volume.storage_class)
        if not volume.is_dynamic or not volume.provisioner:
            return "was not made by a provisioner, so none would remove it"
        if volume.provisioner_state != "running":
            return f"its provisioner {volume.provisioner} is {volume.provisioner_state}"
        if known is None or known["provisioner"] != volume.provisioner:
            return f'its StorageClass "{volume.storage_class}" is not there, or is of another provisioner'
        name = found.path.rpartition("/")[2]
        if found.is_root or not name:
            return "is the root of its share"
        if volume.driver == "csi":
            below = _nfs_csi.told(volume.csi_attributes).get("subdir", "").strip("/")
            if below != name:
                return f'its directory "{below}" is nested: its provisioner would take more than that'
            return ""
        roots = {
            place.directory
            for provisioner, place in self._classified.carriers
            if provisioner == volume.provisioner and place.host == found.host
        }
        if roots != {found.path.rpartition("/")[0]}:
            where = ", ".join(sorted(roots)) or "nobody knows where"
            return (
                f"{found.path} is not at the root of the share of its provisioner ({where}): it would take another one"
            )
        twins = [
            one.name
            for one, place in self._classified.placed.values()
            if one.uid != volume.uid and place.directory.rpartition("/")[2] == name
        ]
        return (
            f"volume {twins[0]} has a directory of the same name, and one would be taken for the other" if twins else ""
        )

    # Others -------------------------------------------------------------------------------------------

    def _judge_other(self, found: Found) -> None:
        given, name = self._given, found.path.rpartition("/")[2]
        wanted = given["orphans"] if found.kind == "orphan" else given["archives"]
        if not wanted or given["namespaces"] or given["storage_classes"]:
            return
        if given["names"] and not _like(name, given["names"]):
            return
        age = self._ages[found.host] - found.record["ctime"] if found.host in self._ages else 0.0
        if age < self._released_for:
            self._note(found.path, f"{found.kind}, but changed {days(max(age, 0))} ago only")
            return
        if found.record.get("mount_point"):
            self._refuse(found.path, "is a mount point")
            return
        self._made.changes += 1
        why = f"{found.kind}: {found.reason}; unchanged for {days(age)}"
        self._made.steps.append(self._directory_step(found, found.path, why))

    @property
    def _ages(self) -> dict[str, float]:
        """By host the time of its list, by its own clock."""
        return {one.host: seconds_of(one.listed_at) for one in self._sets}

    def _size(self, found: Found) -> dict[str, Any]:
        record = self._sizes.get((found.host, found.path))
        if record is None:
            return {"size_complete": False}
        self._made.bytes += record["size"]
        return {"size": record["size"], "size_complete": bool(record["size_complete"])}

    def _directory_step(self, found: Found, item: str, why: str, **more: Any) -> dict[str, Any]:
        size = self._size(found)
        told = f", {words_of(size['size'])}" if "size" in size else ""
        return {
            "item": item,
            "module": "volume_dirs",
            "state": "quarantined",
            "host": found.host,
            "share": found.share,
            "directory": found.path,
            "scope": "directory",
            "precondition": {"device": found.record["device"], "inode": found.record["inode"]},
            "before": f"{found.path}{told}",
            "after": "in quarantine",
            "reason": why,
            **size,
            **more,
        }

    # What an earlier run has left ---------------------------------------------------------------------

    def _judge_intents(self) -> None:
        if not any(one.intents for one in self._sets):
            return
        volumes = {one.uid: one for one in self._listing.volumes}
        there = {(one.host, one.path): one for one in self._classified.directories}
        for one in self._sets:
            kept = {((record["volume"] or {}).get("uid"), record["scope"]) for record in one.quarantined}
            for intent in one.intents:
                self._judge_intent(one, intent, volumes, there, kept)

    def _judge_intent(
        self,
        one: DirectorySet,
        intent: Mapping[str, Any],
        volumes: Mapping[str, Volume],
        there: Mapping[tuple[str, str], Found],
        kept: set[tuple[str | None, str]],
    ) -> None:
        name, uid, path = intent["volume"]["name"], intent["volume"]["uid"], intent["directory"]
        if intent["cluster_uid"] != self._listing.cluster_uid:
            self._note(name, f"an intent is open for it, of another cluster ({intent['cluster_uid']})")
            return
        if intent["restored"]:
            self._note(name, "its directory was brought back, and its objects may not be: run undelete")
            return
        volume, found = volumes.get(uid), there.get((one.host, path))
        step = {
            "item": name,
            "module": "volume_dirs",
            "host": one.host,
            "share": intent["share"],
            "directory": path,
            "scope": intent["scope"],
            "volume": dict(intent["volume"]),
            "precondition": {"device": intent["device"], "inode": intent["inode"]},
        }
        if volume is not None and volume.deleting:
            self._note(name, f"is being deleted since {volume.deleting}; its intent stays open until it is gone")
        elif volume is not None:
            why = "an earlier run was ended before the volume was removed; it is there, so its intent is withdrawn"
            self._made.steps.append(
                {**step, "state": "closed", "before": "intent", "after": "no intent", "reason": why}
            )
        elif found is None and (uid, intent["scope"]) in kept:
            why = "an earlier run was ended; its directory is in quarantine"
            self._made.steps.append(
                {**step, "state": "closed", "before": "intent", "after": "no intent", "reason": why}
            )
        elif found is None:
            self._refuse(name, f"an intent is open for it, and {path} is not there: look for it before you close that")
        elif (found.record["device"], found.record["inode"]) != (intent["device"], intent["inode"]):
            self._refuse(name, f"an intent is open for it, and {path} is another directory by now")
        elif found.volume is not None or found.obstacle:
            user = f"the directory of volume {found.volume.name}" if found.volume else found.obstacle
            self._refuse(name, f"an intent is open for it, and {path} is {user} by now")
        elif self._removed_with_volume(intent):
            why = "an earlier run was ended after the volume was removed; this finishes it"
            self._made.steps.append(
                {**step, "state": "quarantined", "before": path, "after": "in quarantine", "reason": why}
            )

    def _removed_with_volume(self, intent: Mapping[str, Any]) -> bool:
        """A protected namespace also protects what was begun before it was protected."""
        reference = (intent["objects"]["volume"].get("spec") or {}).get("claimRef") or {}
        if reference.get("namespace") in self._protected:
            reason = f'belongs to the protected namespace "{reference["namespace"]}"'
            self._refuse(intent["volume"]["name"], f"an intent is open for it, but it {reason}")
            return False
        return True


def _like(text: str, patterns: Iterable[str]) -> bool:
    return any(text == one or fnmatchcase(text, one) for one in patterns)
