# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts and API have to do of a plan for backup or restore, and what became of it, for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup, _pod_exec, _pv_restore

Item = dict[str, Any]
_FAILED = ("failed", "lost")


# --- parts of a plan ---------------------------------------------------------------------------------------


def volumes(plan: Mapping[str, Any], host: str, ids: Sequence[str]) -> list[Item]:
    """What volume_backup or volume_restore does on this host, of the steps with these ids."""
    return [one["volume"] for one in plan.get("steps") or [] if one["host"] == host and one["id"] in ids]


def objects(plan: Mapping[str, Any], ids: Sequence[str] | None = None) -> list[Item]:
    """What pv_restore takes of each step, or of those with these ids."""
    return [
        {key: one[key] for key in _pv_restore.STEP} for one in plan["steps"] if ids is None or str(one["id"]) in ids
    ]


def workloads(plan: Mapping[str, Any]) -> list[Item]:
    """Who has to be stopped, each once."""
    found: list[Item] = []
    for step in plan["steps"]:
        found += [one for one in step["workloads"] if one not in found]
    return found


def commands(plan: Mapping[str, Any]) -> list[Item]:
    """What is run in pods, each once: a pod may mount several volumes."""
    found: list[Item] = []
    for step in plan["steps"]:
        found += [one for one in step.get("commands") or [] if one not in found]
    return found


def claims(plan: Mapping[str, Any]) -> list[Item]:
    """Which claims nobody may mount any more once the workloads are stopped."""
    found = [_claim(step) for step in plan["steps"] if step["workloads"]]
    return [{"namespace": namespace, "name": name} for namespace, name in sorted(set(found))]


