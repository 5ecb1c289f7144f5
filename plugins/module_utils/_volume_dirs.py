# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done with directories of volumes: arguments, plan and steps, checked before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import Identity, NotBeneath, parts_below
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Owner, uid_problem
from ansible_collections.clusterkit.storage.plugins.module_utils._times import duration, seconds_of

STATES = ["present", "intended", "quarantined", "restored", "purged", "closed"]
SCOPES = ["directory", "content"]
# What a step of each state has to name.
_NEEDS = {
    "intended": ("directory", "volume", "precondition"),
    "quarantined": ("directory", "precondition"),
    "restored": ("entry", "precondition"),
    "purged": ("entry", "precondition"),
    "closed": ("volume",),
}

STEP_ARGUMENTS: dict[str, Any] = {
    "id": {"type": "str", "default": ""},
    "share": {"type": "str", "required": True},
    "directory": {"type": "str"},
    "scope": {"type": "str", "choices": SCOPES, "default": "directory"},
    "entry": {"type": "str"},
    "volume": {
        "type": "dict",
        "options": {"name": {"type": "str", "required": True}, "uid": {"type": "str", "required": True}},
    },
    "objects": {"type": "dict"},
    "precondition": {
        "type": "dict",
        "options": {"device": {"type": "int", "required": True}, "inode": {"type": "int", "required": True}},
    },
    "reason": {"type": "str", "default": ""},
}
ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": STATES, "required": True},
    "shares": {"type": "list", "elements": "str", "required": True},
    "clusters": {"type": "list", "elements": "str"},
    "cluster_uid": {"type": "str"},
    "steps": {"type": "list", "elements": "dict", "options": STEP_ARGUMENTS},
    "plan": {"type": "path"},
    "only": {"type": "list", "elements": "str"},
    "objects": {"type": "path"},
    "keep": {"type": "list", "elements": "str", "default": []},
    "by": {"type": "str", "default": ""},
    "lease_owner": {
        "type": "dict",
        "options": {
            "controller": {"type": "str", "required": True},
            "boot_id": {"type": "str", "required": True},
            "pid": {"type": "int", "required": True},
        },
    },
    "lease_dead_pids": {"type": "list", "elements": "int", "default": []},
    "keep_lease": {"type": "bool", "default": False},
    "allow_break_lease": {"type": "bool", "default": False},
    "allow_unknown_open_state": {"type": "bool", "default": False},
    "retention": {"type": "str", "default": "14d"},
    "allow_purge_now": {"type": "bool", "default": False},
    "controller_time": {"type": "str"},
    "dest": {"type": "path"},
}


@dataclass(frozen=True)
class Step:
    """One thing to do, as the plan says it."""

    number: int
    id: str
    share: str
    directory: str | None
    scope: str
    entry: str | None
    volume: Mapping[str, str] | None
    objects: Mapping[str, Any] | None
    precondition: Identity | None
    reason: str

    @property
    def item(self) -> str:
        """What a person calls it."""
        return (self.volume or {}).get("name") or self.directory or self.entry or ""


@dataclass
class Request:
    """The arguments, in order."""

    state: str
    shares: list[str]
    clusters: list[str]
    cluster_uid: str | None
    steps: list[Step]
    keep: list[str]
    by: str
    owner: Owner | None
    dead_pids: list[int]
    keep_lease: bool
    allow_break_lease: bool
    allow_unknown_open_state: bool
    retention: int
    allow_purge_now: bool
    controller_time: float | None
    objects: str | None
    check_mode: bool = False
    plan_id: str | None = None
    problems: list[str] = field(default_factory=list)


