# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove PersistentVolumes as a plan says: the only code that does."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _changes
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Item, Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._cleanup_judge import Judge, Kept, Run, Step
from ansible_collections.clusterkit.storage.plugins.module_utils._files import replace_lines
from ansible_collections.clusterkit.storage.plugins.module_utils._undelete_run import PREVIOUS_POLICY, Present
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

_PROTECTION = "kubernetes.io/pv-protection"
_ACTIONS = {"intended": ("cleanup", "reclaim"), "absent": ("cleanup",), "present": ("undelete",)}

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["intended", "absent", "present"], "required": True},
    "plan": {"type": "path", "required": True},
    "only": {"type": "list", "elements": "str"},
    "objects": {"type": "path"},
    "protected_namespaces": {"type": "list", "elements": "str", "default": []},
    "on_error": {"type": "str", "choices": ["continue", "stop"], "default": "continue"},
    "wait_timeout": {"type": "int", "default": 120},
    "dest": {"type": "path"},
}


def clean_up(api: Api, given: Mapping[str, Any], *, check_mode: bool, diff: bool) -> Outcome:
    """Do what the arguments of the module say. Raises ValueError when they make no sense, ApiError when nothing works.

    Nothing is changed before all volumes were judged.
    """
    found = _changes.load_plan(api, given["plan"], None)
    if found is None:
        raise ValueError("plan is empty")
    allowed = _ACTIONS[given["state"]]
    if found["action"] not in allowed:
        raise ValueError(
            f"plan: {given['plan']} is a plan to {found['action']}; state {given['state']} expects one to "
            f"{' or to '.join(allowed)}"
        )
    steps = _chosen(found, given["only"])
    if given["state"] == "present":
        run: Run = Present(api, given, found, steps, trial=check_mode, diff=diff)
    elif given["state"] == "intended":
        run = Intended(api, given, found, steps, trial=check_mode, diff=diff)
    else:
        run = Absent(api, given, found, steps, trial=check_mode, diff=diff)
    return run.outcome()


def _chosen(found: Mapping[str, Any], only: Sequence[str] | None) -> list[Step]:
    # Of a plan to reclaim, those whose content is to go into quarantine.
    steps = [
        step
        for step in found["steps"]
        if step["module"] == "pv_cleanup" or (step["module"] == "pv_reclaim" and step.get("method"))
    ]
    if only is None:
        return steps
    unknown = sorted(set(only) - {step["item"] for step in steps})
    if unknown:
        raise ValueError(f'only: "{unknown[0]}" is no volume of the plan')
    return [step for step in steps if step["item"] in set(only)]


