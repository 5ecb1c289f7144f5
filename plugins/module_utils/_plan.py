# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans: what is going to be done, as data that a person can read, approve and keep, and that is run to the letter.

A plan is {schema, id, action, cluster_uid, listed_at, request, steps, refusals, unchanged}. A step is
{id, module, host, state, item, precondition, before, after, reason}. The id of the plan is a hash of all the rest:
the same input gives the same plan, and a plan that was edited is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1
ACTIONS = {
    "reclaim": "pv_reclaim",
    "expand": "pvc_expand",
    "recover": "nfs_recover",
    "backup": "volume_backup",
    "restore": "volume_restore",
    "cleanup": "pv_cleanup",
    "undelete": "pv_cleanup",
    "purge": "volume_dirs",
}
_ROWS = 40


def make(
    action: str,
    *,
    cluster_uid: str,
    listed_at: str,
    request: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    refusals: Sequence[Mapping[str, str]],
    unchanged: int,
    host: str = "localhost",
    more: Mapping[str, Any] | None = None,
    in_order: bool = False,
) -> dict[str, Any]:
    """C(steps) have item, precondition, before, after, reason, and module and host if they are not all the same.

    C(more) is what else the plan says; C(notes) in it, {item, reason}, are shown too. C(in_order): the steps come in
    the order in which they are to be done, and not in that of their items.
    """
    numbered = []
    by_item = sorted(steps, key=lambda one: (str(one["item"]), str(one.get("action", ""))))
    for step in steps if in_order else by_item:
        precondition = step.get("precondition") or {}
        if not precondition or not all(precondition.values()):
            raise ValueError(f"step on {step['item']} has no precondition")
        numbered.append({"module": ACTIONS[action], "host": host, "state": "planned", **step})
    plan: dict[str, Any] = {
        "schema": SCHEMA,
        "action": action,
        "cluster_uid": cluster_uid,
        "listed_at": listed_at,
        "request": request,
        "steps": [{"id": f"{number + 1:05d}", **step} for number, step in enumerate(numbered)],
        "refusals": sorted(refusals, key=lambda one: (one["item"], one["reason"])),
        "unchanged": unchanged,
        **(more or {}),
    }
    return {"id": hash_of(plan), **plan}


def read(text: str, action: str | None = None) -> dict[str, Any]:
    """Raises ValueError when this is no plan, one for something else, or one that was edited."""
    try:
        plan = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is no plan: {error}") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("steps"), list) or plan.get("action") not in ACTIONS:
        raise ValueError("is no plan; expected the JSON file that clusterkit.storage.storage_plan writes")
    if plan.get("schema") != SCHEMA:
        raise ValueError(f"has schema {plan.get('schema')!r}; expected {SCHEMA}")
    if action and plan["action"] != action:
        raise ValueError(f"is a plan to {plan['action']}; expected one to {action}")
    if plan.get("id") != hash_of({key: value for key, value in plan.items() if key != "id"}):
        raise ValueError("was edited: its id does not fit its content; make a new plan with the selection you want")
    return plan


def load(path: str, action: str | None = None) -> dict[str, Any]:
    """Read a plan from a file; raises ValueError that names it."""
    try:
        return read(Path(path).read_text(encoding="utf-8"), action)
    except (OSError, ValueError) as error:
        raise ValueError(f"plan: {path} {error}") from error


def write(plan: Mapping[str, Any]) -> str:
    """One step a line, for reviews and for version control."""
    listed = [key for key in ("steps", "refusals", "notes", "pods") if key in plan]
    head = {key: value for key, value in plan.items() if key not in listed}
    lines = [f" {json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in head.items()]
    for key in listed:
        inner = ",\n".join(f"  {json.dumps(one, sort_keys=True)}" for one in plan[key])
        lines.append(f" {json.dumps(key)}: [\n{inner}\n ]" if inner else f" {json.dumps(key)}: []")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def hash_of(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def limit(max_changes: str | int | None, total: int) -> int | None:
    """How many changes are allowed: a count, or percent of C(total), rounded up, at least 1."""
    if max_changes is None or max_changes == "":
        return None
    text = str(max_changes).strip()
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?%|[0-9]{1,9}", text):
        raise ValueError(f'max_changes: "{text}" is neither a count nor percent; write for example 50 or 10%')
    if text.endswith("%"):
        return max(1, math.ceil(float(text[:-1]) * total / 100))
    return int(text)


def needs_total(max_changes: str | int | None) -> bool:
    return str(max_changes or "").strip().endswith("%")


def over_limit(changes: int, max_changes: str | int | None, total: int, what: str = "volumes") -> str:
    """Why nothing at all may be done; empty if it may."""
    allowed = limit(max_changes, total)
    if allowed is None or changes <= allowed:
        return ""
    of = f", which is {allowed} of {total} volumes," if needs_total(max_changes) else ""
    return f"{changes} {what} would be changed, but max_changes is {max_changes}{of} so nothing was done"


def ids(plan: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """By host and state the ids of the steps of volume_dirs."""
    found: dict[str, dict[str, list[str]]] = {}
    for step in plan["steps"]:
        if step["module"] == "volume_dirs":
            found.setdefault(step["host"], {}).setdefault(step["state"], []).append(step["id"])
    return found


def table(plan: Mapping[str, Any]) -> list[str]:
    """The plan for a person; long ones are cut, the file has all of it."""
    rows = [["item", "now", "then", "why"]]
    rows += [[one["item"], one["before"], one["after"], one["reason"]] for one in plan["steps"][:_ROWS]]
    lines = list(_columns(rows)) if plan["steps"] else []
    if len(plan["steps"]) > _ROWS:
        lines.append(f"... and {len(plan['steps']) - _ROWS} more")
    for title, entries in (("refused:", plan["refusals"]), ("nothing to do:", plan.get("notes") or [])):
        if entries:
            lines += ["", title, *(f"  {one['item']}: {one['reason']}" for one in entries[:_ROWS])]
        if len(entries) > _ROWS:
            lines.append(f"  ... and {len(entries) - _ROWS} more")
    counted = f"{len(plan['steps'])} to change, {plan['unchanged']} as wanted, {len(plan['refusals'])} refused"
    return [f"plan {plan['id']} ({plan['action']}): {counted}", *lines]


def _columns(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip()
