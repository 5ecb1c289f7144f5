# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let claims grow: many at a time, each of their objects under its precondition."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _changes,
    _expand,
    _listing,
    _plan,
    _quantity,
    _volume_set,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of, wait_at_random
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import BAD, Item, Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._expand import Growth, name_of
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

# Three are enough unless somebody works against it.
_MOST_CHANGES = 9


@dataclass
class Cluster:
    """Everything that the decisions hang on."""

    volumes: dict[str, Volume]
    claims: list[dict[str, Any]]
    classes: dict[str, Any]


def read(api: Api, servers: Sequence[Mapping[str, Any]]) -> Cluster:
    volumes = api.list_all(_volume_set.VOLUMES, Volume.of).items
    known = ServerMap(servers)
    for one in volumes if servers else ():
        one.place_in(known)
    return Cluster({one.name: one for one in volumes}, _listing.read_claims(api), _listing.read_classes(api))


def expand(api: Api, given: Mapping[str, Any], *, check_mode: bool, diff: bool) -> Outcome:
    """Do what the arguments of the module say.

    Raises ValueError when they make no sense, ApiError when the API does not give what is needed to begin.
    """
    found = _changes.load_plan(api, given["plan"], "expand")
    cluster = read(api, given["storage_servers"])
    allow = bool(found["request"]["allow_delete_policy"] if found else given["allow_delete_policy"])
    run = Run(api, cluster.classes, allow, bool(found), given["on_error"], diff, given["retry_timeout"])
    settled: list[Item] = []
    if found:
        growths, settled = from_plan(found, cluster, allow)
    else:
        growths, missing = decide_all(cluster, given, allow)
        settled = [{"claim": name, "state": "gone", "reason": "does not exist"} for name in missing]
    wrong = [f"{one.name} {one.refusal}" for one in growths if one.refusal]
    wrong += [f"{item['claim']} {item['reason']}" for item in settled]
    problem = _changes.reason_not_to_begin(api, given, sum(1 for one in growths if one.changes), wrong)
    if problem:
        items = [
            run.item(one, "not_started" if one.changes else _quiet(one), problem if one.changes else "")
            for one in growths
        ]
    else:
        items = run.carry_out(growths)
        if given["wait"] and not check_mode:
            run.wait(items, given["wait_timeout"])
    items = sorted(items + settled, key=lambda item: str(item["claim"]))
    return Outcome(
        items,
        any(item.get("done") for item in items),
        run.diffs,
        problem or _changes.problem(items, given, "claim"),
        found["id"] if found else None,
        {
            "summary": Counter(item["state"] for item in items),
            "quotas": _expand.quotas(growths),
            "shares": _expand.shares(cluster.volumes.values(), growths, given["storage_servers"]),
        },
    )


def decide_all(cluster: Cluster, given: Mapping[str, Any], allow: bool) -> tuple[list[Growth], list[str]]:
    """The decisions for all claims that are meant, and the names of those that are not there."""
    chosen, missing = _expand.choose(
        cluster.claims, named=given.get("claims"), selection=given.get("selection"), size=given.get("size")
    )
    growths = []
    for claim, size in chosen:
        target = size.target(_quantity.to_bytes(claim["capacity"]))
        volume = cluster.volumes.get(claim["volume"])
        growths.append(_expand.decide(claim, volume, cluster.classes, target, allow_delete_policy=allow))
    return growths, missing


def from_plan(found: Mapping[str, Any], cluster: Cluster, allow: bool) -> tuple[list[Growth], list[Item]]:
    """For each step the decision on the claim as it is now, or why it must not be touched."""
    growths, settled = [], []
    there = {name_of(one): one for one in cluster.claims}
    for step in found["steps"]:
        claim, wanted = there.get(step["item"]), step["precondition"]
        if claim is None:
            settled.append({"claim": step["item"], "state": "gone", "reason": "does not exist any more"})
            continue
        volume = cluster.volumes.get(wanted["volume"])
        growth = _expand.decide(claim, volume, cluster.classes, step["size"], allow_delete_policy=allow)
        same = claim["uid"] == wanted["uid"] and volume is not None and volume.uid == wanted["volume_uid"]
        # A run of this plan that was stopped has told the volume only.
        begun = volume is not None and volume.capacity == _quantity.to_bytes(step["size"])
        untouched = claim["resource_version"] == wanted["resource_version"] and (
            begun or (volume is not None and volume.resource_version == wanted["volume_resource_version"])
        )
        if same and (untouched or not (growth.changes or growth.refusal)):
            growths.append(growth)
        else:
            reason = "has changed since the plan was made; make a new plan"
            settled.append({"claim": step["item"], "state": "stale", "reason": reason})
    return growths, settled