class Intended(Judge):
    """Write what is needed to make the volumes again; nothing is changed in the cluster."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if not self.given["objects"]:
            raise ValueError("objects: state intended needs a file for the objects of the volumes")
        self._objects: dict[str, dict[str, Any]] = {}
        # A provisioner that removes a volume with its directory leaves nothing to make it again for.
        self.steps = [step for step in self.steps if step["method"] != "provisioner"]

    def do(self, step: Step) -> Item:
        content = self.read(step)
        volume = self.judge_first(step, content)
        claim = None
        if volume.claim:
            claim = self._get("persistentvolumeclaims", volume.claim[1], namespace=volume.claim[0])
        storage_class = None
        if volume.storage_class:
            storage_class = self._get("storageclasses", volume.storage_class, group="storage.k8s.io/v1")
        self._objects[step["item"]] = {"volume": content, "claim": claim, "class": storage_class}
        return self.item(step, "unchanged")

    def _get(self, kind: str, name: str, **where: str) -> dict[str, Any] | None:
        try:
            return self.api.get(path_of(kind, name, **where))
        except ApiError as error:
            if error.gone:
                return None
            raise

    def finish(self) -> None:
        objects = (self._objects[name] for name in sorted(self._objects))
        replace_lines(self.given["objects"], (json.dumps(one, sort_keys=True) for one in objects))

    def directories(self, items: Sequence[Item]) -> dict[str, dict[str, list[str]]]:
        ready = [item["name"] for item in items if item["state"] == "unchanged"]
        return {"intended": self.ids(ready, ["quarantined"])}

    def more(self) -> dict[str, Any]:
        return {"kept": sorted(self._objects)}


class Absent(Judge):
    """Remove the volumes."""

    def do(self, step: Step) -> Item:
        volume = self.judge_first(step, self.read(step))
        if step["method"] == "provisioner":
            return self._let_provisioner(step, volume)
        return self._remove(step, volume)

    def _deadline(self) -> float:
        return time.monotonic() + float(self.given["wait_timeout"])

    def _set_policy(self, step: Step, volume: Volume, policy: str) -> Volume:
        body: dict[str, Any] = {
            "metadata": {"resourceVersion": volume.resource_version},
            "spec": {"persistentVolumeReclaimPolicy": policy},
        }
        if policy == "Retain":
            body["metadata"]["annotations"] = {PREVIOUS_POLICY: volume.policy}
        try:
            return Volume.of(self.api.patch(path_of("persistentvolumes", volume.name), body))
        except ApiError as error:
            if not error.conflict and not error.gone:
                raise
            # Somebody else has changed it, or the answer to an earlier try of ours was lost.
            found = self.judge(step, self.read(step))
            if found.policy == policy and error.uncertain:
                return found
            raise Kept("stale", "has changed since the plan was made; make a new plan") from error

    def _remove(self, step: Step, volume: Volume) -> Item:
        touched = volume.policy != "Retain"
        before = volume
        if touched:
            volume = self._set_policy(step, volume, "Retain")
        try:
            if not self.trial:
                volume = self._ready(step)
            else:
                volume.resource_version = before.resource_version
            asked = self._delete(step, volume)
        except Kept as kept:
            return self.item(step, kept.state, kept.reason, kept.certain, touched=touched)
        except ApiError as error:
            return self.item(step, "failed", str(error), "kept", touched=touched)
        if asked is not None:
            return {**asked, "touched": touched or asked["state"] == "changed"}
        self._differ(before)
        return self.item(step, "changed", "", "gone", before=self._then(before))

    def _ready(self, step: Step) -> Volume:
        """Wait until policy Retain is in force and nobody but the API itself holds the volume."""
        deadline, pause = self._deadline(), 0.05
        while True:
            volume = self.judge(step, self.read(step))
            left = sorted(set(volume.finalizers) - {_PROTECTION})
            if volume.policy == "Retain" and not left:
                return volume
            if volume.policy != "Retain":
                raise Kept("refused", f"somebody has set its policy to {volume.policy}")
            if time.monotonic() > deadline:
                raise Kept("failed", f"has the finalizer {left[0]} still, after {self.given['wait_timeout']} s")
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def _delete(self, step: Step, volume: Volume) -> Item | None:
        """Return how it ended, None if it is gone."""
        path = path_of("persistentvolumes", volume.name)
        began = time.monotonic()
        while True:
            try:
                self.api.delete(path, volume.uid, resource_version=volume.resource_version)
                break
            except ApiError as error:
                if error.gone:
                    break
                if not error.conflict:
                    return self._after_doubt(step, error)
                if error.uncertain:
                    # The first try may have been carried out, and the object waits for its finalizer.
                    return self._after_doubt(step, error)
                volume = self._ready(step)
                if time.monotonic() - began > self.given["retry_timeout"]:
                    raise Kept("failed", "others changed it all the time") from error
        if self.trial:
            return None
        return self._gone(step, volume.uid)

    def _after_doubt(self, step: Step, error: ApiError) -> Item | None:
        """The API said no, or did not answer: look what has become of it."""
        try:
            found = Volume.of(self.api.get(path_of("persistentvolumes", step["item"])))
        except ApiError as second:
            if second.gone:
                return None
            return self.item(step, "failed", f"{error}; and it cannot be read: {second}", "unknown")
        if found.uid != step["precondition"]["uid"]:
            return self.item(step, "stale", "is another volume by now", "unknown")
        if found.deleting:
            return self._gone(step, found.uid)
        return self.item(step, "failed", str(error), "unknown" if error.uncertain else "kept")

    def _gone(self, step: Step, uid: str) -> Item | None:
        """Wait until the API says that there is no such volume."""
        deadline, pause = self._deadline(), 0.02
        while True:
            try:
                found = Volume.of(self.api.get(path_of("persistentvolumes", step["item"])))
            except ApiError as error:
                if error.gone:
                    return None
                return self.item(step, "failed", f"was deleted, and cannot be looked for: {error}", "unknown")
            if found.uid != uid:
                return self.item(step, "stale", "was deleted, and made again by somebody else", "unknown")
            if time.monotonic() > deadline:
                held = ", ".join(found.finalizers) or "nothing"
                reason = f"was deleted, and is there still after {self.given['wait_timeout']} s, held by {held}"
                return self.item(step, "failed", reason, "unknown")
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    # By its provisioner -------------------------------------------------------------------------------

    def _let_provisioner(self, step: Step, volume: Volume) -> Item:
        state = self._there[volume.name].provisioner_state if volume.name in self._there else "unknown"
        if state != "running":
            raise Kept("refused", f"its provisioner {volume.provisioner} is {state}")
        if not self._has_class(volume):
            raise Kept("refused", f'its StorageClass "{volume.storage_class}" is not there')
        self._set_policy(step, volume, "Delete")
        if not self.trial:
            problem = self._wait_for_provisioner(step, volume)
            if problem:
                return problem
        self._differ(volume)
        return self.item(step, "changed", "", "gone", before=self._then(volume))

    def _has_class(self, volume: Volume) -> bool:
        try:
            found = self.api.get(path_of("storageclasses", volume.storage_class, group="storage.k8s.io/v1"))
        except ApiError as error:
            if error.gone:
                return False
            raise
        return bool(found["provisioner"] == volume.provisioner)

    def _wait_for_provisioner(self, step: Step, volume: Volume) -> Item | None:
        """Wait until it is gone; if it does not go its policy is Retain again."""
        deadline, pause = self._deadline(), 0.05
        while True:
            try:
                content = self.api.get(path_of("persistentvolumes", step["item"]))
            except ApiError as error:
                if error.gone:
                    return None
                return self.item(step, "failed", f"its policy is Delete: {error}", "unknown", touched=True)
            found = Volume.of(content)
            if found.uid != volume.uid:
                return None
            if time.monotonic() > deadline or (found.phase == "Failed" and volume.phase != "Failed"):
                why = (content.get("status") or {}).get("message") or f"not gone after {self.given['wait_timeout']} s"
                return self._take_back(step, found, f"its provisioner has not removed it: {why}")
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def _take_back(self, step: Step, volume: Volume, why: str) -> Item:
        body = {"metadata": {"uid": volume.uid}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}
        try:
            self.api.patch(path_of("persistentvolumes", volume.name), body)
        except ApiError as error:
            reason = f"{why}; its policy is Delete still, set it to Retain by hand: {error}"
            return self.item(step, "failed", reason, "unknown", touched=True)
        return self.item(step, "failed", f"{why}; its policy is Retain again", "kept", touched=True)

    # ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _then(volume: Volume) -> dict[str, Any]:
        return {"phase": volume.phase, "policy": volume.policy, "claim": volume.claim_name or None}

    def _differ(self, volume: Volume) -> None:
        if self.diff:
            header = f"PersistentVolume {volume.name}"
            before = f"{volume.name}: {volume.phase}, {volume.policy}, {volume.claim_name or 'no claim'}\n"
            self.diffs.append({"before": before, "after": "", "before_header": header, "after_header": header})

    def directories(self, items: Sequence[Item]) -> dict[str, dict[str, list[str]]]:
        gone = [item["name"] for item in items if item["object"] == "gone"]
        kept = [item["name"] for item in items if item["object"] == "kept"]
        return {"quarantined": self.ids(gone, ["quarantined"]), "closed": self.ids(kept, ["quarantined"])}
