# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make PersistentVolumes again whose directories are back from quarantine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._changes import Item
from ansible_collections.clusterkit.storage.plugins.module_utils._cleanup_judge import Kept, Run, Step
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

PREVIOUS_POLICY = "storage.clusterkit/previous-policy"
RESTORED_FROM = "storage.clusterkit/restored-from"


class Present(Run):
    """Make volumes again whose directories are back."""

    def do(self, step: Step) -> Item:
        volume, claim = step["objects"]["volume"], step["objects"]["claim"]
        state = self._create(_volume_set.VOLUMES, volume, lambda one: self._is_ours(step, one))
        if claim:
            namespace = claim["metadata"]["namespace"]
            path = path_of("persistentvolumeclaims", namespace=namespace)
            try:
                made = self._create(path, claim, lambda one: one["spec"].get("volumeName") == step["item"])
            except (Kept, ApiError) as error:
                return self.item(step, "failed", f"is there again, its claim is not: {error}", "made", touched=True)
            state = "changed" if made == "changed" else state
        if not self.trial:
            problem = self._wait(step)
            if problem:
                return self.item(step, "failed", problem, "made", touched=state == "changed")
        return self.item(step, state, "", "made")

    @staticmethod
    def _is_ours(step: Step, found: Mapping[str, Any]) -> bool:
        notes = found["metadata"].get("annotations") or {}
        return bool(notes.get(RESTORED_FROM) == step["precondition"]["uid"])

    def _create(self, path: str, body: Mapping[str, Any], is_ours: Callable[[Mapping[str, Any]], bool]) -> str:
        try:
            self.api.create(path, body)
        except ApiError as error:
            if not error.conflict:
                raise
            found = self.api.get(f"{path}/{body['metadata']['name']}")
            if not is_ours(found):
                raise Kept("refused", f"{body['kind']} {body['metadata']['name']} is there, and another one") from error
            return "changed" if error.uncertain else "unchanged"
        if self.diff:
            header = f"{body['kind']} {body['metadata']['name']}"
            after = json.dumps(body, sort_keys=True, indent=1) + "\n"
            self.diffs.append({"before": "", "after": after, "before_header": header, "after_header": header})
        return "changed"

    def _wait(self, step: Step) -> str:
        deadline = time.monotonic() + float(self.given["wait_timeout"])
        while True:
            found = Volume.of(self.api.get(path_of("persistentvolumes", step["item"])))
            if found.phase in ("Available", "Bound"):
                return ""
            if time.monotonic() > deadline:
                return f"is {found.phase}, and not Available after {self.given['wait_timeout']} s"
            time.sleep(0.1)

    def directories(self, items: Sequence[Item]) -> dict[str, dict[str, list[str]]]:
        made = [item["name"] for item in items if item["object"] == "made" and item["state"] != "failed"]
        return {"closed": self.ids(made, ["restored", "closed"])}
