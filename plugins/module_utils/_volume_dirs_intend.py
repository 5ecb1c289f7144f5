# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is about to be done with directories of volumes, kept on the server before any object is deleted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import SCHEMA, write_json
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import intent_name, timestamp
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import (
    Step,
    objects_problem,
    with_objects,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_conduct import Conduct
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_result import Stop, words


class Intending(Conduct):
    """A run that writes intents."""

    def _intend(self, steps: Sequence[Step]) -> None:
        if not self.request.objects:
            self._one_by_one(steps, self._write_intent)
            return
        try:
            self._one_by_one(with_objects(steps, self.request.objects), self._write_intent)
        except (OSError, ValueError) as error:
            self.stopped = f"objects: {words(error)}" if isinstance(error, OSError) else str(error)
            told = {item["number"] for item in self.outcome.items}
            for step in steps:
                if step.number not in told:
                    self._tell(step, "not_started", self.stopped)

    def _write_intent(self, step: Step) -> None:
        if step.volume is None:
            raise AssertionError("checked with the arguments")
        problem = objects_problem(step.objects, step.volume["uid"])
        if problem:
            raise Stop("refused", problem)
        self._check_owner(step)
        self._check_surroundings(step)
        folder = self._folder(step)
        parent, _name, found, descriptor = self._find_directory(step)
        os.close(parent)
        try:
            # Its volume is removed next: of what cannot be moved it must stay.
            self._check_open_state(descriptor, folder)
        finally:
            os.close(descriptor)
        name = intent_name(step.volume)
        content = self._record(step, found, "Intent")
        content["objects"] = step.objects
        old = folder.read_intent(name)
        if old is not None and {**old, "at": ""} == {**content, "at": ""}:
            self._tell(step, "unchanged")
            return
        if not self.request.check_mode:
            write_json(folder.intents, name, content)
        self._tell(step, "changed")
        self._differ(f"{step.item}: no intent", f"{step.item}: intent to quarantine {step.directory}")

    def _record(self, step: Step, found: os.stat_result, kind: str) -> dict[str, Any]:
        share = self.shares[step.share]
        return {
            "schema": SCHEMA,
            "kind": kind,
            "at": timestamp(self.places.now()),
            "by": self.request.by,
            "owner": self.owner.controller,
            "cluster_uid": self.request.cluster_uid,
            "plan": self.request.plan_id,
            "step": step.id,
            "reason": step.reason,
            "share": share.key,
            "below": "/".join(self._path_below(step)),
            "directory": step.directory,
            "scope": step.scope,
            "device": found.st_dev,
            "inode": found.st_ino,
            "volume": step.volume,
            "objects": None,
        }
