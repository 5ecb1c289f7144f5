# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop Deployments and StatefulSets for a while, and start them again with as many replicas as they had."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _workloads
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of, wait_at_random
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import timestamp
from ansible_collections.clusterkit.storage.plugins.module_utils._pods import name_of
from ansible_collections.clusterkit.storage.plugins.module_utils._workloads import APPS, KINDS, STOPPED, Record

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

WORKLOAD: dict[str, Any] = {
    "kind": {"type": "str", "choices": list(KINDS), "required": True},
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
}
CLAIM: dict[str, Any] = {"namespace": {"type": "str", "required": True}, "name": {"type": "str", "required": True}}
_POLL_SECONDS = 1.0

Change = Callable[[Record, Mapping[str, Any]], "tuple[dict[str, Any], Record]"]


def stop(api: Api, workloads: Sequence[Mapping[str, Any]], run: str) -> list[Record]:
    """Note how many replicas each has, and scale it to zero, in one request each."""

    def change(item: Record, there: Mapping[str, Any]) -> tuple[dict[str, Any], Record]:
        replicas, noted = int(there["spec"].get("replicas", 1)), _workloads.stopped(there["metadata"])
        if not replicas and (noted is None or noted["run"] == run):
            return {}, {**item, "state": "unchanged", "replicas": noted["replicas"] if noted else 0}
        # A run that was killed has left its note: what it found is what has to come back.
        kept = noted["replicas"] if noted and not replicas else replicas
        note = {"replicas": kept, "run": run, "at": timestamp(time.time())}
        annotations = {STOPPED: json.dumps(note, sort_keys=True)}
        return (
            {"metadata": {"annotations": annotations}, "spec": {"replicas": 0}},
            {**item, "state": "stopped", "replicas": kept, "taken_over": bool(noted and not replicas)},
        )

    return _each(api, workloads, change)


def start(api: Api, workloads: Sequence[Mapping[str, Any]], run: str | None) -> list[Record]:
    """Start what this run has stopped, or what any run has if C(run) is None."""

    def change(item: Record, there: Mapping[str, Any]) -> tuple[dict[str, Any], Record]:
        replicas, noted = int(there["spec"].get("replicas", 1)), _workloads.stopped(there["metadata"])
        if noted is None:
            return {}, {**item, "state": "unchanged", "replicas": replicas}
        if run is not None and noted["run"] != run:
            return {}, {
                **item,
                "state": "unchanged",
                "replicas": replicas,
                "reason": "another run has stopped it since",
            }
        # Somebody who has scaled it meanwhile knows better.
        wanted = replicas or noted["replicas"]
        return (
            {"metadata": {"annotations": {STOPPED: None}}, "spec": {"replicas": wanted}},
            {**item, "state": "started", "replicas": wanted},
        )

    return _each(api, workloads, change)


def left_behind(api: Api) -> list[Record]:
    """All that a run has stopped and nobody has started since. Raises ApiError."""
    return [one for one in _workloads.read_workloads(api) if one["stopped"]]


def _each(api: Api, workloads: Sequence[Mapping[str, Any]], change: Change) -> list[Record]:
    def one(workload: Mapping[str, Any]) -> Record:
        item = {name: workload[name] for name in WORKLOAD} | {"reason": "", "replicas": 0}
        path = path_of(KINDS[workload["kind"]], workload["name"], workload["namespace"], group=APPS)
        began = time.monotonic()
        while True:
            try:
                there = api.get(path)
                patch, done = change(item, there)
                if patch:
                    patch["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
                    api.patch(path, patch)
                return done
            except ApiError as error:
                if error.gone:
                    return {**item, "state": "gone", "reason": "does not exist any more"}
                # Its status changes all the time: what was noted is read again, and nothing is done twice.
                if not error.conflict or time.monotonic() - began > 60:
                    return {**item, "state": "failed", "reason": str(error)}
            wait_at_random(0.2)

    return api.each(one, workloads)


def wait_until_unused(api: Api, claims: Sequence[Mapping[str, Any]], seconds: float) -> list[Record]:
    """Wait until no pod mounts these claims any more; tell of each who does at the end. Raises ApiError."""
    deadline = time.monotonic() + seconds
    namespaces = sorted({one["namespace"] for one in claims})
    while True:
        pods = _workloads.read_users(api, namespaces)
        found = [
            {
                "namespace": claim["namespace"],
                "name": claim["name"],
                "pods": sorted(
                    name_of(pod)
                    for pod in pods
                    if pod["namespace"] == claim["namespace"] and claim["name"] in pod["claims"]
                ),
            }
            for claim in claims
        ]
        if not any(one["pods"] for one in found) or time.monotonic() >= deadline:
            return found
        time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))


class NotAllError(Exception):
    """Some could not be stopped or started; C(result) tells of all."""

    def __init__(self, bad: Sequence[Record], result: Mapping[str, Any]) -> None:
        super().__init__("; ".join(f"{one['kind']} {name_of(one)} ({one['state']}): {one['reason']}" for one in bad))
        self.result = result


def carry_out(api: Api, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments of the module say. Raises ApiError, NotAllError."""
    claims: list[Record] = []
    if given["state"] == "listed":
        chosen = left_behind(api)
        keys = (*WORKLOAD, "replicas", "stopped")
        return {"changed": False, "workloads": [{key: one[key] for key in keys} for one in chosen], "claims": claims}
    if given["state"] == "started":
        chosen = left_behind(api) if given["workloads"] is None else given["workloads"]
        found = start(api, chosen, given["run"] if given["workloads"] is not None else None)
    else:
        found = stop(api, given["workloads"], given["run"])
        if given["claims"] and not api.dry_run:
            claims = wait_until_unused(api, given["claims"], given["wait_timeout"])
    result = {
        "changed": any(one["state"] in ("stopped", "started") for one in found),
        "workloads": found,
        "claims": claims,
    }
    bad = [one for one in found if one["state"] == "failed"]
    if bad:
        raise NotAllError(bad, result)
    return result
