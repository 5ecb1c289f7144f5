# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes back from quarantine, and what is removed for good, as plans: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._cleanup import check_listing
from ansible_collections.clusterkit.storage.plugins.module_utils._cleanup_steps import words_of
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet, Record
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._times import days, duration, seconds_of
from ansible_collections.clusterkit.storage.plugins.module_utils._undelete_run import PREVIOUS_POLICY, RESTORED_FROM
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import BOUND_BY_CONTROLLER, Volume

_FILES: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {"host": {"type": "str", "required": True}, "path": {"type": "path", "required": True}},
}
_SERVERS: dict[str, Any] = {"type": "list", "elements": "dict", "required": True}
UNDELETE: dict[str, Any] = {
    "directories": _FILES,
    "storage_servers": _SERVERS,
    "names": {"type": "list", "elements": "str", "required": True},
    "to_claim": {"type": "str"},
    "make_claim": {"type": "bool", "default": False},
}
PURGE: dict[str, Any] = {
    "directories": _FILES,
    "storage_servers": _SERVERS,
    "retention": {"type": "str", "default": "14d"},
    "names": {"type": "list", "elements": "str", "default": []},
    "allow_now": {"type": "bool", "default": False},
    "max_bytes": {"type": "str"},
    "protected_namespaces": {"type": "list", "elements": "str", "default": []},
}


