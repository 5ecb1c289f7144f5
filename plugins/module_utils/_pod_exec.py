# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in pods, one before something is done and one after it.

The one that is owed afterwards is noted on the pod itself, before the first is run: a run that is killed in between
leaves behind what the next one needs to put it right. A pod that is gone takes its note along.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of, wait_at_random
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import timestamp
from ansible_collections.clusterkit.storage.plugins.module_utils._pods import name_of

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

OWED = "storage.clusterkit/after"  # annotation: a list of {"container", "after", "timeout", "run", "at", "id"}
COMMAND: dict[str, Any] = {
    "namespace": {"type": "str", "required": True},
    "pod": {"type": "str", "required": True},
    "uid": {"type": "str", "required": True},
    "container": {"type": "str", "required": True},
    "before": {"type": "list", "elements": "str", "default": []},
    "after": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 60},
}
_CONFLICT_SECONDS = 60.0

Record = dict[str, Any]


class _FailedError(Exception):
    """Why something cannot be done in one pod. C(lost): it is not the pod, or not the container, any more."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


def owed(metadata: Mapping[str, Any]) -> list[Record]:
    """What runs have noted on a pod; nothing of what is not of their making."""
    try:
        return [
            {
                **{name: str(one[name]) for name in ("container", "run", "at", "id")},
                "after": [str(word) for word in one["after"]],
                "timeout": int(one["timeout"]),
            }
            for one in json.loads((metadata.get("annotations") or {})[OWED])
        ]
    except (KeyError, TypeError, ValueError):
        return []


# --- before, after -----------------------------------------------------------------------------------------


def begin(api: Api, commands: Sequence[Mapping[str, Any]], run: str) -> list[Record]:
    """Note what is owed afterwards, and run the command before, for each."""

    def one(command: Mapping[str, Any]) -> Record:
        pod = _look(api, command)
        there = owed(pod["metadata"])
        if _of(there, command, run):
            return {"state": "unchanged"}
        left = [note for note in there if note["container"] == command["container"] and note["run"] != run]
        for note in left:
            problem = _pay(api, command, note)
            if problem:
                raise _FailedError(f"what run {note['run']} has left could not be ended: {problem}")
        if command["after"]:
            note = {**{name: command[name] for name in ("container", "after", "timeout")}, "run": run}
            note |= {"at": timestamp(time.time()), "id": _container_id(pod, command["container"])}
            _change(api, command, lambda notes: [*notes, note])
        problem = _run(api, command, "before")
        if problem and command["after"]:
            # It may have begun all the same, and others are not to wait for the copies.
            again = _pay(api, command, note)
            problem += f"; {again}" if again else ""
        if problem:
            raise _FailedError(problem)
        return {"state": "begun", "taken_over": bool(left)}

    return _each(api, commands, one)


def end(api: Api, commands: Sequence[Mapping[str, Any]], run: str) -> list[Record]:
    """Run the command after of each that this run has begun."""

    def one(command: Mapping[str, Any]) -> Record:
        if not command["after"]:
            return {"state": "unchanged"}
        pod = _look(api, command)
        notes = _of(owed(pod["metadata"]), command, run)
        if not notes:
            return {"state": "unchanged"}
        problem = _pay(api, command, notes[0])
        if problem:
            raise _FailedError(problem)
        if notes[0]["id"] != _container_id(pod, command["container"]):
            raise _FailedError("the container has begun anew since", lost=True)
        return {"state": "ended"}

    return _each(api, commands, one)


def left_behind(api: Api) -> list[Record]:
    """All that is owed, as commands with C(run) and C(at). Raises ApiError."""

    def notes(item: Mapping[str, Any]) -> list[Record] | None:
        metadata = item["metadata"]
        who = {"namespace": metadata["namespace"], "pod": metadata["name"], "uid": metadata["uid"]}
        return [
            {**who, "before": [], **{name: note[name] for name in ("container", "after", "timeout", "run", "at")}}
            for note in owed(metadata)
        ] or None

    return [one for found in api.list_all(path_of("pods"), notes).items for one in found]


def _of(notes: Sequence[Record], command: Mapping[str, Any], run: str) -> list[Record]:
    key = {"run": run, "container": command["container"], "after": command["after"]}
    return [one for one in notes if all(one[name] == value for name, value in key.items())]


def _pay(api: Api, command: Mapping[str, Any], note: Record) -> str:
    """Run what is owed, and forget it; why it has failed, if it has. Raises ApiError."""
    try:
        problem = _run(api, {**command, **note}, "after")
    except ApiError as error:
        return f"after: {error}"
    if not problem:
        _change(api, command, lambda notes: [one for one in notes if one != note])
    return problem


def _run(api: Api, command: Mapping[str, Any], when: str) -> str:
    if not command[when]:
        return ""
    path = path_of("pods", command["pod"], command["namespace"])
    try:
        problem = api.command(path, command["container"], command[when], command["timeout"], again=when == "after")
    except ApiError as error:
        problem = str(error)
    return f"{when}: {problem}" if problem else ""


# --- one pod -----------------------------------------------------------------------------------------------


def _each(api: Api, commands: Sequence[Mapping[str, Any]], do: Callable[[Mapping[str, Any]], Record]) -> list[Record]:
    """What became of each, in their order; those of one pod one after the other."""

    def try_one(command: Mapping[str, Any]) -> Record:
        item = {name: command[name] for name in COMMAND} | {"reason": "", "taken_over": False}
        try:
            return {**item, **do(command)}
        except _FailedError as error:
            return {**item, "state": "lost" if error.lost else "failed", "reason": str(error)}
        except ApiError as error:
            return {**item, "state": "failed", "reason": str(error)}

    by_pod: dict[str, list[int]] = {}
    for number, command in enumerate(commands):
        by_pod.setdefault(command["uid"], []).append(number)
    done = api.each(lambda numbers: [(number, try_one(commands[number])) for number in numbers], by_pod.values())
    return [item for _number, item in sorted((pair for pairs in done for pair in pairs), key=lambda pair: pair[0])]


def _look(api: Api, command: Mapping[str, Any]) -> Record:
    try:
        found = api.get(path_of("pods", command["pod"], command["namespace"]))
    except ApiError as error:
        if error.gone:
            raise _FailedError("the pod is gone", lost=True) from error
        raise
    if found["metadata"]["uid"] != command["uid"]:
        raise _FailedError("another pod has taken its place", lost=True)
    return found


def _container_id(pod: Mapping[str, Any], container: str) -> str:
    states = (pod.get("status") or {}).get("containerStatuses") or []
    return next((str(one.get("containerID") or "") for one in states if one["name"] == container), "")


def _change(api: Api, command: Mapping[str, Any], change: Callable[[list[Record]], list[Record]]) -> None:
    """Change the notes on a pod; its status changes all the time, so what is there is read again until it fits."""
    began = time.monotonic()
    while True:
        metadata = _look(api, command)["metadata"]
        notes = change(owed(metadata))
        text = json.dumps(notes, sort_keys=True) if notes else None
        body = {"resourceVersion": metadata["resourceVersion"], "annotations": {OWED: text}}
        try:
            api.patch(path_of("pods", command["pod"], command["namespace"]), {"metadata": body})
            return
        except ApiError as error:
            if not error.conflict or time.monotonic() - began > _CONFLICT_SECONDS:
                raise
        wait_at_random(0.2)


# --- the module --------------------------------------------------------------------------------------------


class NotAllError(Exception):
    """Some commands failed; C(result) tells of all."""

    def __init__(self, bad: Sequence[Record], result: Mapping[str, Any]) -> None:
        super().__init__("; ".join(f"{title(one)} ({one['state']}): {one['reason']}" for one in bad))
        self.result = result


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both are the same command in the same pod, whatever else is told of them."""
    return all(one[name] == other[name] for name in COMMAND)


def title(one: Mapping[str, Any]) -> str:
    return f"pod {name_of({'namespace': one['namespace'], 'name': one['pod']})}, container {one['container']}"


def carry_out(api: Api, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments of the module say. Raises ApiError, NotAllError."""
    if given["state"] == "listed":
        return {"changed": False, "commands": left_behind(api)}
    if given["state"] == "begun":
        found = begin(api, given["commands"], given["run"])
    elif given["commands"] is not None:
        found = end(api, given["commands"], given["run"])
    else:
        found = [item for one in left_behind(api) for item in end(api, [one], one["run"])]
    result = {"changed": any(one["state"] in ("begun", "ended") for one in found), "commands": found}
    bad = [one for one in found if one["state"] in ("failed", "lost")]
    if bad:
        raise NotAllError(bad, result)
    return result