class Run:
    """One run over many claims."""

    def __init__(
        self, api: Api, classes: Mapping[str, Any], allow: bool, strict: bool, on_error: str, diff: bool, seconds: float
    ) -> None:
        self._api = api
        self._classes = classes
        self._allow = allow
        self._strict = strict
        self._on_error = on_error
        self._diff = diff
        self._seconds = seconds
        self._stopped = threading.Event()
        self.diffs: list[dict[str, str]] = []

    def item(self, growth: Growth, state: str, reason: str = "", done: Sequence[str] = ()) -> Item:
        item: Item = {"claim": growth.name, "state": state, "size": growth.target}
        if growth.volume:
            item |= {"volume": growth.volume.name, "driver": growth.volume.driver}
        item |= {"capacity": growth.claim["capacity"], "request": growth.claim["request"], "done": list(done)}
        text = reason or growth.refusal
        item |= {key: value for key, value in (("reason", text), ("note", growth.note)) if value}
        return item

    def carry_out(self, growths: Sequence[Growth]) -> list[Item]:
        def one(growth: Growth) -> Item:
            if not growth.changes:
                return self.item(growth, _quiet(growth))
            if self._stopped.is_set():
                return self.item(growth, "not_started", "another claim failed, and on_error is stop")
            item = self._grow(growth)
            if self._on_error == "stop" and item["state"] in BAD:
                self._stopped.set()
            return item

        return self._api.each(one, growths)

    def _grow(self, first: Growth) -> Item:
        """Change after change; what others do in between is read and judged, the size stays that of the beginning."""
        growth, began, pause, uncertain = first, time.monotonic(), 0.01, False
        done: list[str] = []
        while growth.changes:
            if len(done) > _MOST_CHANGES:
                return self.item(growth, "failed", "others undo what is done for it", done)
            change = growth.changes[0]
            claim, volume = growth.claim, growth.known_volume
            of_volume = change.kind == "volume"
            path = path_of("persistentvolumes", volume.name)
            if not of_volume:
                below = "status" if change.kind == "status" else ""
                path = path_of("persistentvolumeclaims", claim["name"], claim["namespace"], subresource=below)
            version = volume.resource_version if of_volume else claim["resource_version"]
            try:
                answer = self._api.patch(path, {**change.body, "metadata": {"resourceVersion": version}})
                done.append(change.kind)
                if of_volume:
                    placed = Volume.of(answer)
                    placed.share, placed.server_dir = volume.share, volume.server_dir
                    volume = placed
                else:
                    # A dry run keeps nothing, so that the answer does not have the changes before this one.
                    key = "capacity" if change.kind == "status" else "request"
                    told = _listing.claim_record(answer)
                    claim = {**claim, key: told[key]} if self._api.dry_run else told
            except ApiError as error:
                if not error.conflict:
                    return self._broken(growth, done, error)
                uncertain = uncertain or error.uncertain
                if time.monotonic() - began > self._seconds:
                    reason = f"others changed it all the time for {self._seconds:.0f} s"
                    return self.item(growth, "failed", reason, done)
                try:
                    claim, volume = self._read(growth)
                except ApiError as problem:
                    return self._broken(growth, done, problem)
                judged = _expand.decide(claim, volume, self._classes, first.target, allow_delete_policy=self._allow)
                # What a lost answer may hide is this change, and nothing else.
                ours = uncertain and change.kind not in {one.kind for one in judged.changes}
                if self._strict and not done and not ours:
                    return self.item(growth, "stale", "has changed since the plan was made; make a new plan")
                wait_at_random(pause)
                pause = min(pause * 2, 1.0)
            growth = _expand.decide(claim, volume, self._classes, first.target, allow_delete_policy=self._allow)
        if growth.refusal:
            return self.item(growth, "failed" if done else "refused", "", done)
        if uncertain and not done:
            done = ["by a request whose answer was lost"]
        if self._diff and done:
            self.diffs.append(difference(first, growth))
        return self.item(growth, "changed" if done else "unchanged", "", done)

    def _read(self, growth: Growth) -> tuple[dict[str, Any], Volume]:
        claim, before = growth.claim, growth.known_volume
        found = self._api.get(path_of("persistentvolumeclaims", claim["name"], claim["namespace"]))
        volume = Volume.of(self._api.get(path_of("persistentvolumes", before.name)))
        if (found["metadata"]["uid"], volume.uid) != (claim["uid"], before.uid):
            raise ApiError("claim or volume was deleted and made again", 404)
        return _listing.claim_record(found), volume

    def _broken(self, growth: Growth, done: Sequence[str], error: ApiError) -> Item:
        if error.gone:
            return self.item(growth, "gone", f"claim or volume does not exist any more: {error}", done)
        doubt = "; the change may have taken effect all the same" if error.uncertain else ""
        so_far = f"; done before: {', '.join(done)}; the next run does the rest" if done else ""
        return self.item(growth, "failed", f"{error}{doubt}{so_far}", done)

    def wait(self, items: Sequence[Item], seconds: float) -> None:
        """Until the claims of CSI volumes have their size; those that do not get it become C(failed)."""
        waiting = {
            item["claim"]: item
            for item in items
            if item.get("driver") == "csi" and item["state"] in ("changed", "unchanged", "pending")
        }
        try:
            self._follow(waiting, time.monotonic() + seconds)
            problem = f"the resizer of the driver has not enlarged it after {seconds:.0f} s; does it run?"
        except ApiError as error:
            problem = f"the resizer of the driver was asked, and cannot be followed: {error}"
        for item in waiting.values():
            told = "; ".join(f"{key}: {value}" for key, value in item.pop("conditions", {}).items())
            item |= {"state": "failed", "reason": f"{problem} {told}".strip()}

    def _follow(self, waiting: dict[str, Item], deadline: float) -> None:
        """Take the claims that have their size, or are gone, out of C(waiting). Raises ApiError."""

        def look(name: str, claim: Mapping[str, Any] | None) -> None:
            item = waiting.get(name)
            if item is None:
                return
            if claim is None:
                item.pop("conditions", None)
                item |= {"state": "gone", "reason": "was deleted while it was waited for"}
                del waiting[name]
                return
            item |= {"capacity": claim["capacity"], "request": claim["request"], "conditions": claim["conditions"]}
            if _quantity.to_bytes(claim["capacity"]) >= _quantity.to_bytes(item["size"]):
                item.pop("conditions")
                item["state"] = "changed" if item["done"] else "unchanged"
                del waiting[name]

        while waiting and time.monotonic() < deadline:
            listing = self._api.list_all(_volume_set.CLAIMS, _listing.claim_record)
            there = {name_of(claim): claim for claim in listing.items}
            for name in list(waiting):
                look(name, there.get(name))
            if not waiting:
                return
            try:
                for kind, data in self._api.watch(_volume_set.CLAIMS, listing.resource_version, deadline):
                    if kind != "BOOKMARK":
                        claim = _listing.claim_record(data)
                        look(name_of(claim), None if kind == "DELETED" else claim)
                    if not waiting:
                        return
            except ApiError as error:
                if error.status != 410:
                    raise