def read_request(given: Mapping[str, Any], *, check_mode: bool = False) -> Request:
    """Raises ValueError that names everything that is wrong, as one line."""
    plan = load_plan(given["plan"]) if given["plan"] else {}
    if given["state"] == "present":
        if given["steps"] or given["plan"]:
            raise ValueError("state present takes shares and clusters, no steps and no plan")
        if not given["clusters"]:
            raise ValueError("clusters: state present needs the uids of the clusters that use the shares")
        wrong = [uid_problem(uid) for uid in given["clusters"] if uid_problem(uid)]
        if wrong:
            raise ValueError(f"clusters: {wrong[0]}; expected the uid of the namespace kube-system")
    elif given["steps"] is None and not plan:
        raise ValueError(f"state {given['state']} needs steps or a plan")
    elif given["steps"] is not None and plan:
        raise ValueError("steps and plan cannot both be given")
    if plan.get("cluster_uid") and given["cluster_uid"] and plan["cluster_uid"] != given["cluster_uid"]:
        raise ValueError(f"plan: {given['plan']} is for another cluster ({plan['cluster_uid']})")
    raw = given["steps"] or plan.get("steps", [])
    place = "steps" if given["steps"] else "plan.steps"
    problems = _share_problems(given["shares"])
    chosen = [
        (number, step)
        for number, step in enumerate(raw)
        if not plan or _is_for(step, given["state"], named=given["only"] is not None)
    ]
    if given["only"] is not None:
        wanted = set(given["only"])
        unknown = wanted - {str(step.get("id", "")) for _number, step in chosen}
        problems += [f'only: "{name}" is no step with state {given["state"]}' for name in sorted(unknown)]
        chosen = [(number, step) for number, step in chosen if str(step.get("id", "")) in wanted]
    steps = []
    for number, step in chosen:
        label = f"{place}[{number}]"
        found = list(step_problems(label, step, given["state"], given["shares"], bool(given["objects"])))
        problems += found
        if not found:
            steps.append(_step(number, step))
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ValueError(f"{count}, nothing was changed: " + "; ".join(problems[:20]))
    return Request(
        state=given["state"],
        shares=list(given["shares"]),
        clusters=list(given["clusters"] or []),
        cluster_uid=given["cluster_uid"] or plan.get("cluster_uid"),
        steps=steps,
        keep=[*given["keep"], *plan.get("keep", [])],
        by=given["by"],
        owner=Owner.of(given["lease_owner"]) if given["lease_owner"] else None,
        dead_pids=list(given["lease_dead_pids"]),
        keep_lease=given["keep_lease"],
        allow_break_lease=given["allow_break_lease"],
        allow_unknown_open_state=given["allow_unknown_open_state"],
        retention=_retention(given["retention"]),
        allow_purge_now=given["allow_purge_now"],
        controller_time=_time(given["controller_time"]),
        objects=given["objects"],
        check_mode=check_mode,
        plan_id=plan.get("id"),
    )


def _is_for(step: Mapping[str, Any], state: str, *, named: bool) -> bool:
    """Whether a step of a plan is meant.

    A volume's directory is one step, of which the intent is the beginning, and its withdrawal another end. Neither is
    done to all that a plan holds, but only to what is named.
    """
    if step.get("module") != "volume_dirs":
        return False
    also = {"intended": ("quarantined",), "closed": ("quarantined", "restored")}.get(state, ())
    return step.get("state") == state or bool(named and step.get("volume") and step.get("state") in also)


def load_plan(path: str) -> dict[str, Any]:
    """Read a plan; raises ValueError when it is none, or when it was edited."""
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"plan: {path} cannot be read: {error}") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list):
        raise ValueError(f"plan: {path} is no plan; expected the JSON file that clusterkit.storage.storage_plan writes")
    if plan.get("schema") != _plan.SCHEMA:
        raise ValueError(f"plan: {path} has schema {plan.get('schema')!r}; expected {_plan.SCHEMA}")
    if plan.get("id") != _plan.hash_of({key: value for key, value in plan.items() if key != "id"}):
        raise ValueError(f"plan: {path} was edited: its id does not fit its content; make a new plan")
    if not all(isinstance(step, dict) for step in plan["steps"]) or not isinstance(plan.get("keep", []), list):
        raise ValueError(f"plan: {path} is no plan: steps and keep have to be lists")
    return plan


def _share_problems(shares: Sequence[str]) -> list[str]:
    problems = []
    for number, share in enumerate(shares):
        try:
            if not parts_below("/", share):
                problems.append(f"shares[{number}]: the root of the file system is no share")
        except NotBeneath as error:
            problems.append(f"shares[{number}]: {error}")
    if not shares:
        problems.append("shares: no share is given")
    return problems


