# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out decisions about volumes: many at a time, each under its precondition, and tell of each how it ended."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _changes, _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of, wait_at_random
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import BAD, Item, Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import (
    Decision,
    Facts,
    Request,
    decide,
    needs_claim,
    needs_recyclers,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim_plan import (
    from_plan,
    outcome,
    steps_of,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

STATES = ("changed", "unchanged", "refused", "gone", "stale", "failed", "not_started")


@dataclass(frozen=True)
class Conduct:
    """How to go about it. C(strict): only what is exactly as the plan saw it may be changed."""

    on_error: str = "continue"
    strict: bool = False
    diff: bool = False
    seconds: float = 120.0  # for which a volume that others change all the time is tried again


def gather(api: Api, volumes: Sequence[Volume], request: Request, listed: Iterable[str] = ()) -> Facts:
    """Read what the decisions hang on, and nothing that they do not."""
    protected: frozenset[str] = frozenset(listed)
    if request.release or request.may_destroy:
        protected = _volume_set.protected_namespaces(api, protected)
    claims = _volume_set.live_claims(api, (one.claim[:2] for one in volumes if one.claim and needs_claim(one, request)))
    recycled: frozenset[str] = frozenset()
    if any(needs_recyclers(one, request) for one in volumes):
        recycled = _volume_set.recycled_now(api)
    unsure = [
        one
        for one in volumes
        if request.release and one.policy == "Delete" and one.is_dynamic and one.phase in ("Released", "Failed")
    ]
    if unsure:
        _volume_set.add_provisioner_states(api, unsure)
    return Facts(protected, claims, recycled)


class Run:
    """One run over many volumes."""

    def __init__(self, api: Api, request: Request, listed: Iterable[str], conduct: Conduct) -> None:
        self._api = api
        self._request = request
        self._listed = frozenset(listed)
        self._conduct = conduct
        self._stopped = threading.Event()
        self.diffs: list[dict[str, str]] = []

    def carry_out(self, decisions: Sequence[Decision]) -> list[Item]:
        """Patch what is to be changed; an item for each decision, in order."""
        stop_early = self._conduct.on_error == "stop"

        def one(decision: Decision) -> Item:
            volume = decision.volume
            if not decision.patch:
                # Of what is as wanted nothing more: there may be tens of thousands, and the controller reads them all.
                return outcome(volume if decision.refusal else None, volume.name, _quiet(decision), decision.refusal)
            if self._stopped.is_set():
                return outcome(volume, volume.name, "not_started", "another volume failed, and on_error is stop")
            item = self._change(decision)
            if stop_early and item["state"] in BAD:
                self._stopped.set()
            return item

        quick = [one(decision) if decision.refusal or not decision.patch else None for decision in decisions]
        changing = [number for number, item in enumerate(quick) if item is None]
        for number, item in zip(changing, self._api.each(lambda number: one(decisions[number]), changing)):
            quick[number] = item
        return [item for item in quick if item is not None]

    def _change(self, decision: Decision) -> Item:
        before, began, uncertain, pause = decision.volume, time.monotonic(), False, 0.01
        path = path_of("persistentvolumes", before.name)
        while True:
            try:
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                after = Volume.of(self._api.patch(path, decision.body(self._request, now)))
                return self._changed(before, after, decision.note)
            except ApiError as error:
                if error.gone:
                    return outcome(None, before.name, "gone", "does not exist any more")
                if not error.conflict:
                    doubt = "; the change may have taken effect all the same" if error.uncertain else ""
                    return outcome(decision.volume, before.name, "failed", f"{error}{doubt}")
                uncertain = uncertain or error.uncertain
            try:
                judged = self._judge_again(before, uncertain)
            except ApiError as error:
                return outcome(decision.volume, before.name, "failed", str(error))
            if not isinstance(judged, Decision):
                return judged
            decision = judged
            if time.monotonic() - began > self._conduct.seconds:
                reason = f"others changed it all the time for {self._conduct.seconds:.0f} s"
                return outcome(decision.volume, before.name, "failed", reason)
            wait_at_random(pause)
            pause = min(pause * 2, 1.0)

    def _judge_again(self, before: Volume, uncertain: bool) -> Decision | Item:
        """Read what the volume is by now, and decide anew: somebody else has changed it, or a lost answer was ours."""
        volume = _volume_set.read_volume(self._api, before.name)
        if volume is None:
            return outcome(None, before.name, "gone", "does not exist any more")
        if volume.uid != before.uid:
            return outcome(volume, before.name, "stale", "is another volume by now: it was deleted and made again")
        if uncertain and self._has_next_owner(before, volume):
            return self._changed(before, volume, f"is {volume.phase} to {volume.claim_name} by now")
        decision = decide(volume, self._request, gather(self._api, [volume], self._request, self._listed))
        if decision.refusal:
            return outcome(volume, before.name, "refused", decision.refusal)
        if not decision.patch:
            return self._changed(before, volume, "") if uncertain else outcome(None, before.name, "unchanged")
        if self._conduct.strict:
            return outcome(volume, before.name, "stale", "has changed since the plan was made; make a new plan")
        return decision

    def _has_next_owner(self, before: Volume, volume: Volume) -> bool:
        """Whether all is as it was asked for, and the volume has been given away since; that is how a release ends.

        A reserved volume that was to be opened may as well have been bound by the claim it was kept for.
        """
        if not (self._request.release and before.claim and volume.claim) or volume.phase not in ("Available", "Bound"):
            return False
        rest = decide(volume, replace(self._request, release=None), Facts())
        if rest.patch or rest.refusal or before.claim[2] == volume.claim[2]:
            return False
        same_name = before.claim[:2] == volume.claim[:2]
        return same_name if self._request.release == "reserved" else bool(before.claim[2] or not same_name)

    def _changed(self, before: Volume, after: Volume, note: str) -> Item:
        if self._conduct.diff:
            self.diffs.append(difference(before, after))
        then = {"phase": before.phase, "policy": before.policy, "claim": before.claim_name or None}
        item = outcome(after, after.name, "changed", before=then)
        return {**item, "note": note} if note else item

    # Phases ----------------------------------------------------------------------------------------

    def wait(self, items: Sequence[Item], resource_version: str, phase: str, seconds: float) -> None:
        """Follow the released volumes until they are C(phase); those that do not get there become C(failed).

        A volume that is Bound has been Available, so that it also ends a wait for Available.
        """
        waiting = {item["name"]: item for item in items if item["state"] == "changed" and item.get("note")}
        try:
            self._follow(waiting, resource_version, phase, time.monotonic() + seconds)
            problem = f" and not {phase} after {seconds:.0f} s"
        except ApiError as error:
            problem = f", and cannot be followed: {error}"
        for item in waiting.values():
            item |= {"state": "failed", "reason": f"was released, but is {item['phase']}{problem}"}

    def _follow(self, waiting: dict[str, Item], resource_version: str, phase: str, deadline: float) -> None:
        """Take those that have come to C(phase) out of C(waiting). Raises ApiError."""
        good = {"Available": ("Available", "Bound"), "Bound": ("Bound",)}[phase]

        def look(name: str, volume: Volume | None) -> None:
            item = waiting.get(name)
            if item is None:
                return
            if volume is None:
                item |= {"state": "gone", "reason": "was deleted while it was waited for"}
                del waiting[name]
                return
            item |= {"phase": volume.phase, "claim": volume.claim_name or None}
            settled = volume.phase in good and (volume.phase != "Bound" or bool(volume.claim and volume.claim[2]))
            if settled or volume.uid != item["uid"]:
                del waiting[name]

        while waiting and time.monotonic() < deadline:
            try:
                for kind, data in self._api.watch(_volume_set.VOLUMES, resource_version, deadline):
                    resource_version = data["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        look(data["metadata"]["name"], None if kind == "DELETED" else Volume.of(data))
                    if not waiting:
                        return
            except ApiError as error:
                if error.status != 410:
                    raise
                listing = self._api.list_all(_volume_set.VOLUMES, Volume.of)
                resource_version = listing.resource_version
                there = {volume.name: volume for volume in listing.items}
                for name in list(waiting):
                    look(name, there.get(name))


def _quiet(decision: Decision) -> str:
    return "refused" if decision.refusal else "unchanged"


def difference(before: Volume, after: Volume) -> dict[str, str]:
    def text(volume: Volume) -> str:
        claim = ", ".join(filter(None, volume.claim)) if volume.claim else "null"
        lines = [f"persistentVolumeReclaimPolicy: {volume.policy}", f"claimRef: {claim}"]
        lines += [f"annotations.{key}: {value}" for key, value in sorted(volume.annotations.items())]
        lines += [f"labels.{key}: {value}" for key, value in sorted(volume.labels.items())]
        return "\n".join(lines) + "\n"

    header = f"PersistentVolume {before.name}"
    return {"before": text(before), "after": text(after), "before_header": header, "after_header": header}


def summary(items: Iterable[Item]) -> dict[str, int]:
    found = Counter(item["state"] for item in items)
    return {state: found[state] for state in STATES}


# The whole of it -----------------------------------------------------------------------------------------


def reclaim(api: Api, given: Mapping[str, Any], *, check_mode: bool, diff: bool) -> Outcome:
    """Do what the arguments of the module say. Raises ValueError when they make no sense, ApiError when nothing works.

    Nothing is changed before all volumes were judged.
    """
    found = _changes.load_plan(api, given["plan"], "reclaim")
    request = Request.of(found["request"] if found else given)
    listed = given["protected_namespaces"]
    conduct = Conduct(given["on_error"], bool(found), diff, given["retry_timeout"])
    if found:
        chosen = _volume_set.read_named(api, [step["item"] for step in steps_of(found)])
    elif given["volumes"] is not None:
        if not given["volumes"]:
            raise ValueError("volumes is empty: no volume means none, never all")
        chosen = _volume_set.read_named(api, given["volumes"])
    else:
        selection = Selection(given["selection"])
        if selection.is_empty:
            raise ValueError('selection is empty, which never means all; to mean all volumes, say names: ["*"]')
        chosen = _volume_set.read_selected(api, selection)
    facts = gather(api, chosen.volumes, request, listed)
    if found:
        there = {one.name: one for one in chosen.volumes}
        judged = from_plan(found, there, lambda volume: decide(volume, request, facts), given["emptied"])
    else:
        judged = [decide(volume, request, facts) for volume in chosen.volumes]
        judged += [outcome(None, name, "gone", "does not exist") for name in chosen.missing]
    decisions = [one for one in judged if isinstance(one, Decision)]
    settled = [one for one in judged if not isinstance(one, Decision)]
    run = Run(api, request, listed, conduct)
    wrong = [f"{one.volume.name} {one.refusal}" for one in decisions if one.refusal]
    wrong += [f"{item['name']} {item['reason']}" for item in settled]
    problem = _changes.reason_not_to_begin(api, given, sum(1 for one in decisions if one.patch), wrong)
    if problem:
        items = [
            outcome(one.volume, one.volume.name, "not_started", problem)
            if one.patch
            else outcome(one.volume if one.refusal else None, one.volume.name, _quiet(one), one.refusal)
            for one in decisions
        ]
    else:
        items = run.carry_out(decisions)
    items += settled
    if given["wait"] and request.release and not check_mode:
        run.wait(items, chosen.resource_version, given["wait_phase"], given["wait_timeout"])
    items.sort(key=lambda item: str(item["name"]))
    return Outcome(
        items,
        any(item["state"] == "changed" or "before" in item for item in items),
        run.diffs,
        problem or _changes.problem(items, given, "volume"),
        found["id"] if found else None,
        {"summary": summary(items)},
    )
