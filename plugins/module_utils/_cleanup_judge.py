# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps of a plan on PersistentVolumes: how a run goes, and what must be true of a volume that is to go.

Of each volume it tells at the end what is certain about its object, since a directory is moved only if that is gone:
C(gone) (the API said 404), C(kept) (it is there, and was not asked to go), or C(unknown).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _changes, _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import BAD, Item, Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._classify import is_nfs
from ansible_collections.clusterkit.storage.plugins.module_utils._cleanup_steps import KNOWN_FINALIZERS
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import first_below
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

STATES = ("changed", "unchanged", "refused", "gone", "stale", "failed", "not_started")
Step = Mapping[str, Any]


class Kept(Exception):  # noqa: N818 - the ordinary end of a step that must not be done
    """Why a volume stays. C(state) is that of its item."""

    def __init__(self, state: str, reason: str, certain: str = "kept") -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.certain = certain


class Run:
    def __init__(
        self,
        api: Api,
        given: Mapping[str, Any],
        plan: Mapping[str, Any],
        steps: Sequence[Step],
        *,
        trial: bool,
        diff: bool,
    ) -> None:
        self.api = api
        self.given = given
        self.plan = plan
        self.steps = steps
        self.trial = trial  # nothing is kept of what is sent, so there is nothing to wait for
        self.diff = diff
        self.diffs: list[dict[str, str]] = []
        self._stopped = threading.Event()

    def outcome(self) -> Outcome:
        self.prepare()
        items = self.api.each(self._one, self.steps)
        items.sort(key=lambda item: str(item["name"]))
        self.finish()
        counted = Counter(item["state"] for item in items)
        changed = any(item["state"] == "changed" or item.get("touched") for item in items)
        problem = _changes.problem(items, {"selection": None}, "volume")
        summary = {state: counted[state] for state in STATES}
        more = {"summary": summary, "directories": self.directories(items), **self.more()}
        return Outcome(items, changed, self.diffs, problem, self.plan["id"], more)

    def more(self) -> dict[str, Any]:
        """What else is told."""
        return {}

    def prepare(self) -> None:
        """Read what the judgement hangs on, for all of them. Raises ApiError."""

    def finish(self) -> None:
        """What is done after all of them."""

    def do(self, step: Step) -> Item:
        raise NotImplementedError

    def directories(self, items: Sequence[Item]) -> dict[str, dict[str, list[str]]]:
        """By state and host the ids of the steps on directories that are to be done next."""
        raise NotImplementedError

    def ids(self, names: Iterable[str], states: Sequence[str]) -> dict[str, list[str]]:
        """By host the ids of the steps of volume_dirs on these volumes."""
        wanted = set(names)
        found: dict[str, list[str]] = {}
        for step in self.plan["steps"]:
            if step["module"] == "volume_dirs" and step["state"] in states and step["item"] in wanted:
                found.setdefault(step["host"], []).append(step["id"])
        return found

    def _one(self, step: Step) -> Item:
        if self._stopped.is_set():
            return self.item(step, "not_started", "another volume failed, and on_error is stop")
        try:
            item = self.do(step)
        except Kept as kept:
            item = self.item(step, kept.state, kept.reason, kept.certain)
        except ApiError as error:
            # Whether it has asked the object to go is known to the step only; by default it has not.
            item = self.item(step, "failed", str(error))
        if item["state"] in BAD and self.given["on_error"] == "stop":
            self._stopped.set()
        return item

    @staticmethod
    def item(step: Step, state: str, reason: str = "", certain: str = "kept", **more: Any) -> Item:
        told: Item = {"name": step["item"], "state": state, "object": certain}
        return {**told, **({"reason": reason} if reason else {}), **more}