def ready(plan: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Ids of the steps that may go on, by what workload_scale (C(stopped)), pod_exec (C(begun)) and others told."""
    reasons = _reasons(plan, told)
    return [one["id"] for one in plan["steps"] if one["id"] not in reasons]


def restored(plan: Mapping[str, Any], hosts: Mapping[str, Any], ids: Sequence[str]) -> list[str]:
    """Ids of those steps whose data is in its place."""
    found = _found(plan, hosts)
    return [one for one in ids if one in found and not found[one].get("failed")]


def _claim(step: Mapping[str, Any]) -> tuple[str, str]:
    claim = step.get("claim") or {"namespace": step["volume"]["namespace"], "name": step["volume"].get("claim") or ""}
    return claim["namespace"], claim["name"]


def _reasons(plan: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, str]:
    """Why steps may not go on, by id."""
    stopped, checked = told.get("stopped") or {}, told.get("checked") or {}
    mounted = {(one["namespace"], one["name"]): one["pods"] for one in stopped.get("claims") or [] if one["pods"]}
    failed = {_workload(one): one["reason"] for one in stopped.get("workloads") or [] if one["state"] == "failed"}
    known = {_workload(one) for one in stopped.get("workloads") or []}
    found = {}
    for step in plan["steps"]:
        pods = mounted.get(_claim(step))
        words = [f"{_workload(one)} cannot be stopped: {failed[_workload(one)]}" for one in step["workloads"]
                 if _workload(one) in failed]  # fmt: skip
        words += [f"{_workload(one)} was not stopped: {stopped.get('msg') or 'no answer'}" for one in step["workloads"]
                  if _workload(one) not in known]  # fmt: skip
        if step["workloads"] and pods:
            words.append(f"{', '.join(pods[:3])} did not end in time")
        for one in step.get("commands") or []:
            begun = _told_of(one, told.get("begun"))
            if begun is None:
                words.append(f"{_pod_exec.title(one)}: no command was run: {_message(told.get('begun'))}")
            elif begun["state"] in _FAILED:
                words.append(f"{_pod_exec.title(one)}: {begun['reason']}")
        if words:
            found[step["id"]] = words[0]
    if "checked" in told:
        states = {one["id"]: one for one in checked.get("steps") or []}
        for step in plan["steps"]:
            state = states.get(step["id"], {"state": "failed", "reason": checked.get("msg") or "no answer of the API"})
            if state["state"] != "ready":
                found.setdefault(step["id"], f"{state['reason']} ({state['state']})")
    return found


def _told_of(command: Mapping[str, Any], told: Mapping[str, Any] | None) -> Item | None:
    """What pod_exec told of a command."""
    return next((one for one in (told or {}).get("commands") or [] if _pod_exec.is_same(one, command)), None)


def _message(told: Mapping[str, Any] | None) -> str:
    return str((told or {}).get("msg") or "no answer of the API")


def _workload(one: Mapping[str, Any]) -> str:
    return f"{one['kind']} {one['namespace']}/{one['name']}"


def _found(plan: Mapping[str, Any], hosts: Mapping[str, Any]) -> dict[str, Item]:
    """What the hosts told of each step, by its id."""
    found = {}
    for step in plan["steps"]:
        volume = step["volume"]
        for item in (hosts.get(step["host"]) or {}).get("volumes") or []:
            if all(item[key] == volume[key] for key in ("namespace", "name", "server_dir")):
                found[step["id"]] = item
    return found


# --- what became of it -------------------------------------------------------------------------------------


def backup(told: Mapping[str, Any]) -> dict[str, Any]:
    """All lines, those that are wrong, and a result for each step.

    Of C(plan, stopped, started, begun, ended, hosts, check_mode).
    """
    said = _Said(told)

    def words(step: Mapping[str, Any], item: Mapping[str, Any]) -> str:
        if told["check_mode"]:
            return f"would copy {_backup.size(item['copied_bytes'])} of {item['files']} files"
        words = [
            f"generation {item['generation'][:16]}", f"{item['files']} files, {_backup.size(item['bytes'])}",
            f"{item['changed_files']} changed, {_backup.size(item['copied_bytes'])} stored", f"{item['seconds']:.1f} s",
        ]  # fmt: skip
        words += [f"from a snapshot ({item['snapshot']})"] if item["snapshot"] != "none" else []
        words += [f"without a snapshot: {item['snapshot_reason']}"] if item["snapshot_reason"] else []
        words += [f"{item['vanished']} vanished meanwhile"] if item["vanished"] else []
        words += [f"removed {', '.join(one[:16] for one in item['removed'])}"] if item["removed"] else []
        for one in step.get("commands") or []:
            ended = _told_of(one, told.get("ended"))
            if ended and ended["state"] == "lost":
                raise _Wrong(f"{', '.join(words)}; but what was prepared in {_pod_exec.title(one)} did not last: "
                             f"{ended['reason']}")  # fmt: skip
        return ", ".join(words)

    for step in told["plan"]["steps"]:
        said.step(step, words)
    # Retention and the repository itself concern no single volume.
    for host, result in sorted(told["hosts"].items()):
        known = {str(item["msg"]) for item in result.get("volumes") or []}
        for problem in result.get("problems") or []:
            if not any(one and one in problem for one in known) and result.get("volumes"):
                said.bad(f"{host}: {problem}")
    said.workloads(told)
    said.commands(told)
    return said.result()


def restore(told: Mapping[str, Any]) -> dict[str, Any]:
    """The same of C(plan, stopped, checked, hosts, bound, started, check_mode)."""
    said = _Said(told)
    bound = {one["id"]: one for one in (told.get("bound") or {}).get("steps") or []}

    def words(step: Mapping[str, Any], item: Mapping[str, Any]) -> str:
        verb = "would restore" if told["check_mode"] else "restored and verified"
        words = [
            f"{verb} generation {item['generation'][:16]}",
            f"{item['files']} files, {_backup.size(item['bytes'])}",
        ]
        words += [f"what was there is in {item['quarantined']}"] if item["quarantined"] else []
        state = bound.get(step["id"])
        if state is None and step["objects"]:
            raise _Wrong(f"{', '.join(words)}; {(told.get('bound') or {}).get('msg') or 'its objects were not made'}")
        if state and state["reason"]:
            raise _Wrong(f"{', '.join(words)}; {state['reason']}")
        words += [f"{step['claim']['namespace']}/{step['claim']['name']} has volume {step['claim']['volume']}"] if (
            step["claim"]["name"]) else []  # fmt: skip
        return ", ".join(words)

    for step in told["plan"]["steps"]:
        said.step(step, words)
    said.workloads(told)
    return said.result()


class _Wrong(Exception):  # noqa: N818 - says what is wrong with one step, and ends nothing
    pass


class _Said:
    def __init__(self, told: Mapping[str, Any]) -> None:
        self._lines: list[str] = []
        self._wrong: list[str] = []
        self._results: list[Item] = []
        self._reasons = _reasons(told["plan"], told)
        self._items = _found(told["plan"], told["hosts"])
        self._hosts = told["hosts"]
        self._check_mode = told["check_mode"]
        self._refusals = told["plan"]["refusals"]

    def bad(self, line: str) -> None:
        self._lines.append(f"FAILED {line}")
        self._wrong.append(line)

    def step(self, step: Mapping[str, Any], words: Any) -> None:
        item = self._items.get(step["id"])
        problem = self._reasons.get(step["id"], "")
        if not problem and item is None:
            problem = f"{step['host']}: {(self._hosts.get(step['host']) or {}).get('msg') or 'no answer'}"
        if not problem and item is not None and item["failed"]:
            problem = str(item["msg"])
        text = ""
        if not problem:
            try:
                text = words(step, item)
                self._lines.append(f"{step['item']}: {text}")
            except _Wrong as error:
                problem = str(error)
        if problem:
            self.bad(f"{step['item']}: {problem}")
        self._results.append({
            "id": step["id"], "item": step["item"], "host": step["host"], "state": "failed" if problem else "done",
            "reason": problem, **({"result": item} if item else {}),
        })  # fmt: skip

    def workloads(self, told: Mapping[str, Any]) -> None:
        started = {_workload(one): one for one in (told.get("started") or {}).get("workloads") or []}
        for one in (told.get("stopped") or {}).get("workloads") or []:
            if one["state"] != "stopped":
                continue
            name, back = _workload(one), started.get(_workload(one))
            if back is None or back["state"] == "failed":
                why = (back or {}).get("reason") or (told.get("started") or {}).get("msg") or "no answer of the API"
                self.bad(f"{name}: is still stopped: {why}")
            elif self._check_mode:
                self._lines.append(f"{name}: would be stopped and started again")
            elif back["state"] == "started":
                again = ", which an earlier run had stopped" if one.get("taken_over") else ""
                self._lines.append(f"{name}: started again with {back['replicas']} replicas{again}")
            else:
                self._lines.append(f"{name}: {back['state']}{': ' + back['reason'] if back['reason'] else ''}")

    def commands(self, told: Mapping[str, Any]) -> None:
        """Those that were begun; why one was not is said of its volumes, and so is what was lost."""
        for one in commands(told["plan"]):
            begun, ended = _told_of(one, told.get("begun")), _told_of(one, told.get("ended"))
            if begun is None or (begun["state"] in _FAILED and (ended or begun)["state"] != "failed"):
                continue
            name = _pod_exec.title(one)
            if one["after"] and (ended is None or ended["state"] == "failed"):
                why = ended["reason"] if ended else _message(told.get("ended"))
                self.bad(f"{name}: is owed its command after: {why}")
            elif begun["state"] not in _FAILED and (ended or {}).get("state") != "lost":
                when = " and ".join(each for each in ("before", "after") if one[each])
                verb = "would be run" if self._check_mode else "were run"
                again = "; an earlier run had left its own" if begun.get("taken_over") else ""
                self._lines.append(f"{name}: commands {when} {verb}{again}")

    def result(self) -> dict[str, Any]:
        for one in self._refusals:
            self.bad(f"{one['item']}: {one['reason']}")
        return {"lines": self._lines, "wrong": self._wrong, "results": self._results}


def left(found: Iterable[Mapping[str, Any]], mine: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines about workloads that a run has stopped, or commands that it owes, and this run does not deal with."""
    dealt_with = {_name(one) for one in mine}
    return [
        f"{_name(one)}: is owed a command since {one['at']} by run {one['run']}: {' '.join(one['after'])}"
        if "pod" in one
        else f"{_workload(one)}: has been stopped since {one['stopped']['at']} by run {one['stopped']['run']}, and had "
        f"{one['stopped']['replicas']} replicas"
        for one in found
        if _name(one) not in dealt_with
    ]


def _name(one: Mapping[str, Any]) -> str:
    return _pod_exec.title(one) if "pod" in one else _workload(one)