class _Plan:
    """What both have in common."""

    def __init__(self, sets: Sequence[DirectorySet], listing: Listing, given: Mapping[str, Any]) -> None:
        check_listing(listing)
        self.sets = sets
        self.listing = listing
        self.given = given
        self.facts = listing.facts or Facts()
        self.steps: list[dict[str, Any]] = []
        self.refusals: list[dict[str, str]] = []

    def refuse(self, item: str, reason: str) -> None:
        self.refusals.append({"item": item, "reason": reason})

    def make(
        self, action: str, request: Mapping[str, Any], unchanged: int, host: str, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return _plan.make(
            action,
            cluster_uid=self.listing.cluster_uid,
            listed_at=self.listing.listed_at,
            request={**request, "storage_servers": self.given["storage_servers"]},
            steps=self.steps,
            refusals=self.refusals,
            unchanged=unchanged,
            host=host,
            in_order=True,
            more={"changes": sum(1 for step in self.steps if step["module"] == "volume_dirs"), **(more or {})},
        )

    def entries(self) -> Iterator[tuple[DirectorySet, Record]]:
        """What this cluster has in quarantine."""
        for one in self.sets:
            for record in one.quarantined:
                if record["cluster_uid"] == self.listing.cluster_uid:
                    yield one, record

    def step(self, one: DirectorySet, record: Record, state: str, **more: Any) -> dict[str, Any]:
        return {
            "item": item_of(record),
            "module": "volume_dirs",
            "state": state,
            "host": one.host,
            "share": record["share"],
            "scope": record["scope"],
            "volume": dict(record["volume"]) if record["volume"] else None,
            "precondition": {"device": record["device"], "inode": record["inode"]},
            **more,
        }


def item_of(record: Record) -> str:
    return str(record["volume"]["name"] if record["volume"] else record["directory"])


def _like(texts: Iterable[str], patterns: Iterable[str]) -> bool:
    patterns = list(patterns)
    return any(text == one or fnmatchcase(text, one) for text in texts for one in patterns)


# Back ----------------------------------------------------------------------------------------------------


def undelete(
    sets: Sequence[DirectorySet], listing: Listing, given: Mapping[str, Any], *, host: str = "localhost"
) -> dict[str, Any]:
    """Raises ValueError when the request makes no sense."""
    return _Undelete(sets, listing, given).plan(host)


class _Undelete(_Plan):
    def plan(self, host: str) -> dict[str, Any]:
        if not self.given["names"]:
            raise ValueError("names is empty: nothing means nothing, never all")
        target = self._target()
        wanted = list(self._wanted())
        chosen = [record for _set, record in wanted if record["volume"]]
        if target and len(chosen) > 1:
            raise ValueError(f"to_claim: {len(chosen)} volumes are meant, and only one can be for {'/'.join(target)}")
        twice = {item_of(one) for one in chosen if [item_of(each) for each in chosen].count(item_of(one)) > 1}
        for one, record in wanted:
            if item_of(record) in twice:
                self.refuse(item_of(record), f"is in quarantine more than once; name the entry {record.get('entry')}")
            else:
                self._judge(one, record, target)
        request = {"to_claim": self.given["to_claim"], "make_claim": self.given["make_claim"]}
        return self.make("undelete", request, 0, host)

    def _target(self) -> tuple[str, str] | None:
        if not self.given["to_claim"]:
            return None
        namespace, slash, name = self.given["to_claim"].partition("/")
        if not slash or not namespace or not name or "/" in name:
            raise ValueError(f'to_claim: "{self.given["to_claim"]}" is no claim; write NAMESPACE/NAME')
        return namespace, name

    def _wanted(self) -> Iterator[tuple[DirectorySet, Record]]:
        """What is meant, and what an earlier run has brought back without its objects."""
        for one, record in self.entries():
            if _like({item_of(record), record["entry"], record["directory"]}, self.given["names"]):
                yield one, record
        for one in self.sets:
            for record in one.intents:
                mine = record["cluster_uid"] == self.listing.cluster_uid
                if mine and record["restored"] and _like({item_of(record)}, self.given["names"]):
                    yield one, record

    def _judge(self, one: DirectorySet, record: Record, target: tuple[str, str] | None) -> None:
        item, is_back = item_of(record), record["kind"] == "Intent"
        there = {each["path"] for each in one.directories}
        if not is_back and record["state"] != "quarantined":
            self.refuse(item, f"is {record['state']}: it cannot be brought back whole")
            return
        if not is_back and record["inode"] is None:
            self.refuse(item, f"there is no directory in {record['entry']}")
            return
        if not is_back and record["scope"] == "directory" and record["directory"] in there:
            self.refuse(item, f"{record['directory']} is there again, and in the way; rename it first")
            return
        made: dict[str, Any] | None = None
        if record["volume"]:
            problem, made = self._objects(record, target)
            if problem:
                self.refuse(item, problem)
                return
        place = record["directory"]
        since = record["at"] if is_back else record["quarantined_at"]
        if is_back:
            step = self.step(one, record, "closed", before="brought back, objects kept", after="no intent")
            self.steps.append({**step, "reason": "an earlier run was ended before its objects were made"})
        else:
            step = self.step(one, record, "restored", entry=record["entry"], before=f"in quarantine since {since}")
            self.steps.append({**step, "after": place, "reason": record["reason"] or "asked for"})
        if made:
            claim = made["volume"]["spec"]["claimRef"]
            self.steps.append(
                {
                    "item": item,
                    "module": "pv_cleanup",
                    "state": "present",
                    "objects": made,
                    "precondition": {"uid": record["volume"]["uid"]},
                    "before": "no PersistentVolume",
                    "after": f"Retain, reserved for {claim['namespace']}/{claim['name']}",
                    "reason": "its claim is made, too" if made["claim"] else "only that claim may take it",
                }
            )

    def _objects(self, record: Record, target: tuple[str, str] | None) -> tuple[str, dict[str, Any] | None]:
        """Why its objects cannot be made again, or what is made."""
        old = (record.get("objects") or {}).get("volume")
        if not old:
            return "its manifest holds no objects", None
        name = old["metadata"]["name"]
        living = next((one for one in self.listing.volumes if one.name == name), None)
        if living is not None and living.uid == record["volume"]["uid"]:
            # What reclaim put away, of a volume that is there still.
            return f"PersistentVolume {name} was never removed: only its content is in quarantine", None
        if living is not None and living.annotations.get(RESTORED_FROM) != record["volume"]["uid"]:
            return f"PersistentVolume {name} is there again, for {living.claim_name or 'nobody'}", None
        user = self._user_of(old)
        if user is not None and user is not living:
            return f"PersistentVolume {user.name} names the same server and path by now", None
        reference = old["spec"].get("claimRef") or {}
        claim = target or (str(reference.get("namespace") or ""), str(reference.get("name") or ""))
        if not claim[0] or not claim[1]:
            return "it had no claim: any claim might take it; say undelete_to_claim", None
        found = next((one for one in self.listing.claims if (one["namespace"], one["name"]) == claim), None)
        if found is not None and found["volume"] and found["volume"] != name:
            return (
                f"claim {claim[0]}/{claim[1]} was made again and has the volume {found['volume']} by now; scale its "
                "workload down and delete that claim, or give this one to another claim with undelete_to_claim",
                None,
            )
        return "", manifests(old, record["volume"]["uid"], claim, claim_too=self.given["make_claim"] and found is None)

    def _user_of(self, old: Mapping[str, Any]) -> Volume | None:
        was = Volume.of(old)
        for one in self.listing.volumes:
            if one.server == was.server and one.path == was.path and one.path is not None:
                return one
        return None


def manifests(old: Mapping[str, Any], uid: str, claim: tuple[str, str], *, claim_too: bool) -> dict[str, Any]:
    """A volume as it was, for the claim, with policy Retain; and that claim."""
    metadata, spec = old["metadata"], dict(old["spec"])
    notes = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != BOUND_BY_CONTROLLER}
    policy = spec.get("persistentVolumeReclaimPolicy") or "Retain"
    if policy != "Retain":
        notes[PREVIOUS_POLICY] = policy
    notes[RESTORED_FROM] = uid
    spec["persistentVolumeReclaimPolicy"] = "Retain"
    kind = {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}
    spec["claimRef"] = {**kind, "namespace": claim[0], "name": claim[1]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": metadata["name"], "labels": metadata.get("labels") or {}, "annotations": notes},
        "spec": spec,
    }
    wanted = {
        **kind,
        "metadata": {"namespace": claim[0], "name": claim[1]},
        "spec": {
            "accessModes": spec.get("accessModes") or [],
            "resources": {"requests": {"storage": (spec.get("capacity") or {}).get("storage", "1")}},
            "storageClassName": spec.get("storageClassName") or "",
            "volumeName": metadata["name"],
        },
    }
    return {"volume": volume, "claim": wanted if claim_too else None}