class Judge(Run):
    """What is read once, and what has to be true of a volume that is to go."""

    def prepare(self) -> None:
        named = [step["item"] for step in self.steps]
        self._servers = ServerMap(self.plan["request"]["storage_servers"])
        volumes: list[Volume] = self.api.list_all(_volume_set.VOLUMES, Volume.of).items
        wanted = set(named)
        self._there = {one.name: one for one in volumes if one.name in wanted}
        self._protected = _volume_set.protected_namespaces(self.api, self.given["protected_namespaces"])
        claims = (one.claim[:2] for one in self._there.values() if one.claim)
        self._claims = _volume_set.live_claims(self.api, claims)
        self._recycled = _volume_set.recycled_now(self.api) if self._there else frozenset()
        _volume_set.add_provisioner_states(self.api, self._there.values())
        self._places: dict[str, dict[str, list[str]]] = {}
        for one in volumes:
            place = self._servers.find(one.server, one.path) if is_nfs(one) else None
            if place is not None:
                self._places.setdefault(place.host, {}).setdefault(place.directory, []).append(one.uid)
        self._sorted = {host: sorted(paths) for host, paths in self._places.items()}

    def judge(self, step: Step, content: Mapping[str, Any]) -> Volume:
        """Raises Kept unless this is the volume that was planned, and may go."""
        volume = Volume.of(content)
        wanted = step["precondition"]
        if volume.uid != wanted["uid"]:
            # Its directory may be in use by the new one.
            raise Kept("stale", "is another volume by now: it was deleted and made again", "unknown")
        if volume.deleting:
            raise Kept("stale", f"is being deleted since {volume.deleting}", "unknown")
        if volume.phase not in ("Released", "Failed"):
            claim = f" to {volume.claim_name}" if volume.claim else ""
            raise Kept("refused", f"is {volume.phase}{claim}")
        if volume.claim and volume.claim[0] in self._protected:
            raise Kept("refused", f'belongs to the protected namespace "{volume.claim[0]}"')
        if volume.claim and self._claims.get(volume.claim[:2]):
            raise Kept("refused", f"its claim {volume.claim_name} exists")
        if {volume.name, f"{volume.server}:{volume.path}"} & self._recycled or volume.policy == "Recycle":
            raise Kept("refused", "the controller may be emptying it")
        strange = sorted(set(volume.finalizers) - KNOWN_FINALIZERS)
        if strange:
            raise Kept("refused", f"has the finalizer {strange[0]}, which is not ours to wait for")
        problem = self._neighbours(step, volume)
        if problem:
            raise Kept("refused", problem)
        return volume

    def judge_first(self, step: Step, content: Mapping[str, Any]) -> Volume:
        volume = self.judge(step, content)
        if volume.resource_version != step["precondition"]["resource_version"]:
            raise Kept("stale", "has changed since the plan was made; make a new plan")
        state = self._there[volume.name].provisioner_state if volume.name in self._there else "unknown"
        if volume.policy == "Delete" and volume.provisioner and state != "stopped":
            raise Kept("refused", f"its policy is Delete and its provisioner {volume.provisioner} is {state}")
        return volume

    def _neighbours(self, step: Step, volume: Volume) -> str:
        place = self._servers.find(volume.server, volume.path)
        if place is None or (place.host, place.directory) != (step["server_host"], step["directory"]):
            return f"its directory is not {step['directory']} on {step['server_host']} any more"
        return self._occupied(step)

    def _occupied(self, step: Step) -> str:
        """Why the directory is not this volume's alone by now."""
        host, directory, uid = step["server_host"], step["directory"], step["precondition"]["uid"]
        known = self._places.get(host, {})
        if set(known.get(directory, ())) - {uid}:
            return f"another volume has the directory {directory}, too"
        below = first_below(self._sorted.get(host, ()), directory)
        if below:
            return f"the directory of another volume, {below}, lies in its directory"
        above = directory
        while above not in ("/", step["share"]):
            above = above.rpartition("/")[0] or "/"
            # The root of a share may be the volume through which a provisioner works.
            if above in known and above != step["share"]:
                return f"its directory lies in {above}, the directory of another volume"
        return ""

    def read(self, step: Step) -> dict[str, Any]:
        """Raises Kept when it is gone, or ApiError."""
        try:
            return self.api.get(path_of("persistentvolumes", step["item"]))
        except ApiError as error:
            if error.gone:
                occupied = self._occupied(step)
                if occupied:
                    raise Kept("gone", f"does not exist any more, and {occupied}", "unknown") from error
                raise Kept("gone", "does not exist any more", "gone") from error
            raise