def step_problems(
    label: str, step: Mapping[str, Any], state: str, shares: Sequence[str], more_objects: bool
) -> Iterator[str]:
    """What is wrong with a step wherever it is run; what the server says to it comes on top."""
    for name in _NEEDS[state]:
        if not step.get(name):
            yield f"{label}.{name} is missing: state {state} needs it"
    share = step.get("share")
    if share not in shares:
        yield f"{label}.share: {share!r} is none of shares"
        return
    if step.get("scope", "directory") not in SCOPES:
        yield f"{label}.scope: {step.get('scope')!r} is neither directory nor content"
    directory = step.get("directory")
    if directory:
        try:
            if not parts_below(str(share), str(directory)) and step.get("scope") != "content":
                yield f"{label}.directory: {directory} is the root of the share, which is never moved or removed"
        except NotBeneath as error:
            yield f"{label}.directory: {error}"
    volume = step.get("volume")
    if volume:
        if not isinstance(volume, Mapping) or not isinstance(volume.get("name"), str) or not volume["name"]:
            yield f"{label}.volume: {volume!r} has no name"
        elif uid_problem(volume.get("uid")):
            yield f"{label}.volume.uid: {uid_problem(volume.get('uid'))}"
        elif state == "intended" and not more_objects:
            problem = objects_problem(step.get("objects"), volume["uid"])
            if problem:
                yield f"{label}.objects: {problem}"
    elif step.get("scope") == "content" and state == "quarantined":
        yield f"{label}.volume is missing: only a volume's content is moved without its directory"
    precondition = step.get("precondition")
    if precondition and not (
        isinstance(precondition, Mapping)
        and all(
            isinstance(precondition.get(key), int) and not isinstance(precondition[key], bool)
            for key in ("device", "inode")
        )
        and precondition["inode"] > 0
    ):
        yield f"{label}.precondition: {precondition!r} does not say device and inode as numbers"


def objects_problem(objects: Any, uid: str) -> str | None:
    """Why these are not the objects from which a volume could be made again."""
    if not isinstance(objects, Mapping) or not isinstance(objects.get("volume"), Mapping):
        return "the PersistentVolume itself is missing; expected {volume, claim, class}"
    found = (objects["volume"].get("metadata") or {}).get("uid")
    return None if found == uid else f"the PersistentVolume has uid {found!r}; expected {uid!r}"


def _step(number: int, step: Mapping[str, Any]) -> Step:
    precondition = step.get("precondition")
    volume = step.get("volume")
    return Step(
        number=number,
        id=str(step.get("id") or ""),
        share=step["share"],
        directory=step.get("directory"),
        scope=step.get("scope") or "directory",
        entry=step.get("entry"),
        volume={"name": volume["name"], "uid": volume["uid"]} if volume else None,
        objects=step.get("objects"),
        precondition=(precondition["device"], precondition["inode"]) if precondition else None,
        reason=str(step.get("reason") or ""),
    )


def with_objects(steps: Iterable[Step], path: str) -> Iterator[Step]:
    """Join steps with the objects of a file of JSON lines, one volume a line; only one of them is held at a time.

    Steps that the file says nothing about come without objects, at the end. Raises ValueError.
    """
    waiting = {step.volume["uid"]: step for step in steps if step.volume}
    with Path(path).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                objects = json.loads(line)
                uid = objects["volume"]["metadata"]["uid"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"objects: {path}, line {number}: no objects of a volume; expected {{volume, claim, class}}"
                ) from error
            if uid in waiting:
                yield replace(waiting.pop(uid), objects=objects)
    yield from waiting.values()


def _retention(text: str) -> int:
    try:
        return duration(text)
    except ValueError as error:
        raise ValueError(f"retention: {error}") from error


def _time(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return seconds_of(text)
    except ValueError as error:
        raise ValueError(
            f'controller_time: "{text}" is neither seconds since 1970 nor a time such as 2026-03-01T12:00:00Z'
        ) from error