# For good ------------------------------------------------------------------------------------------------


def purge(
    sets: Sequence[DirectorySet], listing: Listing, given: Mapping[str, Any], *, host: str = "localhost"
) -> dict[str, Any]:
    """Raises ValueError when the request makes no sense."""
    return _Purge(sets, listing, given).plan(host)


class _Purge(_Plan):
    def plan(self, host: str) -> dict[str, Any]:
        retention = duration(self.given["retention"])
        if self.given["allow_now"] and not self.given["names"]:
            raise ValueError("allow_now: name what is meant (names); nothing never means all")
        self._limit = _quantity.to_bytes(self.given["max_bytes"]) if self.given["max_bytes"] else None
        # What an earlier run has begun to remove goes with every purge, so it counts first.
        self._bytes = sum(record.get("size") or 0 for _set, record in self.entries() if record["state"] == "purging")
        protected = self.facts.protected | frozenset(self.given["protected_namespaces"])
        volumes = {one.uid for one in self.listing.volumes}
        back = {one.annotations.get(RESTORED_FROM) for one in self.listing.volumes}
        young, waits = 0, ""
        notes: list[dict[str, str]] = []
        for one, record in sorted(self.entries(), key=lambda pair: str(pair[1]["quarantined_at"])):
            item, names = item_of(record), self.given["names"]
            if names and not _like({item, record["entry"], record["directory"]}, names):
                continue
            age = seconds_of(one.listed_at) - seconds_of(record["quarantined_at"])
            if (age < retention or age < 0) and not self.given["allow_now"]:
                young += 1
                continue
            problem = self._why_not(record, protected, volumes | {uid for uid in back if uid})
            if problem:
                self.refuse(item, problem)
                continue
            begun = record["state"] == "purging"
            if waits and not begun:
                notes.append({"item": item, "reason": waits})
                continue
            if not begun and self._goes_beyond(record):
                waits = f"waits for a later run, as {item} does, which is older"
                self.refuse(item, self._goes_beyond(record))
                continue
            self._add(one, record, age)
        request = {key: self.given[key] for key in ("retention", "allow_now", "max_bytes")}
        return self.make("purge", request, young, host, {"bytes": self._bytes, "notes": notes})

    def _goes_beyond(self, record: Record) -> str:
        """Why no more than what is planned already may go: the oldest first, and nothing in place of what is large."""
        if self._limit is None:
            return ""
        if not record.get("size_complete"):
            return (
                f"max_bytes is {self.given['max_bytes']}, and how large it is was not measured to its end; it goes "
                "without that limit only"
            )
        if self._bytes + record["size"] > self._limit:
            before = f"after {words_of(self._bytes)} that go before it " if self._bytes else ""
            return f"takes {words_of(record['size'])}, {before}more than max_bytes, which is {self.given['max_bytes']}"
        return ""

    def _add(self, one: DirectorySet, record: Record, age: float) -> None:
        told = f", {words_of(record['size'])}" if record.get("size_complete") else ""
        before = f"in quarantine for {days(age)}{told}"
        reason = record["reason"] or "its time is over"
        step = self.step(one, record, "purged", entry=record["entry"], before=before)
        self.steps.append({**step, "after": "removed for good", "reason": reason})
        if record["state"] != "purging":
            self._bytes += record.get("size") or 0

    @staticmethod
    def _why_not(record: Record, protected: frozenset[str], living: set[str]) -> str:
        if record["state"] == "restoring":
            return f"{record['entry']} is on its way back"
        if record["inode"] is None:
            return f"there is no directory in {record['entry']}; the next run looks after it"
        old = (record.get("objects") or {}).get("volume")
        if record["volume"] and old is None:
            return "the listing does not say whose it was; make it with objects: true"
        namespace = (((old or {}).get("spec") or {}).get("claimRef") or {}).get("namespace")
        if namespace in protected:
            return f'belonged to the protected namespace "{namespace}"'
        if record["volume"] and record["volume"]["uid"] in living and record["scope"] == "directory":
            return "its PersistentVolume is there: bring it back, or delete that first"
        return ""