def _quiet(growth: Growth) -> str:
    return "refused" if growth.refusal else "pending" if growth.waits else "unchanged"


def difference(before: Growth, after: Growth) -> dict[str, str]:
    def text(one: Growth) -> str:
        size = one.volume.capacity if one.volume else 0
        return f"request: {one.claim['request']}\ncapacity: {one.claim['capacity']}\nvolume: {size} bytes\n"

    header = f"PersistentVolumeClaim {before.name}"
    return {"before": text(before), "after": text(after), "before_header": header, "after_header": header}


def plan(
    growths: Sequence[Growth],
    missing: Iterable[str],
    request: Mapping[str, Any],
    *,
    cluster_uid: str,
    listed_at: str,
    host: str,
) -> dict[str, Any]:
    """The decisions as a plan."""

    def step(one: Growth) -> dict[str, Any]:
        volume = one.known_volume
        return {
            "item": one.name,
            "size": one.target,
            "precondition": one.precondition,
            "before": f"{one.claim['capacity']} (request {one.claim['request']}, volume {volume.capacity} bytes)",
            "after": one.target,
            "reason": one.note or f"{volume.driver} volume {volume.name}, policy {volume.policy}",
        }

    refusals = [{"item": one.name, "reason": one.refusal} for one in growths if one.refusal]
    refusals += [{"item": name, "reason": "does not exist"} for name in missing]
    return _plan.make(
        "expand",
        cluster_uid=cluster_uid,
        listed_at=listed_at,
        request=request,
        steps=[step(one) for one in growths if one.changes],
        refusals=refusals,
        unchanged=sum(1 for one in growths if not one.changes and not one.refusal),
        host=host,
    )
