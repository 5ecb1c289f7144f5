# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who does which step of a plan to recover, and what came of it, for a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _pod_set, _recover_host
from ansible_collections.clusterkit.storage.plugins.module_utils._pods import name_of

_ARGUMENTS = {"nfs_recover": _recover_host.STEP, "pod_recover": _pod_set.STEP, "nfs_mounts": {"path": {}}}
_BAD = ("failed", "stale")


def steps(plan: Mapping[str, Any], module: str, host: str | None = None) -> list[dict[str, Any]]:
    """The steps of a plan for a module, on a host, as that module takes them."""
    return [
        {key: value for key, value in step.items() if key in _ARGUMENTS[module]}
        for step in plan.get("steps") or []
        if step["module"] == module and host in (None, step["host"])
    ]


def pods(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pods that kubelet is to remove, as pod_recover takes them."""
    return [{key: one[key] for key in _pod_set.POD} for one in plan.get("pods") or []]


def left(plan: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Uids of the pods that are still there, by the host that knows what is left of them."""
    there = {one["uid"] for one in found if not one["removed"]}
    asked: dict[str, list[str]] = {}
    for pod in plan.get("pods") or []:
        if pod["uid"] in there:
            asked.setdefault(pod["host"], []).append(pod["uid"])
    return asked


def summary(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Lines for a person, what is C(wrong), and C(results): one entry a step and pod.

    C(seen): plan, check_mode, and what the modules returned: nodes (of nfs_recover, by host), pods and forced (of
    pod_recover), left (pods of nfs_recover, at the end).
    """
    plan = seen["plan"]
    done = _done(seen)
    removed = {one["uid"]: one for one in seen["pods"].get("pods") or []}
    left = {one["uid"]: one for one in seen["left"]}
    forced = {one["pod"] for one in seen["forced"].get("steps") or [] if one["state"] in ("done", "gone")}
    results: list[dict[str, Any]] = []
    lines: list[str] = []
    wrong: list[str] = []
    for host in [*plan["hosts"], {"name": "", "problem": ""}]:
        name, of_host = host["name"], []
        for step in plan["steps"]:
            if step["host"] != name:
                continue
            state, reason = done.get(step["id"], ("not done", "the host or the API gave no result"))
            if step.get("action") == "force_delete" and step["id"] not in done:
                # Whoever kubelet has removed in time needs no force.
                gone = (removed.get(step["precondition"]["uid"]) or {}).get("removed")
                state, reason = (
                    ("not needed", "") if gone or seen["check_mode"] else ("not done", "its node did not confirm")
                )
            results.append({**step, "state": state, "result": reason})
            told = f": {reason}" if reason else ""
            of_host.append(f"{step['item']}: {step['before']}; {step['reason']} -> {step['after']}: {state}{told}")
            if state in _BAD or (state == "not done" and step.get("action") != "force_delete"):
                wrong.append(f"{step['item']}: {state}{told}")
        for pod in plan["pods"]:
            if pod["host"] != name:
                continue
            text, is_gone = _fate(removed.get(pod["uid"]), name_of(pod) in forced, seen["check_mode"])
            if not is_gone and pod["uid"] in left:
                text += f"; {_left(left[pod['uid']])}"
            results.append({**pod, "item": name_of(pod), "state": "removed" if is_gone else "remains"})
            of_host.append(f"{name_of(pod)}: Terminating since {pod['since']}; {text}")
        of_host += [f"remains: {one['item']}: {one['reason']}" for one in plan["refusals"] if one["host"] == name]
        of_host += [f"nothing to do: {one['item']}: {one['reason']}" for one in plan["notes"] if one["host"] == name]
        if name or of_host:
            lines += [f"{name or 'elsewhere'}:", *(f"  {line}" for line in of_host or ["nothing was stuck"])]
    return {"lines": lines, "wrong": wrong, "results": results}


def _done(seen: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """State and reason of each step that a module tells of, by its number."""
    told = [*seen["nodes"].values(), seen["pods"], seen["forced"]]
    done = {
        step["id"]: (step["state"], step.get("reason") or "") for result in told for step in result.get("steps") or []
    }
    for step in seen["plan"]["steps"]:
        for mount in seen["nodes"].get(step["host"], {}).get("mounts") or []:
            if step["module"] == "nfs_mounts" and mount["path"] == step["path"]:
                done[step["id"]] = ("failed" if mount["failed"] else "done", mount["msg"])
    return done


def _fate(found: Mapping[str, Any] | None, by_force: bool, check_mode: bool) -> tuple[str, bool]:
    if found and found["removed"]:
        return f"kubelet removed it after {found['seconds']} s", True
    if by_force:
        return "deleted by force", True
    if check_mode:
        return "kubelet would be waited for", False
    if not found:
        return "nobody looked whether it is gone", False
    return "kubelet has not removed it", False


def _left(found: Mapping[str, Any]) -> str:
    told = [f"{what} are left: {', '.join(found[what])}" for what in ("processes", "mounts") if found[what]]
    return "; ".join(told) or "neither processes nor mounts are left, so kubelet is late; see its log"
